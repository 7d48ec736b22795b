#![cfg_attr(not(doctest), doc = include_str!("guide/links.txt"))]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    // Nothing that input reaches may panic.
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unreachable,
    clippy::unwrap_used
)]

#[cfg(any(feature = "close", feature = "limit"))]
mod address;
#[cfg(feature = "axum")]
mod axum;
mod body;
mod clock;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod credential;
mod decision;
#[cfg_attr(not(feature = "session"), allow(dead_code, reason = "nothing is locked"))]
mod duty;
mod event;
mod future;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handshake;
mod inquiry;
mod judged;
mod key;
mod layer;
#[cfg(feature = "limit")]
mod limit;
mod look;
#[cfg(feature = "mint")]
mod mint;
mod policy;
mod principal;
mod profile;
mod rejection;
mod runtime;
mod service;
#[cfg(feature = "session")]
mod session;
#[cfg(feature = "tracing")]
mod span;
mod split;
mod store;

pub use bytes;
pub use http;

#[cfg(any(feature = "close", feature = "limit"))]
pub use self::address::ClientAddress;
#[cfg(feature = "axum")]
pub use self::axum::MissingPrincipal;
#[cfg(feature = "jwt")]
pub use self::key::TokenSigner;
#[cfg(feature = "limit")]
pub use self::limit::{
    Budget, Counted, Demand, FailureLimit, Held, LimitFuture, LimitHeaders, LimitLayer,
    LimitService, LimitStore, MemoryLimits, Payer, Reservation, Rules, Standing, Take, Taken,
    Usage, UsageRefused,
};
#[cfg(feature = "mint")]
pub use self::mint::{
    ClientSecrets, ClientTokens, JsonBody, MintEndpoint, MintError, NewToken, RealtimeSessions,
    TranscriptionSessions,
};
#[cfg(feature = "close")]
pub use self::rejection::{Closing, RefusalMode};
#[cfg(feature = "tokio")]
pub use self::runtime::TokioRuntime;
#[cfg(feature = "session")]
pub use self::session::{
    Carries, End, Frame, GuardedSocket, InvalidSettings, Lock, OnChange, SessionGuard,
    SessionRules, Settings, SocketError, Verdict, Wire,
};
#[cfg(feature = "tracing")]
pub use self::span::request_span;
#[cfg(feature = "sqlite")]
pub use self::store::{SqliteOptions, SqliteStore};
pub use self::{
    body::{FromBytes, MakeBody},
    clock::{Clock, ManualClock, SystemClock, UnixMillis},
    config::ConfigError,
    credential::{Conflicts, CredentialSource},
    event::{Decision, Outcome},
    future::ResponseFuture,
    key::{
        ApiKey, DigestAlgorithm, Environment, Grants, InvalidKey, Issued, KeyDigest, KeyError,
        KeyFormat, KeyHasher, KeyHint, KeyId, KeyKind, KeyRecord, Keys, KeysOfAccount,
        MAX_CREDENTIAL_LEN, NewKey, Parent, Pepper, Plan,
    },
    layer::RealtimeAuthLayer,
    policy::Policy,
    principal::Principal,
    profile::{HeaderForm, Lifetimes, MintFields, Profile, SubprotocolForm},
    rejection::{CloseFrame, Refusal, Rejection, RejectionKind},
    runtime::Runtime,
    service::RealtimeAuth,
    store::{
        Answer, AuditAction, AuditEntry, AuditFilter, Heard, Inserted, KeyAdmin, KeyFilter,
        KeyStore, Lookup, MemoryStore, News, NewsCarrier, Redeemed, Revocation, Revocations,
        Revoked, Rotated, Stamp, StoreError, Use, Write,
    },
};
