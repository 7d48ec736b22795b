//! Another plan holds from the next request on, for the key and for what it minted.

use std::time::Duration;

use tower_realtime_auth::{
    Environment, KeyAdmin, KeyStore, MemoryLimits, NewToken, Profile, RealtimeAuth,
    RealtimeAuthLayer, SqliteStore,
};

use super::{usage::usage_of, *};

const HOUR: Duration = Duration::from_secs(3_600);

type Served<S> = RealtimeAuth<LimitService<Inner>, S>;

const fn requests(requests: u32) -> Plan {
    Plan::unbounded().with_requests_per_minute(requests)
}

/// A service with these keys, which counts by a clock that stands still: all is in one minute.
fn serving<S: KeyStore>(keys: &Keys<S>) -> Served<S> {
    let clock = ManualClock::new(NOON);
    let limits = LimitLayer::new(MemoryLimits::new()).with_clock(clock);
    let auth = RealtimeAuthLayer::new(keys.clone()).with_profile(Profile::svara());
    auth.layer(limits.layer(Inner::default()))
}

async fn issue_in<S: KeyAdmin>(keys: &Keys<S>, plan: Plan) -> Issued {
    let grants = Grants::default().with_plan(plan);
    keys.issue(NewKey::secret("acme").with_grants(grants)).await.expect("a key")
}

/// A token of this key that has a plan of its own.
async fn mint<S: KeyAdmin>(keys: &Keys<S>, parent: &Issued, plan: Plan) -> Issued {
    let source = CredentialSource::Header;
    let parent = Principal::new(Arc::clone(parent.record()), source, keys.now());
    let token = NewToken::lasting(HOUR).with_grants(Grants::default().with_plan(plan));
    keys.mint(&parent, token).await.expect("a token")
}

async fn set<S: KeyAdmin>(keys: &Keys<S>, key: &Issued, plan: Plan) {
    assert!(keys.set_plan(key.record().id(), plan).await.expect("an answer"));
}

/// What a request with this key is answered, and what is told of its limit and what is left.
async fn ask<S: KeyStore>(service: &Served<S>, key: &Issued) -> (u16, Option<[u64; 2]>) {
    let request = plain_with(CredentialSource::Header, key.key().expose());
    told(&service.clone().oneshot(request).await.expect("a response"))
}

fn told(response: &Response<Body>) -> (u16, Option<[u64; 2]>) {
    let number = |name| header(response, name).map(|number| number.parse().expect("a number"));
    let told = number("x-ratelimit-limit").zip(number("x-ratelimit-remaining"));
    (response.status().as_u16(), told.map(|(limit, left)| [limit, left]))
}

/// What was taken before counts against the new limit.
#[tokio::test]
async fn a_higher_plan_lets_more_through_within_the_same_minute() {
    let keys = Keys::new(MemoryStore::new());
    let (service, key) = (serving(&keys), issue_in(&keys, requests(2)).await);
    for expected in [(200, [2, 1]), (200, [2, 0]), (429, [2, 0])] {
        assert_eq!(ask(&service, &key).await, (expected.0, Some(expected.1)));
    }
    set(&keys, &key, requests(5)).await;
    for expected in [(200, [5, 2]), (200, [5, 1]), (200, [5, 0]), (429, [5, 0])] {
        assert_eq!(ask(&service, &key).await, (expected.0, Some(expected.1)));
    }
    set(&keys, &key, Plan::unbounded()).await;
    assert_eq!(ask(&service, &key).await, (200, None));
    set(&keys, &key, requests(6)).await;
    assert_eq!(
        ask(&service, &key).await,
        (200, Some([6, 0])),
        "what nothing limits is not counted"
    );
}

#[tokio::test]
async fn a_lower_plan_holds_at_once() {
    let keys = Keys::new(MemoryStore::new());
    let (service, key) = (serving(&keys), issue_in(&keys, requests(100)).await);
    for left in [99, 98, 97] {
        assert_eq!(ask(&service, &key).await, (200, Some([100, left])));
    }
    for limit in [3, 2, 0] {
        set(&keys, &key, requests(limit.try_into().unwrap())).await;
        assert_eq!(ask(&service, &key).await, (429, Some([limit, 0])));
    }
    set(&keys, &key, requests(4)).await;
    assert_eq!(ask(&service, &key).await, (200, Some([4, 0])), "refusals take nothing");
}

/// Also of the key that has taken its place: they draw on one budget.
#[tokio::test]
async fn a_plan_is_changed_for_the_whole_line() {
    let keys = Keys::new(MemoryStore::new());
    let (service, old) = (serving(&keys), issue_in(&keys, requests(1)).await);
    let new = keys.rotate(old.record().id(), HOUR).await.expect("a successor");
    assert_eq!(ask(&service, &new).await, (200, Some([1, 0])));
    assert_eq!(ask(&service, &old).await, (429, Some([1, 0])));
    set(&keys, &old, requests(3)).await;
    assert_eq!(ask(&service, &new).await, (200, Some([3, 1])));
    assert_eq!(ask(&service, &old).await, (200, Some([3, 0])));
    set(&keys, &new, requests(2)).await;
    for key in [&old, &new] {
        assert_eq!(ask(&service, key).await, (429, Some([2, 0])));
    }
}

/// Tokens that were minted before are held by what their parent may now, whatever their own plans.
#[tokio::test]
async fn tokens_follow_the_plan_of_their_parent() {
    let keys = Keys::new(MemoryStore::new());
    let (service, parent) = (serving(&keys), issue_in(&keys, requests(4)).await);
    let plain = mint(&keys, &parent, Plan::unbounded()).await;
    let wide = mint(&keys, &parent, requests(4)).await;
    for (token, left) in [(&plain, 3), (&wide, 2)] {
        assert_eq!(ask(&service, token).await, (200, Some([4, left])));
    }
    // Less than the token's own plan, of which 3 are left.
    set(&keys, &parent, requests(2)).await;
    for token in [&plain, &wide, &parent] {
        assert_eq!(ask(&service, token).await, (429, Some([2, 0])));
    }
    // More than that: now its own plan is the narrower.
    set(&keys, &parent, requests(100)).await;
    assert_eq!(ask(&service, &plain).await, (200, Some([100, 97])));
    for left in [2, 1, 0] {
        assert_eq!(ask(&service, &wide).await, (200, Some([4, left])));
    }
    assert_eq!(ask(&service, &wide).await, (429, Some([4, 0])));
    assert_eq!(ask(&service, &parent).await, (200, Some([100, 93])));
    // A plan of its own, the parent's left as it is.
    set(&keys, &wide, requests(5)).await;
    assert_eq!(ask(&service, &wide).await, (200, Some([5, 0])));
    assert_eq!(ask(&service, &parent).await, (200, Some([100, 91])));
}

/// Sessions that are open stay open; none begins until enough of them have ended.
#[tokio::test]
async fn fewer_sessions_at_once_end_none() {
    let keys = Keys::new(MemoryStore::new());
    let sessions = |most| Plan::unbounded().with_max_sessions(most);
    let (service, key) = (serving(&keys), issue_in(&keys, sessions(3)).await);
    let token = mint(&keys, &key, Plan::unbounded()).await;
    let begin = async |key: &Issued| {
        let request = upgraded(plain_with(CredentialSource::Header, key.key().expose()));
        service.clone().oneshot(request).await.expect("a response")
    };
    let mut open = vec![begin(&key).await, begin(&key).await, begin(&token).await];
    assert!(open.iter().all(|session| session.status() == 101));
    set(&keys, &key, sessions(2)).await;
    for left in [3, 2] {
        for key in [&key, &token] {
            assert_eq!(kind(&begin(key).await), Some(RejectionKind::TooManySessions), "{left}");
        }
        open.pop();
    }
    open.push(begin(&token).await);
    assert!(open.iter().all(|session| session.status() == 101), "{open:?}");
    assert_eq!(kind(&begin(&key).await), Some(RejectionKind::TooManySessions));
}

/// What is reserved within a session goes by the plan that it began with.
#[tokio::test]
async fn another_limit_of_usage_holds_for_what_begins_then() {
    let keys = Keys::new(MemoryStore::new());
    let monthly = |units| Plan::unbounded().with_usage_per_month(units);
    let layer = LimitLayer::new(MemoryLimits::new()).with_clock(ManualClock::new(NOON));
    let key = issue_in(&keys, monthly(10)).await;
    let session = usage_of(&layer, key.record());
    session.reserve(4).await.expect("4 of 10").commit();
    set(&keys, &key, monthly(5)).await;
    let later = keys.find(key.record().id()).await.expect("an answer").expect("a record");
    let later = usage_of(&layer, &later);
    assert!(later.reserve(2).await.is_err(), "2 of 1");
    session.reserve(5).await.expect("5 of 6").commit();
    assert!(later.reserve(1).await.is_err(), "1 of none");
}

/// A rehearsal is limited like the real thing.
#[tokio::test]
async fn test_keys_are_no_exception() {
    let keys = Keys::new(MemoryStore::new());
    let service = serving(&keys);
    let new = NewKey::secret("acme").with_environment(Environment::Test);
    let key = keys.issue(new).await.expect("a key");
    assert_eq!(ask(&service, &key).await, (200, None));
    set(&keys, &key, requests(0)).await;
    assert_eq!(ask(&service, &key).await, (429, Some([0, 0])));
}

/// As two processes have it open.
#[tokio::test]
async fn what_one_store_of_a_file_changes_holds_at_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.db");
    let [served, managed] = [
        Keys::new(SqliteStore::open(&path).await.expect("a store")),
        Keys::new(SqliteStore::open(&path).await.expect("a store")),
    ];
    let (service, key) = (serving(&served), issue_in(&managed, requests(1)).await);
    let token = mint(&managed, &key, Plan::unbounded()).await;
    assert_eq!(ask(&service, &token).await, (200, Some([1, 0])));
    for limit in 1..50 {
        assert_eq!(ask(&service, &key).await, (429, Some([limit, 0])));
        set(&managed, &key, requests(limit as u32 + 1)).await;
        assert_eq!(ask(&service, &token).await, (200, Some([limit + 1, 0])));
    }
    set(&managed, &key, Plan::unbounded()).await;
    for key in [&key, &token] {
        assert_eq!(ask(&service, key).await, (200, None));
    }
}
