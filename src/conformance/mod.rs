//! Whether a store keeps to what [`KeyStore`] and [`KeyAdmin`] promise: for whoever writes one.
//!
//! One line of a test runs all rules, each on a store of its own that is fresh and empty:
//!
//! ```
//! # async fn test() -> Result<(), tower_realtime_auth::conformance::Broken> {
//! use tower_realtime_auth::{MemoryStore, conformance};
//!
//! conformance::check(|| async { MemoryStore::new() }).await
//! # }
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # runtime.block_on(test()).unwrap();
//! ```
//!
//! Several rules let tasks race, so run it on a runtime with more than one thread. What is wrong is
//! not a panic but an answer, [`Broken`], that names the rules and what was seen.
//!
//! A store whose failure can be brought about is asked further by [`check_faults`], and one that
//! only finds keys by [`check_lookups`].
//!
//! # Rules
//!
//! | rule | the store |
//! |---|---|
//! | `insert_overwrites_nothing` | keeps what it has under an id or a digest |
//! | `lookup_finds_by_the_whole_digest` | answers `None` for a digest that differs in one byte |
//! | `lookup_either_finds_either` | finds the one or the other, the current one first |
//! | `every_field_survives` | answers each field of a record as it was given |
//! | `hostile_texts_survive`, `nul_survives` | keeps quotes, emoji, 10 KB, NUL as they are |
//! | `texts_are_compared_byte_for_byte` | folds no case, trims nothing, normalises nothing |
//! | `lookups_find_and_lists_are_fresh` | shows every change in each of them at once |
//! | `a_parents_state_travels_with_its_children` | answers a child with the parent's revocation, be it before or after the child |
//! | `a_parents_line_and_plan_travel_with_its_children` | answers a child with the line and the plan that its parent has |
//! | `children_are_capped` | adds no child past the cap, of one parent |
//! | `only_living_children_count` | counts neither expired nor revoked ones |
//! | `the_cap_is_exact_in_a_race` | adds neither more nor fewer than the cap |
//! | `removing_takes_the_children` | forgets a key with its children, and nothing else |
//! | `rotation_bounds_the_old_key` | lets it expire at the given time, or at its own if that is earlier |
//! | `a_successor_is_of_the_line` | adds the new record as given, in the line of the old one |
//! | `refused_rotations_change_nothing` | says `Unknown`, `Gone`, `Replaced`, `Taken`, and does nothing |
//! | `tokens_outlive_a_rotation` | lets the tokens of a rotated key keep their expiry |
//! | `a_plan_is_of_the_whole_line` | gives it to every key of the line, by whichever it is set, and to no other |
//! | `a_successor_has_the_plan_of_the_line` | gives a new key the plan of the old one |
//! | `a_changed_plan_reaches_the_children` | answers children with it as their parent's, and leaves them their own |
//! | `a_changed_plan_changes_nothing_else` | leaves all else of key and child as it was, and counts uses on |
//! | `a_line_has_one_plan_after_a_race` | lets a rotation, a mint and a change of the plan see one another |
//! | `a_lookup_after_a_change_of_plan_shows_it` | answers no lookup with the former plan once it has answered the change |
//! | `revoking_reaches_exactly_the_named` | revokes whom it should, and counts them |
//! | `revoking_reaches_the_whole_line` | finds the line by any of its keys, with all tokens |
//! | `issued_before_is_exclusive` | leaves a key that was made at that very time |
//! | `the_first_revocation_stays` | keeps the first time, however often a key is revoked |
//! | `unknown_keys_make_news` | tells of the revocation of a key that it has forgotten |
//! | `news_come_after_the_change` | tells once lookups show it |
//! | `news_come_before_the_answer` | tells before the revocation is answered, and of nothing else |
//! | `uses_are_counted`, `unspent_uses_come_back` | takes uses one by one, and back |
//! | `uses_are_exact_in_a_race` | gives out exactly as many as there are |
//! | `notes_of_use_do_not_lie` | shows a use within a minute or not at all, and no earlier one after a later one |
//! | `lists_are_filtered`, `lists_are_ordered_and_paged` | goes by the filter, time and id |
//! | `the_trail_tells_every_change` | notes what was changed, when, by whom, in order |
//! | `the_trail_tells_nothing_else` | notes no minted token and no change that was not made |
//! | `the_trail_is_filtered_and_paged` | goes by the filter and the numbers |
//! | `one_of_equals_is_inserted` | lets one of several with the same id or digest win |
//! | `no_key_of_a_revoked_line_is_left` | lets a rotation and a revocation see one another |
//! | `no_child_of_a_revoked_parent_is_left` | shows the revocation to whoever inserts a child and then asks for its parent |
//! | `a_lookup_after_a_revocation_shows_it` | answers no lookup from before it once it has answered it |
//! | `a_dropped_insert_is_whole_or_nothing`, `a_dropped_rotation_is_whole_or_nothing`, `a_dropped_revocation_is_whole_or_nothing`, `a_dropped_change_of_plan_is_whole_or_nothing`, `a_dropped_removal_is_whole_or_nothing` | finishes what nobody waits for any more, or leaves no trace of it |
//! | `a_dropped_use_comes_back` | loses no use with whoever has asked for it |
//! | `a_broken_store_knows_nothing` | answers `Err` while it is broken, never `Ok` |
//! | `a_mended_store_is_the_old_one` | answers as before once it is mended |

mod audit;
mod bench;
mod children;
mod dropped;
mod faults;
mod finding;
mod listing;
mod lookups;
mod plans;
mod races;
mod records;
mod revocation;
mod rotation;
mod tasks;
mod texts;
mod uses;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, LocalBoxFuture, select};

use self::{
    bench::Bench,
    finding::{Checked, Seen},
};
pub use self::{
    faults::Fragile,
    finding::{Broken, Finding},
};
#[cfg(feature = "tokio")]
use crate::TokioRuntime;
use crate::{KeyAdmin, KeyRecord, KeyStore, Runtime};

/// How long a rule may take: a store that does not answer must not hold up a test for ever.
const DEADLINE: Duration = Duration::from_secs(120);

/// A rule on the bench `B`, which holds the store.
struct Rule<B> {
    name: &'static str,
    check: fn(B) -> LocalBoxFuture<'static, Checked>,
}

/// The rules of a file, each under the name of its function.
macro_rules! rules {
    ($bench:ty: $($rule:ident),* $(,)?) => {
        pub(super) const RULES: &[super::Rule<$bench>] = &[$(super::Rule {
            name: stringify!($rule),
            check: |bench| Box::pin($rule(bench)),
        }),*];
    };
}
use rules;

/// The rules of a store that can be written to.
const ALL: [&[Rule<Bench>]; 11] = [
    records::RULES,
    texts::RULES,
    children::RULES,
    rotation::RULES,
    plans::RULES,
    revocation::RULES,
    uses::RULES,
    listing::RULES,
    audit::RULES,
    races::RULES,
    dropped::RULES,
];

/// Checks all rules on tokio. Each has the store that `make` answers, fresh and empty, to itself.
///
/// # Errors
/// Names all rules that the store breaks.
#[cfg(feature = "tokio")]
pub async fn check<S: KeyAdmin, F: Future<Output = S>>(make: impl Fn() -> F) -> Result<(), Broken> {
    check_with_runtime(Arc::new(TokioRuntime), make).await
}

/// The same on another runtime.
///
/// # Errors
/// As [`check`].
pub async fn check_with_runtime<S: KeyAdmin, F: Future<Output = S>>(
    runtime: Arc<dyn Runtime>,
    make: impl Fn() -> F,
) -> Result<(), Broken> {
    let bench = || async { Bench::new(Arc::new(make().await), Arc::clone(&runtime)) };
    check_all(ALL.into_iter().flatten(), &*runtime, bench).await
}

/// Checks what a store that can be broken answers meanwhile and afterwards.
///
/// # Errors
/// As [`check`].
pub async fn check_faults<S: Fragile, F: Future<Output = S>>(
    runtime: Arc<dyn Runtime>,
    make: impl Fn() -> F,
) -> Result<(), Broken> {
    let store = || async { Arc::new(make().await) as Arc<dyn Fragile> };
    check_all(faults::RULES, &*runtime, store).await
}

/// Checks a store that only finds keys, made of the records that it is to find: the rules
/// `lookup_finds_by_the_whole_digest`, `lookup_either_finds_either` and `every_field_survives`.
///
/// # Errors
/// As [`check`].
pub async fn check_lookups<S: KeyStore, F: Future<Output = S>>(
    runtime: Arc<dyn Runtime>,
    make: impl Fn(Vec<KeyRecord>) -> F,
) -> Result<(), Broken> {
    let store = || async { Arc::new(make(records::samples()).await) as Arc<dyn KeyStore> };
    check_all(lookups::RULES, &*runtime, store).await
}

async fn check_all<'a, B: 'static, F: Future<Output = B>>(
    rules: impl IntoIterator<Item = &'a Rule<B>>,
    runtime: &dyn Runtime,
    make: impl Fn() -> F,
) -> Result<(), Broken> {
    let mut findings = Vec::new();
    for rule in rules {
        let checked = (rule.check)(make().await);
        let seen = match select(checked, pin!(runtime.sleep(DEADLINE))).await {
            Either::Left((checked, _)) => checked,
            Either::Right(_) => Err(Seen::new(format!("no end after {DEADLINE:?}"))),
        };
        findings.extend(seen.err().map(|seen| Finding::new(rule.name, seen)));
    }
    if findings.is_empty() { Ok(()) } else { Err(Broken::new(findings)) }
}
