//! The body of a request to mint, as JSON.

use serde_json::{Map, Value};

use super::MintError;
use crate::session::{Fault, parse};

/// How deep a body may be nested.
const MAX_DEPTH: usize = 32;

/// The fields of the body; none if it is missing.
pub(super) fn read_object(body: &[u8]) -> Result<Map<String, Value>, MintError> {
    match read_value(body)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(not_an_object()),
    }
}

/// The body; an empty object if it is missing.
pub(super) fn read_value(body: &[u8]) -> Result<Value, MintError> {
    if body.trim_ascii().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    parse(body, MAX_DEPTH).map_err(|fault| match fault {
        Fault::Syntax => not_an_object(),
        Fault::TooDeep => MintError::Invalid {
            field: None,
            message: format!("The body may be nested {MAX_DEPTH} deep."),
        },
        Fault::Duplicate(name) => MintError::invalid(name, "is named twice"),
    })
}

pub(super) fn not_an_object() -> MintError {
    MintError::Invalid { field: None, message: "The body must be one JSON object.".to_owned() }
}
