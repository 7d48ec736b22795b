//! A store of one's own: keys in a text file, one `DIGEST ACCOUNT [EXPIRY]` on each line.
//!
//!     KEY=sk_$(openssl rand -hex 16)
//!     echo "$(printf %s "$KEY" | sha256sum | cut -d ' ' -f 1) acme 2000000000" > keys.txt
//!     cargo run --example custom_store keys.txt
//!     curl -i http://127.0.0.1:8789/ -H "Authorization: Bearer $KEY"      # 200 hello, acme
//!     curl -i http://127.0.0.1:8789/ -H "Authorization: Bearer wrong"     # 401
//!
//! The file is read whenever a key is asked for, so that a line taken out is a key taken back.
//! Without the file every key is answered with 503: who cannot tell must not say 401.

mod shared;

use std::{error::Error, io, path::PathBuf, sync::Arc};

use axum::{Router, routing::any};
use tokio::net::TcpListener;
use tower::Layer as _;
use tower_realtime_auth::{
    Answer, KeyDigest, KeyId, KeyKind, KeyRecord, KeyStore, Lookup, Principal, RealtimeAuthLayer,
    StoreError, UnixMillis,
};

/// Keys in a file. It holds their digests alone, so that whoever reads it can present none.
struct KeyFile(PathBuf);

impl KeyStore for KeyFile {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let (path, digest) = (self.0.clone(), *digest);
        Answer::pending(async move {
            let text = tokio::fs::read_to_string(path).await.map_err(StoreError::new)?;
            for line in text.lines() {
                let record = record(line).ok_or_else(|| StoreError::new("a line is unreadable"))?;
                if *record.digest() == digest {
                    return Ok(Some(Arc::new(record)));
                }
            }
            // Nobody has this key. Of a store that failed, only `Err` may tell.
            Ok(None)
        })
    }
}

/// The record on one line. Whether it has expired is for the layer to judge.
fn record(line: &str) -> Option<KeyRecord> {
    let mut words = line.split_whitespace();
    let (hex, account) = (words.next()?, words.next()?);
    let digest = KeyDigest::from_bytes(digest(hex)?);
    // The public name of the key: it stands in logs, so it is the beginning of the digest.
    let id = KeyId::new(hex.get(..12)?);
    let record = KeyRecord::new(id, digest, account, KeyKind::Secret, UnixMillis::new(0));
    let Some(expiry) = words.next() else { return Some(record) };
    let seconds: u64 = expiry.parse().ok()?;
    Some(record.with_expires_at(Some(UnixMillis::new(seconds.checked_mul(1_000)?))))
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Says why the store failed; the client is not told.
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let path = std::env::args().nth(1).ok_or("usage: custom_store FILE")?;
    let api = Router::new().route("/", any(hello));
    let app = RealtimeAuthLayer::new(KeyFile(path.into())).layer(api);

    let listener = TcpListener::bind("127.0.0.1:8789").await?;
    println!("listening on http://{}", listener.local_addr()?);
    shared::serve(listener, app).await?;
    Ok(())
}

async fn hello(principal: Principal) -> String {
    format!("hello, {}\n", principal.account())
}
