//! One key takes the place of another.

use std::time::Duration;

use super::{
    bench::{Bench, HOUR, MINUTE, NOW, after, alike, digest, id, secret, secret_of, stamp, token},
    finding::{Checked, holds, same},
    rules,
};
use crate::{Grants, KeyDigest, KeyKind, KeyRecord, Revocation, Rotated, UnixMillis};

rules![Bench:
    rotation_bounds_the_old_key,
    a_successor_is_of_the_line,
    refused_rotations_change_nothing,
    tokens_outlive_a_rotation,
    revoking_reaches_the_whole_line,
];

async fn rotation_bounds_the_old_key(bench: Bench) -> Checked {
    let (soon, late, never) = (after(MINUTE), after(HOUR), UnixMillis::new(u64::MAX));
    for (number, (own, given, expected)) in [
        (None, soon, soon),
        (None, NOW, NOW),
        (None, never, never),
        (Some(late), soon, soon),
        (Some(soon), late, soon),
        (Some(soon), soon, soon),
        (Some(never), late, late),
    ]
    .into_iter()
    .enumerate()
    {
        let (old, new) = (format!("old{number}"), format!("new{number}"));
        let before = secret(&old).with_expires_at(own);
        bench.put([before.clone()]).await?;
        let rotated = bench.rotate(&old, secret(&new).with_expires_at(own), given).await?;
        same("rotation", rotated, Rotated::Yes)?;
        let expected = before.with_expires_at(Some(expected)).with_successor(Some(id(&new)));
        let what = format!("a key that expires at {own:?}, rotated until {given:?}");
        alike(&what, &*bench.found(&old).await?, &expected)?;
        same("expiry of the new one", bench.found(&new).await?.expires_at(), own)?;
    }
    Ok(())
}

async fn a_successor_is_of_the_line(bench: Bench) -> Checked {
    let grants = Grants::default().with_models(["a"]).with_uses(3);
    bench.put([secret("1")]).await?;
    // Whatever line the new record names.
    let second = secret("2").with_grants(grants).with_expires_at(Some(after(HOUR)));
    same("1 to 2", bench.rotate("1", second.clone(), after(HOUR)).await?, Rotated::Yes)?;
    alike("the second", &*bench.found("2").await?, &second.with_line(id("1")))?;
    let third = secret("3").with_line(id("2"));
    same("2 to 3", bench.rotate("2", third, after(HOUR)).await?, Rotated::Yes)?;
    for (name, successor) in [("1", Some(id("2"))), ("2", Some(id("3"))), ("3", None)] {
        let found = bench.found(name).await?;
        same(&format!("line of {name}"), found.line(), &id("1"))?;
        same(&format!("successor of {name}"), found.successor(), successor.as_ref())?;
    }
    Ok(())
}

async fn refused_rotations_change_nothing(bench: Bench) -> Checked {
    let at = |millis| after(Duration::from_millis(millis));
    let expired = secret("expired").with_expires_at(Some(at(0)));
    let expiring = secret("expiring").with_expires_at(Some(at(1)));
    let keys = ["good", "other", "revoked", "replaced"].map(secret);
    bench.put(keys.into_iter().chain([expired, expiring])).await?;
    bench.revoke(&Revocation::Key(id("revoked"))).await?;
    let replaced = bench.rotate("replaced", secret("successor"), after(HOUR)).await?;
    same("replaced to successor", replaced, Rotated::Yes)?;
    let all = ["good", "other", "revoked", "replaced", "expired", "expiring"];
    let mut before = Vec::new();
    for name in all {
        before.push(bench.found(name).await?);
    }
    let trail = bench.trail().await?;

    let rival =
        |name, digest: KeyDigest| KeyRecord::new(id(name), digest, "acme", KeyKind::Secret, NOW);
    for (old, new, expected) in [
        ("nobody", secret("new"), Rotated::Unknown),
        ("revoked", secret("new"), Rotated::Gone),
        ("expired", secret("new"), Rotated::Gone),
        ("replaced", secret("new"), Rotated::Replaced),
        ("good", rival("other", digest("new")), Rotated::Taken),
        ("good", rival("new", digest("other")), Rotated::Taken),
        ("good", secret("good"), Rotated::Taken),
    ] {
        let what = format!("{old} to {}", new.id());
        same(&what, bench.rotate(old, new, after(MINUTE)).await?, expected)?;
        holds(bench.look("new").await?.is_none(), || format!("{what}: stored"))?;
        for (name, before) in all.iter().zip(&before) {
            alike(&format!("{what}: {name}"), &*bench.found(name).await?, before)?;
        }
        same(&format!("{what}: the trail"), bench.trail().await?, trail.as_slice())?;
    }
    let last = bench.rotate("expiring", secret("new"), after(MINUTE)).await?;
    same("in its last millisecond", last, Rotated::Yes)
}

async fn tokens_outlive_a_rotation(bench: Bench) -> Checked {
    bench.put([secret("old"), token("t", "old")]).await?;
    let before = bench.found("t").await?;
    same("rotation", bench.rotate("old", secret("new"), NOW).await?, Rotated::Yes)?;
    alike("the token", &*bench.found("t").await?, &before)
}

async fn revoking_reaches_the_whole_line(bench: Bench) -> Checked {
    for by in ["1", "2", "3"] {
        let name = |name: &str| format!("{by}/{name}");
        let keys = ["1", "2", "3", "t1", "t2", "t3"].map(name);
        let [first, second, third, tokens @ ..] = &keys;
        bench.put([secret(first), secret_of("acme", &name("other"))]).await?;
        for (old, new) in [(first, second), (second, third)] {
            same("rotation", bench.rotate(old, secret(new), after(HOUR)).await?, Rotated::Yes)?;
        }
        for (token_name, parent) in tokens.iter().zip([first, second, third]) {
            bench.put([token(token_name, parent)]).await?;
        }
        same("by a token", bench.revoke(&Revocation::Key(id(&name("t1")))).await?, 1)?;
        holds(!bench.found(first).await?.is_revoked(), || "a token takes its parent with it")?;
        let count = bench.store.revoke(&Revocation::Key(id(&name(by))), &stamp()).await?;
        same(&format!("revoked by key {by} of three with a token each"), count, 6)?;
        for key in &keys {
            holds(bench.found(key).await?.is_revoked(), || format!("{key}, not revoked"))?;
        }
        holds(!bench.found(&name("other")).await?.is_revoked(), || "another line is revoked")?;
    }
    Ok(())
}
