//! A realtime server whose voice model is simulated and whose authentication is real.
//!
//!     cargo run --example gateway
//!     cargo run --example gateway -- --tls      # for WebSockets over HTTP/2
//!     cargo run --example gateway -- --help
//!
//! Open its address in a browser: the page there mints, connects, and shows what is locked.
//!
//! Sessions are OpenAI's at `/v1/realtime` (and xAI's, and Swaram's), and Decart's at `/v1/stream`.
//! Messages are Svara's at `/v1/send`; `/v1/usage` says what is left of a key's plan. With
//! `--requests-per-minute`, `--max-sessions` and `--usage-limit`, keys have one.
//! Put a model in the place of `model.rs` and it is yours.

mod model;
mod page;
mod realtime;
mod send;
#[path = "../shared/server/mod.rs"]
mod server;
mod stream;
mod transcript;

use std::{error::Error, path::PathBuf, sync::Arc};

use axum::{Router, routing::any};
use clap::Parser;

use crate::{
    server::{Flags, Stopping},
    transcript::Transcript,
};

/// A realtime gateway with simulated sessions and real authentication.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    server: Flags,

    /// Write down every event that the model sees, a line for each
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
}

/// What all sessions share.
#[derive(Clone)]
struct Gateway {
    stopping: Stopping,
    transcript: Option<Arc<Transcript>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    server::log();
    let transcript = args.transcript.as_deref().map(Transcript::open).transpose();
    let transcript = transcript.map_err(|error| format!("--transcript: {error}"))?.map(Arc::new);
    let sessions = |stopping| {
        // `any`, because a WebSocket over HTTP/2 is a CONNECT and not a GET.
        Router::new()
            .route("/v1/realtime", any(realtime::connect))
            .route(server::STREAM, any(stream::connect))
            .with_state(Gateway { stopping, transcript })
            .merge(send::routes())
    };
    server::run(args.server, sessions, page::public).await
}
