//! What becomes of a plan that is changed.

use futures_util::future::BoxFuture;

use super::{
    bench::{Bench, HOUR, after, alike, id, secret, secret_of, stamp, token},
    finding::{Checked, Seen, holds, same},
    races::race_with_readers,
    rules,
};
use crate::{AuditAction, Grants, KeyRecord, Parent, Plan, Revocation, Rotated};

rules![Bench:
    a_plan_is_of_the_whole_line,
    a_successor_has_the_plan_of_the_line,
    a_changed_plan_reaches_the_children,
    a_changed_plan_changes_nothing_else,
    a_line_has_one_plan_after_a_race,
    a_lookup_after_a_change_of_plan_shows_it,
];

/// How often two are let race.
const ROUNDS: usize = 100;

const NARROW: Plan = Plan::unbounded().with_requests_per_minute(2).with_max_sessions(1);
const WIDE: Plan = Plan::unbounded()
    .with_requests_per_minute(60)
    .with_usage_per_month(u64::MAX)
    .with_sessions_per_minute(u32::MAX);

fn planned(record: KeyRecord, plan: Plan) -> KeyRecord {
    let grants = record.grants().clone().with_plan(plan);
    record.with_grants(grants)
}

fn with_parents_plan(record: &KeyRecord, plan: Plan) -> KeyRecord {
    let parent = record.parent().cloned().map(|parent| parent.with_plan(plan));
    record.clone().with_parent(parent)
}

async fn set(bench: &Bench, name: &str, plan: Plan) -> Result<bool, Seen> {
    Ok(bench.store.set_plan(&id(name), plan, &stamp()).await?)
}

async fn plan_of(bench: &Bench, name: &str) -> Result<Plan, Seen> {
    Ok(*bench.found(name).await?.grants().plan())
}

/// Whichever of its keys is named, be it expired or revoked.
async fn a_plan_is_of_the_whole_line(bench: Bench) -> Checked {
    bench.put([planned(secret("1"), NARROW), planned(secret("other"), NARROW)]).await?;
    for (old, new) in [("1", "2"), ("2", "3")] {
        let rotated = bench.rotate(old, planned(secret(new), NARROW), after(HOUR)).await?;
        same("rotation", rotated, Rotated::Yes)?;
    }
    bench.revoke(&Revocation::Alone(id("2"))).await?;
    for (by, plan) in [("1", WIDE), ("2", Plan::unbounded()), ("3", NARROW), ("3", WIDE)] {
        same(&format!("a plan for {by}"), set(&bench, by, plan).await?, true)?;
        for name in ["1", "2", "3"] {
            same(&format!("plan of {name}, set by {by}"), plan_of(&bench, name).await?, plan)?;
        }
    }
    let replanned = |entry: &(AuditAction, String)| match &entry.0 {
        AuditAction::Replanned { from: NARROW, to: WIDE } => Some(entry.1.clone()),
        _ => None,
    };
    let mut noted: Vec<_> = bench.trail().await?.iter().filter_map(replanned).collect();
    noted.sort();
    same("noted as widened, twice", noted, ["1", "1", "2", "2", "3", "3"])?;
    same("plan of another line", plan_of(&bench, "other").await?, NARROW)?;
    same("a plan for no key", set(&bench, "nobody", WIDE).await?, false)?;
    // Of a line whose first key is forgotten, the others are left.
    holds(bench.store.remove(&id("1"), &stamp()).await?, || "no 1 to remove")?;
    same("a plan for a forgotten key", set(&bench, "1", NARROW).await?, false)?;
    same("a plan for 2", set(&bench, "2", NARROW).await?, true)?;
    same("plan of 3", plan_of(&bench, "3").await?, NARROW)
}

/// Whatever plan the new record brings: the line may have got another since that was made.
async fn a_successor_has_the_plan_of_the_line(bench: Bench) -> Checked {
    bench.put([planned(secret("1"), NARROW)]).await?;
    let second = secret("2").with_grants(Grants::default().with_models(["a"]));
    let rotated = bench.rotate("1", planned(second.clone(), WIDE), after(HOUR)).await?;
    same("rotation", rotated, Rotated::Yes)?;
    let expected = planned(second.with_line(id("1")), NARROW);
    alike("the second", &*bench.found("2").await?, &expected)
}

async fn a_changed_plan_reaches_the_children(bench: Bench) -> Checked {
    let narrower = planned(token("narrower", "1"), NARROW);
    bench.put([secret("1"), secret("other"), token("of 1", "1"), narrower]).await?;
    same("rotation", bench.rotate("1", secret("2"), after(HOUR)).await?, Rotated::Yes)?;
    bench.put([token("of 2", "2"), token("of other", "other")]).await?;
    for plan in [NARROW, WIDE] {
        same("a plan for 2", set(&bench, "2", plan).await?, true)?;
        let first = Parent::new(id("1")).with_plan(plan);
        let second = Parent::new(id("2")).with_line(id("1")).with_plan(plan);
        for (name, parent) in [("of 1", &first), ("narrower", &first), ("of 2", &second)] {
            let child = bench.found(name).await?;
            same(&format!("parent of {name}"), child.parent(), Some(parent))?;
        }
        let other = Parent::new(id("other"));
        same("another parent", bench.found("of other").await?.parent(), Some(&other))?;
    }
    bench.put([token("later", "1")]).await?;
    let later = bench.found("later").await?;
    same("parent's plan of a later one", later.parent().map(Parent::plan), Some(&WIDE))?;
    same("a child's own plan", plan_of(&bench, "narrower").await?, NARROW)?;
    // Of a child, it is its own alone.
    same("a plan for a child", set(&bench, "of 1", NARROW).await?, true)?;
    for (name, plan) in [("of 1", NARROW), ("1", WIDE), ("of 2", Plan::unbounded())] {
        same(&format!("plan of {name}"), plan_of(&bench, name).await?, plan)?;
    }
    Ok(())
}

/// Not what else is granted, nor how often it was used.
async fn a_changed_plan_changes_nothing_else(bench: Bench) -> Checked {
    let grants = Grants::default().with_models(["a", ""]).with_uses(2).with_metadata([("b", "ü")]);
    let full = secret("a").with_grants(grants).with_expires_at(Some(after(HOUR)));
    let other = secret_of("rival", "other");
    bench.put([full.clone(), token("t", "a"), other.clone()]).await?;
    let taken = bench.store.redeem(&bench.found("a").await?).await?;
    taken.ok_or_else(|| Seen::new("no use of two"))?.commit();
    let child = bench.found("t").await?;
    for plan in [NARROW, WIDE, WIDE] {
        same("a plan for a", set(&bench, "a", plan).await?, true)?;
        alike("the key", &*bench.found("a").await?, &planned(full.clone(), plan))?;
        alike("its child", &*bench.found("t").await?, &with_parents_plan(&child, plan))?;
        alike("another key", &*bench.found("other").await?, &other)?;
    }
    let record = bench.found("a").await?;
    for expected in [true, false] {
        let one = bench.store.redeem(&record).await?;
        same("one more use of two", one.map(crate::Use::commit).is_some(), expected)?;
    }
    Ok(())
}

/// Whichever comes second, a rotation or a mint sees the change or is reached by it.
async fn a_line_has_one_plan_after_a_race(bench: Bench) -> Checked {
    for round in 0..ROUNDS {
        let [old, new, child] = ["old", "new", "child"].map(|name| format!("{round}{name}"));
        bench.put([secret(&old)]).await?;
        let (rotating, minting, planning) = (bench.clone(), bench.clone(), bench.clone());
        let (from, to) = (old.clone(), secret(&new));
        let (minted, key) = (token(&child, &old), old.clone());
        let mut tasks: Vec<BoxFuture<'static, Checked>> = vec![
            Box::pin(async move {
                let rotated = rotating.rotate(&from, to, after(HOUR)).await?;
                same("rotation", rotated, Rotated::Yes)
            }),
            Box::pin(async move { minting.put([minted]).await }),
            Box::pin(async move { same("a plan", set(&planning, &key, NARROW).await?, true) }),
        ];
        tasks.rotate_left(round % 3);
        bench.race(tasks).await?.into_iter().collect::<Checked>()?;
        for name in [&old, &new] {
            same(&format!("plan of {name}"), plan_of(&bench, name).await?, NARROW)?;
        }
        let child = bench.found(&child).await?;
        same("plan of the child's parent", child.parent().map(Parent::plan), Some(&NARROW))?;
    }
    Ok(())
}

async fn a_lookup_after_a_change_of_plan_shows_it(bench: Bench) -> Checked {
    for round in 0..ROUNDS {
        let (parent, child) = (format!("{round}p"), format!("{round}t"));
        bench.put([secret(&parent), token(&child, &parent)]).await?;
        let (planning, key) = (bench.clone(), parent.clone());
        let change = async move { same("a plan", set(&planning, &key, NARROW).await?, true) };
        let looking = bench.clone();
        let look = move |reader: usize, must_show: bool| -> BoxFuture<'static, Checked> {
            let name = if reader.is_multiple_of(2) { child.clone() } else { parent.clone() };
            let bench = looking.clone();
            Box::pin(async move {
                let plan = plan_shown(&bench, &name).await?;
                holds(plan == NARROW || !must_show, || {
                    format!("{plan:?} as the plan of {name} after its change")
                })
            })
        };
        race_with_readers(&bench, look, change).await?;
    }
    Ok(())
}

/// The plan that a lookup shows of a key, or of the parent of a child.
async fn plan_shown(bench: &Bench, name: &str) -> Result<Plan, Seen> {
    let record = bench.store.lookup(&super::bench::digest(name)).await?;
    let record = record.ok_or_else(|| Seen::new(format!("no record of {name}")))?;
    Ok(*record.parent().map_or(record.grants().plan(), Parent::plan))
}
