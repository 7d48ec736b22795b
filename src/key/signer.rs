//! The signed twin of a token: the same key in a form that others can verify without a store.
//!
//! 1. A twin is a JWT (RFC 7519) that is signed with Ed25519 (RFC 8037) and carries the digest of
//!    its key, so that it is the key's record that decides about both.
//! 2. The algorithm is no choice of whoever presents it: the header must be, field by field, one
//!    that is written here (RFC 8725 §3.1).
//! 3. Before its signature, nothing that it claims is read; before all of it is right, the store
//!    is not asked.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
// By name: what jsonwebtoken takes by default hangs on features that other crates may turn on, and
// two of them at once make it panic.
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, crypto::aws_lc::DEFAULT_PROVIDER as AWS_LC,
    jwk::EllipticCurve,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    KeyDigest, KeyError, KeyRecord,
    claims::{Claims, Header, decode, encode},
};
use crate::{ConfigError, RejectionKind, UnixMillis};

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410 §7).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Signs twins of minted tokens, and lets them in.
///
/// A twin is a JWT that stands for the same record as the token that it was minted with: both have
/// one expiry, one count of uses, and one revocation, which refuses the twin at once, too. Others
/// who hold it verify it without asking here, by [`TokenSigner::jwks`]; what they cannot see is
/// that it was revoked, so let it live shortly.
///
/// [`ClientTokens`](crate::ClientTokens) answers it as `token` if its keys have a signer.
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// use tower_realtime_auth::{Keys, MemoryStore, TokenSigner};
///
/// // What `openssl genpkey -algorithm ed25519` gives; here, RFC 8410's example.
/// let pem = "-----BEGIN PRIVATE KEY-----
/// MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
/// -----END PRIVATE KEY-----";
/// let signer = TokenSigner::from_pem(pem, "https://api.example", "https://api.example")?;
///
/// // To be answered, as `application/json`, at `GET /.well-known/jwks.json`, to everybody.
/// let jwks = signer.jwks();
/// assert!(jwks.contains(r#""alg":"EdDSA""#));
///
/// let keys = Keys::new(MemoryStore::new()).with_signer(signer);
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// # }).expect("nothing to wait for").unwrap();
/// ```
#[derive(Clone)]
pub struct TokenSigner {
    issuer: Box<str>,
    audience: Box<str>,
    private: EncodingKey,
    /// That of `private`.
    public: PublicKey,
    former: Vec<PublicKey>,
}

/// A key to verify with.
#[derive(Clone)]
struct PublicKey {
    /// The thumbprint (RFC 7638), which names the key.
    kid: String,
    /// The key in base64url.
    x: String,
    key: DecodingKey,
}

impl TokenSigner {
    /// Signs with an Ed25519 private key in PKCS#8, as PEM. `issuer` and `audience` are the claims
    /// `iss` and `aud`, by which a verifier knows that a twin is from you and for it; of twins that
    /// are presented here, both must be these.
    ///
    /// # Errors
    /// If `pem` is no such key.
    pub fn from_pem(
        pem: &str,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let private = EncodingKey::from_ed_pem(pem.as_bytes()).map_err(not_a_key)?;
        Self::new(private, issuer.into(), audience.into())
    }

    /// Signs with a key made now, which ends with the process: its twins are refused by any other.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn generate(
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Result<Self, KeyError> {
        let mut der = Zeroizing::new([0; 48]);
        let (head, secret) = der.split_at_mut(PKCS8.len());
        head.copy_from_slice(&PKCS8);
        getrandom::fill(secret).map_err(|_| KeyError::Random)?;
        let private = EncodingKey::from_ed_der(&*der);
        Self::new(private, issuer.into(), audience.into()).map_err(|_| KeyError::Random)
    }

    fn new(private: EncodingKey, issuer: String, audience: String) -> Result<Self, ConfigError> {
        let public = PublicKey::of(&private)?;
        let (issuer, audience) = (issuer.into(), audience.into());
        Ok(Self { issuer, audience, private, public, former: Vec::new() })
    }

    /// The same, which goes on letting in what a former key has signed: its private half or its
    /// public one (SPKI), as PEM.
    ///
    /// Replacing a key takes three steps, with no twin lost where several processes share it:
    ///
    /// 1. Everywhere the old one signs, and the new one is named here, so that it is in the
    ///    [`jwks`](Self::jwks) before anything is signed with it.
    /// 2. Everywhere the new one signs, and the old one is named here.
    /// 3. When the last twin of the old one has expired, it is left out.
    ///
    /// # Errors
    /// If `pem` is no Ed25519 key.
    pub fn with_previous(mut self, pem: &str) -> Result<Self, ConfigError> {
        let pem = pem.as_bytes();
        let public = match EncodingKey::from_ed_pem(pem) {
            Ok(private) => PublicKey::of(&private)?,
            Err(_) => {
                let public = DecodingKey::from_ed_pem(pem).map_err(not_a_key)?;
                PublicKey::new(public.try_get_as_bytes().map_err(not_a_key)?)?
            }
        };
        if self.known().all(|known| known.kid != public.kid) {
            self.former.push(public);
        }
        Ok(self)
    }

    /// The keys by which twins are verified, as a JWK Set (RFC 7517 §5) in JSON. It holds nothing
    /// secret.
    #[must_use]
    pub fn jwks(&self) -> String {
        let keys = self.known().map(|known| {
            json!({
                "kty": "OKP", "crv": "Ed25519", "x": known.x,
                "alg": "EdDSA", "use": "sig", "kid": known.kid,
            })
        });
        json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
    }

    fn known(&self) -> impl Iterator<Item = &PublicKey> {
        std::iter::once(&self.public).chain(&self.former)
    }

    /// The twin of the key with this record; `None` for one that never expires.
    pub(crate) fn sign(&self, record: &KeyRecord) -> Option<String> {
        let header = encode(&Header::of(&self.public.kid))?;
        let claims = encode(&Claims::of(record, &self.issuer, &self.audience)?)?;
        let message = format!("{header}.{claims}");
        let signer = (AWS_LC.signer_factory)(&Algorithm::EdDSA, &self.private).ok()?;
        let signature = signer.try_sign(message.as_bytes()).ok()?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The digest of the key whose twin `text` is.
    pub(crate) fn verify(&self, text: &[u8], now: UnixMillis) -> Result<KeyDigest, RejectionKind> {
        let claims = self.claims(text).ok_or(RejectionKind::Unknown)?;
        if now >= UnixMillis::new(claims.exp.saturating_mul(1_000)) {
            return Err(RejectionKind::Expired);
        }
        Ok(claims.digest)
    }

    /// What was signed here, and for here.
    fn claims(&self, text: &[u8]) -> Option<Claims> {
        let (message, signature) = std::str::from_utf8(text).ok()?.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: Header = decode(header)?;
        let known = self.known().find(|known| header == Header::of(&known.kid))?;
        if !known.has_signed(message, signature) {
            return None;
        }
        let claims: Claims = decode(claims)?;
        (claims.iss == *self.issuer && claims.aud == *self.audience).then_some(claims)
    }
}

impl PublicKey {
    fn of(private: &EncodingKey) -> Result<Self, ConfigError> {
        let public = AWS_LC.key_utils.ed_pub_components_from_private_key;
        Self::new(&public(private.as_bytes(), &EllipticCurve::Ed25519).map_err(not_a_key)?)
    }

    fn new(public: &[u8]) -> Result<Self, ConfigError> {
        if public.len() != 32 {
            return Err(ConfigError::SigningKey);
        }
        let x = URL_SAFE_NO_PAD.encode(public);
        // The members that make the key, in the order of their names (RFC 7638 §3.3, RFC 8037 §2).
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(members));
        Ok(Self { kid, x, key: DecodingKey::from_ed_der(public) })
    }

    fn has_signed(&self, message: &str, signature: &str) -> bool {
        let Ok(verifier) = (AWS_LC.verifier_factory)(&Algorithm::EdDSA, &self.key) else {
            return false;
        };
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| verifier.verify(message.as_bytes(), &signature).is_ok())
    }
}

fn not_a_key(_: jsonwebtoken::errors::Error) -> ConfigError {
    ConfigError::SigningKey
}

/// Whether `text` has the form of a JWT: three parts, the first of which is an object.
pub(crate) fn is_jwt(text: &[u8]) -> bool {
    // `{"` in base64url.
    text.starts_with(b"eyJ") && text.iter().filter(|byte| **byte == b'.').count() == 2
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = self.known().map(|known| &known.kid).collect();
        f.debug_struct("TokenSigner")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("known", &known)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 §A.1 to §A.3: a private key, its public one, and its thumbprint.
    #[test]
    fn known_answers() {
        let secret = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
        let der = [&PKCS8[..], &URL_SAFE_NO_PAD.decode(secret).unwrap()].concat();
        let public = PublicKey::of(&EncodingKey::from_ed_der(&der)).unwrap();
        assert_eq!(public.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(public.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_has_the_form_of_a_jwt() {
        for text in ["eyJ.a.b", "eyJhbGci..", "eyJ..b"] {
            assert!(is_jwt(text.as_bytes()), "{text}");
        }
        for text in ["", "a.b.c", "eyJ", "eyJ.a", "eyJ.a.b.c", "ek_x", "Eyj.a.b"] {
            assert!(!is_jwt(text.as_bytes()), "{text}");
        }
    }
}
