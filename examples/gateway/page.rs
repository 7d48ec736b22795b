//! The page at `/`, on which a person tries the gateway from a browser.
//!
//! It is public, which is why no secret key reaches it: its tokens are minted with a key that stays
//! in this process, for the page alone, and on a loopback address alone.

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN,
            REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, any, get, post, post_service},
};
use clap::ValueEnum as _;
use serde_json::json;
use tower::{Layer as _, ServiceExt as _};
use tower_realtime_auth::{
    ClientSecrets, Environment, Grants, LimitLayer, NewKey, RealtimeAuthLayer,
};

use crate::server::{ACCOUNT, Public, Server};

/// How long the page can mint at most.
const PAGE_KEY_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const MINT: &str = "/demo/client_secrets";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const REFUSED_BY_STATUS: &str = "/demo/refused-by-status";

/// No script, style or connection but this server's own; the icon is part of the page.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page of this server, and what it needs.
pub async fn public(server: &Server) -> Result<Public, Box<dyn Error>> {
    let Server { address, scheme, profile, .. } = *server;
    // The page says what is different by this profile, and offers what works.
    let name = profile.to_possible_value().ok_or("a profile without a name")?;
    let html = include_str!("page/index.html")
        .replace(r#"data-profile="any""#, &format!(r#"data-profile="{}""#, name.get_name()));
    let routes = Router::new()
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/page.js", file(SCRIPT, include_str!("page/page.js")))
        .route("/profiles.js", file(SCRIPT, include_str!("page/profiles.js")))
        // For comparison, a refusal as most servers make it; the layer's own ends with a code.
        .route(REFUSED_BY_STATUS, any(StatusCode::UNAUTHORIZED));
    let mut key = None;
    let routes = if address.ip().is_loopback() {
        // Should this process be killed, its key ends by itself. It has the plan that the others
        // have: the page is no way round it, and shows what becomes of who goes past it.
        let new = NewKey::secret(ACCOUNT)
            .with_environment(Environment::Test)
            .with_lifetime(PAGE_KEY_LIFETIME)
            .with_grants(Grants::default().with_plan(server.plan));
        let issued = server.keys.issue(new).await?;
        key = Some(issued.record().id().clone());
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", issued.key().expose()))?;
        bearer.set_sensitive(true);
        routes
            .route("/", file("text/html; charset=utf-8", html))
            .route(MINT, minting(server, bearer, Origins::of(address, scheme)))
    } else {
        let html = html.replace(r#"data-minting="on""#, r#"data-minting="off""#);
        let hint = "This gateway does not listen on a loopback address, so that others could mint \
                    here too. Mint at /v1/realtime/client_secrets with a secret key.";
        routes
            .route("/", file("text/html; charset=utf-8", html))
            .route(MINT, post(move || async move { forbidden("demo_minting_off", hint) }))
    };
    let paths = &["/", "/page.css", "/page.js", "/profiles.js", MINT, REFUSED_BY_STATUS];
    Ok(Public { paths, routes, key })
}

fn file(media_type: &'static str, text: impl Into<String>) -> MethodRouter {
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    get((headers, text.into()))
}

/// The mint endpoint as it is, but for the page: with `bearer` in the place of a backend's key.
fn minting(server: &Server, bearer: HeaderValue, origins: Origins) -> MethodRouter {
    let profile = server.profile.profile();
    let mint = ClientSecrets::new(server.keys.clone()).with_profile(&profile);
    // The path is public, so that the layers round the server know of no key here.
    let mint = LimitLayer::new(server.limits.clone()).layer(mint);
    let mint = RealtimeAuthLayer::new(server.keys.clone()).with_profile(profile).layer(mint);
    let mint = mint.map_request(move |mut request: Request| {
        request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        request
    });
    post_service(mint).layer(from_fn_with_state(origins, of_this_page))
}

/// Lets through what the page itself sends. What another site sends names that site in `Origin`;
/// one whose name was made to lead here (DNS rebinding) shows in `Host`.
async fn of_this_page(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    if origins.have(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let hint = format!(
        "Only this gateway's own page mints here. Open it at {}/, or mint at \
         /v1/realtime/client_secrets with a secret key.",
        origins.0[0],
    );
    forbidden("origin_not_allowed", &hint)
}

/// The origins that the page can have.
#[derive(Clone)]
struct Origins([String; 2]);

impl Origins {
    fn of(address: SocketAddr, scheme: &str) -> Self {
        // Browsers leave out the port that everybody knows.
        let port = match (scheme, address.port()) {
            ("http", 80) | ("https", 443) => String::new(),
            (_, port) => format!(":{port}"),
        };
        let ip = match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        Self([format!("{scheme}://{ip}{port}"), format!("{scheme}://localhost{port}")])
    }

    /// Whether `Origin` is one of these and the request was sent to the same.
    fn have(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        // HTTP/2 has the host in the URI.
        let host = uri.authority().map_or_else(|| only(headers, &HOST), |host| Some(host.as_str()));
        let (Some(host), Some(origin)) = (host, only(headers, &ORIGIN)) else { return false };
        let sent_to = |own: &str| own.split_once("://").is_some_and(|(_, own)| own == host);
        self.0.iter().any(|own| own == origin && sent_to(own))
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn forbidden(code: &str, message: &str) -> Response {
    let error = json!({
        "type": "invalid_request_error", "code": code, "message": message, "param": null,
    });
    (StatusCode::FORBIDDEN, [(CACHE_CONTROL, "no-store")], Json(json!({ "error": error })))
        .into_response()
}
