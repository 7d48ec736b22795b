//! `POST /v1/client/tokens`, in the shape of Decart's clients.
//!
//! 1. The body may be missing or `null`; every field may be missing, and none may be `null`.
//! 2. `expiresIn` and `constraints.realtime.maxSessionDuration` are whole seconds.
//! 3. A field that is not known is refused.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    MintEndpoint, MintError, NewToken,
    iso8601::iso8601,
    request::{not_an_object, read_value},
    response::Fault,
    shape::Shape,
};
use crate::{Grants, Issued, Profile};

/// Mints tokens for browsers: the service behind `POST /v1/client/tokens`, as Decart's clients
/// know it.
///
/// It must stand behind [`RealtimeAuthLayer`](crate::RealtimeAuthLayer), whose
/// [`Principal`](crate::Principal) is the one that mints. Tokens live as [`Profile::decart`] has it
/// unless another profile is given: 1 to 3,600 seconds, 60 by default.
///
/// | field, all optional | is |
/// |---|---|
/// | `expiresIn` | seconds |
/// | `allowedModels` | 1 to 20 models of the key's |
/// | `allowedOrigins` | 1 to 20 origins of the key's, as browsers write them |
/// | `constraints.realtime.maxSessionDuration` | seconds, 10 or more and no more than the key has |
/// | `metadata` | at most 16 names of 64 bytes, with texts of 512 |
///
/// The answer is `{"apiKey", "token", "expiresAt", "permissions", "constraints"}`; the last two
/// tell what the token has, also by inheritance. `apiKey` is a random text, and `token` its signed
/// twin if the keys have a `TokenSigner` (feature `jwt`). Without one both are the same text,
/// because Decart's Python SDK insists on `token`. Either signs in.
///
/// What is not right is refused with 422 and `{"detail": [{"loc": ["body", …], "msg", "type"}]}`,
/// anything else with its status and `{"detail": TEXT}`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower::{Layer, ServiceExt};
/// use tower_realtime_auth::{
///     ClientTokens, Keys, MemoryStore, NewKey, RealtimeAuthLayer,
///     http::{Request, StatusCode},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let mint = ClientTokens::new(keys.clone());
/// let mint = RealtimeAuthLayer::new(keys).layer(mint);
///
/// let request = Request::post("/v1/client/tokens")
///     .header("x-api-key", issued.key().expose())
///     .body(r#"{"expiresIn": 300, "allowedOrigins": ["https://app.example"]}"#.to_owned())?;
/// let response = mint.clone().oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::OK);
///
/// let request = Request::post("/v1/client/tokens")
///     .header("x-api-key", issued.key().expose())
///     .body(r#"{"expiresIn": 3601}"#.to_owned())?;
/// let response = mint.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
/// # Ok(())
/// # }
/// ```
pub type ClientTokens<S> = MintEndpoint<S, Tokens>;

/// The shape of [`ClientTokens`].
#[derive(Debug)]
pub enum Tokens {}

const MAX_SESSION: &str = "constraints.realtime.maxSessionDuration";

impl Shape for Tokens {
    const NAME: &'static str = "ClientTokens";
    const ANSWERS_TWIN: bool = true;

    fn profile() -> Profile {
        Profile::decart()
    }

    fn read(body: &[u8], _: &Profile) -> Result<NewToken, MintError> {
        let mut fields = match read_value(body)? {
            // What its JavaScript client sends of no options.
            Value::Null => Map::new(),
            value => object(value, None)?,
        };
        let lifetime = fields.remove("expiresIn").map(|value| seconds(&value, "expiresIn"));
        let lifetime = lifetime.transpose()?;
        let mut grants = Grants::default();
        if let Some(models) = fields.remove("allowedModels") {
            grants = grants.with_models(texts(models, "allowedModels")?);
        }
        if let Some(origins) = fields.remove("allowedOrigins") {
            grants = grants.with_origins(texts(origins, "allowedOrigins")?);
        }
        if let Some(constraints) = fields.remove("constraints")
            && let Some(max) = max_session(constraints)?
        {
            grants = grants.with_max_session(max);
        }
        if let Some(metadata) = fields.remove("metadata") {
            grants = grants.with_metadata(pairs(metadata)?);
        }
        nothing_left(&fields, "")?;
        Ok(NewToken { lifetime, grants })
    }

    fn name_of(checked: &str) -> String {
        let (field, rest) = checked.split_once('.').unwrap_or((checked, ""));
        let name = match field {
            "lifetime" => "expiresIn",
            "models" => "allowedModels",
            "origins" => "allowedOrigins",
            "max_session" => MAX_SESSION,
            other => other,
        };
        if rest.is_empty() { name.to_owned() } else { format!("{name}.{rest}") }
    }

    fn minted(issued: &Issued) -> String {
        let (key, record) = (issued.key(), issued.record());
        let token = issued.twin().unwrap_or(key);
        let grants = record.grants();
        let mut permissions = Map::new();
        permissions.extend(grants.models().map(|models| ("models".to_owned(), list(models))));
        permissions.extend(grants.origins().map(|origins| ("origins".to_owned(), list(origins))));
        let permissions = (!permissions.is_empty()).then_some(permissions);
        let constraints = grants
            .max_session()
            .map(|max| json!({ "realtime": { "maxSessionDuration": max.as_secs() } }));
        json!({
            "apiKey": key.expose(),
            "token": token.expose(),
            "expiresAt": record.expires_at().map(iso8601),
            "permissions": permissions,
            "constraints": constraints,
        })
        .to_string()
    }

    fn refused(fault: &Fault) -> String {
        if fault.status != StatusCode::BAD_REQUEST {
            return json!({ "detail": fault.message }).to_string();
        }
        let kind = match fault.code {
            "invalid_json" => "json_invalid",
            "unknown_parameter" => "extra_forbidden",
            _ => "value_error",
        };
        let loc = location(fault.field.as_deref().unwrap_or_default());
        json!({ "detail": [{ "loc": loc, "msg": fault.message, "type": kind }] }).to_string()
    }

    fn status(fault: &Fault) -> StatusCode {
        match fault.status {
            StatusCode::BAD_REQUEST => StatusCode::UNPROCESSABLE_ENTITY,
            other => other,
        }
    }
}

/// `["body", …]`, with the positions in lists as numbers (FastAPI's way). Names that a client has
/// made up may have dots in them.
fn location(field: &str) -> Vec<Value> {
    let mut location = vec!["body".into()];
    let mut rest = field;
    while let Some((outer, inner)) = rest.split_once('.')
        && matches!(
            outer,
            "allowedModels" | "allowedOrigins" | "constraints" | "realtime" | "metadata"
        )
    {
        location.push(outer.into());
        rest = inner;
        if outer == "metadata" {
            break;
        }
    }
    match rest.parse::<u64>() {
        Ok(index) if location.len() > 1 => location.push(index.into()),
        _ if rest.is_empty() => {}
        _ => location.push(rest.into()),
    }
    location
}

fn list(entries: &[std::sync::Arc<str>]) -> Value {
    entries.iter().map(|entry| Value::from(&**entry)).collect()
}

/// The fields of an object; `field` names it, `None` the body as a whole.
fn object(value: Value, field: Option<&str>) -> Result<Map<String, Value>, MintError> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(match field {
            Some(field) => MintError::invalid(field, "must be an object"),
            None => not_an_object(),
        }),
    }
}

fn nothing_left(fields: &Map<String, Value>, place: &str) -> Result<(), MintError> {
    match fields.keys().next() {
        Some(unknown) => Err(MintError::Unknown { field: format!("{place}{unknown}") }),
        None => Ok(()),
    }
}

fn seconds(value: &Value, field: &str) -> Result<Duration, MintError> {
    let seconds = value.as_u64().map(Duration::from_secs);
    seconds.ok_or_else(|| MintError::invalid(field, "must be a whole number of seconds"))
}

fn texts(value: Value, field: &str) -> Result<Vec<String>, MintError> {
    let Value::Array(entries) = value else {
        return Err(MintError::invalid(field, "must be an array of strings"));
    };
    let texts = entries.into_iter().enumerate().map(|(index, entry)| match entry {
        Value::String(text) => Ok(text),
        _ => Err(MintError::invalid(format!("{field}.{index}"), "must be a string")),
    });
    texts.collect()
}

fn max_session(constraints: Value) -> Result<Option<Duration>, MintError> {
    let mut constraints = object(constraints, Some("constraints"))?;
    let realtime = constraints.remove("realtime");
    nothing_left(&constraints, "constraints.")?;
    let Some(realtime) = realtime else { return Ok(None) };
    let mut realtime = object(realtime, Some("constraints.realtime"))?;
    let max = realtime.remove("maxSessionDuration");
    nothing_left(&realtime, "constraints.realtime.")?;
    max.map(|max| seconds(&max, MAX_SESSION)).transpose()
}

fn pairs(metadata: Value) -> Result<BTreeMap<String, String>, MintError> {
    let pairs = object(metadata, Some("metadata"))?.into_iter().map(|(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        _ => Err(MintError::invalid(format!("metadata.{name}"), "must be a string")),
    });
    pairs.collect()
}
