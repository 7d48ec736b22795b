//! Texts are kept as they are and mean nothing.

use super::{
    bench::{Bench, NOW, alike, digest, id, stamp},
    finding::{Checked, holds, same},
    rules,
};
use crate::{AuditFilter, Grants, KeyFilter, KeyKind, KeyRecord, Revocation, Rotated, Stamp};

rules![Bench: hostile_texts_survive, nul_survives, texts_are_compared_byte_for_byte];

/// A record that has the text wherever there can be one.
fn record(text: &str, account: &str) -> KeyRecord {
    let grants = Grants::default()
        .with_models([text])
        .with_origins([text])
        .with_metadata([(text, text), ("name", text)]);
    KeyRecord::new(id(text), digest(text), account, KeyKind::Secret, NOW).with_grants(grants)
}

/// The life of a key all of whose texts are this one.
async fn live_with(bench: &Bench, text: &str) -> Checked {
    let first = record(text, text);
    bench.put([first.clone()]).await?;
    alike("the record", &*bench.found(text).await?, &first)?;
    let listed = bench.store.list(&KeyFilter::account(text)).await?;
    same("keys of the account", listed.len(), 1)?;

    let next = format!("{text}2");
    let rotated = bench.rotate(text, record(&next, text), NOW).await?;
    same("rotation", rotated, Rotated::Yes)?;
    same("line", bench.found(&next).await?.line().as_str(), text)?;
    let by = Stamp::new(NOW).with_by(Some(text.into()));
    let account = Revocation::Account(text.into());
    same("keys revoked", bench.store.revoke(&account, &by).await?, 2)?;
    holds(bench.found(text).await?.is_revoked(), || "not revoked")?;
    let trail = bench.store.audit(&AuditFilter::account(text)).await?;
    same("entries of the account", trail.len(), 5)?;
    same("who revoked", trail.last().and_then(|entry| entry.stamp().by()), Some(text))?;
    holds(bench.store.remove(&id(text), &stamp()).await?, || "no key to remove")?;
    holds(bench.look(text).await?.is_none(), || "not removed")
}

async fn hostile_texts_survive(bench: Bench) -> Checked {
    for text in [
        "",
        "'; DROP TABLE keys; --",
        "\"'`\\\\' OR '1'='1",
        "%_*?[a]$1:name{}",
        "NULL",
        "0",
        " \t\r\n ",
        "🎧 müßig 語 \u{202e}\u{feff}\u{10ffff}",
        "{\"json\": [1, \"\\u0000\"]}",
    ] {
        live_with(&bench, text).await?;
    }
    live_with(&bench, &"ä".repeat(5_000)).await
}

async fn nul_survives(bench: Bench) -> Checked {
    for text in ["\0", "a\0b", "a\0c", "\u{1}\u{7f}"] {
        live_with(&bench, text).await?;
    }
    Ok(())
}

async fn texts_are_compared_byte_for_byte(bench: Bench) -> Checked {
    let alike =
        ["acme", "ACME", "acme ", " acme", "acmé", "acme\u{301}", "acm\u{e9}\u{200d}", "acm"];
    for text in alike {
        bench.put([record(text, text)]).await?;
    }
    for text in alike {
        let listed = bench.store.list(&KeyFilter::account(text)).await?;
        let accounts: Vec<&str> = listed.iter().map(|record| &**record.account()).collect();
        same("accounts listed", accounts.as_slice(), [text])?;
    }
    for (number, text) in alike.iter().enumerate() {
        same("keys revoked", bench.revoke(&Revocation::Account((*text).into())).await?, 1)?;
        for (other, text) in alike.iter().enumerate() {
            let is_revoked = bench.found(text).await?.is_revoked();
            same(&format!("{text:?} is revoked"), is_revoked, other <= number)?;
        }
    }
    Ok(())
}
