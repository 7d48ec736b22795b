//! What is wrong with a store.

use std::{
    error::Error,
    fmt::{self, Debug},
};

use crate::StoreError;

/// The rules that a store breaks, at least one.
pub struct Broken(Vec<Finding>);

/// One rule that a store breaks.
#[derive(Debug, Clone)]
pub struct Finding {
    rule: &'static str,
    seen: String,
}

impl Broken {
    pub(super) const fn new(findings: Vec<Finding>) -> Self {
        Self(findings)
    }

    /// The rules, in the order in which they were checked.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

impl Finding {
    pub(super) fn new(rule: &'static str, seen: Seen) -> Self {
        Self { rule, seen: seen.0 }
    }

    /// The name of the rule.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }

    /// What the store did instead.
    #[must_use]
    pub fn seen(&self) -> &str {
        &self.seen
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.seen)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store breaks {} of the rules", self.0.len())?;
        self.0.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

impl Debug for Broken {
    /// As [`fmt::Display`], because this is what a failing test prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Broken {}

/// What a rule saw that should not be.
#[derive(Debug)]
pub(super) struct Seen(String);

/// What became of a rule.
pub(super) type Checked = Result<(), Seen>;

impl Seen {
    pub(super) fn new(seen: impl Into<String>) -> Self {
        Self(seen.into())
    }

    /// The same, seen after this.
    pub(super) fn after(self, what: &str) -> Self {
        Self(format!("after {what}: {}", self.0))
    }
}

impl From<StoreError> for Seen {
    fn from(error: StoreError) -> Self {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        Self(format!("an error: {error}: {cause}"))
    }
}

/// Seen and expected are the same.
pub(super) fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, seen: T, expected: U) -> Checked {
    holds(seen == expected, || format!("{what}: {seen:?} instead of {expected:?}"))
}

/// Something holds; if not, this was seen.
pub(super) fn holds<T: Into<String>>(holds: bool, seen: impl FnOnce() -> T) -> Checked {
    if holds { Ok(()) } else { Err(Seen::new(seen())) }
}
