//! Tokens and the keys that minted them.

use std::time::Duration;

use super::{
    bench::{Bench, HOUR, MINUTE, after, digest, id, secret, stamp, token},
    finding::{Checked, Seen, holds, same},
    rules,
};
use crate::{
    Grants, Inserted, KeyKind, KeyRecord, Parent, Plan, Revocation, Rotated, StoreError, UnixMillis,
};

rules![Bench:
    a_parents_state_travels_with_its_children,
    a_parents_line_and_plan_travel_with_its_children,
    children_are_capped,
    only_living_children_count,
    the_cap_is_exact_in_a_race,
    removing_takes_the_children,
];

/// A token that is made then.
fn token_at(name: &str, parent: &str, at: UnixMillis) -> KeyRecord {
    KeyRecord::new(id(name), digest(name), "acme", KeyKind::Ephemeral, at)
        .with_parent(Some(Parent::new(id(parent))))
        .with_expires_at(Some(at.saturating_add(HOUR)))
}

async fn insert(bench: &Bench, record: KeyRecord, cap: u32) -> Result<Inserted, StoreError> {
    bench.store.insert(record, Some(cap), &stamp()).await
}

async fn a_parents_state_travels_with_its_children(bench: Bench) -> Checked {
    bench.put([secret("p"), secret("q"), token("before", "p"), token("other", "q")]).await?;
    same("parent", bench.found("before").await?.parent(), Some(&Parent::new(id("p"))))?;
    bench.revoke(&Revocation::Alone(id("p"))).await?;
    bench.put([token("after", "p")]).await?;
    let gone = Parent::new(id("p")).with_revoked_at(Some(stamp().at()));
    for name in ["before", "after"] {
        let child = bench.found(name).await?;
        same(&format!("parent of {name}"), child.parent(), Some(&gone))?;
        same(&format!("own revocation of {name}"), child.revoked_at(), None)?;
    }
    same("parent of other", bench.found("other").await?.parent(), Some(&Parent::new(id("q"))))
}

/// By them, tokens draw on their parent's budget, which its rotation does not double.
async fn a_parents_line_and_plan_travel_with_its_children(bench: Bench) -> Checked {
    let plan = Plan::unbounded().with_requests_per_minute(60).with_usage_per_month(1_000_000);
    let granted = || Grants::default().with_plan(plan.with_max_sessions(3));
    bench.put([secret("1").with_grants(granted()), token("of 1", "1")]).await?;
    let rotated = bench.rotate("1", secret("2").with_grants(granted()), after(HOUR)).await?;
    same("rotation", rotated, Rotated::Yes)?;
    bench.put([token("of 2", "2")]).await?;
    bench.revoke(&Revocation::Alone(id("1"))).await?;
    let second = Parent::new(id("2")).with_line(id("1")).with_plan(*granted().plan());
    same("parent of 2's", bench.found("of 2").await?.parent(), Some(&second))?;
    let first = Parent::new(id("1")).with_plan(*granted().plan());
    let first = first.with_revoked_at(Some(stamp().at()));
    same("parent of 1's, revoked", bench.found("of 1").await?.parent(), Some(&first))
}

async fn children_are_capped(bench: Bench) -> Checked {
    bench.put([secret("p"), secret("q")]).await?;
    for (name, parent, cap, expected) in [
        ("none", "p", 0, Inserted::TooManyChildren),
        ("1", "p", 2, Inserted::Yes),
        ("2", "p", 2, Inserted::Yes),
        ("3", "p", 2, Inserted::TooManyChildren),
        ("of q", "q", 1, Inserted::Yes),
        ("3", "p", 3, Inserted::Yes),
        ("4", "p", 1, Inserted::TooManyChildren),
        ("4", "p", u32::MAX, Inserted::Yes),
    ] {
        let what = format!("{name} of {parent}, capped at {cap}");
        same(&what, insert(&bench, token(name, parent), cap).await?, expected)?;
        let is_there = bench.look(name).await?.is_some();
        same(&format!("{what}: stored"), is_there, expected == Inserted::Yes)?;
    }
    let free = bench.store.insert(token("5", "p"), None, &stamp()).await?;
    same("without a cap", free, Inserted::Yes)?;
    same("a secret key", insert(&bench, secret("r"), 0).await?, Inserted::Yes)
}

async fn only_living_children_count(bench: Bench) -> Checked {
    bench.put([secret("p"), token("1", "p"), token("2", "p")]).await?;
    bench.revoke(&Revocation::Key(id("1"))).await?;
    same("room of a revoked one", insert(&bench, token("3", "p"), 2).await?, Inserted::Yes)?;
    same("no room", insert(&bench, token("4", "p"), 2).await?, Inserted::TooManyChildren)?;
    let last = after(HOUR - Duration::from_millis(1));
    let still = insert(&bench, token_at("4", "p", last), 2).await?;
    same("no room yet", still, Inserted::TooManyChildren)?;
    for (name, expected) in
        [("4", Inserted::Yes), ("5", Inserted::Yes), ("6", Inserted::TooManyChildren)]
    {
        let inserted = insert(&bench, token_at(name, "p", after(HOUR)), 2).await?;
        same(&format!("{name}, after two have expired"), inserted, expected)?;
    }
    Ok(())
}

async fn the_cap_is_exact_in_a_race(bench: Bench) -> Checked {
    const CAP: usize = 7;
    for round in 0..10 {
        let parent = format!("p{round}");
        bench.put([secret(&parent)]).await?;
        let tasks = (0..2 * CAP).map(|number| {
            let (bench, name) = (bench.clone(), format!("{parent}t{number}"));
            let record = token(&name, &parent);
            Box::pin(async move { insert(&bench, record, CAP as u32).await }) as _
        });
        let answers = bench.race(tasks.collect()).await?;
        let answers = answers.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let count = |what| answers.iter().filter(|answer| **answer == what).count();
        let counts = (count(Inserted::Yes), count(Inserted::TooManyChildren));
        same("inserted and refused", counts, (CAP, CAP))?;
        let mut stored = 0;
        for number in 0..2 * CAP {
            let child = bench.store.find(&id(&format!("{parent}t{number}"))).await?;
            stored += usize::from(child.is_some());
        }
        same("stored", stored, CAP)?;
    }
    Ok(())
}

async fn removing_takes_the_children(bench: Bench) -> Checked {
    bench.put([secret("p"), secret("q"), token("t", "p"), token("u", "q")]).await?;
    let remove =
        async |name| -> Result<bool, Seen> { Ok(bench.store.remove(&id(name), &stamp()).await?) };
    same("removed", remove("p").await?, true)?;
    for (name, is_left) in [("p", false), ("t", false), ("q", true), ("u", true)] {
        same(&format!("{name} is left"), bench.look(name).await?.is_some(), is_left)?;
    }
    holds(!bench.found("u").await?.is_revoked(), || "another's token is revoked")?;
    same("removed again", remove("p").await?, false)?;
    same("removed a token", remove("u").await?, true)?;
    same("q is left", bench.look("q").await?.is_some(), true)?;
    // What is forgotten may come again, and nothing of it is left.
    bench.put([secret("p").with_expires_at(Some(after(MINUTE)))]).await?;
    same("the new p", bench.found("p").await?.expires_at(), Some(after(MINUTE)))?;
    same("the first token of the new p", insert(&bench, token("t", "p"), 1).await?, Inserted::Yes)
}
