//! Signed twins of tokens, and the keys by which anybody verifies them.

use std::{error::Error, fs};

use axum::{
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    routing::{MethodRouter, get},
};
use tower_realtime_auth::TokenSigner;

/// Where verifiers find the keys.
pub const JWKS: &str = "/.well-known/jwks.json";

#[derive(clap::Args)]
pub struct Signing {
    /// What tokens are signed with, for those who verify them without asking: an Ed25519 private
    /// key, as `openssl genpkey -algorithm ed25519` makes it. In the environment it may be the PEM
    /// itself. Without one, a fresh key is made
    #[arg(long, value_name = "FILE", env = "SIGNING_KEY", hide_env_values = true)]
    signing_key: Option<String>,

    /// Whose signed tokens these are; this server's address, if nothing is said
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// For whom they are; the issuer itself, if nothing is said
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
}

impl Signing {
    /// Signs for a server at this URL.
    pub fn signer(&self, url: &str) -> Result<TokenSigner, Box<dyn Error>> {
        let issuer = self.issuer.as_deref().unwrap_or(url);
        let audience = self.audience.as_deref().unwrap_or(issuer);
        let Some(key) = &self.signing_key else {
            return Ok(TokenSigner::generate(issuer, audience)?);
        };
        let pem = if key.trim_start().starts_with("-----BEGIN") {
            key.clone()
        } else {
            // What was given is not repeated: it might be a key all the same.
            fs::read_to_string(key).map_err(|error| format!("--signing-key: {error}"))?
        };
        let signer = TokenSigner::from_pem(&pem, issuer, audience);
        Ok(signer.map_err(|error| format!("--signing-key: {error}"))?)
    }
}

/// `GET /.well-known/jwks.json`.
pub fn jwks(signer: &TokenSigner) -> MethodRouter {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
    let keys = signer.jwks();
    get(async move || (headers, keys))
}
