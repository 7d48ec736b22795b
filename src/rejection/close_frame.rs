//! Code and reason of a Close frame (RFC 6455 §5.5.1, §7.4).

use crate::ConfigError;

/// The longest reason that fits a control frame besides the code, in bytes (RFC 6455 §5.5).
const MAX_REASON_LEN: usize = 123;

/// Code and reason of a Close frame.
///
/// ```
/// use tower_realtime_auth::CloseFrame;
///
/// let frame = CloseFrame::new(4001, "Unauthorized")?;
/// assert_eq!((frame.code(), frame.reason()), (4001, "Unauthorized"));
/// assert!(CloseFrame::new(1006, "never on the wire").is_err());
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    code: u16,
    reason: Box<str>,
}

impl CloseFrame {
    /// A frame with this code and reason. A reason over 123 bytes is cut before the character
    /// that would not fit.
    ///
    /// # Errors
    /// If an endpoint may not send the code: it may 1000-1003, 1007-1014 and 3000-4999.
    pub fn new(code: u16, reason: &str) -> Result<Self, ConfigError> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Self::fitting(code, reason)),
            _ => Err(ConfigError::CloseCode { code }),
        }
    }

    pub(crate) fn fitting(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(MAX_REASON_LEN);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { code, reason: reason.get(..end).unwrap_or_default().into() }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The reason, at most 123 bytes.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector 50.
    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = format!("{}é{}", "a".repeat(122), "b".repeat(80));
        let frame = CloseFrame::new(4001, &reason).unwrap();
        assert_eq!(frame.reason(), "a".repeat(122));
    }

    /// Vector 51.
    #[test]
    fn codes_that_may_not_be_sent_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            let refused = CloseFrame::new(code, "").unwrap_err();
            assert_eq!(refused, ConfigError::CloseCode { code });
        }
        for code in [1000, 1003, 1007, 1008, 1014, 3000, 4001, 4999] {
            assert!(CloseFrame::new(code, "").is_ok(), "{code}");
        }
    }
}
