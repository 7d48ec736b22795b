//! Usage is reserved before it is spent.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use tower_realtime_auth::{MemoryLimits, Parent, Reservation, Usage, UsageRefused};

use super::*;

/// The usage of a request of this key.
pub fn usage_of(layer: &LimitLayer, record: &Arc<KeyRecord>) -> Usage {
    let inner = tower::service_fn(async |request: Request<()>| {
        let usage = request.extensions().get::<Usage>().expect("the usage").clone();
        Ok::<_, Infallible>(Response::new(Handed(Some(usage))))
    });
    let layer = layer.clone().with_body(|_| Handed(None));
    let response = layer.layer(inner).oneshot(request_of(record)).now_or_never();
    response.expect("an answer at once").unwrap().into_body().0.expect("not refused")
}

struct Handed(Option<Usage>);

fn reserve(usage: &Usage, amount: u64) -> Result<Reservation, UsageRefused> {
    usage.reserve(amount).now_or_never().expect("an answer at once")
}

fn left(usage: &Usage) -> u64 {
    usage.standing().expect("a limit").remaining()
}

fn clocked() -> (LimitLayer, ManualClock) {
    let clock = ManualClock::new(NOON);
    (LimitLayer::new(MemoryLimits::new()).with_clock(clock.clone()), clock)
}

#[test]
fn what_is_not_committed_comes_back() {
    let (layer, _) = clocked();
    let record = record(Plan::default().with_usage_per_month(10));
    let usage = usage_of(&layer, &record);
    assert_eq!(left(&usage), 10);
    let first = reserve(&usage, 6).unwrap();
    assert_eq!((first.amount(), left(&usage)), (6, 4));
    let refused = reserve(&usage, 5).unwrap_err();
    assert_eq!(refused.rejection().kind(), RejectionKind::UsageSpent);
    // Noon of the 1st of July: 30.5 days.
    let wait = Duration::from_secs(30 * 86_400 + 43_200);
    assert_eq!(refused.rejection().retry_after(), Some(wait));
    drop(first);
    assert_eq!(left(&usage), 10);
    reserve(&usage, 10).unwrap().commit();
    for usage in [usage.clone(), usage_of(&layer, &record)] {
        assert_eq!(left(&usage), 0);
        assert!(reserve(&usage, 1).is_err());
        assert!(reserve(&usage, 0).is_ok());
    }
}

/// What was reserved in one month and is given back in the next does not make that one longer.
#[test]
fn nothing_goes_back_into_another_month() {
    let (layer, clock) = clocked();
    let record = record(Plan::default().with_usage_per_month(10));
    let usage = usage_of(&layer, &record);
    let july = reserve(&usage, 8).unwrap();
    clock.advance(Duration::from_secs(31 * 86_400));
    reserve(&usage, 7).unwrap().commit();
    assert_eq!(left(&usage), 3);
    drop(july);
    assert_eq!(left(&usage), 3);
    assert!(reserve(&usage, 4).is_err());
    reserve(&usage, 3).unwrap().commit();
}

/// Together never more than the plan, at no moment; and in the end all of it.
#[test]
fn concurrent_reservations_never_exceed_the_plan() {
    const PLAN: u64 = 5_000;
    let (layer, _) = clocked();
    let parent = record(Plan::default().with_usage_per_month(PLAN));
    let of_parent = Some(Parent::of(&parent));
    let child = |plan| Arc::new(KeyRecord::clone(&record(plan)).with_parent(of_parent.clone()));
    let small = child(Plan::default().with_usage_per_month(1_000));
    let records = [&parent, &child(Plan::default()), &small];
    let (reserved, spent, spent_by_small) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for number in 0..8_u64 {
            let (layer, reserved, spent, spent_by_small, barrier) =
                (&layer, &reserved, &spent, &spent_by_small, &barrier);
            let record = records[usize::try_from(number).unwrap() % 3];
            let small = &small;
            scope.spawn(move || {
                let (usage, mut dice) = (usage_of(layer, record), Dice(number + 1));
                barrier.wait();
                for _ in 0..5_000 {
                    let amount = 1 + dice.below(5);
                    let Ok(reservation) = reserve(&usage, amount) else { continue };
                    let now = reserved.fetch_add(amount, Relaxed) + amount;
                    assert!(now <= PLAN, "{now}");
                    if dice.below(3) == 0 {
                        spent.fetch_add(amount, Relaxed);
                        if Arc::ptr_eq(record, small) {
                            spent_by_small.fetch_add(amount, Relaxed);
                        }
                        reservation.commit();
                    } else {
                        // Counted down first: another may have it at once.
                        reserved.fetch_sub(amount, Relaxed);
                        drop(reservation);
                    }
                }
            });
        }
    });
    // What is left can be had to the last unit.
    let usage = usage_of(&layer, &parent);
    assert_eq!(left(&usage), PLAN - spent.load(Relaxed));
    assert!(spent_by_small.load(Relaxed) <= 1_000);
    while let Ok(one) = reserve(&usage, 1) {
        one.commit();
        spent.fetch_add(1, Relaxed);
    }
    assert_eq!(spent.load(Relaxed), PLAN);
}

#[test]
fn a_key_without_a_limit_reserves_anything() {
    let (layer, _) = clocked();
    let usage = usage_of(&layer, &record(Plan::default()));
    assert_eq!(usage.standing(), None);
    let all = reserve(&usage, u64::MAX).unwrap();
    reserve(&usage, u64::MAX).unwrap().commit();
    drop(all);
}
