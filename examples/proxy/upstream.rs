//! The provider behind the proxy.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, Uri, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

use crate::server::session::MAX_MESSAGE;

/// How long the provider may take to begin a session, and again to set it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How much it may say before it has set a session.
const MAX_SAID: usize = 16;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The provider, and how we come to it.
pub struct Upstream {
    uri: Uri,
    authorization: HeaderValue,
    connector: Connector,
}

/// A session with the provider, which has the settings that the token locks.
pub struct Opened {
    pub socket: Socket,
    /// What the provider has said meanwhile.
    pub said: Vec<Message>,
}

/// Why there is no session with the provider.
#[derive(Debug)]
pub enum Failure {
    TooSlow,
    Unreachable(Box<tungstenite::Error>),
    /// It did not take the settings that the token locks: without them, no session.
    Unset(&'static str),
    /// We stop.
    Stopping,
}

impl Upstream {
    pub fn new(uri: &Uri, key: &str) -> Result<Self, Box<dyn Error>> {
        let connector = match uri.scheme_str() {
            Some("ws") => Connector::Plain,
            Some("wss") => Connector::Rustls(Arc::new(tls()?)),
            _ => return Err("--upstream must be ws://HOST/PATH or wss://HOST/PATH".into()),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // It would stand in logs.
            return Err("--upstream must not hold a user or a password".into());
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| "--upstream-key holds what no header can")?;
        authorization.set_sensitive(true);
        Ok(Self { uri: uri.clone(), authorization, connector })
    }

    /// Begins a session with this model, and sets it by this event.
    pub async fn open(
        &self,
        model: Option<&str>,
        opening: Option<String>,
    ) -> Result<Opened, Failure> {
        let mut socket = timeout(ANSWER_DEADLINE, self.connect(model))
            .await
            .map_err(|_| Failure::TooSlow)?
            .map_err(|error| Failure::Unreachable(Box::new(error)))?;
        let said = match opening {
            Some(opening) => timeout(ANSWER_DEADLINE, set(&mut socket, opening))
                .await
                .map_err(|_| Failure::Unset("it does not answer"))?
                .map_err(Failure::Unset)?,
            None => Vec::new(),
        };
        Ok(Opened { socket, said })
    }

    /// Nothing of what the client sent goes along but, perhaps, the model that it asked for.
    async fn connect(&self, model: Option<&str>) -> Result<Socket, tungstenite::Error> {
        let mut uri = self.uri.to_string();
        if let Some(model) = model {
            uri.push(if self.uri.query().is_some() { '&' } else { '?' });
            uri.extend([
                "model=",
                &form_urlencoded::byte_serialize(model.as_bytes()).collect::<String>(),
            ]);
        }
        let mut request = uri.into_client_request()?;
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let connector = Some(self.connector.clone());
        let connecting = connect_async_tls_with_config(request, Some(config), true, connector);
        connecting.await.map(|(socket, _)| socket)
    }
}

/// Sends the event that sets the session, and waits until the provider has taken it; answers what
/// the provider said meanwhile.
async fn set(socket: &mut Socket, opening: String) -> Result<Vec<Message>, &'static str> {
    const GONE: &str = "it has gone";
    socket.send(Message::text(opening)).await.map_err(|_| GONE)?;
    let mut said = Vec::new();
    while said.len() < MAX_SAID {
        let message = socket.next().await.ok_or(GONE)?.map_err(|_| GONE)?;
        let Message::Text(text) = &message else {
            if message.is_close() {
                return Err(GONE);
            }
            continue;
        };
        let kind = kind_of(text);
        said.push(message);
        match kind.as_deref() {
            Some("session.updated") => return Ok(said),
            Some("error") => return Err("it refuses them"),
            _ => {}
        }
    }
    Err("it speaks of something else")
}

fn kind_of(event: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        r#type: String,
    }
    serde_json::from_str(event).ok().map(|Event { r#type }| r#type)
}

/// Trusts whom the system trusts.
fn tls() -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("the system trusts no certificate authority: is ca-certificates there?".into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

impl IntoResponse for Failure {
    /// Says nothing of what the provider said: that is between it and us.
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::TooSlow => {
                tracing::warn!("the upstream does not answer");
                let message = "The upstream does not answer.";
                (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
            }
            Self::Unreachable(error) => {
                tracing::warn!(%error, "no session with the upstream");
                let message = match *error {
                    tungstenite::Error::Http(_) => "The upstream refuses the session.",
                    _ => "The upstream cannot be reached.",
                };
                (StatusCode::BAD_GATEWAY, "upstream_unavailable", message)
            }
            Self::Unset(why) => {
                tracing::warn!(why, "the upstream does not take the settings of a token");
                let message = "The upstream does not take the settings of this token.";
                (StatusCode::BAD_GATEWAY, "upstream_settings", message)
            }
            Self::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "server_stopping", "The server is stopping.")
            }
        };
        (status, Json(json!({ "error": error_object(code, message) }))).into_response()
    }
}

/// OpenAI's error object.
pub fn error_object(code: &str, message: &str) -> serde_json::Value {
    json!({ "type": "server_error", "code": code, "message": message, "param": null })
}
