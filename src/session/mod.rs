//! Session settings, the lock on them, and the guard that keeps a session to the lock.

mod guard;
mod held;
mod items;
mod json;
mod lock;
mod rules;
mod scan;
mod settings;

pub use self::{
    guard::{SessionGuard, Verdict},
    lock::Lock,
    rules::{Carries, OnChange, SessionRules},
    settings::{InvalidSettings, Settings},
};
pub(crate) use self::{
    held::Held,
    json::{Fault, parse},
};
