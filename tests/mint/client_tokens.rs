//! Tokens in the shape of Decart's clients.

use std::time::Duration;

use futures_util::stream;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tower_realtime_auth::{
    ClientTokens, Grants, MemoryStore, MintError, NewKey, Profile, UnixMillis,
    bytes::Bytes,
    http::{Request, StatusCode},
};

use super::{Desk, OPENED, Reply, answer};

const PATH: &str = "/v1/client/tokens";

fn tokens(desk: &Desk) -> ClientTokens<MemoryStore> {
    ClientTokens::new(desk.keys.clone())
}

async fn post(desk: &Desk, body: impl Into<Bytes>) -> Reply {
    // Keys with a list of origins mint from these alone, too.
    let request = Request::post(PATH)
        .header("x-api-key", desk.parent.key().expose())
        .header("origin", "https://a");
    let request = request.body(Full::new(body.into())).expect("a request");
    answer(&desk.keys, tokens(desk), request).await
}

async fn with(grants: Grants) -> Desk {
    Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await
}

#[tokio::test]
async fn real_clients_get_the_fields_that_they_read() {
    let recorded: Value = serde_json::from_str(include_str!("../data/mint.json")).unwrap();
    let recorded = recorded["client_tokens"].as_array().unwrap();
    assert_eq!(recorded.len(), 2);
    for case in recorded {
        let (id, body) = (&case["id"], &case["body"]);
        let desk = Desk::open().await;
        let reply = post(&desk, body.to_string()).await;
        assert_eq!(reply.status, StatusCode::OK, "{id}: {}", reply.json);
        assert_eq!(reply.headers["cache-control"], "no-store");

        let key = reply.json["apiKey"].as_str().unwrap();
        assert!(key.starts_with("ek_"), "{id}");
        assert_eq!(reply.json["token"], key, "{id}");
        let asks = !body["allowedModels"].is_null();
        let expires_at = if asks { "2023-11-14T22:18:20.500Z" } else { "2023-11-14T22:14:20.500Z" };
        assert_eq!(reply.json["expiresAt"], expires_at, "{id}");
        let permissions = if asks {
            json!({"models": body["allowedModels"], "origins": body["allowedOrigins"]})
        } else {
            Value::Null
        };
        assert_eq!(reply.json["permissions"], permissions, "{id}");
        assert_eq!(reply.json["constraints"], body["constraints"], "{id}");

        let token = desk.tokens().await.pop().unwrap();
        let role = token.grants().metadata().and_then(|metadata| metadata.get("role"));
        assert_eq!(role.map(|role| &**role), body["metadata"]["role"].as_str(), "{id}");
        if !asks {
            assert_eq!(desk.handshake(key).await, OPENED);
        }
    }
}

#[tokio::test]
async fn a_body_may_be_missing() {
    let desk = Desk::open().await;
    for body in
        ["", " ", "null", "{}", r#"{"constraints":{}}"#, r#"{"constraints":{"realtime":{}}}"#]
    {
        let reply = post(&desk, body).await;
        assert_eq!(reply.status, StatusCode::OK, "{body:?}: {}", reply.json);
        assert_eq!(reply.json["permissions"], Value::Null);
        assert_eq!(reply.json["constraints"], Value::Null);
    }
}

#[tokio::test]
async fn the_answer_tells_what_is_inherited() {
    let grants =
        Grants::default().with_origins(["https://a"]).with_max_session(Duration::from_secs(60));
    let desk = with(grants).await;
    let reply = post(&desk, r#"{"allowedModels":["m"]}"#).await;
    assert_eq!(reply.json["permissions"], json!({"models": ["m"], "origins": ["https://a"]}));
    assert_eq!(reply.json["constraints"], json!({"realtime": {"maxSessionDuration": 60}}));
}

/// A dot in a name of the client's own leads nowhere.
#[tokio::test]
async fn names_with_dots_are_one_name() {
    let desk = Desk::open().await;
    for (body, loc) in [
        (r#"{"a.b":1}"#, json!(["body", "a.b"])),
        (r#"{"metadata":{"a.b":null}}"#, json!(["body", "metadata", "a.b"])),
        (
            r#"{"constraints":{"realtime":{"max.x":1}}}"#,
            json!(["body", "constraints", "realtime", "max.x"]),
        ),
    ] {
        let reply = post(&desk, body).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(reply.json["detail"][0]["loc"], loc, "{body}");
    }
}

#[tokio::test]
async fn a_token_gets_no_more_than_its_key() {
    let grants = Grants::default()
        .with_models(["a", "b"])
        .with_origins(["https://a"])
        .with_max_session(Duration::from_secs(60));
    let desk = with(grants).await;
    for (body, loc) in [
        (r#"{"allowedModels":["a","c"]}"#, json!(["body", "allowedModels", 1])),
        (r#"{"allowedOrigins":["https://b"]}"#, json!(["body", "allowedOrigins", 0])),
        (
            r#"{"constraints":{"realtime":{"maxSessionDuration":61}}}"#,
            json!(["body", "constraints", "realtime", "maxSessionDuration"]),
        ),
    ] {
        let reply = post(&desk, body).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(reply.json["detail"][0]["loc"], loc, "{body}");
    }
    assert!(desk.tokens().await.is_empty());
}

/// What is not about a field is told in one text, as Decart tells it.
#[tokio::test]
async fn other_refusals_are_texts() {
    let desk = Desk::open().await;
    let token = post(&desk, "").await.json["apiKey"].as_str().unwrap().to_owned();
    let by_token = Request::post(PATH).header("x-api-key", token);
    let in_query = Request::post(format!("{PATH}?api_key={}", desk.parent.key().expose()));
    for request in [by_token, in_query] {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let reply = answer(&desk.keys, tokens(&desk), request.body(body).unwrap()).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert!(reply.json["detail"].is_string(), "{}", reply.json);
    }
    let long = post(&desk, " ".repeat(64 * 1024 + 1)).await;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(long.json["detail"].is_string(), "{}", long.json);
    assert_eq!(desk.tokens().await.len(), 1);
}

#[tokio::test]
async fn minting_is_a_plain_call_too() {
    let desk = Desk::open().await;
    let body = br#"{"expiresIn":5,"allowedModels":["m"]}"#;
    let issued = tokens(&desk).mint(&desk.principal(), body).await.unwrap();
    let lives = issued.record().remaining(UnixMillis::new(1_700_000_000_500));
    assert_eq!(lives, Some(Duration::from_secs(5)));

    let error = tokens(&desk).mint(&desk.principal(), br#"{"expiresIn":0}"#).await.unwrap_err();
    assert!(
        matches!(&error, MintError::Invalid { field: Some(field), .. } if field == "expiresIn"),
        "{error:?}"
    );
    let endpoint = tokens(&desk).with_profile(&Profile::default());
    assert!(endpoint.mint(&desk.principal(), br#"{"expiresIn":7200}"#).await.is_ok());
}
