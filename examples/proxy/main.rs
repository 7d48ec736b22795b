//! A proxy before a provider of voice models: clients hold its tokens, the provider's key never
//! leaves it, and what a token locks stays locked on the way through.
//!
//!     UPSTREAM_KEY=sk-... cargo run --example proxy -- --upstream wss://api.openai.com/v1/realtime
//!
//! To try it with the gateway behind it:
//!
//!     cargo run --example gateway -- --key sk_test_upstream
//!     UPSTREAM_KEY=sk_test_upstream \
//!         cargo run --example proxy -- --upstream ws://127.0.0.1:8787/v1/realtime

mod relay;
#[path = "../shared/server/mod.rs"]
mod server;
mod upstream;

use std::{error::Error, sync::Arc};

use axum::{Router, http::Uri, routing::any};
use clap::Parser;

use crate::{
    relay::Proxy,
    server::{Flags, Public},
    upstream::Upstream,
};

/// A proxy that authenticates the clients of a provider of voice models.
#[derive(Parser)]
#[command(mut_arg("listen", |listen| listen.default_value("127.0.0.1:8788")))]
struct Args {
    #[command(flatten)]
    server: Flags,

    /// Where the provider's sessions are, by ws: or wss:
    #[arg(long, value_name = "URL")]
    upstream: Uri,

    /// The key to present there. Better set in the environment, because arguments show in every
    /// list of processes
    #[arg(long, value_name = "KEY", env = "UPSTREAM_KEY", hide_env_values = true)]
    upstream_key: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    server::log();
    let upstream = Arc::new(Upstream::new(&args.upstream, &args.upstream_key)?);
    let sessions = |stopping| {
        Router::new()
            .route("/v1/realtime", any(relay::connect))
            .with_state(Proxy { stopping, upstream })
    };
    server::run(args.server, sessions, async |_| Ok(Public::default())).await
}
