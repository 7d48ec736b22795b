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

use serde_json::{Map, Value, json};

use super::{
    MintEndpoint, MintError, NewToken,
    request::read_object,
    settings::{KNOWN, check, contradiction, grants_of},
    shape::Shape,
};
use crate::{Issued, MintFields, Profile, UnixMillis};

/// Mints tokens for browsers: the service behind `POST /v1/realtime/client_secrets`.
///
/// It takes the bodies that OpenAI's, xAI's and Swaram's clients send, and must stand behind
/// [`RealtimeAuthLayer`](crate::RealtimeAuthLayer), whose
/// [`Principal`](crate::Principal) is the one that mints.
///
/// | request | answer |
/// |---|---|
/// | `{}` or no body | a token for 60 s |
/// | `{"expires_after": {"seconds": 120}}` | a token for 120 s |
/// | `{"session": {"voice": "marin"}, "model": "m"}` | a token for `m` alone, with that voice locked |
/// | with an ephemeral key | 403 |
/// | with a secret key in the query or a subprotocol | 403: it would be in logs by now |
/// | with a field that is not what it should be | 400 that names the field |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower::{Layer, ServiceExt};
/// use tower_realtime_auth::{
///     ClientSecrets, Keys, MemoryStore, NewKey, RealtimeAuthLayer,
///     http::{Request, StatusCode},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let mint = ClientSecrets::new(keys.clone());
/// let mint = RealtimeAuthLayer::new(keys).layer(mint);
///
/// let request = Request::post("/v1/realtime/client_secrets")
///     .header("authorization", format!("Bearer {}", issued.key().expose()))
///     .body(r#"{"expires_after": {"anchor": "created_at", "seconds": 600}}"#.to_owned())?;
/// let response = mint.clone().oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::OK);
///
/// let request = Request::post("/v1/realtime/client_secrets")
///     .header("authorization", format!("Bearer {}", issued.key().expose()))
///     .body(r#"{"expires_after": {"seconds": -1}}"#.to_owned())?;
/// let response = mint.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::BAD_REQUEST);
/// # Ok(())
/// # }
/// ```
pub type ClientSecrets<S> = MintEndpoint<S, Secrets>;

/// The shape of [`ClientSecrets`].
#[derive(Debug)]
pub enum Secrets {}

impl Shape for Secrets {
    const NAME: &'static str = "ClientSecrets";

    fn read(body: &[u8], profile: &Profile) -> Result<NewToken, MintError> {
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
        check(&KNOWN, &settings, "session.")?;
        check(&KNOWN, &fields, "")?;
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
        Ok(NewToken { lifetime, grants: grants_of(settings) })
    }

    fn name_of(checked: &str) -> String {
        let name = match checked {
            "lifetime" => "expires_after.seconds",
            // There is but one.
            "models.0" => "model",
            other => other,
        };
        name.to_owned()
    }

    /// `{"value", "expires_at", "session"}`.
    fn minted(issued: &Issued) -> String {
        let record = issued.record();
        let session = record.grants().session();
        let mut session = session.map_or_else(Map::new, |set| set.as_map().clone());
        session.entry("type").or_insert_with(|| "realtime".into());
        session.entry("object").or_insert_with(|| "realtime.session".into());
        json!({
            "value": issued.key().expose(),
            "expires_at": record.expires_at().map(UnixMillis::as_secs_rounded_up),
            "session": session,
        })
        .to_string()
    }
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
