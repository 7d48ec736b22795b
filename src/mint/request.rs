//! The body of `POST /v1/realtime/client_secrets`, in the one shape that serves OpenAI, xAI and
//! Swaram.
//!
//! 1. The body may be missing; every field may.
//! 2. `expires_after` is `{"anchor": "created_at", "seconds": N}`; xAI's clients leave out `anchor`.
//! 3. `session` is an object of settings. Any other field is a setting too, because Swaram's
//!    clients send `model` beside `session`. The same setting in both, or in two spellings, must
//!    have the same value.
//! 4. A field that is known must have its type. One that is not known is kept as it is, or refused
//!    if the profile says so.
//! 5. The settings are locked, and `model` is the only model that the token may name.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{MintError, NewToken, checks::is_model};
use crate::{
    Grants, Lock, MintFields, Profile, Settings,
    session::{Fault, Held, parse},
};

/// How deep a body may be nested.
const MAX_DEPTH: usize = 32;

/// Reads what token the body asks for.
pub(super) fn read(body: &[u8], profile: &Profile) -> Result<NewToken, MintError> {
    let known = profile.mint_fields();
    let mut fields = read_object(body)?;
    let expires_after = fields.remove("expires_after");
    let lifetime = expires_after.map(|value| lifetime(value, known)).transpose()?;
    if let Some(unknown) = fields.keys().find(|name| !known.has(name)) {
        return Err(MintError::Unknown { field: unknown.clone() });
    }
    let mut settings = match fields.remove("session") {
        None => Map::new(),
        Some(Value::Object(settings)) => {
            if let Some(unknown) = settings.keys().find(|name| !known.has_in_session(name)) {
                return Err(MintError::Unknown { field: format!("session.{unknown}") });
            }
            settings
        }
        Some(_) => return Err(MintError::invalid("session", "must be an object")),
    };
    check(&settings, "session.")?;
    check(&fields, "")?;
    for (name, value) in fields {
        match settings.get(&name) {
            Some(other) if *other != value => {
                let message = format!("differs from 'session.{name}'");
                return Err(MintError::invalid(name, message));
            }
            _ => settings.insert(name, value),
        };
    }
    if let Some(path) = contradiction(&settings, profile) {
        let message = "differs from another spelling of the same setting";
        return Err(MintError::invalid(format!("session.{path}"), message));
    }
    let mut grants = Grants::default();
    if let Some(model) = settings.get("model").and_then(Value::as_str) {
        grants = grants.with_models([model]);
    }
    if !settings.is_empty() {
        grants = grants.with_session(Settings::from_map(settings));
    }
    Ok(NewToken { lifetime, grants })
}

/// What the body calls the field that the checks name so.
pub(super) fn name_of(checked: &str) -> String {
    let name = match checked {
        "lifetime" => "expires_after.seconds",
        // There is but one.
        "models.0" => "model",
        other => other,
    };
    name.to_owned()
}

fn read_object(body: &[u8]) -> Result<Map<String, Value>, MintError> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match parse(body, MAX_DEPTH) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) | Err(Fault::Syntax) => Err(MintError::Invalid {
            field: None,
            message: "The body must be one JSON object.".to_owned(),
        }),
        Err(Fault::TooDeep) => Err(MintError::Invalid {
            field: None,
            message: format!("The body may be nested {MAX_DEPTH} deep."),
        }),
        Err(Fault::Duplicate(name)) => Err(MintError::invalid(name, "is named twice")),
    }
}

/// The path at which `settings` set one thing to different values in two spellings.
fn contradiction(settings: &Map<String, Value>, profile: &Profile) -> Option<String> {
    let set = Settings::from_map(settings.clone());
    let lock = Lock::set();
    Held::of(Some(&set), &lock, profile.session_rules())
        .filter(&mut settings.clone())
        .kept
        .into_iter()
        .next()
}

fn lifetime(value: Value, known: &MintFields) -> Result<Duration, MintError> {
    let Value::Object(mut fields) = value else {
        return Err(MintError::invalid("expires_after", "must be an object"));
    };
    let anchor = if known.has_anchor() { fields.remove("anchor") } else { None };
    if anchor.is_some_and(|anchor| anchor != "created_at") {
        return Err(MintError::invalid("expires_after.anchor", "must be 'created_at'"));
    }
    let seconds = fields.remove("seconds");
    if let Some(unknown) = fields.keys().next() {
        return Err(MintError::Unknown { field: format!("expires_after.{unknown}") });
    }
    let seconds = seconds.as_ref().and_then(Value::as_u64).ok_or_else(|| {
        MintError::invalid("expires_after.seconds", "must be a whole number of seconds")
    })?;
    Ok(Duration::from_secs(seconds))
}

/// The types that a known setting may have.
#[derive(Clone, Copy)]
enum Type {
    Kind,
    Model,
    Text,
    TextOrObject,
    Array,
    Object,
    ObjectOrNull,
    Number,
}

/// The settings that are known by type (OpenAI's session object in both spellings).
const KNOWN: [(&str, Type); 17] = [
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

fn check(settings: &Map<String, Value>, place: &str) -> Result<(), MintError> {
    for (path, expected) in KNOWN {
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
        };
        (!fits).then_some(message)
    }
}
