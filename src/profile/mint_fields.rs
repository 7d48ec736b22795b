//! Which fields a request to mint may have.

use std::sync::Arc;

/// Which fields the body of a request to mint may have. Whatever else it has is refused with 400
/// `unknown_parameter`.
///
/// | | beside `expires_after` | in `session` | `expires_after.anchor` |
/// |---|---|---|---|
/// | [`MintFields::any`], the default, and Swaram's | any: a setting, kept and locked | any | may be |
/// | OpenAI's | `session` | what a session has | may be |
/// | xAI's | nothing | | may not be |
///
/// ```
/// use tower_realtime_auth::{MintFields, Profile};
///
/// let fields = MintFields::only(["session"]).with_session_fields(["voice", "instructions"]);
/// let profile = Profile::default().with_mint_fields(fields);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintFields {
    body: Option<Names>,
    session: Option<Names>,
    takes_anchor: bool,
}

type Names = Arc<[Box<str>]>;

impl Default for MintFields {
    fn default() -> Self {
        Self::any()
    }
}

impl MintFields {
    /// Any field: one that is not known is a setting.
    #[must_use]
    pub const fn any() -> Self {
        Self { body: None, session: None, takes_anchor: true }
    }

    /// These fields and `expires_after`.
    #[must_use]
    pub fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { body: Some(collect(names)), ..Self::any() }
    }

    /// The same, with these settings alone in `session`.
    #[must_use]
    pub fn with_session_fields<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { session: Some(collect(names)), ..self }
    }

    /// The same, and whether `expires_after` may have an `anchor`.
    #[must_use]
    pub fn with_anchor(self, takes_anchor: bool) -> Self {
        Self { takes_anchor, ..self }
    }

    /// Whether the body may have this field beside `expires_after`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        takes(self.body.as_ref(), name)
    }

    /// Whether `session` may have this field.
    #[must_use]
    pub fn has_in_session(&self, name: &str) -> bool {
        takes(self.session.as_ref(), name)
    }

    /// Whether `expires_after` may have an `anchor`.
    #[must_use]
    pub const fn has_anchor(&self) -> bool {
        self.takes_anchor
    }
}

fn collect<'a>(names: impl IntoIterator<Item = &'a str>) -> Names {
    names.into_iter().map(Box::from).collect()
}

fn takes(names: Option<&Names>, name: &str) -> bool {
    names.is_none_or(|names| names.iter().any(|known| **known == *name))
}
