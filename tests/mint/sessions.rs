//! Tokens in the shape of OpenAI's older endpoints.

use http_body_util::Full;
use serde_json::{Value, json};
use tower_realtime_auth::{
    Grants, MemoryStore, MintError, NewKey, Profile, RealtimeSessions, SessionGuard, Settings,
    TranscriptionSessions, Verdict,
    bytes::Bytes,
    http::{Request, StatusCode},
};

use super::{Desk, OPENED, Reply, answer, expiry_after};

async fn post(desk: &Desk, path: &str, body: impl Into<Bytes>) -> Reply {
    let request = Request::post(format!("/v1/realtime/{path}"))
        .header("authorization", format!("Bearer {}", desk.parent.key().expose()))
        .header("openai-beta", "assistants=v2");
    let request = request.body(Full::new(body.into())).expect("a request");
    let keys = desk.keys.clone();
    match path {
        "sessions" => {
            // OpenAI's profile has no say in the fields and the lifetime.
            let sessions = RealtimeSessions::new(keys).with_profile(&Profile::openai());
            answer(&desk.keys, sessions, request).await
        }
        _ => answer(&desk.keys, TranscriptionSessions::new(keys), request).await,
    }
}

#[tokio::test]
async fn real_clients_get_the_fields_that_they_read() {
    let recorded: Value = serde_json::from_str(include_str!("../data/mint.json")).unwrap();
    let recorded = recorded["sessions"].as_array().unwrap();
    assert_eq!(recorded.len(), 2);
    for case in recorded {
        let (id, body) = (&case["id"], &case["body"]);
        let desk = Desk::open().await;
        let reply = post(&desk, "sessions", body.to_string()).await;
        assert_eq!(reply.status, StatusCode::OK, "{id}: {}", reply.json);
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert_eq!(reply.json["object"], "realtime.session", "{id}");
        assert!(reply.json["id"].as_str().unwrap().starts_with("sess_"), "{id}");
        for (name, value) in body.as_object().unwrap() {
            assert_eq!(&reply.json[name], value, "{id}: {name}");
        }
        let secret = &reply.json["client_secret"];
        assert_eq!(secret["expires_at"], expiry_after(60), "{id}");
        let token = secret["value"].as_str().unwrap();
        assert!(token.starts_with("ek_"), "{id}");
        let grants = desk.tokens().await.pop().unwrap().grants().clone();
        assert_eq!(grants.models().unwrap(), [body["model"].as_str().unwrap().into()], "{id}");
        assert_eq!(desk.handshake(token).await, OPENED, "{id}");
    }
}

#[tokio::test]
async fn a_body_may_be_missing() {
    let desk = Desk::open().await;
    let reply = post(&desk, "sessions", "").await;
    let token = reply.json["client_secret"]["value"].as_str().unwrap();
    assert_eq!(desk.handshake(token).await, OPENED);

    let reply = post(&desk, "transcription_sessions", "{}").await;
    assert_eq!(reply.json["object"], "realtime.transcription_session");
    assert_eq!(reply.json["client_secret"]["expires_at"], expiry_after(600));
}

#[tokio::test]
async fn a_transcription_session_stays_one() {
    let desk = Desk::open().await;
    let body = r#"{"input_audio_transcription":{"model":"whisper-1"},"include":[]}"#;
    let reply = post(&desk, "transcription_sessions", body).await;
    assert_eq!(reply.json["input_audio_transcription"], json!({"model": "whisper-1"}));
    let token = desk.tokens().await.pop().unwrap();
    let mut guard = SessionGuard::new(token.grants(), None);
    for update in [
        r#"{"type":"session.update","session":{"type":"realtime"}}"#,
        r#"{"type":"transcription_session.update","session":{"input_audio_transcription":{"model":"x"}}}"#,
    ] {
        assert!(!matches!(guard.client(update), Verdict::Forward(_)), "{update}");
    }
}

#[tokio::test]
async fn a_session_gets_no_more_than_its_key() {
    let settings = Settings::parse(r#"{"voice":"marin"}"#).unwrap();
    let grants = Grants::default().with_models(["a"]).with_session(settings);
    let desk = Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await;
    for (path, body, field) in [
        ("sessions", r#"{"model":"b"}"#, "model"),
        ("sessions", r#"{"voice":"cedar"}"#, "voice"),
        (
            "transcription_sessions",
            r#"{"input_audio_transcription":{"model":"b"}}"#,
            "input_audio_transcription",
        ),
    ] {
        let reply = post(&desk, path, body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        let (code, param) = reply.fault();
        assert_eq!(code, Some("exceeds_api_key"), "{body}");
        assert!(param.is_some_and(|param| param.starts_with(field)), "{body}: {param:?}");
    }
}

#[tokio::test]
async fn minting_is_a_plain_call_too() {
    let desk = Desk::open().await;
    let sessions = RealtimeSessions::new(desk.keys.clone());
    let issued = sessions.mint(&desk.principal(), br#"{"voice":"alloy"}"#).await.unwrap();
    let settings = issued.record().grants().session().unwrap();
    assert_eq!(settings.as_json(), r#"{"voice":"alloy"}"#);
    let error = sessions.mint(&desk.principal(), br#"{"colour":"blue"}"#).await.unwrap_err();
    assert!(matches!(&error, MintError::Unknown { field } if field == "colour"), "{error:?}");

    let sessions = TranscriptionSessions::new(desk.keys.clone());
    let issued = sessions.mint(&desk.principal(), b"").await.unwrap();
    let settings = issued.record().grants().session().unwrap();
    assert_eq!(settings.as_json(), r#"{"type":"transcription"}"#);
}
