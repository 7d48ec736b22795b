//! What every answer tells of the limits.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Counted, Demand, Standing};
use crate::UnixMillis;

/// By which headers the answers tell how much is left. Part of a [`Profile`](crate::Profile).
///
/// Of several budgets, a minted key's and its parent's for instance, the one counts of which least
/// is left. A key without a limit is told of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitHeaders {
    /// None.
    None,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (in seconds of Unix time) for the requests of
    /// a minute; `X-Usage-Limit` and `-Remaining` for the usage of a month.
    #[default]
    Svara,
    /// `x-ratelimit-limit-requests`, `-remaining-requests` and `-reset-requests` (how long it takes,
    /// as `1m2.5s` or `12ms`); to sessions, by
    /// [`rate_limits.updated`](super::Usage::rate_limits_updated).
    OpenAi,
}

const SVARA_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const SVARA_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const SVARA_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const SVARA_USAGE_LIMIT: HeaderName = HeaderName::from_static("x-usage-limit");
const SVARA_USAGE_REMAINING: HeaderName = HeaderName::from_static("x-usage-remaining");
const OPENAI_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const OPENAI_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const OPENAI_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// What there is to tell of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) requests: Option<Standing>,
    pub(super) usage: Option<Standing>,
    /// When that was so.
    pub(super) at: UnixMillis,
}

impl LimitHeaders {
    /// Tells it, in the place of what was told before.
    pub(super) fn tell(self, told: &Told, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Svara => {
                if let Some(requests) = told.requests {
                    let resets_at = requests.resets_at().map_or(0, UnixMillis::as_secs_rounded_up);
                    headers.insert(SVARA_LIMIT, requests.limit().into());
                    headers.insert(SVARA_REMAINING, requests.remaining().into());
                    headers.insert(SVARA_RESET, resets_at.into());
                }
                if let Some(usage) = told.usage {
                    headers.insert(SVARA_USAGE_LIMIT, usage.limit().into());
                    headers.insert(SVARA_USAGE_REMAINING, usage.remaining().into());
                }
            }
            Self::OpenAi => {
                if let Some(requests) = told.requests {
                    headers.insert(OPENAI_LIMIT, requests.limit().into());
                    headers.insert(OPENAI_REMAINING, requests.remaining().into());
                    let millis = requests.resets_at().map_or(0, |at| at.since(told.at).as_millis());
                    if let Ok(reset) = HeaderValue::from_str(&duration(millis)) {
                        headers.insert(OPENAI_RESET, reset);
                    }
                }
            }
        }
    }
}

/// How the tightest of the budgets of one kind stands.
pub(super) fn tightest(
    counted: Counted,
    demands: &[Demand],
    standings: &[Standing],
) -> Option<Standing> {
    let of_kind = demands.iter().zip(standings);
    let of_kind = of_kind.filter(|(demand, _)| demand.budget().counted() == counted);
    let standings = of_kind.map(|(_, standing)| *standing);
    standings.min_by_key(|standing| (standing.remaining(), standing.limit()))
}

/// OpenAI's event of this name, the `number`th of its session.
pub(super) fn rate_limits_updated(number: u32, requests: &Standing, at: UnixMillis) -> String {
    let (limit, remaining) = (requests.limit(), requests.remaining());
    let millis = requests.resets_at().map_or(0, |resets_at| resets_at.since(at).as_millis());
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    format!(
        r#"{{"type":"rate_limits.updated","event_id":"event_rate_limits_{number}","rate_limits":[{{"name":"requests","limit":{limit},"remaining":{remaining},"reset_seconds":{seconds}.{millis:03}}}]}}"#
    )
}

/// A length of time as OpenAI writes it: `1h0m3s`, `1m2.5s`, `12ms`.
fn duration(millis: u128) -> String {
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    // Writing to a `String` does not fail.
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let fraction = format!("{millis:03}");
    match fraction.trim_end_matches('0') {
        "" => _ = write!(text, "{seconds}s"),
        fraction => _ = write!(text, "{seconds}.{fraction}s"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (millis, text) in [
            (0, "0ms"),
            (12, "12ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_050, "1.05s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (62_500, "1m2.5s"),
            (3_600_000, "1h0m0s"),
            (3_723_004, "1h2m3.004s"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }
}
