//! A realtime server whose voice model is simulated and whose authentication is real.
//!
//!     cargo run --example gateway
//!     cargo run --example gateway -- --tls      # for WebSockets over HTTP/2
//!     cargo run --example gateway -- --help
//!
//! Put a model in the place of `model.rs` and it is yours.

mod model;
mod realtime;
mod server;
mod tls;
mod transcript;

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use axum::{Router, routing::any};
use clap::{Parser, ValueEnum};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tower::Layer as _;
use tower_realtime_auth::{
    ApiKey, ClientSecrets, Environment, KeyAdmin, Keys, MemoryStore, NewKey, Profile,
    RealtimeAuthLayer,
};

use crate::{realtime::Gateway, tls::Tls, transcript::Transcript};

/// The account that keys given or made at the start belong to.
const ACCOUNT: &str = "demo";

/// A realtime gateway with simulated sessions and real authentication.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,

    /// A secret key of your own, to be let in; may be repeated. Without one, a fresh key is made
    /// and shown once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,

    /// Where keys are kept
    #[arg(long, value_enum, default_value_t = StoreKind::Memory)]
    store: StoreKind,

    /// Whose clients are served: where they put their keys, and what they are told
    #[arg(long, value_enum, default_value_t = ProfileKind::Any)]
    profile: ProfileKind,

    /// Speak TLS, with a certificate made at the start and signed by nobody else
    #[arg(long)]
    tls: bool,

    /// Write down every event that the model sees, a line for each
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreKind {
    /// In this process; gone when it ends
    Memory,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileKind {
    /// All of them at once
    Any,
    Openai,
    Xai,
    Decart,
    Swaram,
    Svara,
}

impl ProfileKind {
    fn profile(self) -> Profile {
        match self {
            Self::Any => Profile::default(),
            Self::Openai => Profile::openai(),
            Self::Xai => Profile::xai(),
            Self::Decart => Profile::decart(),
            Self::Swaram => Profile::swaram(),
            Self::Svara => Profile::svara(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();

    let store: Arc<dyn KeyAdmin> = match args.store {
        StoreKind::Memory => Arc::new(MemoryStore::new()),
    };
    let keys = Keys::new(store);
    for key in args.keys.iter().cloned() {
        let key = ApiKey::new(key).map_err(|error| format!("--key: {error}"))?;
        let new = NewKey::secret(ACCOUNT).with_environment(environment_of(&key));
        keys.import(&key, new).await.map_err(|error| format!("--key: {error}"))?;
    }

    let transcript = args.transcript.as_deref().map(Transcript::open).transpose();
    let transcript = transcript.map_err(|error| format!("--transcript: {error}"))?.map(Arc::new);

    let profile = args.profile.profile();
    let mint = ClientSecrets::new(keys.clone()).with_profile(&profile);
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let api = Router::new()
        // `any`, because a WebSocket over HTTP/2 is a CONNECT and not a GET.
        .route("/v1/realtime", any(realtime::connect))
        .route_service("/v1/realtime/client_secrets", mint)
        .with_state(Gateway { stopping: stopping.clone(), transcript });
    // Round the whole router, so that no key is left in what the router remembers of a request.
    let app = RealtimeAuthLayer::new(keys.clone()).with_profile(profile).layer(api);

    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let address = listener.local_addr()?;
    let tls = args.tls.then(|| Tls::self_signed(address.ip())).transpose()?;
    println!("listening on {}://{address}", if args.tls { "https" } else { "http" });
    if args.keys.is_empty() {
        let new = NewKey::secret(ACCOUNT).with_environment(Environment::Test);
        let issued = keys.issue(new).await?;
        greet(address, args.tls, issued.key().expose());
    }
    std::io::stdout().flush()?;

    let serving = tokio::spawn(server::serve(listener, tls, app, stopping));
    wait_for_signal().await?;
    tracing::info!("stopping");
    stop.send_replace(true);
    server::ended(serving, stop).await;
    Ok(())
}

/// Svara's and Stripe's way of marking keys for rehearsals.
fn environment_of(key: &ApiKey) -> Environment {
    if key.expose().starts_with("sk_test_") { Environment::Test } else { Environment::Live }
}

fn greet(address: SocketAddr, tls: bool, key: &str) {
    // Nobody but us vouches for our certificate: curl is told not to ask.
    let (curl, ws) = if tls {
        (format!("curl -k https://{address}"), "wss")
    } else {
        (format!("curl http://{address}"), "ws")
    };
    println!(
        r#"
A secret key, shown this once; it belongs on a server:

    {key}

Mint a token for a browser, with a voice that the browser cannot change:

    {curl}/v1/realtime/client_secrets \
      -H 'Authorization: Bearer {key}' \
      -d '{{"expires_after": {{"seconds": 600}}, "session": {{"voice": "marin"}}}}'

Connect with it, for instance in the console of a browser:

    const socket = new WebSocket("{ws}://{address}/v1/realtime?model=demo",
      ["realtime", "openai-insecure-api-key." + TOKEN]);
    socket.onmessage = event => console.log(event.data);
    socket.onclose = event => console.log(event.code, event.reason);
"#
    );
    if tls {
        println!("Before that, open https://{address}/ there and accept its certificate.\n");
    }
}

async fn wait_for_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
