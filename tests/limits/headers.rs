//! What answers tell, by which headers, and in which words they refuse.

use std::{
    future::ready,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use support::json;
use tower_realtime_auth::{
    Clock, Environment, LimitHeaders, MemoryLimits, NewToken, Profile, RealtimeAuth,
    RealtimeAuthLayer, Usage,
};

use super::*;

/// An inner service that spends usage, as much as the path says, and answers 500 to what ends in
/// `!`.
#[derive(Clone)]
struct Spends;

impl Service<Request<()>> for Spends {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let usage = request.extensions().get::<Usage>().expect("the usage");
        let path = request.uri().path().trim_start_matches('/');
        let amount = path.trim_end_matches('!').parse().unwrap_or(0);
        let reserved = usage.reserve(amount).now_or_never().expect("an answer at once");
        let response = match reserved {
            Ok(reserved) if path.ends_with('!') => {
                drop(reserved);
                let mut response = Response::new(Body::default());
                *response.status_mut() = 500.try_into().expect("a status");
                response
            }
            Ok(reserved) => {
                reserved.commit();
                Response::new(Body::default())
            }
            Err(refused) => refused.response(),
        };
        ready(Ok(response))
    }
}

type Spending = RealtimeAuth<LimitService<Spends>, MemoryStore>;

async fn serving(profile: Profile, plan: Plan) -> (Spending, String, ManualClock) {
    let clock = ManualClock::new(NOON);
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let issued = issue(&keys, plan).await;
    let limits = LimitLayer::new(MemoryLimits::new()).with_clock(clock.clone());
    let service = RealtimeAuthLayer::new(keys).with_profile(profile).layer(limits.layer(Spends));
    (service, issued.key().expose().to_owned(), clock)
}

fn to(path: &str, key: &str) -> Request<()> {
    let mut request = plain_with(CredentialSource::Header, key);
    *request.uri_mut() = path.parse().expect("a path");
    request
}

fn number(response: &Response<Body>, name: &str) -> u64 {
    header(response, name).unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// 10,000 answers, errors and refusals among them, against what was let through in fact.
#[tokio::test]
async fn every_answer_tells_the_real_state() {
    let plan = Plan::default().with_requests_per_minute(20).with_usage_per_month(40_000);
    let (service, key, clock) = serving(Profile::svara(), plan).await;
    let mut dice = Dice(7);
    let (mut requests, mut usage, mut minute) = (0, 0, NOON.get() / 60_000);
    for number_of in 0..10_000 {
        clock.advance(Duration::from_millis(dice.below(5_000)));
        let now = clock.now().get();
        if now / 60_000 > minute {
            (minute, requests) = (now / 60_000, 0);
        }
        let amount = dice.below(30);
        let fails = dice.below(4) == 0;
        let path = format!("/{amount}{}", if fails { "!" } else { "" });
        let response = answer(&service, to(&path, &key));

        let expected = if requests == 20 {
            (429, Some(RejectionKind::RateLimited))
        } else {
            requests += 1;
            if usage + amount > 40_000 {
                (429, Some(RejectionKind::UsageSpent))
            } else if fails {
                (500, None)
            } else {
                usage += amount;
                (200, None)
            }
        };
        assert_eq!((response.status().as_u16(), kind(&response)), expected, "{number_of}");
        assert_eq!(number(&response, "x-ratelimit-limit"), 20);
        assert_eq!(number(&response, "x-ratelimit-remaining"), 20 - requests, "{number_of}");
        assert_eq!(number(&response, "x-ratelimit-reset"), (minute + 1) * 60);
        assert_eq!(number(&response, "x-usage-limit"), 40_000);
        assert_eq!(number(&response, "x-usage-remaining"), 40_000 - usage, "{number_of}");
        if response.status() == 429 {
            let is_minute = kind(&response) == Some(RejectionKind::RateLimited);
            // Noon of the 1st of July 2026: the month has 30.5 days left.
            let month = NOON.get() + 30 * 86_400_000 + 43_200_000;
            let until = if is_minute { (minute + 1) * 60_000 } else { month };
            assert_eq!(number(&response, "retry-after"), (until - now).div_ceil(1_000));
        }
    }
    assert!(usage > 39_900, "spent in the end: {usage}");
}

#[tokio::test]
async fn openai_is_told_in_durations() {
    let plan = Plan::default().with_requests_per_minute(3).with_usage_per_month(9);
    let (service, key, clock) = serving(Profile::openai(), plan).await;
    for (millis, status, remaining, reset) in [
        (0, 200, "2", "1m0s"),
        (57_500, 200, "1", "2.5s"),
        (59_988, 200, "0", "12ms"),
        (59_999, 429, "0", "1ms"),
        (60_000, 200, "2", "1m0s"),
    ] {
        clock.set(UnixMillis::new(NOON.get() + millis));
        let response = answer(&service, to("/1", &key));
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(header(&response, "x-ratelimit-remaining-requests"), Some(remaining));
        assert_eq!(header(&response, "x-ratelimit-reset-requests"), Some(reset));
        assert_eq!(header(&response, "x-usage-limit"), None);
    }
}

/// Sessions are told by an event, of the state at that moment.
#[tokio::test]
async fn openais_sessions_are_told_by_an_event() {
    let clock = ManualClock::new(NOON);
    let usage_of = async |profile: Profile, plan: Plan| {
        let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
        let issued = issue(&keys, plan).await;
        let limits = LimitLayer::new(MemoryLimits::new()).with_clock(clock.clone());
        let (sender, usages) = std::sync::mpsc::channel();
        let service = tower::service_fn(move |mut request: Request<()>| {
            let usage = request.extensions_mut().remove::<Usage>().expect("behind the layer");
            sender.send(usage).expect("a receiver");
            ready(Ok::<_, Infallible>(Response::new(Body::default())))
        });
        let layer = RealtimeAuthLayer::new(keys).with_profile(profile);
        let service = layer.layer(limits.layer(service));
        let key = issued.key().expose().to_owned();
        move || {
            let Ok(_) = service
                .clone()
                .oneshot(to("/v1/realtime", &key))
                .now_or_never()
                .expect("an answer at once");
            usages.recv().expect("a usage")
        }
    };
    let plan = Plan::default().with_requests_per_minute(4);
    let ask = usage_of(Profile::openai(), plan).await;
    let session = ask();
    let requests = session.requests().expect("a limit");
    assert_eq!((requests.limit(), requests.remaining()), (4, 3), "as the headers told it");
    let event = async |usage: &Usage| {
        let event = usage.rate_limits_updated().await?;
        Some(serde_json::from_str::<serde_json::Value>(&event).expect("JSON"))
    };
    for (number, millis, remaining, reset) in
        [(1, 0, 2, 60.0), (2, 57_500, 1, 2.5), (3, 59_988, 0, 0.012), (4, 60_000, 3, 60.0)]
    {
        clock.set(UnixMillis::new(NOON.get() + millis));
        ask();
        let told = event(&session).await.expect("an event");
        let requests = serde_json::json!({
            "name": "requests", "limit": 4, "remaining": remaining, "reset_seconds": reset,
        });
        let expected = serde_json::json!({
            "type": "rate_limits.updated", "event_id": format!("event_rate_limits_{number}"),
            "rate_limits": [requests],
        });
        assert_eq!(told, expected);
    }
    assert_eq!(event(&(usage_of(Profile::openai(), Plan::default()).await)()).await, None);
    assert_eq!(event(&(usage_of(Profile::svara(), plan).await)()).await, None);
}

#[tokio::test]
async fn who_has_no_limit_and_who_wants_no_headers_is_told_nothing() {
    let limited = Plan::default().with_requests_per_minute(3);
    for (profile, plan) in [
        (Profile::svara(), Plan::default()),
        (Profile::openai(), Plan::default()),
        (Profile::svara().with_limit_headers(LimitHeaders::None), limited),
    ] {
        let (service, key, _) = serving(profile, plan).await;
        let response = answer(&service, to("/1", &key));
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty(), "{:?}", response.headers());
    }
}

/// Of a token and its parent, the one counts that has less left.
#[tokio::test]
async fn the_tightest_budget_is_told() {
    let plan = |requests, usage| {
        Plan::default().with_requests_per_minute(requests).with_usage_per_month(usage)
    };
    let clock = ManualClock::new(NOON);
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let parent = issue(&keys, plan(5, 100)).await;
    let grants = Grants::default().with_plan(plan(4, 100));
    let principal = Principal::new(Arc::clone(parent.record()), CredentialSource::Header, NOON);
    let token = NewToken::lasting(Duration::from_secs(60)).with_grants(grants);
    let child = keys.mint(&principal, token).await.expect("a token");
    let limits = LimitLayer::new(MemoryLimits::new()).with_clock(clock);
    let auth = RealtimeAuthLayer::new(keys).with_profile(Profile::svara());
    let service = auth.layer(limits.layer(Spends));
    for (issued, limit, remaining, usage) in [
        (&child, 4, 3, 90),
        (&parent, 5, 3, 80),
        (&parent, 5, 2, 70),
        (&child, 5, 1, 60),
        (&child, 5, 0, 50),
        (&child, 5, 0, 50),
    ] {
        let response = answer(&service, to("/10", issued.key().expose()));
        assert_eq!(number(&response, "x-ratelimit-limit"), limit);
        assert_eq!(number(&response, "x-ratelimit-remaining"), remaining);
        assert_eq!(number(&response, "x-usage-remaining"), usage);
    }
}

#[tokio::test]
async fn refusals_have_the_profiles_words() {
    let plan = Plan::default().with_requests_per_minute(2).with_usage_per_month(1);
    for (profile, rate, usage) in [
        (
            Profile::svara(),
            r#"{"error":{"type":"rate_limit_error","code":"rate_limit_exceeded","message":"The API key has been used too often in this minute. Wait for the next.","param":null}}"#,
            r#"{"error":{"type":"rate_limit_error","code":"insufficient_quota","message":"Less of this month's usage is left to the API key than this takes. Wait for the next month, or ask for a larger plan.","param":null}}"#,
        ),
        (
            Profile::decart(),
            r#"{"detail":"Too many requests: wait for the next minute"}"#,
            r#"{"detail":"The month's usage is spent"}"#,
        ),
    ] {
        let (service, key, _) = serving(profile, plan).await;
        assert_eq!(answer(&service, to("/1", &key)).status(), 200);
        for expected in [usage, rate, rate] {
            let response = answer(&service, to("/1", &key));
            assert_eq!(response.status(), 429);
            assert_eq!(header(&response, "content-type"), Some("application/json"));
            assert_eq!(header(&response, "cache-control"), Some("no-store"));
            assert!(header(&response, "retry-after").is_some());
            let expected: serde_json::Value = serde_json::from_str(expected).expect("JSON");
            assert_eq!(json(response).await, expected);
        }
    }
}

/// A rehearsal has limits of its own, and spends nothing.
#[tokio::test]
async fn test_keys_spend_no_usage() {
    let keys = Keys::new(MemoryStore::new());
    let plan = Plan::default().with_requests_per_minute(3).with_usage_per_month(1);
    let key = NewKey::secret("acme").with_environment(Environment::Test);
    let key = key.with_grants(Grants::default().with_plan(plan));
    let issued = keys.issue(key).await.expect("a key");
    let limits = LimitLayer::new(MemoryLimits::new()).with_clock(ManualClock::new(NOON));
    let auth = RealtimeAuthLayer::new(keys).with_profile(Profile::svara());
    let service = auth.layer(limits.layer(Spends));
    for (status, remaining) in [(200, 2), (200, 1), (200, 0), (429, 0)] {
        let response = answer(&service, to("/1000", issued.key().expose()));
        assert_eq!(response.status(), status);
        assert_eq!(number(&response, "x-ratelimit-remaining"), remaining);
        assert_eq!(number(&response, "x-usage-limit"), 1);
        assert_eq!(number(&response, "x-usage-remaining"), 1);
    }
}
