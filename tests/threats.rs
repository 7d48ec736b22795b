//! Threats, each with the figure it is held to: nobody gets in without a key, whatever is asked and
//! however it is dressed.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use support::{Body, CountingRuntime, Raw, StoreFn, handshake, keys_with_secret, serve};
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_realtime_auth::{
    Answer, Closing, CredentialSource, Grants, KeyDigest, Keys, MemoryStore, NewKey, Principal,
    RealtimeAuthLayer, RefusalMode, Rejection, RejectionKind,
    http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version},
};

type Service = BoxCloneSyncService<Request<()>, Response<Body>, Infallible>;

/// A service behind the layer that counts its calls and tells the account it was called by.
fn counting(keys: Keys<MemoryStore>) -> (Service, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let inner = service_fn(move |request: Request<()>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let account = request.extensions().get::<Principal>().map(Principal::account);
        let account = account.unwrap_or("nobody").to_owned();
        async move { Ok::<_, Infallible>(Response::new(Body::from(account))) }
    });
    let layer = RealtimeAuthLayer::new(keys).with_refusal(RefusalMode::Never);
    (BoxCloneSyncService::new(layer.layer(inner)), calls)
}

fn rejection(response: &Response<Body>) -> Option<RejectionKind> {
    response.extensions().get::<Rejection>().map(Rejection::kind)
}

/// T1: every method, target, version and upgrade, without a key.
#[tokio::test]
async fn without_a_key_nothing_passes() {
    let (keys, _) = keys_with_secret().await;
    let (service, calls) = counting(keys);
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND",
        "get", "BREW",
    ];
    let targets = [
        "/",
        "/v1/realtime",
        "/v1/realtime?model=m",
        "//v1/realtime",
        "/v1/../v1/realtime",
        "/%2e%2e/",
        "*",
        "http://host/v1/realtime",
        "https://host:1/x?api_key=",
        "host:443",
    ];
    let versions = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2];
    let dresses: [&[(&str, &str)]; 6] = [
        &[],
        &[("upgrade", "h2c"), ("connection", "upgrade, http2-settings")],
        &[("upgrade", "websocket"), ("connection", "upgrade")],
        &[
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "realtime"),
        ],
        &[("authorization", "Basic dTpw"), ("cookie", "api_key=k"), ("x-forwarded-user", "acme")],
        &[
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization"),
        ],
    ];
    let mut asked = 0;
    for method in methods {
        for target in targets {
            for version in versions {
                for dress in dresses {
                    let mut request = Request::new(());
                    *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
                    *request.uri_mut() = target.parse().unwrap();
                    *request.version_mut() = version;
                    for (name, value) in dress {
                        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                        request.headers_mut().append(name, HeaderValue::from_static(value));
                    }
                    // What an attacker might hope that somebody put there.
                    let context = format!("{method} {target} {version:?} {dress:?}");
                    let response = service.clone().oneshot(request).await.unwrap();
                    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{context}");
                    assert!(response.headers().contains_key("www-authenticate"), "{context}");
                    assert_eq!(rejection(&response), Some(RejectionKind::Missing), "{context}");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked >= 500, "{asked} requests");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// T11: what a thief of the store has is no credential, however it is written.
#[tokio::test]
async fn a_digest_is_no_key() {
    let keys = Keys::new(MemoryStore::new());
    let (service, calls) = counting(keys.clone());
    let mut raw = 0;
    for _ in 0..10_000 {
        let issued = keys.issue(NewKey::secret("acme")).await.unwrap();
        let digest = issued.record().digest().as_bytes();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let texts = [
            hex.to_uppercase(),
            hex,
            BASE64_STANDARD.encode(digest),
            BASE64_URL_SAFE_NO_PAD.encode(digest),
            issued.record().id().to_string(),
        ];
        for (text, stolen) in
            texts.iter().map(|text| (true, text.as_bytes())).chain([(false, &digest[..])])
        {
            // Not every byte may stand in a header.
            let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", stolen].concat()) else {
                assert!(!text);
                continue;
            };
            raw += usize::from(!text);
            let request = Request::builder().header("authorization", value).body(()).unwrap();
            let response = service.clone().oneshot(request).await.unwrap();
            let kind = rejection(&response);
            assert!(
                if text { kind == Some(RejectionKind::Unknown) } else { kind.is_some() },
                "{kind:?}"
            );
        }
    }
    assert!(raw > 0, "some are legal");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// T13: what is too long is refused for its length, before it is hashed or looked up.
#[tokio::test]
async fn too_much_is_refused_unread() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lookups);
    let store = StoreFn(move |_: &KeyDigest| {
        counted.fetch_add(1, Ordering::SeqCst);
        Answer::ready(Ok(None))
    });
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::default())));
    let service = RealtimeAuthLayer::new(store).with_refusal(RefusalMode::Never).layer(inner);
    let ask =
        async |request: Request<()>| rejection(&service.clone().oneshot(request).await.unwrap());
    // Up to what hyper lets through: a target of 64 KiB, a header of 400 KiB.
    for len in [4_097, 10_000, 60_000, 400_000] {
        let long = "k".repeat(len);
        let bearer = Request::builder().header("authorization", format!("Bearer {long}"));
        let offer = upgrade().header("sec-websocket-protocol", format!("xai-client-secret.{long}"));
        let mut requests = vec![bearer, offer];
        if len < 65_000 {
            requests.push(Request::builder().uri(format!("/?api_key={long}")));
            requests.push(
                Request::builder().uri(format!("/?api_key={}", "%6b".repeat(len.min(20_000)))),
            );
        }
        for request in requests {
            let request = request.body(()).unwrap();
            assert_eq!(ask(request).await, Some(RejectionKind::Malformed), "{len} bytes");
        }
    }
    let many = upgrade().header("sec-websocket-protocol", ["a"; 33].join(","));
    assert_eq!(ask(many.body(()).unwrap()).await, Some(RejectionKind::Malformed));
    assert_eq!(lookups.load(Ordering::SeqCst), 0);
    let whole = Request::builder().header("authorization", format!("Bearer {}", "k".repeat(4_096)));
    assert_eq!(ask(whole.body(()).unwrap()).await, Some(RejectionKind::Unknown));
    assert_eq!(lookups.load(Ordering::SeqCst), 1);
}

/// T15: 10,000 peers that never answer the Close are gone with the deadline. Over pipes in memory,
/// because sockets are fewer.
#[tokio::test]
async fn ten_thousand_stuck_peers_are_left() {
    const PEERS: usize = 10_000;
    let (keys, _) = keys_with_secret().await;
    let runtime = CountingRuntime::default();
    let closing = Closing::default()
        .with_max_lingering(PEERS)
        .with_deadline(std::time::Duration::from_secs(2));
    let layer = RealtimeAuthLayer::new_with_runtime(keys, runtime.clone()).with_closing(closing);
    let inner = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Body::default()))
    });
    let service = layer.clone().layer(inner);
    let refused = handshake("/?api_key=bad", &[]);
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let (mut client, server) = tokio::io::duplex(1024);
        let service = hyper_util::service::TowerToHyperService::new(service.clone());
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(server), service)
                .with_upgrades(),
        );
        tokio::io::AsyncWriteExt::write_all(&mut client, refused.as_bytes()).await.unwrap();
        peers.push(client);
    }
    for peer in &mut peers {
        // Told, and silent: what it is told ends with the end of the connection.
        let mut told = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(peer, &mut told).await.unwrap();
        assert!(told.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&told));
    }
    runtime.idle().await;
    assert_eq!((runtime.spawned(), layer.lingering()), (PEERS, 0));
}

fn upgrade() -> tower_realtime_auth::http::request::Builder {
    Request::builder()
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// T17: what follows a refused upgrade on its connection is not read as anything.
#[tokio::test]
async fn nothing_is_smuggled_behind_a_refused_upgrade() {
    let (keys, secret) = keys_with_secret().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let inner = service_fn(move |_: Request<hyper::body::Incoming>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(Response::new(Body::default())) }
    });
    let address = serve(RealtimeAuthLayer::new(keys).layer(inner)).await;
    let second = format!("GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {secret}\r\n\r\n");
    let refused = handshake("/", &[("Authorization", "Bearer wrong")]);
    let unrecognised = format!(
        "GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {secret}\r\nConnection: upgrade\r\n\
         Upgrade: h2c\r\n\r\n"
    );
    for first in [refused, unrecognised] {
        let (mut raw, head) = Raw::send(address, format!("{first}{second}").as_bytes()).await;
        assert!(head.status == 401 || head.status == 426, "{head:?}");
        assert!(head.all("connection").iter().any(|value| value.contains("close")), "{head:?}");
        let rest = raw.rest().await;
        let answers = rest.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count();
        assert_eq!(answers, 0, "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// T29: an origin is compared byte for byte, and there is one.
#[tokio::test]
async fn origins_are_exact() {
    let keys = Keys::new(MemoryStore::new());
    let origins = ["https://app.example", "http://localhost:3000", "https://xn--bcher-kva.example"];
    let grants = Grants::default().with_origins(origins);
    let issued = keys.issue(NewKey::secret("acme").with_grants(grants)).await.unwrap();
    let (service, _) = counting(keys);
    let ask = async |sent: &[&[u8]]| {
        let mut request = Request::builder()
            .header("authorization", format!("Bearer {}", issued.key().expose()))
            .body(())
            .unwrap();
        for origin in sent {
            request.headers_mut().append("origin", HeaderValue::from_bytes(origin).unwrap());
        }
        service.clone().oneshot(request).await.unwrap()
    };
    for origin in origins {
        assert_eq!(ask(&[origin.as_bytes()]).await.status(), StatusCode::OK, "{origin}");
    }
    let wrong: [&[&[u8]]; 60] = [
        &[],
        &[b""],
        &[b"null"],
        &[b"https://app.example", b"https://app.example"],
        &[b"https://app.example", b"https://evil.example"],
        &[b"https://evil.example", b"https://app.example"],
        &[b"https://app.example, https://evil.example"],
        &[b"https://app.example https://evil.example"],
        &[b"http://app.example"],
        &[b"wss://app.example"],
        &[b"ws://app.example"],
        &[b"//app.example"],
        &[b"app.example"],
        &[b"https://app.example/"],
        &[b"https://app.example/x"],
        &[b"https://app.example?x"],
        &[b"https://app.example#x"],
        &[b"https://app.example:443"],
        &[b"https://app.example:8443"],
        &[b"https://app.example."],
        &[b"https://app.example.evil.example"],
        &[b"https://app.example.evil"],
        &[b"https://evil-app.example"],
        &[b"https://evilapp.example"],
        &[b"https://sub.app.example"],
        &[b"https://app.exampl"],
        &[b"https://app.examplee"],
        &[b"https://pp.example"],
        &[b"HTTPS://app.example"],
        &[b"https://APP.example"],
        &[b"https://App.Example"],
        &[b"https://user@app.example"],
        &[b"https://user:pw@app.example"],
        &[b"https://app.example@evil.example"],
        &[b"https://evil.example@app.example"],
        &[b"https://app.example:443@evil.example"],
        &[b"https://app%2eexample"],
        &[b"https%3a//app.example"],
        &[b"https:/app.example"],
        &[b"https:app.example"],
        &[b"https:\\\\app.example"],
        &[b"https://app\\.example"],
        &[b"https:// app.example"],
        &[b"https://app.example\t"],
        &[b"\"https://app.example\""],
        &[b"'https://app.example'"],
        &[b"<https://app.example>"],
        &[b"https://app.example;"],
        &[b"https://app.example\xff"],
        &[b"https://app\xe3\x80\x82example"],
        &["https://b\u{fc}cher.example".as_bytes()],
        &["https://\u{430}pp.example".as_bytes()],
        &[b"https://XN--BCHER-KVA.example"],
        &[b"http://localhost"],
        &[b"http://localhost:30000"],
        &[b"http://localhost:3001"],
        &[b"http://localhost:03000"],
        &[b"http://127.0.0.1:3000"],
        &[b"http://[::1]:3000"],
        &[b"file://"],
    ];
    for sent in wrong {
        let response = ask(sent).await;
        assert_eq!(rejection(&response), Some(RejectionKind::Origin), "{sent:?}");
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{sent:?}");
    }
}

/// T30: what a proxy might have added, or an attacker in its name, decides nothing.
#[tokio::test]
async fn headers_that_are_not_ours_decide_nothing() {
    let hostile: [(&str, &str); 40] = [
        ("host", "evil.example"),
        ("forwarded", "for=127.0.0.1;host=localhost;proto=https"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "localhost"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/public"),
        ("x-forwarded-uri", "/public"),
        ("x-forwarded-method", "OPTIONS"),
        ("x-forwarded-user", "acme"),
        ("x-forwarded-email", "root@acme.example"),
        ("x-forwarded-access-token", "t"),
        ("x-real-ip", "127.0.0.1"),
        ("x-client-ip", "127.0.0.1"),
        ("x-original-url", "/public"),
        ("x-original-uri", "/public"),
        ("x-rewrite-url", "/public"),
        ("x-http-method", "OPTIONS"),
        ("x-http-method-override", "OPTIONS"),
        ("x-method-override", "GET"),
        ("x-remote-user", "acme"),
        ("x-remote-group", "system:masters"),
        ("x-auth-request-user", "acme"),
        ("x-auth-token", "t"),
        ("x-account", "acme"),
        ("x-user", "acme"),
        ("x-principal", "acme"),
        ("x_api_key", "k"),
        ("api_key", "k"),
        ("authorization_", "Bearer k"),
        ("proxy-authorization", "Bearer k"),
        ("x-authorization", "Bearer k"),
        ("cookie", "api_key=k; session=s"),
        ("referer", "https://app.example/?api_key=k"),
        ("x-model", "m"),
        ("x-environment", "live"),
        ("via", "1.1 trusted"),
        ("true-client-ip", "127.0.0.1"),
        ("x-envoy-internal", "true"),
        ("x-tls-client-subject", "CN=acme"),
    ];
    let keys = Keys::new(MemoryStore::new());
    let good = keys.issue(NewKey::secret("acme")).await.unwrap();
    let bound = Grants::default().with_models(["m"]);
    let bound = keys.issue(NewKey::secret("bound").with_grants(bound)).await.unwrap();
    let (service, _) = counting(keys);
    let credentials = [
        None,
        Some(format!("Bearer {}", good.key().expose())),
        Some(format!("Bearer {}", bound.key().expose())),
        Some("Bearer unknown".to_owned()),
        Some("Basic dTpw".to_owned()),
    ];
    let targets =
        ["/", "/v1/realtime?model=m", "/v1/realtime?model=n", "/?api_key=unknown", "/?a=b"];
    let mut compared = 0;
    for credential in &credentials {
        for target in targets {
            let ask = async |extra: &[(&'static str, &'static str)]| {
                let mut request = Request::builder().uri(target);
                if let Some(credential) = credential {
                    request = request.header("authorization", credential);
                }
                for (name, value) in extra {
                    request = request.header(*name, *value);
                }
                let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
                (response.status(), rejection(&response))
            };
            let plain = ask(&[]).await;
            for header in hostile {
                assert_eq!(ask(&[header]).await, plain, "{credential:?} {target} {header:?}");
                compared += 1;
            }
            assert_eq!(ask(&hostile).await, plain, "{credential:?} {target}");
        }
    }
    assert!(compared >= 1_000, "{compared} requests");
}

/// The source is told from the request alone, in the fixed order.
#[tokio::test]
async fn a_principal_of_the_client_is_replaced() {
    let (keys, secret) = keys_with_secret().await;
    let issued = keys.issue(NewKey::secret("mallory")).await.unwrap();
    let forged = Principal::new(Arc::clone(issued.record()), CredentialSource::Header, keys.now());
    let (service, _) = counting(keys);
    let request = Request::builder()
        .header("authorization", format!("Bearer {secret}"))
        .extension(forged)
        .body(())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "acme");
}
