//! What the realtime servers among the examples share: flags, keys, routes, sessions, and how they
//! end.

mod drained;
mod greeting;
mod guessing;
mod http;
mod plan;
mod profile_kind;
pub mod session;
mod signing;
#[path = "../store.rs"]
mod store;
mod tls;

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{Router, http::Uri};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tower::Layer as _;
use tower_realtime_auth::{
    ApiKey, ClientSecrets, ClientTokens, Environment, Grants, KeyError, KeyId, Keys, LimitLayer,
    MemoryLimits, NewKey, Plan, Policy, Profile, RealtimeAuthLayer, RealtimeSessions,
    SqliteOptions, StoreError, TranscriptionSessions,
};

use self::{
    greeting::greet, guessing::Guessing, plan::PlanFlags, signing::Signing, store::StoreName,
    tls::Tls,
};
pub use self::{profile_kind::ProfileKind, store::Store};

/// The account that keys given or made at the start belong to.
pub const ACCOUNT: &str = "demo";

/// How long the key lives that is shown at the start.
const GREETING_KEY_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the store may take at the end.
const FAREWELL: Duration = Duration::from_millis(500);
/// Where Decart's clients ask for tokens.
const CLIENT_TOKENS: &str = "/v1/client/tokens";
/// Where Decart's clients hold their sessions.
pub const STREAM: &str = "/v1/stream";
/// Where Svara's clients send messages, and where they ask for what is left.
pub const SEND: &str = "/v1/send";
pub const USAGE: &str = "/v1/usage";

/// Says, to everything that runs, when it is to end. Held while it runs.
pub type Stopping = watch::Receiver<bool>;

#[derive(clap::Args)]
pub struct Flags {
    /// Where to listen; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,

    /// A secret key of your own, to be let in; may be repeated. Without one, a fresh key is made
    /// and shown once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,

    /// Where keys are kept: memory, or sqlite:FILE, which is made if there is none
    #[arg(long, default_value = "sqlite:keys.db")]
    store: StoreName,

    /// How soon sessions end whose key another process takes back, if they share a store
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = humantime::parse_duration)]
    revoked_within: Duration,

    /// Whose clients are served: where they put their keys, and what they are told
    #[arg(long, value_enum, default_value_t = ProfileKind::Any)]
    profile: ProfileKind,

    #[command(flatten)]
    signing: Signing,

    #[command(flatten)]
    guessing: Guessing,

    /// Speak TLS, with a certificate made at the start and signed by nobody else
    #[arg(long)]
    tls: bool,

    #[command(flatten)]
    plan: PlanFlags,
}

/// A server that is about to start.
pub struct Server {
    pub address: SocketAddr,
    pub scheme: &'static str,
    pub profile: ProfileKind,
    pub keys: Keys<Store>,
    /// Of keys that are made or imported at the start.
    pub plan: Plan,
    /// Where keys are held to their plans.
    pub limits: MemoryLimits,
}

/// What a server shows to everybody, key or no key.
#[derive(Default)]
pub struct Public {
    /// The paths of all routes.
    pub paths: &'static [&'static str],
    pub routes: Router,
    /// A key that is theirs and ends with this process.
    pub key: Option<KeyId>,
}

/// Serves `sessions` and mints tokens for them, to whoever has a key, until a signal comes; and
/// what `public` makes for this server, to everybody.
pub async fn run(
    flags: Flags,
    sessions: impl FnOnce(Stopping) -> Router,
    public: impl AsyncFnOnce(&Server) -> Result<Public, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let options = SqliteOptions::default().with_revoked_within(flags.revoked_within);
    let store = flags.store.open(options).await.map_err(|error| unopened(&flags.store, &error))?;
    let listener = TcpListener::bind(flags.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", flags.listen))?;
    let address = listener.local_addr()?;
    let scheme = if flags.tls { "https" } else { "http" };

    let signer = flags.signing.signer(&format!("{scheme}://{address}"))?;
    let jwks = signing::jwks(&signer);
    let keys = Keys::new(store).with_signer(signer).with_actor(format!("server at {address}"));
    let plan = flags.plan.plan();
    for key in &flags.keys {
        take_in(&keys, key, plan).await.map_err(|error| format!("--key: {error}"))?;
    }

    let profile = flags.profile.profile();
    let limits = MemoryLimits::new();
    let server =
        Server { address, scheme, profile: flags.profile, keys: keys.clone(), plan, limits };
    let Public { paths, routes, key } = public(&server).await?;
    let secrets = ClientSecrets::new(keys.clone()).with_profile(&profile);
    let realtime_sessions = RealtimeSessions::new(keys.clone()).with_profile(&profile);
    let transcription_sessions = TranscriptionSessions::new(keys.clone()).with_profile(&profile);
    let (stop, stopping) = watch::channel(false);
    let api = sessions(stopping.clone())
        .route_service("/v1/realtime/client_secrets", secrets)
        .route_service("/v1/realtime/sessions", realtime_sessions)
        .route_service("/v1/realtime/transcription_sessions", transcription_sessions)
        .route_service(CLIENT_TOKENS, ClientTokens::new(keys.clone()))
        .route(signing::JWKS, jwks)
        .merge(routes);
    let (decart, svara) = (Arc::new(Profile::decart()), Arc::new(Profile::svara()));
    // Round the whole router, so that no key is left in what the router remembers of a request.
    let app = flags
        .guessing
        .limit(RealtimeAuthLayer::new(keys.clone()))?
        .with_profile(profile)
        .with_policy(move |_, uri| policy(paths, &decart, &svara, uri))
        // Behind it, because it is the key whose plan counts.
        .layer(LimitLayer::new(server.limits.clone()).layer(api));

    let tls = flags.tls.then(|| Tls::self_signed(address.ip())).transpose()?;
    println!("listening on {scheme}://{address}");
    if flags.keys.is_empty() {
        // It is kept; those of many starts are not to pile up for ever.
        let new = NewKey::secret(ACCOUNT)
            .with_environment(Environment::Test)
            .with_lifetime(GREETING_KEY_LIFETIME)
            .with_grants(Grants::default().with_plan(server.plan));
        let issued = server.keys.issue(new).await?;
        greet(&server, issued.key().expose());
    }
    if paths.contains(&"/") {
        println!("Open {scheme}://{address}/ in a browser to try all of it.\n");
    }
    std::io::stdout().flush()?;

    let serving = tokio::spawn(http::serve(listener, tls, app, stopping));
    wait_for_signal().await?;
    tracing::info!("stopping");
    stop.send_replace(true);
    http::ended(serving, stop).await;
    if let Some(key) = key {
        match timeout(FAREWELL, keys.remove(&key)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let error = &error as &dyn Error;
                tracing::warn!(error, "the page's own key stays until it expires");
            }
            Err(_) => tracing::warn!("the page's own key stays until it expires"),
        }
    }
    Ok(())
}

fn unopened(store: &StoreName, error: &StoreError) -> String {
    let why = error.source().map(|source| format!(": {source}"));
    format!("cannot open {store}: {error}{}", why.unwrap_or_default())
}

/// Lets a key in that was made elsewhere. One that is known already stays as it is.
async fn take_in(keys: &Keys<Store>, key: &str, plan: Plan) -> Result<(), KeyError> {
    let key = ApiKey::new(key)?;
    let new = NewKey::secret(ACCOUNT)
        .with_environment(environment_of(&key))
        .with_grants(Grants::default().with_plan(plan));
    match keys.import(&key, new).await {
        Err(KeyError::Taken) if plan == Plan::default() => {
            tracing::info!("the key is known already and stays as it is");
            Ok(())
        }
        Err(KeyError::Taken) => {
            tracing::warn!(
                "the key is known already and stays as it is; `keys plan` changes plans"
            );
            Ok(())
        }
        imported => imported.map(drop),
    }
}

/// What a request needs if these paths are public.
fn policy(public: &[&str], decart: &Arc<Profile>, svara: &Arc<Profile>, uri: &Uri) -> Policy {
    match uri.path() {
        signing::JWKS => Policy::Public,
        path if public.contains(&path) => Policy::Public,
        // Those who call there send their key as Decart has it, and read its refusals.
        CLIENT_TOKENS | STREAM => Policy::ProtectedBy(Arc::clone(decart)),
        // Those are told in Svara's headers what is left.
        SEND | USAGE => Policy::ProtectedBy(Arc::clone(svara)),
        _ => Policy::Protected,
    }
}

/// Logs to stderr, by `RUST_LOG`.
pub fn log() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
}

/// Waits until everything is to end.
pub async fn stopped(stopping: &mut Stopping) {
    // Without a sender nobody is left to go on for.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Svara's and Stripe's way of marking keys for rehearsals.
fn environment_of(key: &ApiKey) -> Environment {
    if key.expose().starts_with("sk_test_") { Environment::Test } else { Environment::Live }
}

async fn wait_for_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
