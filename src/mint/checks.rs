//! What a token may have at all, and that it has no more than its parent. All ways to mint lead
//! through here.
//!
//! Fields are named as [`Grants`] has them; an endpoint renames them to what its clients sent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{MintError, origin::is_origin};
use crate::{Grants, Lifetimes, Lock, Plan, SessionRules, Settings, session::Held};

/// The most entries that a list of models or origins may have (Decart's).
const MAX_ENTRIES: usize = 20;
/// The longest model or origin, in bytes.
const MAX_ENTRY_LEN: usize = 256;
/// The most sessions that a token can be minted for.
const MAX_USES: u32 = 1_000_000;
/// The shortest bound on sessions that a token can be minted with (Decart's).
const MIN_MAX_SESSION: Duration = Duration::from_secs(10);
const MAX_METADATA: usize = 16;
/// In bytes.
const MAX_METADATA_NAME_LEN: usize = 64;
/// In bytes.
const MAX_METADATA_VALUE_LEN: usize = 512;

/// Whether a model can be of this name.
pub(super) fn is_model(name: &str) -> bool {
    (1..=MAX_ENTRY_LEN).contains(&name.len())
}

/// The lifetime of a token asked for now, by a key that has this much `left`.
pub(super) fn lifetime(
    asked: Option<Duration>,
    lifetimes: &Lifetimes,
    left: Option<Duration>,
) -> Result<Duration, MintError> {
    const FIELD: &str = "lifetime";
    let left = left.unwrap_or(Duration::MAX);
    let Some(asked) = asked else { return Ok(lifetimes.default_lifetime().min(left)) };
    if !lifetimes.range().contains(&asked) {
        let (min, max) = (lifetimes.range().start().as_secs(), lifetimes.range().end().as_secs());
        return Err(MintError::invalid(FIELD, format!("must be from {min} to {max}")));
    }
    if asked > left {
        let message = format!("the key that mints lives {} more seconds", left.as_secs());
        return Err(MintError::exceeds(FIELD, message));
    }
    Ok(asked)
}

/// What the child gets: what it asks for, and what the parent has where it asks for nothing.
pub(super) fn subset(
    parent: &Grants,
    asked: &Grants,
    rules: &SessionRules,
) -> Result<Grants, MintError> {
    const ORIGIN: &str = "must be an origin as browsers write it, of at most 256 bytes: \
                          scheme://host, and :port where it is not the scheme's own";
    let mut grants = Grants::default();
    let fits = (is_model as fn(&str) -> bool, "must be of 1 to 256 bytes");
    if let Some(models) = sublist("models", asked.models(), parent.models(), fits)? {
        grants = grants.with_models(models.iter().cloned());
    }
    let fits = (|origin: &str| origin.len() <= MAX_ENTRY_LEN && is_origin(origin), ORIGIN);
    if let Some(origins) = sublist("origins", asked.origins(), parent.origins(), fits)? {
        grants = grants.with_origins(origins.iter().cloned());
    }
    if let Some(uses) = uses(asked.uses(), parent.uses())? {
        grants = grants.with_uses(uses);
    }
    if let Some(max) = max_session(asked.max_session(), parent.max_session())? {
        grants = grants.with_max_session(max);
    }
    if let Some(metadata) = metadata(asked.metadata())?.or(parent.metadata()) {
        grants = grants.with_metadata(metadata.clone());
    }
    grants = grants.with_plan(plan(asked.plan(), parent.plan())?);
    if let Some(session) = settings(asked, parent, rules)? {
        grants = grants.with_session(session);
    }
    if let Some(lock) = lock(asked, parent, rules) {
        grants = grants.with_lock(lock);
    }
    Ok(grants)
}

/// The entries that the child asks for, all of them the parent's; else the parent's. `fits` says
/// what an entry may be, as a test and in words.
fn sublist<'a>(
    field: &str,
    asked: Option<&'a [Arc<str>]>,
    of_parent: Option<&'a [Arc<str>]>,
    (fits, words): (impl Fn(&str) -> bool, &str),
) -> Result<Option<&'a [Arc<str>]>, MintError> {
    let Some(asked) = asked else { return Ok(of_parent) };
    if !(1..=MAX_ENTRIES).contains(&asked.len()) {
        let message = format!("must have 1 to {MAX_ENTRIES} entries; left out, it is inherited");
        return Err(MintError::invalid(field, message));
    }
    for (index, entry) in asked.iter().enumerate() {
        let field = format!("{field}.{index}");
        if !fits(entry) {
            return Err(MintError::invalid(field, words));
        }
        if of_parent.is_some_and(|of_parent| !of_parent.contains(entry)) {
            return Err(MintError::exceeds(field, "the key that mints does not allow it"));
        }
    }
    Ok(Some(asked))
}

/// The sessions that the child asks for, no more than the parent has; else the parent's.
fn uses(asked: Option<u32>, of_parent: Option<u32>) -> Result<Option<u32>, MintError> {
    const FIELD: &str = "uses";
    let Some(asked) = asked else { return Ok(of_parent) };
    if let Some(of_parent) = of_parent.filter(|of_parent| asked > *of_parent) {
        let message = format!("the key that mints has {of_parent}");
        return Err(MintError::exceeds(FIELD, message));
    }
    if !(1..=MAX_USES).contains(&asked) {
        return Err(MintError::invalid(FIELD, format!("must be from 1 to {MAX_USES}")));
    }
    Ok(Some(asked))
}

/// The bound on sessions that the child asks for, no looser than the parent's; else the parent's.
fn max_session(
    asked: Option<Duration>,
    of_parent: Option<Duration>,
) -> Result<Option<Duration>, MintError> {
    const FIELD: &str = "max_session";
    let Some(asked) = asked else { return Ok(of_parent) };
    if let Some(of_parent) = of_parent.filter(|of_parent| asked > *of_parent) {
        let message = format!("the key that mints has {} seconds", of_parent.as_secs());
        return Err(MintError::exceeds(FIELD, message));
    }
    if asked < MIN_MAX_SESSION {
        let message = format!("must be at least {} seconds", MIN_MAX_SESSION.as_secs());
        return Err(MintError::invalid(FIELD, message));
    }
    Ok(Some(asked))
}

/// What the child asks for, no more than the parent has. What it leaves out is bounded by the
/// parent's plan, on which it draws.
fn plan(asked: &Plan, of_parent: &Plan) -> Result<Plan, MintError> {
    let amounts = |plan: &Plan| {
        [
            ("requests_per_minute", plan.requests_per_minute().map(u64::from)),
            ("usage_per_month", plan.usage_per_month()),
            ("sessions_per_minute", plan.sessions_per_minute().map(u64::from)),
            ("max_sessions", plan.max_sessions().map(u64::from)),
        ]
    };
    for ((name, asked), (_, of_parent)) in amounts(asked).into_iter().zip(amounts(of_parent)) {
        if let (Some(asked), Some(of_parent)) = (asked, of_parent)
            && asked > of_parent
        {
            let message = format!("the key that mints has {of_parent}");
            return Err(MintError::exceeds(format!("plan.{name}"), message));
        }
    }
    Ok(*asked)
}

type Metadata = BTreeMap<Arc<str>, Arc<str>>;

fn metadata(asked: Option<&Metadata>) -> Result<Option<&Metadata>, MintError> {
    const FIELD: &str = "metadata";
    let Some(metadata) = asked else { return Ok(None) };
    if metadata.len() > MAX_METADATA {
        return Err(MintError::invalid(FIELD, format!("must have at most {MAX_METADATA} pairs")));
    }
    for (name, value) in metadata {
        if name.len() > MAX_METADATA_NAME_LEN {
            let message = format!("must have names of at most {MAX_METADATA_NAME_LEN} bytes");
            return Err(MintError::invalid(FIELD, message));
        }
        if value.len() > MAX_METADATA_VALUE_LEN {
            let message = format!("must be of at most {MAX_METADATA_VALUE_LEN} bytes");
            return Err(MintError::invalid(format!("{FIELD}.{name}"), message));
        }
    }
    Ok(Some(metadata))
}

/// The parent's settings, and the child's where the parent has locked none.
fn settings(
    asked: &Grants,
    parent: &Grants,
    rules: &SessionRules,
) -> Result<Option<Settings>, MintError> {
    let Some(asked) = asked.session() else { return Ok(parent.session().cloned()) };
    let mut asked = asked.as_map().clone();
    let nothing = Lock::nothing();
    let models = Held { models: parent.models(), ..Held::of(None, &nothing, rules) };
    if let Some(path) = models.filter(&mut asked).kept.first() {
        let message = "the key that mints does not allow this model";
        return Err(MintError::exceeds(format!("session.{path}"), message));
    }
    let of_parent = parent.session().cloned().unwrap_or_default();
    let lock = parent.lock().cloned().unwrap_or_default();
    // Where the parent locks a part of what is asked for, this puts it in.
    if let Some(path) = Held::of(Some(&of_parent), &lock, rules).filter(&mut asked).kept.first() {
        let message = "the key that mints has locked it to another value";
        return Err(MintError::exceeds(format!("session.{path}"), message));
    }
    Ok(Some(of_parent.updated_by(&asked, rules)))
}

/// All that the parent locks, and all that the child asks to lock.
fn lock(asked: &Grants, parent: &Grants, rules: &SessionRules) -> Option<Lock> {
    let of_parent = parent.lock().cloned().unwrap_or_default();
    match asked.lock() {
        None => parent.lock().cloned(),
        Some(asked) if Held::of(parent.session(), &of_parent, rules).is_nothing() => {
            Some(asked.clone())
        }
        Some(asked) => Some(asked.clone().with_parent(&of_parent)),
    }
}
