//! What stands in a signed twin: its header and its claims, of which none may be missing, of
//! another type or unknown.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _},
};

use super::{KeyDigest, KeyRecord, Parent};

/// The header (RFC 7515 §4). A field more, `crit` for one, makes it another's.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    typ: String,
    alg: String,
    kid: String,
}

impl Header {
    pub(super) fn of(kid: &str) -> Self {
        Self { typ: "JWT".to_owned(), alg: "EdDSA".to_owned(), kid: kid.to_owned() }
    }
}

/// The claims (RFC 7519 §4), by the names that Decart's clients read. They repeat what the record
/// says, for those who have no store to ask; what counts here is the record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: String,
    /// The account.
    sub: String,
    /// In seconds, rounded down: others refuse what is from the future.
    iat: u64,
    /// In seconds, rounded up: others let it live as long as we do.
    pub(super) exp: u64,
    /// The id of the key.
    jti: String,
    /// Under which the record is found.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(super) digest: KeyDigest,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    parent_api_key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    models: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    origins: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    constraints: Option<Constraints>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Constraints {
    realtime: Realtime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Realtime {
    /// In seconds.
    max_session_duration: u64,
}

impl Claims {
    /// `None` for a key that never expires.
    pub(super) fn of(record: &KeyRecord, issuer: &str, audience: &str) -> Option<Self> {
        let grants = record.grants();
        let list = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect();
        Some(Self {
            iss: issuer.to_owned(),
            aud: audience.to_owned(),
            sub: record.account().to_string(),
            iat: record.created_at().get() / 1_000,
            exp: record.expires_at()?.as_secs_rounded_up(),
            jti: record.id().to_string(),
            digest: *record.digest(),
            parent_api_key_id: record.parent().map(Parent::id).map(ToString::to_string),
            models: grants.models().map(list),
            origins: grants.origins().map(list),
            constraints: grants.max_session().map(|max| Constraints {
                realtime: Realtime { max_session_duration: max.as_secs() },
            }),
        })
    }
}

/// One part of a JWT: JSON in base64url without padding (RFC 7515 §3.1).
pub(super) fn encode(part: &impl Serialize) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).ok()?))
}

pub(super) fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn to_text<S: Serializer>(digest: &KeyDigest, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&URL_SAFE_NO_PAD.encode(digest.as_bytes()))
}

fn from_text<'de, D: Deserializer<'de>>(from: D) -> Result<KeyDigest, D::Error> {
    let bytes = URL_SAFE_NO_PAD.decode(String::deserialize(from)?).map_err(D::Error::custom)?;
    let bytes = bytes.try_into().map_err(|_| D::Error::custom("not 32 bytes"))?;
    Ok(KeyDigest::from_bytes(bytes))
}

/// What is there must be of its type: `null` is not the same as nothing.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}
