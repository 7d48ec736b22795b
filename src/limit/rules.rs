//! What a request is counted for.

use std::{fmt, sync::Arc};

use http::{Method, Uri};

use super::{Budget, Counted, Demand, Payer};
use crate::KeyRecord;

/// What a request to some route is counted for. What is left of it all is told everywhere.
///
/// ```
/// use tower_realtime_auth::{LimitLayer, MemoryLimits, Rules};
///
/// // Metrics may be asked for at any time; sessions count for what they are alone.
/// let layer = LimitLayer::new(MemoryLimits::new()).with_rules(|_method, uri| match uri.path() {
///     "/v1/usage" => Rules::none(),
///     "/v1/realtime" => Rules::all().with_requests(false),
///     _ => Rules::all(),
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Rules {
    requests: bool,
    sessions: bool,
}

impl Rules {
    /// Every request counts as one; a WebSocket handshake also as a session. The default.
    pub const fn all() -> Self {
        Self { requests: true, sessions: true }
    }

    /// Nothing counts.
    pub const fn none() -> Self {
        Self { requests: false, sessions: false }
    }

    /// The same, where requests count or do not.
    pub const fn with_requests(self, requests: bool) -> Self {
        Self { requests, ..self }
    }

    /// The same, where sessions count or do not.
    pub const fn with_sessions(self, sessions: bool) -> Self {
        Self { sessions, ..self }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::all()
    }
}

/// All that a request of this key demands, with nothing of what is only to be told.
///
/// A minted key draws on its parent's budgets besides its own.
pub(super) fn demands(
    record: &KeyRecord,
    rules: Rules,
    is_session: bool,
    max_of_account: Option<u32>,
) -> Vec<Demand> {
    let environment = record.environment();
    let (request, session) = (u64::from(rules.requests), u64::from(rules.sessions && is_session));
    let own = (record.line(), record.grants().plan());
    let parents = record.parent().map(|parent| (parent.line(), parent.plan()));
    let mut demands = Vec::new();
    for (line, plan) in [own].into_iter().chain(parents) {
        let mut demand = |counted, limit: Option<u64>, amount| {
            let payer = || Payer::Line(line.clone());
            demands.extend(limit.map(|limit| {
                Demand::new(Budget::new(payer(), counted, environment), limit, amount)
            }));
        };
        demand(Counted::Requests, plan.requests_per_minute().map(u64::from), request);
        if session > 0 {
            demand(Counted::NewSessions, plan.sessions_per_minute().map(u64::from), session);
            demand(Counted::OpenSessions, plan.max_sessions().map(u64::from), session);
        }
        demand(Counted::Usage, plan.usage_per_month(), 0);
    }
    if let Some(max) = max_of_account.filter(|_| session > 0) {
        let payer = Payer::Account(record.account().clone());
        let budget = Budget::new(payer, Counted::OpenSessions, environment);
        demands.push(Demand::new(budget, max.into(), session));
    }
    demands
}

/// Says for each request what it is counted for.
#[derive(Clone)]
pub(super) struct RulesOf(Arc<Says>);

type Says = dyn Fn(&Method, &Uri) -> Rules + Send + Sync;

impl RulesOf {
    pub(super) fn new(rules: impl Fn(&Method, &Uri) -> Rules + Send + Sync + 'static) -> Self {
        Self(Arc::new(rules))
    }

    pub(super) fn of(&self, method: &Method, uri: &Uri) -> Rules {
        (self.0)(method, uri)
    }
}

impl fmt::Debug for RulesOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RulesOf(..)")
    }
}
