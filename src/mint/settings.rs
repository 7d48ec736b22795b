//! The settings that a request to mint carries.

use serde_json::{Map, Value};

use super::{MintError, checks::is_model};
use crate::{Grants, Lock, Profile, Settings, session::Held};

/// What a token with these settings is granted: they are locked, and `model` is the only model that
/// it may name.
pub(super) fn grants_of(settings: Map<String, Value>) -> Grants {
    let mut grants = Grants::default();
    if let Some(model) = settings.get("model").and_then(Value::as_str) {
        grants = grants.with_models([model]);
    }
    if !settings.is_empty() {
        grants = grants.with_session(Settings::from_map(settings));
    }
    grants
}

/// The path at which `settings` set one thing to different values in two spellings.
pub(super) fn contradiction(settings: &Map<String, Value>, profile: &Profile) -> Option<String> {
    let set = Settings::from_map(settings.clone());
    let lock = Lock::set();
    Held::of(Some(&set), &lock, profile.session_rules())
        .filter(&mut settings.clone())
        .kept
        .into_iter()
        .next()
}

/// The types that a known setting may have.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Kind,
    Model,
    Text,
    TextOrObject,
    Array,
    Object,
    ObjectOrNull,
    Number,
    NumberOrInf,
    AutoObjectOrNull,
}

/// The settings that are known by type (OpenAI's session object in both spellings).
pub(super) const KNOWN: [(&str, Type); 17] = [
    ("type", Type::Kind),
    ("model", Type::Model),
    ("instructions", Type::Text),
    ("voice", Type::TextOrObject),
    ("tools", Type::Array),
    ("tool_choice", Type::TextOrObject),
    ("output_modalities", Type::Array),
    ("modalities", Type::Array),
    ("temperature", Type::Number),
    ("speed", Type::Number),
    ("audio", Type::Object),
    ("audio.input", Type::Object),
    ("audio.output", Type::Object),
    ("audio.output.voice", Type::TextOrObject),
    ("audio.output.speed", Type::Number),
    ("turn_detection", Type::ObjectOrNull),
    ("audio.input.turn_detection", Type::ObjectOrNull),
];

/// Refuses what has not the type that `known` gives it; `place` leads to the settings.
pub(super) fn check(
    known: &[(&str, Type)],
    settings: &Map<String, Value>,
    place: &str,
) -> Result<(), MintError> {
    for (path, expected) in known {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let inside = rest.split('.').filter(|name| !name.is_empty());
        let value = inside.fold(settings.get(first), |value, name| value?.get(name));
        if let Some(message) = value.and_then(|value| expected.objection(value)) {
            return Err(MintError::invalid(format!("{place}{path}"), message));
        }
    }
    Ok(())
}

impl Type {
    fn objection(self, value: &Value) -> Option<&'static str> {
        let (fits, message) = match self {
            Self::Kind => (
                value == "realtime" || value == "transcription",
                "must be 'realtime' or 'transcription'",
            ),
            Self::Model => {
                (value.as_str().is_some_and(is_model), "must be a string of 1 to 256 bytes")
            }
            Self::Text => (value.is_string(), "must be a string"),
            Self::TextOrObject => {
                (value.is_string() || value.is_object(), "must be a string or an object")
            }
            Self::Array => (value.is_array(), "must be an array"),
            Self::Object => (value.is_object(), "must be an object"),
            Self::ObjectOrNull => {
                (value.is_object() || value.is_null(), "must be an object or null")
            }
            Self::Number => (value.is_number(), "must be a number"),
            Self::NumberOrInf => (value.is_number() || value == "inf", "must be a number or 'inf'"),
            Self::AutoObjectOrNull => (
                value == "auto" || value.is_object() || value.is_null(),
                "must be 'auto', an object or null",
            ),
        };
        (!fits).then_some(message)
    }
}
