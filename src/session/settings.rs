//! The settings that a session starts with.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Fault, SessionRules, parse,
    path::{fold, join, put},
};

/// How deep settings may be nested.
const MAX_DEPTH: usize = 32;

/// The settings of a session: one JSON object, checked when it is made.
///
/// ```
/// use tower_realtime_auth::Settings;
///
/// let settings = Settings::parse(r#"{"voice": "marin", "instructions": "Be kind."}"#)?;
/// assert_eq!(settings.as_json(), r#"{"instructions":"Be kind.","voice":"marin"}"#);
/// assert!(Settings::parse(r#"{"voice": "marin", "voice": "cedar"}"#).is_err());
/// # Ok::<(), tower_realtime_auth::InvalidSettings>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Settings(Arc<Map<String, Value>>);

impl Settings {
    /// Reads settings from JSON.
    ///
    /// # Errors
    /// If the text is not one JSON object, names something twice in an object, or is nested
    /// deeper than 32.
    pub fn parse(json: &str) -> Result<Self, InvalidSettings> {
        match parse(json.as_bytes(), MAX_DEPTH).map_err(InvalidSettings)? {
            Value::Object(object) => Ok(Self::from_map(object)),
            _ => Err(InvalidSettings(Fault::Syntax)),
        }
    }

    /// These settings after an update: what it names is replaced, `audio` and its two parts are
    /// merged, the rest stays. The way of `session.update` in OpenAI's protocol.
    ///
    /// ```
    /// use tower_realtime_auth::Settings;
    ///
    /// let settings = Settings::parse(r#"{"audio": {"output": {"voice": "marin"}}, "speed": 1}"#)?;
    /// let update = Settings::parse(r#"{"audio": {"output": {"speed": 2}}, "speed": null}"#)?;
    /// let updated = settings.updated(&update);
    /// let expected = r#"{"audio":{"output":{"speed":2,"voice":"marin"}},"speed":null}"#;
    /// assert_eq!(updated.as_json(), expected);
    /// # Ok::<(), tower_realtime_auth::InvalidSettings>(())
    /// ```
    #[must_use]
    pub fn updated(&self, update: &Self) -> Self {
        self.updated_by(&update.0, &SessionRules::default())
    }

    /// The same, with the groups that `rules` know.
    pub(crate) fn updated_by(&self, update: &Map<String, Value>, rules: &SessionRules) -> Self {
        let mut merged = Map::clone(&self.0);
        merge("", &mut merged, update, rules);
        Self::from_map(merged)
    }

    pub(crate) fn from_map(object: Map<String, Value>) -> Self {
        Self(Arc::new(object))
    }

    pub(crate) fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The settings as JSON, to be stored or sent.
    #[must_use]
    pub fn as_json(&self) -> String {
        serde_json::to_string(&*self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Settings {
    /// Names what is set and not to what: instructions may be confidential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn merge(
    parent: &str,
    base: &mut Map<String, Value>,
    update: &Map<String, Value>,
    rules: &SessionRules,
) {
    for (name, value) in update {
        let path = join(parent, name);
        match (base.get_mut(name), value) {
            (Some(Value::Object(base)), Value::Object(update)) if rules.is_group(&path) => {
                merge(&path, base, update, rules);
            }
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Merges what `update` sets into `settings`, each setting at its one path.
pub(super) fn follow(
    rules: &SessionRules,
    settings: &mut Map<String, Value>,
    update: &Map<String, Value>,
) {
    follow_group(rules, "", settings, update);
}

fn follow_group(
    rules: &SessionRules,
    parent: &str,
    settings: &mut Map<String, Value>,
    update: &Map<String, Value>,
) {
    for (name, value) in update {
        let folded = join(parent, &fold(name));
        let path = rules.canonical(&folded);
        match value {
            Value::Object(inner) if rules.is_group(&path) => {
                follow_group(rules, &folded, settings, inner);
            }
            value => put(settings, &path, value),
        }
    }
}

/// Why a text cannot be session settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSettings(Fault);

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Fault::Syntax => f.write_str("session settings must be one JSON object"),
            Fault::TooDeep => write!(f, "session settings may be nested {MAX_DEPTH} deep"),
            Fault::Duplicate(name) => write!(f, "session settings name {name:?} twice"),
        }
    }
}

impl std::error::Error for InvalidSettings {}
