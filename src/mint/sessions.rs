//! `POST /v1/realtime/sessions` and `POST /v1/realtime/transcription_sessions`, OpenAI's older
//! endpoints.
//!
//! 1. The body is the session: its fields are settings in the flat spelling, and it may be missing.
//! 2. Only the fields of OpenAI's schema are taken. The lifetime of the token is not one of them.
//! 3. The answer is the session with the token inside, in `client_secret`.

use serde_json::{Map, Value, json};

use super::{
    MintEndpoint, MintError, NewToken,
    request::read_object,
    settings::{Type, check, contradiction, grants_of},
    shape::Shape,
};
use crate::{Issued, Lifetimes, Profile, UnixMillis};

/// Mints tokens for browsers: the service behind `POST /v1/realtime/sessions`, which OpenAI's SDKs
/// still call (`beta.realtime.sessions.create`).
///
/// As [`ClientSecrets`](crate::ClientSecrets), but for this: the body is the session itself
/// (`{"model": "m", "voice": "alloy"}`), a field that OpenAI's schema does not have is refused, the
/// answer is the session with `client_secret: {"value", "expires_at"}` inside, and a token lives one
/// minute. [`with_lifetimes`](MintEndpoint::with_lifetimes) changes that; a profile does not.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower::{Layer, ServiceExt};
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, RealtimeAuthLayer, RealtimeSessions, http::Request,
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let mint = RealtimeSessions::new(keys.clone());
/// let mint = RealtimeAuthLayer::new(keys).layer(mint);
///
/// for (body, status) in [
///     (r#"{"model": "m", "voice": "alloy"}"#, 200),
///     (r#"{"model": "m", "expires_after": {"seconds": 60}}"#, 400),
/// ] {
///     let request = Request::post("/v1/realtime/sessions")
///         .header("authorization", format!("Bearer {}", issued.key().expose()))
///         .body(body.to_owned())?;
///     assert_eq!(mint.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
pub type RealtimeSessions<S> = MintEndpoint<S, Realtime>;

/// Mints tokens for browsers: the service behind `POST /v1/realtime/transcription_sessions`.
///
/// As [`RealtimeSessions`], for sessions that transcribe; its tokens live ten minutes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower::{Layer, ServiceExt};
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, RealtimeAuthLayer, TranscriptionSessions, http::Request,
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let mint = TranscriptionSessions::new(keys.clone());
/// let mint = RealtimeAuthLayer::new(keys).layer(mint);
///
/// for (body, status) in [
///     (r#"{"input_audio_format": "pcm16"}"#, 200),
///     // Such a session does not speak.
///     (r#"{"voice": "alloy"}"#, 400),
/// ] {
///     let request = Request::post("/v1/realtime/transcription_sessions")
///         .header("authorization", format!("Bearer {}", issued.key().expose()))
///         .body(body.to_owned())?;
///     assert_eq!(mint.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
pub type TranscriptionSessions<S> = MintEndpoint<S, Transcription>;

/// The shape of [`RealtimeSessions`].
#[derive(Debug)]
pub enum Realtime {}

/// The shape of [`TranscriptionSessions`].
#[derive(Debug)]
pub enum Transcription {}

/// The fields of OpenAI's schema.
const REALTIME: [(&str, Type); 18] = [
    ("model", Type::Model),
    ("modalities", Type::Array),
    ("instructions", Type::Text),
    ("voice", Type::TextOrObject),
    ("input_audio_format", Type::Text),
    ("output_audio_format", Type::Text),
    ("input_audio_transcription", Type::ObjectOrNull),
    ("input_audio_noise_reduction", Type::ObjectOrNull),
    ("turn_detection", Type::ObjectOrNull),
    ("tools", Type::Array),
    ("tool_choice", Type::TextOrObject),
    ("temperature", Type::Number),
    ("max_response_output_tokens", Type::NumberOrInf),
    ("speed", Type::Number),
    ("tracing", Type::AutoObjectOrNull),
    ("truncation", Type::TextOrObject),
    ("prompt", Type::ObjectOrNull),
    ("include", Type::Array),
];

const TRANSCRIPTION: [(&str, Type); 6] = [
    ("modalities", Type::Array),
    ("input_audio_format", Type::Text),
    ("input_audio_transcription", Type::ObjectOrNull),
    ("input_audio_noise_reduction", Type::ObjectOrNull),
    ("turn_detection", Type::ObjectOrNull),
    ("include", Type::Array),
];

impl Shape for Realtime {
    const NAME: &'static str = "RealtimeSessions";

    fn lifetimes(_: &Profile) -> Lifetimes {
        // "All tokens expire after one minute."
        Lifetimes::seconds(60, 60, 60)
    }

    fn read(body: &[u8], profile: &Profile) -> Result<NewToken, MintError> {
        read(body, &REALTIME, profile).map(new_token)
    }

    fn name_of(checked: &str) -> String {
        name_of(checked)
    }

    fn minted(issued: &Issued) -> String {
        minted(issued, "realtime.session")
    }
}

impl Shape for Transcription {
    const NAME: &'static str = "TranscriptionSessions";

    fn lifetimes(_: &Profile) -> Lifetimes {
        Lifetimes::seconds(600, 600, 600)
    }

    fn read(body: &[u8], profile: &Profile) -> Result<NewToken, MintError> {
        let mut settings = read(body, &TRANSCRIPTION, profile)?;
        // What the path says, and what the newer shape would: its sessions do not speak.
        settings.insert("type".to_owned(), "transcription".into());
        Ok(new_token(settings))
    }

    fn name_of(checked: &str) -> String {
        name_of(checked)
    }

    fn minted(issued: &Issued) -> String {
        minted(issued, "realtime.transcription_session")
    }
}

fn read(
    body: &[u8],
    fields: &[(&str, Type)],
    profile: &Profile,
) -> Result<Map<String, Value>, MintError> {
    let settings = read_object(body)?;
    let is_field = |name: &str| fields.iter().any(|(field, _)| *field == name);
    if let Some(unknown) = settings.keys().find(|name| !is_field(name)) {
        return Err(MintError::Unknown { field: unknown.clone() });
    }
    check(fields, &settings, "")?;
    if let Some(path) = contradiction(&settings, profile) {
        return Err(MintError::invalid(path, "differs from another spelling of the same setting"));
    }
    Ok(settings)
}

fn new_token(settings: Map<String, Value>) -> NewToken {
    NewToken { lifetime: None, grants: grants_of(settings) }
}

fn name_of(checked: &str) -> String {
    let name = match checked {
        // There is but one.
        "models.0" => "model",
        other => other.strip_prefix("session.").unwrap_or(other),
    };
    name.to_owned()
}

fn minted(issued: &Issued, object: &str) -> String {
    let record = issued.record();
    let session = record.grants().session();
    let mut session = session.map_or_else(Map::new, |set| set.as_map().clone());
    // Clients tell sessions apart by it. The key's public name does that and says nothing.
    let id = record.id().as_str();
    let id = format!("sess_{}", id.strip_prefix("key_").unwrap_or(id));
    session.insert("id".to_owned(), id.into());
    session.insert("object".to_owned(), object.into());
    let secret = json!({
        "value": issued.key().expose(),
        "expires_at": record.expires_at().map(UnixMillis::as_secs_rounded_up),
    });
    session.insert("client_secret".to_owned(), secret);
    Value::from(session).to_string()
}
