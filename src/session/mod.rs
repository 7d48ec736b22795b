//! Session settings, the lock on them, and the guard that keeps a session to the lock.

mod end;
mod guard;
mod held;
mod items;
mod json;
mod lock;
mod path;
mod refused;
mod rules;
mod scan;
mod settings;
mod socket;
mod tables;
mod wire;

pub use self::{
    end::End,
    guard::{SessionGuard, Verdict},
    lock::Lock,
    rules::{Carries, OnChange, SessionRules},
    settings::{InvalidSettings, Settings},
    socket::{GuardedSocket, SocketError},
    wire::{Frame, Wire},
};
pub(crate) use self::{
    held::Held,
    json::{Fault, parse},
};
