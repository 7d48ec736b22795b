//! Records go in and come out.

use std::time::Duration;

use super::{
    bench::{Bench, MINUTE, NOW, after, alike, digest, id, secret, stamp, token},
    finding::{Checked, holds, same},
    rules,
};
use crate::{
    DigestAlgorithm, Environment, Grants, Inserted, KeyDigest, KeyHint, KeyKind, KeyRecord, Plan,
    Revocation, Rotated, UnixMillis,
};

rules![Bench:
    insert_overwrites_nothing,
    lookup_finds_by_the_whole_digest,
    lookup_either_finds_either,
    every_field_survives,
    lookups_find_and_lists_are_fresh,
];

/// Records that between them set every field in every way that may be stored otherwise.
pub(super) fn samples() -> Vec<KeyRecord> {
    let none: [&str; 0] = [];
    let no_pairs: [(&str, &str); 0] = [];
    let grants = |name: &str, grants: Grants| secret(name).with_grants(grants);
    let granted = Grants::default;
    let most = u64::MAX;
    let plan = Plan::default();
    let samples = vec![
        secret("plain"),
        token("token", "plain"),
        secret("peppered").with_algorithm(DigestAlgorithm::HmacSha256 { pepper: 0 }),
        secret("last pepper").with_algorithm(DigestAlgorithm::HmacSha256 { pepper: u32::MAX }),
        secret("test").with_environment(Environment::Test),
        secret("successor").with_line(id("plain")),
        secret("hint").with_hint(Some(KeyHint::new("sk_live_", "a1B2"))),
        secret("hint without a prefix").with_hint(Some(KeyHint::new("", "\"'\\%"))),
        secret("expires").with_expires_at(Some(after(Duration::from_millis(1)))),
        secret("expires late").with_expires_at(Some(UnixMillis::new(most))),
        secret("expired ever").with_expires_at(Some(UnixMillis::new(0))),
        secret("revoked").with_revoked_at(Some(after(MINUTE))),
        secret("revoked late").with_revoked_at(Some(UnixMillis::new(most))),
        secret("used").with_last_used_at(Some(after(MINUTE))),
        KeyRecord::new(id("first"), digest("first"), "", KeyKind::Secret, UnixMillis::new(0)),
        KeyRecord::new(id("last"), digest("last"), "acme", KeyKind::Secret, UnixMillis::new(most)),
        grants("models", granted().with_models(["b", "a", "b", ""])),
        grants("no models", granted().with_models(none)),
        grants("origins", granted().with_origins(["https://b.example", "https://a.example"])),
        grants("no origins", granted().with_origins(none)),
        grants("no uses", granted().with_uses(0)),
        grants("most uses", granted().with_uses(u32::MAX)),
        grants("no session", granted().with_max_session(Duration::ZERO)),
        grants("short", granted().with_max_session(Duration::from_millis(1_500))),
        grants(
            "metadata",
            granted().with_metadata([("team", "müßig 語 🎧"), ("", ""), ("b", "\n")]),
        ),
        grants("no metadata", granted().with_metadata(no_pairs)),
        grants("requests", granted().with_plan(plan.with_requests_per_minute(1))),
        grants("usage", granted().with_plan(plan.with_usage_per_month(most))),
        grants("sessions a minute", granted().with_plan(plan.with_sessions_per_minute(0))),
        grants("sessions", granted().with_plan(plan.with_max_sessions(u32::MAX))),
    ];
    let sessions = sessions().into_iter().map(|(name, session)| grants(name, session));
    samples.into_iter().chain(sessions).collect()
}

#[cfg(not(feature = "session"))]
const fn sessions() -> [(&'static str, Grants); 0] {
    []
}

#[cfg(feature = "session")]
fn sessions() -> Vec<(&'static str, Grants)> {
    use crate::{Lock, Settings};
    let all_sorts = r#"{"a": null, "b": [1, 1.5, 1e300, -0.1, 18446744073709551615, {}], "ü": "🎧\u0001",
                        "audio": {"output": {"voice": "marin"}}, "n": 0.30000000000000004}"#;
    let of = |json| Grants::default().with_session(Settings::parse(json).unwrap_or_default());
    let paths = Lock::nothing().and(["tools", "audio.output.voice"]).unwrap_or_default();
    vec![
        ("session", of(all_sorts)),
        ("empty session", of("{}")),
        ("set locked", of("{}").with_lock(Lock::set())),
        ("all locked", of("{}").with_lock(Lock::all())),
        ("nothing locked", of("{}").with_lock(Lock::nothing())),
        ("paths locked", of(r#"{"speed": 2}"#).with_lock(paths.clone())),
        ("lock alone", Grants::default().with_lock(paths)),
    ]
}

async fn insert_overwrites_nothing(bench: Bench) -> Checked {
    let first = secret("first").with_grants(Grants::default().with_models(["a"]));
    bench.put([first.clone(), secret("other")]).await?;
    let rival = |name, bytes| KeyRecord::new(id(name), bytes, "rival", KeyKind::Secret, NOW);
    for (what, record) in [
        ("the same record", first.clone()),
        ("the same id", rival("first", digest("rival"))),
        ("the same digest", rival("rival", digest("first"))),
        ("the id of one and the digest of another", rival("first", digest("other"))),
    ] {
        let inserted = bench.store.insert(record, None, &stamp()).await?;
        same(what, inserted, Inserted::Taken)?;
        alike(what, &*bench.found("first").await?, &first)?;
        holds(bench.look("rival").await?.is_none(), || format!("{what}: stored"))?;
    }
    let rival = bench.store.lookup(&digest("rival")).await?;
    holds(rival.is_none(), || "a refused digest is found")
}

async fn lookup_finds_by_the_whole_digest(bench: Bench) -> Checked {
    holds(bench.store.lookup(&digest("a")).await?.is_none(), || "found in an empty store")?;
    bench.put([secret("a"), secret("b")]).await?;
    for name in ["a", "b"] {
        bench.found(name).await?;
    }
    for place in 0..32 {
        let mut bytes = *digest("a").as_bytes();
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1;
        }
        let found = bench.store.lookup(&KeyDigest::from_bytes(bytes)).await?;
        holds(found.is_none(), || format!("found by a digest with another byte {place}"))?;
    }
    Ok(())
}

async fn lookup_either_finds_either(bench: Bench) -> Checked {
    bench.put([secret("a"), secret("b")]).await?;
    for (current, previous, expected) in [
        ("a", "nobody", Some("a")),
        ("nobody", "a", Some("a")),
        ("a", "b", Some("a")),
        ("b", "a", Some("b")),
        ("a", "a", Some("a")),
        ("nobody", "nothing", None),
    ] {
        let found = bench.store.lookup_either(&digest(current), &digest(previous)).await?;
        let found = found.as_ref().map(|record| record.id().as_str());
        same(&format!("{current}, else {previous}"), found, expected)?;
    }
    Ok(())
}

async fn every_field_survives(bench: Bench) -> Checked {
    for sample in samples() {
        bench.put([sample.clone()]).await?;
        let found = bench.found(sample.id().as_str()).await?;
        alike("the record", &found, &sample)?;
    }
    Ok(())
}

/// Each change is seen by whoever has asked just before it.
async fn lookups_find_and_lists_are_fresh(bench: Bench) -> Checked {
    holds(bench.look("a").await?.is_none(), || "found in an empty store")?;
    bench.put([secret("a")]).await?;
    same("expiry", bench.found("a").await?.expires_at(), None)?;
    let expires_at = after(MINUTE);
    same("rotation", bench.rotate("a", secret("b"), expires_at).await?, Rotated::Yes)?;
    same("expiry", bench.found("a").await?.expires_at(), Some(expires_at))?;
    bench.put([token("t", "b")]).await?;
    holds(!bench.found("t").await?.is_revoked(), || "revoked from the beginning")?;
    bench.revoke(&Revocation::Alone(id("b"))).await?;
    for name in ["b", "t"] {
        holds(bench.found(name).await?.is_revoked(), || format!("{name}, not revoked"))?;
    }
    for name in ["b", "a"] {
        holds(bench.store.remove(&id(name), &stamp()).await?, || format!("no {name} to remove"))?;
        holds(bench.look(name).await?.is_none(), || format!("{name}, not removed"))?;
    }
    Ok(())
}
