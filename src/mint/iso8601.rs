//! Times as ISO 8601 has them.

use crate::UnixMillis;

const MILLIS_A_DAY: u64 = 24 * 60 * 60 * 1_000;

/// `2026-01-31T23:59:59.999Z`, which is also what RFC 3339 asks for.
pub(super) fn iso8601(time: UnixMillis) -> String {
    let (days, millis) = (time.get() / MILLIS_A_DAY, time.get() % MILLIS_A_DAY);
    let (year, month, day) = date(days);
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// The date so many days after 1970-01-01. Years are counted from March, so that a leap day is the
/// last of its year; 400 of them have 146,097 days (H. Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
const fn date(days: u64) -> (u64, u64, u64) {
    // Since 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_others_write_them() {
        // From `date -u -d @SECONDS +%FT%TZ`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (68_169_599, "1972-02-28T23:59:59.007Z"),
            (68_169_600, "1972-02-29T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_700_000_000, "2023-11-14T22:13:20.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_399, "2100-02-28T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
            (253_402_300_799, "9999-12-31T23:59:59.007Z"),
        ] {
            assert_eq!(iso8601(UnixMillis::new(seconds * 1_000 + 7)), expected);
        }
        assert!(iso8601(UnixMillis::new(u64::MAX)).ends_with("Z"));
    }
}
