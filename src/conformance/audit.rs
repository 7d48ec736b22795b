//! The trail tells what was changed, and nothing else.

use super::{
    bench::{Bench, HOUR, MINUTE, after, digest, id, secret, secret_of, stamp, token},
    finding::{Checked, Seen, holds, same},
    rules,
};
use crate::{
    AuditAction, AuditEntry, AuditFilter, Inserted, KeyKind, KeyRecord, Plan, Revocation, Rotated,
    Stamp,
};

rules![Bench: the_trail_tells_every_change, the_trail_tells_nothing_else, the_trail_is_filtered_and_paged];

/// An entry but for its number.
fn told(entry: &AuditEntry) -> String {
    format!(
        "{:?} {} of {:?} at {:?}",
        entry.action(),
        entry.key_id(),
        entry.account(),
        entry.stamp()
    )
}

async fn trail(bench: &Bench, filter: &AuditFilter) -> Result<Vec<String>, Seen> {
    let entries = bench.store.audit(filter).await?;
    let pairs = entries.iter().zip(entries.iter().skip(1));
    for (before, entry) in pairs {
        let numbers = (before.number(), entry.number());
        holds(numbers.0 < numbers.1, || format!("numbers do not go up: {numbers:?}"))?;
    }
    Ok(entries.iter().map(told).collect())
}

async fn the_trail_tells_every_change(bench: Bench) -> Checked {
    let mut second = 0;
    let mut stamps = std::iter::from_fn(|| {
        second += 1;
        let by = ["ann", "", "bob '語'"].get(second % 4).map(|by| (*by).into());
        Some(Stamp::new(after(MINUTE * second as u32)).with_by(by))
    });
    let mut next = || stamps.next().unwrap_or_else(stamp);
    let mut expected = Vec::new();
    let mut expect = |stamp: &Stamp, action, key: &str, account: Option<&str>| {
        let entry = AuditEntry::new(0, stamp.clone(), action, id(key), account.map(Into::into));
        expected.push(told(&entry));
    };
    let (acme, rival) = (Some("acme"), Some("rival"));

    for (name, account) in [("a", acme), ("b", acme), ("c", rival)] {
        let at = next();
        let record = secret_of(account.unwrap_or_default(), name);
        same("insert", bench.store.insert(record, None, &at).await?, Inserted::Yes)?;
        expect(&at, AuditAction::Created, name, account);
    }
    let at = next();
    let rotated = bench.store.rotate(&id("a"), secret("a2"), after(HOUR), &at).await?;
    same("rotation", rotated, Rotated::Yes)?;
    expect(&at, AuditAction::Rotated { successor: id("a2") }, "a", acme);
    expect(&at, AuditAction::Created, "a2", acme);
    let (mut from, most) = (Plan::unbounded(), u64::MAX);
    let all = from.with_requests_per_minute(0).with_sessions_per_minute(u32::MAX);
    for to in [all.with_usage_per_month(most).with_max_sessions(3), from.with_max_sessions(0)] {
        let at = next();
        same("a plan", bench.store.set_plan(&id("b"), to, &at).await?, true)?;
        expect(&at, AuditAction::Replanned { from, to }, "b", acme);
        from = to;
    }
    bench.put([token("t", "b"), token("u", "b")]).await?;
    let (at, from) = (next(), Plan::unbounded());
    same("a token's plan", bench.store.set_plan(&id("t"), all, &at).await?, true)?;
    expect(&at, AuditAction::Replanned { from, to: all }, "t", acme);
    for (what, key, account) in [
        (Revocation::Key(id("t")), "t", acme),
        (Revocation::Alone(id("a2")), "a2", acme),
        (Revocation::Alone(id("b")), "b", acme),
        (Revocation::Account("rival".into()), "c", rival),
        (Revocation::Key(id("forgotten")), "forgotten", None),
        // Of the keys of the account, one is left.
        (Revocation::IssuedBefore { account: "acme".into(), at: after(HOUR) }, "a", acme),
    ] {
        let at = next();
        bench.store.revoke(&what, &at).await?;
        expect(&at, AuditAction::Revoked, key, account);
    }
    for (name, account) in [("b", acme), ("c", rival)] {
        let at = next();
        same("removal", bench.store.remove(&id(name), &at).await?, true)?;
        expect(&at, AuditAction::Removed, name, account);
    }
    same("the trail", trail(&bench, &AuditFilter::default()).await?, expected)
}

async fn the_trail_tells_nothing_else(bench: Bench) -> Checked {
    bench.put([secret("a")]).await?;
    bench.revoke(&Revocation::Key(id("a"))).await?;
    let before = trail(&bench, &AuditFilter::default()).await?;
    same("entries", before.len(), 2)?;
    bench.put([token("t", "a")]).await?;
    let rival = KeyRecord::new(id("rival"), digest("a"), "acme", KeyKind::Secret, after(MINUTE));
    let inserted = bench.store.insert(rival, None, &stamp()).await?;
    same("the same digest", inserted, Inserted::Taken)?;
    same("a revoked key", bench.rotate("a", secret("b"), after(HOUR)).await?, Rotated::Gone)?;
    same("no key", bench.rotate("no", secret("b"), after(HOUR)).await?, Rotated::Unknown)?;
    for again in [
        Revocation::Key(id("a")),
        Revocation::Alone(id("a")),
        Revocation::Account("acme".into()),
        Revocation::Account("nobody".into()),
    ] {
        bench.revoke(&again).await?;
    }
    for (key, plan) in [("a", Plan::unbounded()), ("no", Plan::unbounded().with_max_sessions(1))] {
        bench.store.set_plan(&id(key), plan, &stamp()).await?;
    }
    same("removal", bench.store.remove(&id("no"), &stamp()).await?, false)?;
    same("the trail", trail(&bench, &AuditFilter::default()).await?, before)
}

async fn the_trail_is_filtered_and_paged(bench: Bench) -> Checked {
    let names = ["1", "2", "3", "4", "5", "6", "7"];
    for (number, name) in names.iter().enumerate() {
        bench.put([secret_of(if number % 2 == 0 { "even" } else { "odd" }, name)]).await?;
    }
    bench.revoke(&Revocation::Key(id("2"))).await?;
    let keys = async |filter: &AuditFilter| -> Result<Vec<String>, Seen> {
        let entries = bench.store.audit(filter).await?;
        Ok(entries.iter().map(|entry| entry.key_id().to_string()).collect())
    };
    for (filter, expected) in [
        (AuditFilter::account("even"), &["1", "3", "5", "7"][..]),
        (AuditFilter::account("odd"), &["2", "4", "6", "2"]),
        (AuditFilter::account("od"), &[]),
        (AuditFilter::key(id("2")), &["2", "2"]),
        (AuditFilter::key(id("nobody")), &[]),
        (AuditFilter { key_id: Some(id("2")), ..AuditFilter::account("even") }, &[]),
        (AuditFilter::default().with_page(None, 3), &["1", "2", "3"]),
        (AuditFilter::account("odd").with_page(None, 3), &["2", "4", "6"]),
        (AuditFilter::default().with_page(None, 0), &[]),
    ] {
        same(&format!("{filter:?}"), keys(&filter).await?.as_slice(), expected)?;
    }
    let expected = ["1", "2", "3", "4", "5", "6", "7", "2"];
    for limit in [1, 3, 8, usize::MAX] {
        let (mut pages, mut last) = (Vec::new(), None);
        loop {
            let page = bench.store.audit(&AuditFilter::default().with_page(last, limit)).await?;
            let Some(end) = page.last() else { break };
            last = Some(end.number());
            pages.extend(page.iter().map(|entry| entry.key_id().to_string()));
            if pages.len() > expected.len() {
                break;
            }
        }
        same(&format!("pages of {limit}"), pages.as_slice(), expected)?;
    }
    Ok(())
}
