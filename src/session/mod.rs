//! Session settings, the lock on them, and the guard that keeps a session to the lock.

mod guard;
mod json;
mod lock;
mod settings;

pub(crate) use self::json::{Fault, parse};
pub(crate) use self::lock::Lock;
pub use self::{
    guard::{SessionGuard, Verdict},
    settings::{InvalidSettings, Settings},
};
