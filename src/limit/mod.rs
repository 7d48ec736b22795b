//! Limits: how much of its plan a key has left, and what becomes of requests past it.

mod budget;
mod failures;
mod future;
mod headers;
mod layer;
mod memory;
mod permit;
mod rules;
mod service;
mod store;
mod usage;

pub(crate) use self::permit::SessionPermit;
pub use self::{
    budget::{Budget, Counted, Demand, Payer, Standing},
    failures::FailureLimit,
    future::LimitFuture,
    headers::LimitHeaders,
    layer::LimitLayer,
    memory::MemoryLimits,
    rules::Rules,
    service::LimitService,
    store::{Held, LimitStore, Take, Taken},
    usage::{Reservation, Usage, UsageRefused},
};
