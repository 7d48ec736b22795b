//! What answers tell, against a model that keeps a list of all that was taken.

use std::{
    collections::HashMap,
    future::ready,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tower_realtime_auth::{
    Clock, Counted, MemoryLimits, NewToken, Profile, RealtimeAuthLayer, Reservation, Rules, Usage,
};

use super::*;

/// An inner service that is told by the path how much usage it reserves and what becomes of that:
/// `/ROUTE/AMOUNT/END`.
#[derive(Clone)]
struct Obeys;

impl Service<Request<()>> for Obeys {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let usage = request.extensions().get::<Usage>().expect("the usage");
        let mut parts = request.uri().path().split('/').skip(2);
        let amount = parts.next().expect("an amount").parse().expect("a number");
        let reserved = match usage.reserve(amount).now_or_never().expect("an answer at once") {
            Ok(reserved) => reserved,
            Err(refused) => return ready(Ok(refused.response())),
        };
        let is_handshake = request.headers().contains_key("upgrade");
        let mut response = Response::new(Body::default());
        let status: u16 = if is_handshake { 101 } else { 200 };
        *response.status_mut() = status.try_into().expect("a status");
        match parts.next() {
            Some("commits") => reserved.commit(),
            Some("keeps") => _ = response.extensions_mut().insert(Arc::new(reserved)),
            Some("fails") => *response.status_mut() = 500.try_into().expect("a status"),
            end => panic!("{end:?}"),
        }
        if is_handshake {
            response.headers_mut().insert("upgrade", "websocket".parse().expect("a value"));
            let principal = request.extensions_mut().remove::<Principal>().expect("a principal");
            principal.waive_guard();
            response.extensions_mut().insert(principal);
        }
        ready(Ok(response))
    }
}

/// A key, by the numbers of the lines that pay for it, its own first, and their plans.
struct Key {
    text: String,
    payers: Vec<(usize, Plan)>,
}

fn any_plan(dice: &mut Dice) -> Plan {
    let mut plan = Plan::unbounded();
    // As small as they are, all of them are spent now and then.
    if dice.below(4) > 0 {
        plan = plan.with_requests_per_minute(1 + dice.below(15) as u32);
    }
    if dice.below(4) > 0 {
        plan = plan.with_usage_per_month(200 + dice.below(3_000));
    }
    if dice.below(3) == 0 {
        plan = plan.with_sessions_per_minute(dice.below(5) as u32);
    }
    if dice.below(3) > 0 {
        plan = plan.with_max_sessions(dice.below(5) as u32);
    }
    plan
}

/// Keys and tokens of them. A token's plan is no wider than its parent's.
async fn any_keys(keys: &Keys<MemoryStore>, dice: &mut Dice) -> Vec<Key> {
    let mut all: Vec<Key> = Vec::new();
    for _ in 0..4 {
        let plan = any_plan(dice);
        let parent = issue(keys, plan).await;
        let payer = (all.len(), plan);
        let text = parent.key().expose().to_owned();
        all.push(Key { text, payers: vec![payer] });
        let principal = Principal::new(Arc::clone(parent.record()), CredentialSource::Header, NOON);
        let plans: Vec<_> = (0..10).map(|_| any_plan(dice)).collect();
        let mut minted = 0;
        for plan in plans {
            let token = NewToken::lasting(Duration::from_secs(60));
            let token = token.with_grants(Grants::default().with_plan(plan));
            let Ok(token) = keys.mint(&principal, token).await else { continue };
            let own = (all.len(), *token.record().grants().plan());
            let text = token.key().expose().to_owned();
            all.push(Key { text, payers: vec![own, payer] });
            minted += 1;
            if minted == 2 {
                break;
            }
        }
    }
    all
}

/// What was taken of a line's budget: how much, and until when it counts.
type Shares = Vec<(usize, Counted, u64, Option<UnixMillis>)>;

#[derive(Default)]
struct Model {
    taken: Shares,
    latest: u64,
}

impl Model {
    fn used(&self, line: usize, counted: Counted) -> u64 {
        let of_it = self.taken.iter().filter(|(of, kind, ..)| (*of, *kind) == (line, counted));
        let counts = of_it.filter(|(.., until)| until.is_none_or(|at| self.latest < at.get()));
        counts.map(|(.., amount, _)| amount).sum()
    }

    /// Takes all of it, or tells what is not left. Each is of a line that has so much.
    fn take(&mut self, wanted: &[(usize, Counted, Option<u64>, u64)]) -> Result<Shares, Counted> {
        let wanted = wanted.iter().filter_map(|(line, counted, limit, amount)| {
            limit.map(|limit| (*line, *counted, limit, *amount))
        });
        let lacks = wanted.clone().find(|(line, counted, limit, amount)| {
            *amount > 0 && self.used(*line, *counted) + amount > *limit
        });
        if let Some((_, counted, ..)) = lacks {
            return Err(counted);
        }
        let now = UnixMillis::new(self.latest);
        let taken: Shares = wanted
            .filter(|(.., amount)| *amount > 0)
            .map(|(line, counted, _, amount)| (line, counted, amount, counted.until(now)))
            .collect();
        self.taken.extend(&taken);
        Ok(taken)
    }

    fn give_back(&mut self, shares: Shares) {
        for share in shares {
            let found = self.taken.iter().position(|taken| *taken == share);
            self.taken.swap_remove(found.expect("taken before"));
        }
    }

    /// Limit and rest of the budget of which least is left.
    fn tightest(
        &self,
        key: &Key,
        counted: Counted,
        limit: impl Fn(&Plan) -> Option<u64>,
    ) -> Option<(u64, u64)> {
        let limits = key.payers.iter().filter_map(|(line, plan)| Some((*line, limit(plan)?)));
        let left = limits.map(|(line, limit)| (limit - self.used(line, counted), limit));
        left.min().map(|(left, limit)| (limit, left))
    }
}

fn requests(plan: &Plan) -> Option<u64> {
    plan.requests_per_minute().map(u64::from)
}

/// 10,000 answers to keys and tokens of any plan: handshakes, errors, refusals, usage that is spent,
/// kept or given back, and a clock that wavers.
#[tokio::test]
async fn every_answer_under_any_plan_tells_the_real_state() {
    const ROUTES: [(&str, u64, u64); 4] =
        [("all", 1, 1), ("none", 0, 0), ("sessions", 0, 1), ("requests", 1, 0)];
    let mut kinds: HashMap<Option<RejectionKind>, usize> = HashMap::new();
    for round in 1..=20 {
        let mut dice = Dice(round);
        let keys = Keys::new(MemoryStore::new()).with_clock(ManualClock::new(NOON));
        let all = any_keys(&keys, &mut dice).await;
        let clock = ManualClock::new(NOON);
        let limits = LimitLayer::new(MemoryLimits::new()).with_clock(clock.clone());
        let limits = limits.with_rules(|_, uri| match uri.path().split('/').nth(1) {
            Some("none") => Rules::none(),
            Some("sessions") => Rules::all().with_requests(false),
            Some("requests") => Rules::all().with_sessions(false),
            _ => Rules::all(),
        });
        let auth = RealtimeAuthLayer::new(keys).with_profile(Profile::svara());
        let service = auth.layer(limits.layer(Obeys));
        let mut model = Model::default();
        // Answers with what they hold, and what that is.
        let mut held: Vec<(Response<Body>, Shares)> = Vec::new();
        for step in 0..500 {
            let now = clock.now().get() + dice.below(4_000);
            let now = match dice.below(200) {
                0 => now + 2_678_400_000,
                1..=9 => now.saturating_sub(70_000),
                _ => now,
            };
            clock.set(UnixMillis::new(now));
            if !held.is_empty() && dice.below(3) == 0 {
                let (answer, shares) = held.swap_remove(dice.below(held.len() as u64) as usize);
                drop(answer);
                model.give_back(shares);
            }
            let key = &all[dice.below(all.len() as u64) as usize];
            let (route, request, session) = ROUTES[[0, 0, 0, 1, 2, 3][dice.below(6) as usize]];
            let is_handshake = dice.below(3) == 0;
            let session = if is_handshake { session } else { 0 };
            let amount = dice.below(100);
            let end = ["commits", "commits", "keeps", "fails"][dice.below(4) as usize];

            let wanted: Vec<_> = key
                .payers
                .iter()
                .flat_map(|(line, plan)| {
                    let new = plan.sessions_per_minute().map(u64::from);
                    let open = plan.max_sessions().map(u64::from);
                    [
                        (*line, Counted::Requests, requests(plan), request),
                        (*line, Counted::NewSessions, new, session),
                        (*line, Counted::OpenSessions, open, session),
                    ]
                })
                .collect();
            let usage: Vec<_> = key
                .payers
                .iter()
                .map(|(line, plan)| (*line, Counted::Usage, plan.usage_per_month(), amount))
                .collect();
            // The store learns the time from those who ask it.
            let of_sessions =
                |counted| matches!(counted, Counted::NewSessions | Counted::OpenSessions);
            let asked = wanted.iter().chain(&usage).any(|(_, counted, limit, _)| {
                limit.is_some() && (session > 0 || !of_sessions(*counted))
            });
            if asked {
                model.latest = model.latest.max(now);
            }
            let (mut shares, mut refused) = (Shares::new(), None);
            match model.take(&wanted) {
                Err(counted) => refused = Some(counted),
                Ok(taken) => {
                    shares = taken;
                    shares.retain(|(_, counted, ..)| *counted == Counted::OpenSessions);
                    match model.take(&usage) {
                        Err(counted) => refused = Some(counted),
                        Ok(taken) if end == "keeps" => shares.extend(taken),
                        Ok(taken) if end == "fails" => model.give_back(taken),
                        Ok(_) => {}
                    }
                }
            }
            let expected = refused.map(|counted| match counted {
                Counted::OpenSessions => RejectionKind::TooManySessions,
                Counted::Usage => RejectionKind::UsageSpent,
                _ => RejectionKind::RateLimited,
            });
            let status = match (expected, end) {
                (Some(_), _) => 429,
                (None, "fails") => 500,
                (None, _) if is_handshake => 101,
                (None, _) => 200,
            };

            let mut asked = plain_with(CredentialSource::Header, &key.text);
            *asked.uri_mut() = format!("/{route}/{amount}/{end}").parse().expect("a path");
            let asked = if is_handshake { upgraded(asked) } else { asked };
            let response = answer(&service, asked);
            let at = format!("round {round}, step {step}");
            assert_eq!((response.status().as_u16(), kind(&response)), (status, expected), "{at}");
            let told = |name: &str| header(&response, name).map(|told| told.parse().unwrap());
            let told = |limit, left| Some((told(limit)?, told(left)?));
            assert_eq!(
                told("x-ratelimit-limit", "x-ratelimit-remaining"),
                model.tightest(key, Counted::Requests, requests),
                "{at}"
            );
            assert_eq!(
                told("x-usage-limit", "x-usage-remaining"),
                model.tightest(key, Counted::Usage, Plan::usage_per_month),
                "{at}"
            );
            let minute = (model.latest / 60_000 + 1) * 60;
            let reset = header(&response, "x-ratelimit-reset").map(|reset| reset.parse().unwrap());
            let limited = key.payers.iter().any(|(_, plan)| requests(plan).is_some());
            assert_eq!(reset, limited.then_some(minute), "{at}");
            let wait = refused.map(|counted| {
                let until = counted.until(UnixMillis::new(model.latest)).map_or(0, UnixMillis::get);
                until.saturating_sub(now).div_ceil(1_000).max(1)
            });
            let retry = header(&response, "retry-after").map(|wait| wait.parse().unwrap());
            assert_eq!(retry, wait, "{at}");

            *kinds.entry(expected).or_default() += 1;
            if response.extensions().get::<Principal>().is_some()
                || response.extensions().get::<Arc<Reservation>>().is_some()
            {
                held.push((response, shares));
            } else {
                drop(response);
                model.give_back(shares);
            }
        }
    }
    for kind in [
        None,
        Some(RejectionKind::RateLimited),
        Some(RejectionKind::TooManySessions),
        Some(RejectionKind::UsageSpent),
    ] {
        assert!(kinds.get(&kind).is_some_and(|count| *count > 200), "{kinds:?}");
    }
}
