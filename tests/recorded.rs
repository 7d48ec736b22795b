//! What real clients send, byte for byte, and what becomes of it: `data/handshakes.json`.

mod support;

use std::{
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use support::{ACCEPT, Body, Head, Raw};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tower::{Layer, Service, service_fn};
use tower_realtime_auth::{
    ApiKey, CredentialSource, HeaderForm, Keys, MemoryStore, NewKey, Principal, Profile,
    RealtimeAuthLayer, SubprotocolForm,
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version},
};

/// One client's handshake.
struct Recording {
    id: String,
    method: String,
    path_and_query: String,
    headers: Vec<(String, String)>,
    expect: Expected,
}

/// What a server makes of it.
struct Expected {
    credential: String,
    source: String,
    header: Option<String>,
    scheme: Option<String>,
    param: Option<String>,
    prefix: Option<String>,
    echo: Option<String>,
    offered_without_credential: Vec<String>,
}

impl Expected {
    /// The profile that takes the credential, and the place where it is found; `None` for one that
    /// is not in the request at all.
    fn profile(&self) -> Option<(Profile, CredentialSource)> {
        use CredentialSource::{Header, Query, Subprotocol};

        let profile = Profile::default();
        Some(match (&*self.source, self.header.as_deref(), self.scheme.as_deref()) {
            ("header", Some("authorization"), None) => {
                // AssemblyAI sends the bare key.
                let bare = HeaderForm::key("authorization").unwrap();
                (profile.with_headers([HeaderForm::bearer(), bare]), Header)
            }
            ("header", Some("authorization"), Some("Token")) => {
                let token = HeaderForm::scheme("authorization", "token").unwrap();
                (profile.with_headers([HeaderForm::bearer(), token]), Header)
            }
            ("header", ..) => (profile, Header),
            ("query", ..) => {
                let name = self.param.as_deref().expect("a parameter");
                (profile.with_query_names([name]).unwrap(), Query)
            }
            ("subprotocol", ..)
                if self.prefix.as_deref().is_some_and(|form| form.starts_with("(entry after")) =>
            {
                // Deepgram's pair, whose marker is what it wants to have answered.
                let markers = ["token", "bearer"];
                let forms = markers.map(|marker| SubprotocolForm::after(marker).unwrap());
                (profile.with_subprotocols(forms).with_protocols(markers).unwrap(), Subprotocol)
            }
            ("subprotocol", ..) => (profile, Subprotocol),
            _ => return None,
        })
    }
}

impl Recording {
    fn read(json: &Value) -> Self {
        let expect = &json["expect"];
        Self {
            id: field(json, "id"),
            method: field(json, "method"),
            path_and_query: field(json, "path_and_query"),
            headers: field(json, "headers"),
            expect: Expected {
                credential: field(expect, "credential"),
                source: field(expect, "source"),
                header: field(expect, "header"),
                scheme: field(expect, "scheme"),
                param: field(expect, "param"),
                prefix: field(expect, "prefix"),
                echo: field(expect, "echo"),
                offered_without_credential: field::<Option<_>>(
                    expect,
                    "offered_without_credential",
                )
                .unwrap_or_default(),
            },
        }
    }

    fn wire(&self) -> Vec<u8> {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{} {} HTTP/1.1\r\n{headers}\r\n", self.method, self.path_and_query).into_bytes()
    }

    /// The path and the query without the parameter `name`.
    fn without_parameter(&self, name: &str) -> String {
        let Some((path, query)) = self.path_and_query.split_once('?') else {
            return self.path_and_query.clone();
        };
        let kept = query.split('&').filter(|pair| pair.split('=').next() != Some(name));
        let kept = kept.collect::<Vec<_>>().join("&");
        if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") }
    }
}

/// One field of a recording; absent is null.
fn field<T: serde::de::DeserializeOwned>(json: &Value, name: &str) -> T {
    serde_json::from_value(json[name].clone()).expect(name)
}

fn recorded() -> Vec<Recording> {
    let data: Value = serde_json::from_str(include_str!("data/handshakes.json")).expect("JSON");
    data["handshakes"].as_array().expect("a list").iter().map(Recording::read).collect()
}

/// What the inner service sees of a request.
struct Seen {
    target: String,
    headers: HeaderMap,
    principal: Principal,
}

/// One recorded handshake, sent to a server that knows these keys.
struct Sent {
    raw: Raw,
    head: Head,
    seen: Option<Seen>,
}

/// A server that knows this credential alone, and what it is called with.
async fn server(profile: Profile, known: Option<&str>) -> (SocketAddr, Arc<Mutex<Option<Seen>>>) {
    let keys = Keys::new(MemoryStore::new());
    if let Some(key) = known {
        let key = ApiKey::new(key).expect("a key");
        keys.import(&key, NewKey::secret("acme")).await.expect("imported");
    }
    let seen = Arc::new(Mutex::new(None));
    let inner = websocket_server(Arc::clone(&seen));
    let service = RealtimeAuthLayer::new(keys).with_profile(profile).layer(inner);
    (support::serve(service).await, seen)
}

async fn send(recording: &Recording, profile: Profile, known: Option<&str>) -> Sent {
    let (address, seen) = server(profile, known).await;
    let (raw, head) = Raw::send(address, &recording.wire()).await;
    let seen = seen.lock().unwrap().take();
    Sent { raw, head, seen }
}

/// Completes every handshake as a WebSocket server does, and notes what it saw of it.
fn websocket_server<B>(
    seen: Arc<Mutex<Option<Seen>>>,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(move |request: Request<B>| {
        let (parts, _) = request.into_parts();
        let version = parts.version;
        *seen.lock().unwrap() = Some(Seen {
            target: parts.uri.to_string(),
            principal: parts.extensions.get().cloned().expect("a principal"),
            headers: parts.headers,
        });
        let mut response = Response::new(Body::default());
        if version == Version::HTTP_11 {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert("connection", HeaderValue::from_static("Upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
            headers.insert("sec-websocket-accept", HeaderValue::from_static(ACCEPT));
        }
        ready(Ok(response))
    })
}

/// Asserts that the recording passes, with its credential known, and loses the credential.
async fn check_accepted(recording: &Recording, profile: Profile, by: CredentialSource) {
    let expect = &recording.expect;
    let Sent { head, seen, .. } = send(recording, profile, Some(&expect.credential)).await;
    assert_eq!(head.status, 101);
    assert_eq!(head.all("sec-websocket-accept"), [ACCEPT]);
    assert_eq!(head.all("sec-websocket-protocol"), Vec::from_iter(expect.echo.as_deref()));

    let seen = seen.expect("a call");
    assert_eq!(seen.principal.source(), by);
    let name = expect.param.as_deref().unwrap_or("api_key");
    assert_eq!(seen.target, recording.without_parameter(name));
    let offers = expect.offered_without_credential.join(", ");
    let left: Vec<_> = seen.headers.get_all("sec-websocket-protocol").iter().collect();
    assert_eq!(left, Vec::from_iter(Some(&*offers).filter(|offers| !offers.is_empty())));
    let header = expect.header.as_deref().unwrap_or("authorization");
    assert!(!seen.headers.contains_key(header));
    // What is not a credential arrives as it was sent.
    for (name, value) in &recording.headers {
        let name = name.to_ascii_lowercase();
        if name != header && name != "sec-websocket-protocol" {
            assert_eq!(seen.headers[&name], value);
        }
    }
}

/// Asserts that the recording is refused, with its credential unknown, so that its client sees it.
async fn check_refused(recording: &Recording, profile: Profile, by: CredentialSource) {
    let Sent { mut raw, head, seen } = send(recording, profile, None).await;
    assert!(seen.is_none());
    if by == CredentialSource::Header {
        assert_eq!(head.status, 401);
        let challenge = r#"Bearer realm="realtime", error="invalid_token""#;
        assert_eq!(head.all("www-authenticate"), [challenge]);
    } else {
        assert_eq!(head.status, 101);
        let echo = recording.expect.echo.as_deref();
        assert_eq!(head.all("sec-websocket-protocol"), Vec::from_iter(echo));
        let (event, _) = raw.frame().await.expect("an error event");
        let (close, payload) = raw.frame().await.expect("a Close");
        assert_eq!((event, close, &payload[..2]), (0x81, 0x88, &4001_u16.to_be_bytes()[..]));
    }
}

/// Says which recording failed, whatever it is that fails.
struct Named<'a>(&'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: the recording {}", self.0);
        }
    }
}

#[tokio::test]
async fn what_real_clients_send_is_taken_and_stripped() {
    let mut counts = [0; 3];
    for recording in &recorded() {
        let Some((profile, by)) = recording.expect.profile() else { continue };
        let _named = Named(&recording.id);
        check_accepted(recording, profile.clone(), by).await;
        check_refused(recording, profile, by).await;
        counts[by as usize] += 1;
    }
    // Headers, queries, subprotocols: none is lost from the data unnoticed.
    assert_eq!(counts, [26, 8, 14]);
}

/// Soniox's clients send the key in their first message: nothing for this layer.
#[tokio::test]
async fn a_key_that_is_not_in_the_request_is_not_found() {
    let mut ids = Vec::new();
    for recording in &recorded() {
        if recording.expect.profile().is_some() {
            continue;
        }
        let _named = Named(&recording.id);
        let credential = &recording.expect.credential;
        let Sent { head, seen, .. } = send(recording, Profile::default(), Some(credential)).await;
        assert!(seen.is_none());
        assert_eq!(head.status, 401);
        ids.push(recording.id.clone());
    }
    assert_eq!(ids, ["soniox-js"]);
}

/// The same clients, were they to speak HTTP/2, as browsers do where a server lets them: each
/// handshake as an extended CONNECT (RFC 8441).
#[tokio::test]
async fn the_same_over_http2() {
    for recording in &recorded() {
        let Some((profile, by)) = recording.expect.profile() else { continue };
        let _named = Named(&recording.id);
        let expect = &recording.expect;
        let echo = Vec::from_iter(expect.echo.as_deref());

        let (response, seen) = connect(recording, profile.clone(), Some(&expect.credential)).await;
        assert_eq!(response.status(), 200);
        assert_eq!(protocols(&response), echo);
        let seen = seen.expect("a call");
        assert_eq!(seen.principal.source(), by);
        let name = expect.param.as_deref().unwrap_or("api_key");
        assert_eq!(
            seen.target,
            format!("http://api.example.com{}", recording.without_parameter(name))
        );
        assert!(!seen.headers.contains_key(expect.header.as_deref().unwrap_or("authorization")));

        let (response, seen) = connect(recording, profile, None).await;
        assert!(seen.is_none());
        if by == CredentialSource::Header {
            assert_eq!(response.status(), 401);
            continue;
        }
        assert_eq!(response.status(), 200);
        assert_eq!(protocols(&response), echo);
        let mut socket = TokioIo::new(hyper::upgrade::on(response).await.expect("a stream"));
        let mut said = Vec::new();
        while !said.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == 4001_u16.to_be_bytes())
        {
            let len = socket.read_buf(&mut said).await.expect("bytes");
            assert!(len > 0, "the stream ends before the Close: {said:02x?}");
        }
        assert_eq!(said[0], 0x81, "an error event comes first");
    }
}

async fn connect(
    recording: &Recording,
    profile: Profile,
    known: Option<&str>,
) -> (Response<Incoming>, Option<Seen>) {
    let (address, seen) = server(profile, known).await;
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    // The settings, which allow the extended CONNECT, come with the first answer.
    let first = Request::get("http://api.example.com/").body(Body::default()).expect("a request");
    client.send_request(first).await.expect("an answer");

    let mut request =
        Request::connect(format!("http://api.example.com{}", recording.path_and_query))
            .extension(hyper::ext::Protocol::from_static("websocket"));
    for (name, value) in &recording.headers {
        let of_http1 = ["host", "connection", "upgrade", "sec-websocket-key"];
        if !of_http1.contains(&&*name.to_ascii_lowercase()) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Body::default()).expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    let seen = seen.lock().unwrap().take();
    (response, seen)
}

fn protocols(response: &Response<Incoming>) -> Vec<&str> {
    let values = response.headers().get_all("sec-websocket-protocol").iter();
    values.map(|value| value.to_str().expect("text")).collect()
}
