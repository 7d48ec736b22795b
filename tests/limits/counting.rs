//! What is counted, until when, and that it is taken as one.

use std::{
    collections::{BTreeSet, HashMap},
    thread,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use proptest::prelude::*;
use tower_realtime_auth::{
    Budget, Clock, Counted, Demand, Environment, Held, KeyAdmin, LimitStore, MemoryLimits,
    NewToken, Payer, Profile, RealtimeAuthLayer, Rules, Standing, Taken,
};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn budget(name: &str, counted: Counted) -> Budget {
    Budget::new(Payer::Line(KeyId::new(name)), counted, Environment::Live)
}

fn take(limits: &MemoryLimits, demands: &[Demand], now: u64) -> Taken {
    let taken = limits.take(demands, UnixMillis::new(now)).now_or_never();
    taken.expect("an answer at once").expect("an answer")
}

/// How one budget stands when nothing is taken of it.
fn standing(limits: &MemoryLimits, budget: Budget, limit: u64, now: u64) -> Standing {
    match take(limits, &[Demand::new(budget, limit, 0)], now) {
        Taken::Granted { standings, .. } => standings[0],
        refused => panic!("{refused:?}"),
    }
}

fn clocked(now: UnixMillis) -> (LimitLayer, ManualClock) {
    let clock = ManualClock::new(now);
    (LimitLayer::new(MemoryLimits::new()).with_clock(clock.clone()), clock)
}

/// T27: exactly the limit passes, `Remaining` takes each value once, refusals consume nothing.
#[test]
fn eight_threads_at_ten_times_the_limit_get_exactly_the_limit() {
    const LIMIT: u32 = 1_000;
    let (layer, clock) = clocked(NOON);
    let inner = Inner::default();
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let plan = Plan::default().with_requests_per_minute(LIMIT).with_usage_per_month(5);
    let issued = issue(&keys, plan).now_or_never().expect("a key");
    let auth = RealtimeAuthLayer::new(keys).with_profile(Profile::svara());
    let service = auth.layer(layer.layer(inner.clone()));

    for minute in 1..=3 {
        let ask = || {
            let service = service.clone();
            let answers = (0..LIMIT * 10 / 8).map(|_| {
                let request = plain_with(CredentialSource::Header, issued.key().expose());
                let response = answer(&service, request);
                let remaining: u32 =
                    header(&response, "x-ratelimit-remaining").unwrap().parse().unwrap();
                assert_eq!(header(&response, "x-usage-remaining"), Some("5"));
                (response.status().as_u16(), remaining)
            });
            answers.collect::<Vec<_>>()
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let (passed, refused): (Vec<_>, Vec<_>) =
            answers.iter().partition(|(status, _)| *status == 200);
        let remaining: BTreeSet<u32> = passed.iter().map(|(_, remaining)| *remaining).collect();
        assert_eq!(passed.len(), LIMIT as usize, "minute {minute}");
        assert_eq!(remaining, (0..LIMIT).collect(), "each value once");
        assert_eq!(refused.len(), 9 * LIMIT as usize);
        assert!(refused.iter().all(|answer| *answer == (429, 0)), "{refused:?}");
        assert_eq!(inner.calls(), minute * LIMIT as usize);
        clock.advance(MINUTE);
    }
}

/// The same while the clock runs, jumps and goes back: whatever minute an answer tells of, exactly
/// the limit passes in it, and nobody is told of an earlier one than before.
#[test]
fn eight_threads_are_counted_exactly_in_every_minute_of_a_clock_that_wavers() {
    const LIMIT: u32 = 100;
    let (layer, clock) = clocked(NOON);
    let inner = Inner::default();
    let keys = Keys::new(MemoryStore::new()).with_clock(ManualClock::new(NOON));
    let plan = Plan::default().with_requests_per_minute(LIMIT);
    let issued = issue(&keys, plan).now_or_never().expect("a key");
    let auth = RealtimeAuthLayer::new(keys).with_profile(Profile::svara());
    let service = auth.layer(layer.layer(inner.clone()));

    let ask = |seed| {
        let (mut dice, mut last, mut answers) = (Dice(seed), 0, Vec::new());
        for _ in 0..4_000 {
            if dice.below(1_000) == 0 {
                // By a minute back at most, and by two ahead.
                let now = clock.now().get() + dice.below(180_000);
                clock.set(UnixMillis::new(now - 60_000));
            }
            let request = plain_with(CredentialSource::Header, issued.key().expose());
            let response = answer(&service, request);
            let told = |name| header(&response, name).expect("told").parse().expect("a number");
            let (remaining, reset): (u64, u64) =
                (told("x-ratelimit-remaining"), told("x-ratelimit-reset"));
            assert!(reset >= last, "{reset} after {last}");
            last = reset;
            answers.push((reset, response.status().as_u16(), remaining));
        }
        answers
    };
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=8).map(|seed| scope.spawn(move || ask(seed))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut minutes: HashMap<u64, (Vec<u64>, bool)> = HashMap::new();
    for (reset, status, remaining) in answers {
        assert_eq!(reset % 60, 0);
        let (passed, is_spent) = minutes.entry(reset).or_default();
        match status {
            200 => passed.push(remaining),
            status => {
                assert_eq!((status, remaining), (429, 0));
                *is_spent = true;
            }
        }
    }
    let (mut calls, mut spent) = (0, 0);
    for (reset, (mut passed, is_spent)) in minutes {
        calls += passed.len();
        spent += usize::from(is_spent);
        passed.sort_unstable();
        let limit = u64::from(LIMIT);
        let least = if is_spent { 0 } else { limit - passed.len() as u64 };
        assert!(passed.iter().copied().eq(least..limit), "{reset}: each value once");
    }
    assert!(spent > 5, "{spent} minutes were spent");
    assert_eq!(inner.calls(), calls);
}

/// What does not pass leaves everything as it was: here the requests, while sessions are refused.
#[test]
fn a_refusal_consumes_nothing() {
    let (layer, _) = clocked(NOON);
    let (service, inner) = limited(&layer);
    let plan = Plan::default().with_requests_per_minute(10).with_sessions_per_minute(1);
    let record = record(plan.with_max_sessions(1));
    let session = answer(&service, handshake_of(&record));
    assert_eq!(session.status(), 101);
    for _ in 0..100 {
        assert_eq!(
            kind(&answer(&service, handshake_of(&record))),
            Some(RejectionKind::RateLimited)
        );
    }
    for _ in 0..9 {
        assert_eq!(answer(&service, request_of(&record)).status(), 200);
    }
    assert_eq!(kind(&answer(&service, request_of(&record))), Some(RejectionKind::RateLimited));
    assert_eq!(inner.calls(), 10);
}

#[test]
fn a_minute_begins_with_its_first_millisecond() {
    let (layer, clock) = clocked(NOON);
    let (service, _) = limited(&layer);
    let record = record(Plan::default().with_requests_per_minute(1));
    let end = NOON.get() + 60_000;
    for (now, status, wait) in [
        (NOON.get() + 1, 200, None),
        (NOON.get() + 1, 429, Some("60")),
        (end - 1_001, 429, Some("2")),
        (end - 1_000, 429, Some("1")),
        (end - 1, 429, Some("1")),
        (end, 200, None),
        (end + 1, 429, Some("60")),
        (end + 59_999, 429, Some("1")),
        (end + 60_001, 200, None),
    ] {
        clock.set(UnixMillis::new(now));
        let response = answer(&service, request_of(&record));
        assert_eq!(response.status(), status, "{now}");
        assert_eq!(header(&response, "retry-after"), wait, "{now}");
    }
}

#[test]
fn a_month_is_one_of_the_calendar() {
    let at = |time: &str| {
        let time: SystemTime = humantime::parse_rfc3339(time).expect("a time");
        UnixMillis::from(time).get()
    };
    for (last, next) in [
        ("1970-01-31T23:59:59.999Z", "1970-02-01T00:00:00Z"),
        ("1972-02-29T23:59:59.999Z", "1972-03-01T00:00:00Z"),
        ("1999-12-31T23:59:59.999Z", "2000-01-01T00:00:00Z"),
        ("2000-02-29T23:59:59.999Z", "2000-03-01T00:00:00Z"),
        ("2026-02-28T23:59:59.999Z", "2026-03-01T00:00:00Z"),
        ("2026-04-30T23:59:59.999Z", "2026-05-01T00:00:00Z"),
        ("2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
        ("2028-02-29T23:59:59.999Z", "2028-03-01T00:00:00Z"),
        ("2100-02-28T23:59:59.999Z", "2100-03-01T00:00:00Z"),
        ("2400-02-29T23:59:59.999Z", "2400-03-01T00:00:00Z"),
    ] {
        let limits = MemoryLimits::new();
        let (last, next) = (at(last), at(next));
        assert_eq!(last + 1, next);
        let all = [Demand::new(budget("a", Counted::Usage), 7, 7)];
        let Taken::Granted { standings, held } = take(&limits, &all, last) else { panic!() };
        held.keep();
        assert_eq!(standings, [Standing::new(7, 0, Some(UnixMillis::new(next)))]);
        let left = |now| standing(&limits, budget("a", Counted::Usage), 7, now).remaining();
        assert_eq!((left(last), left(next), left(next + 1)), (0, 7, 7));
    }
    // Every month of 100 years ends where the next one begins, and none is longer than 31 days.
    let (mut now, mut months) = (at("2001-01-01T00:00:00Z"), 0);
    while now < at("2101-01-01T00:00:00Z") {
        let end = standing(&MemoryLimits::new(), budget("a", Counted::Usage), 1, now).resets_at();
        let end = end.expect("an end").get();
        assert!((28..=31).contains(&((end - now) / 86_400_000)), "{now} {end}");
        assert_eq!(end % 86_400_000, 0);
        (now, months) = (end, months + 1);
    }
    assert_eq!((now, months), (at("2101-01-01T00:00:00Z"), 1_200));
}

#[test]
fn a_clock_that_goes_back_opens_no_window_again() {
    let limits = MemoryLimits::new();
    let one = |name: &str| [Demand::new(budget(name, Counted::Requests), 1, 1)];
    let minutes = |minutes: u64| NOON.get() + minutes * 60_000;
    assert!(matches!(take(&limits, &one("a"), minutes(0)), Taken::Granted { .. }));
    assert!(matches!(take(&limits, &one("b"), minutes(1)), Taken::Granted { .. }));
    // In the second minute, a has one. When the clock is back in the first, it has no second one.
    assert!(matches!(take(&limits, &one("a"), minutes(0)), Taken::Granted { .. }));
    for now in [minutes(0), minutes(1), 0, minutes(2) - 1] {
        let Taken::Refused { standings, by: 0 } = take(&limits, &one("a"), now) else { panic!() };
        assert_eq!(standings[0].resets_at(), Some(UnixMillis::new(minutes(2))), "never back");
    }
    assert!(matches!(take(&limits, &one("a"), minutes(2)), Taken::Granted { .. }));
}

#[test]
fn rules_say_by_route_what_counts() {
    let (layer, _) = clocked(NOON);
    let layer = layer.with_rules(|method, uri| match (method.as_str(), uri.path()) {
        ("GET", "/free") => Rules::none(),
        ("GET", "/session") => Rules::all().with_requests(false),
        ("GET", "/request") => Rules::all().with_sessions(false),
        _ => Rules::default(),
    });
    let (service, _) = limited(&layer);
    let plan = Plan::default().with_requests_per_minute(2).with_max_sessions(1);
    let record = record(plan);
    let mut open = Vec::new();
    for (path, status) in [
        ("/free", 101),
        ("/session", 101),
        ("/session", 429),
        ("/free", 101),
        ("/request", 101),
        ("/other", 429),
        ("/request", 101),
        ("/request", 429),
        ("/free", 101),
    ] {
        let mut request = handshake_of(&record);
        *request.uri_mut() = path.parse().unwrap();
        let response = answer(&service, request);
        assert_eq!(response.status(), status, "{path} after {}", open.len());
        open.push(response);
    }
}

#[test]
fn who_is_not_known_is_not_limited() {
    let (layer, _) = clocked(NOON);
    let (service, inner) = limited(&layer.with_max_sessions_per_account(0));
    for _ in 0..3 {
        assert_eq!(answer(&service, upgraded(Request::new(()))).status(), 101);
    }
    assert_eq!(inner.calls(), 3);
}

/// A token draws on what its parent has, whose rotation opens nothing new, and its own plan
/// narrows that.
#[tokio::test]
async fn a_token_draws_on_its_parents_budget() {
    let (layer, clock) = clocked(NOON);
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let (service, _) = limited(&layer);
    let parent = issue(&keys, Plan::default().with_requests_per_minute(10)).await;
    let principal = |issued: &Issued| {
        Principal::new(Arc::clone(issued.record()), CredentialSource::Header, NOON)
    };
    let mint = async |parent: &Issued, plan: Plan| {
        let grants = Grants::default().with_plan(plan);
        let token = NewToken::lasting(MINUTE * 2).with_grants(grants);
        keys.mint(&principal(parent), token).await.expect("a token")
    };
    let small = mint(&parent, Plan::default().with_requests_per_minute(2)).await;
    let other = mint(&parent, Plan::default()).await;
    let rotated = keys.rotate(parent.record().id(), MINUTE).await.expect("its successor");
    let of_rotated = mint(&rotated, Plan::default()).await;

    let passes = async |issued: &Issued| {
        let found = keys.store().find(issued.record().id()).await.unwrap().expect("the record");
        answer(&service, request_of(&found)).status() == 200
    };
    // Its own two, then no more, though the parent has eight left.
    assert!(passes(&small).await && passes(&small).await && !passes(&small).await);
    for issued in [&parent, &other, &rotated, &of_rotated, &other, &other, &of_rotated, &rotated] {
        assert!(passes(issued).await);
    }
    for issued in [&parent, &small, &other, &rotated, &of_rotated] {
        assert!(!passes(issued).await, "ten in all");
    }
    clock.advance(MINUTE);
    assert!(passes(&small).await && passes(&small).await && !passes(&small).await);
}

/// What is over is forgotten, whatever comes: keys that are seen once, sessions that end.
#[test]
fn its_memory_follows_what_is_in_use() {
    let limits = MemoryLimits::new();
    let mut largest = 0;
    for key in 0..50_000_u64 {
        let name = key.to_string();
        let demands = [Counted::Requests, Counted::NewSessions, Counted::OpenSessions]
            .map(|counted| Demand::new(budget(&name, counted), 1, 1));
        // 100 keys a minute.
        let now = NOON.get() + key * 600;
        drop(take(&limits, &demands, now));
        largest = largest.max(limits.len());
    }
    assert!(largest < 3_000, "{largest} budgets were held");
    // Refusals and readings leave nothing.
    let before = limits.len();
    for key in 0..1_000 {
        let none = [Demand::new(budget(&format!("none {key}"), Counted::Requests), 0, 1)];
        assert!(matches!(take(&limits, &none, NOON.get()), Taken::Refused { .. }));
        standing(&limits, budget(&format!("none {key}"), Counted::Usage), 1, NOON.get());
    }
    assert!(limits.len() <= before);
    // And no request goes through all of them alone.
    let limits = MemoryLimits::new();
    let of_key = |key: u64| [Demand::new(budget(&key.to_string(), Counted::Requests), 1, 1)];
    for key in 0..500 {
        take(&limits, &of_key(key), NOON.get());
    }
    take(&limits, &of_key(500), NOON.get() + 60_000);
    assert_eq!(limits.len(), 501, "forgotten when as many have come");
}

// ---- Against a model ----

const COUNTED: [Counted; 4] =
    [Counted::Requests, Counted::NewSessions, Counted::OpenSessions, Counted::Usage];

#[derive(Debug, Clone)]
enum Step {
    /// Of these budgets, by number; under these limits; so much.
    Take(Vec<(usize, u64, u64)>),
    GiveBack(usize),
    Keep(usize),
    Move(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let demand = (0..8_usize, 0..6_u64, 0..4_u64);
    let step = prop_oneof![
        6 => prop::collection::vec(demand, 0..5).prop_map(Step::Take),
        2 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::Keep),
        2 => (-100_000_i64..100_000).prop_map(Step::Move),
        1 => (0..2_678_400_000_i64).prop_map(Step::Move),
    ];
    prop::collection::vec(step, 1..60)
}

/// What was taken: of which budget, how much, and until when it counts.
type Shares = Vec<(usize, u64, Option<UnixMillis>)>;

#[derive(Default)]
struct Model {
    taken: Shares,
    latest: u64,
}

impl Model {
    fn used(&self, number: usize) -> u64 {
        let counts = |until: &Option<UnixMillis>| until.is_none_or(|at| self.latest < at.get());
        let of_it = self.taken.iter().filter(|(of, _, until)| *of == number && counts(until));
        of_it.map(|(_, amount, _)| amount).sum()
    }
}

fn named(number: usize) -> Budget {
    budget(if number < 4 { "a" } else { "b" }, COUNTED[number % 4])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// All or none, in every order, with several demands of one budget too.
    #[test]
    fn memory_counts_as_a_list_of_all_that_was_taken(steps in steps()) {
        let (limits, mut model) = (MemoryLimits::new(), Model::default());
        let mut held: Vec<(Held, Shares)> = Vec::new();
        let mut now = i64::try_from(NOON.get()).unwrap();
        for step in steps {
            match step {
                Step::Move(by) => now += by,
                Step::GiveBack(which) if !held.is_empty() => {
                    let (share, taken) = held.swap_remove(which % held.len());
                    drop(share);
                    for one in taken {
                        let found = model.taken.iter().position(|other| *other == one);
                        model.taken.swap_remove(found.expect("taken before"));
                    }
                }
                Step::Keep(which) if !held.is_empty() => held.swap_remove(which % held.len()).0.keep(),
                Step::GiveBack(_) | Step::Keep(_) => {}
                Step::Take(wanted) => {
                    let now = u64::try_from(now).unwrap();
                    model.latest = model.latest.max(now);
                    let until = |number: usize| {
                        COUNTED[number % 4].until(UnixMillis::new(model.latest))
                    };
                    let demands: Vec<_> = wanted
                        .iter()
                        .map(|(number, limit, amount)| Demand::new(named(*number), *limit, *amount))
                        .collect();
                    let mut used: HashMap<usize, u64> = HashMap::new();
                    let refused = wanted.iter().position(|(number, limit, amount)| {
                        let used = used.entry(*number).or_insert_with(|| model.used(*number));
                        let fits = *amount == 0 || *used + amount <= *limit;
                        *used += amount;
                        !fits
                    });
                    let standings = match take(&limits, &demands, now) {
                        Taken::Granted { standings, held: share } => {
                            prop_assert_eq!(refused, None);
                            let taken = wanted.iter().filter(|(_, _, amount)| *amount > 0);
                            let taken: Vec<_> = taken
                                .map(|(number, _, amount)| (*number, *amount, until(*number)))
                                .collect();
                            model.taken.extend(&taken);
                            let back = taken.into_iter();
                            let back = back.filter(|(number, ..)| COUNTED[number % 4].is_held());
                            held.push((share, back.collect()));
                            standings
                        }
                        Taken::Refused { standings, by } => {
                            prop_assert_eq!(refused, Some(by));
                            standings
                        }
                        other => return Err(TestCaseError::fail(format!("{other:?}"))),
                    };
                    let expected: Vec<_> = wanted
                        .iter()
                        .map(|(number, limit, _)| {
                            let left = limit.saturating_sub(model.used(*number));
                            Standing::new(*limit, left, until(*number))
                        })
                        .collect();
                    prop_assert_eq!(standings, expected);
                }
            }
        }
    }
}
