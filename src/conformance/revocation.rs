//! Keys are taken back, and whoever listens hears of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;

use super::{
    bench::{Bench, HOUR, after, digest, id, secret, secret_of, stamp, token, token_of},
    finding::{Checked, same},
    rules,
};
use crate::{Answer, KeyId, KeyRecord, Lookup, News, Revocation, Rotated, Stamp, UnixMillis};

rules![Bench:
    revoking_reaches_exactly_the_named,
    issued_before_is_exclusive,
    the_first_revocation_stays,
    unknown_keys_make_news,
    news_come_after_the_change,
    news_come_before_the_answer,
];

fn made_at(record: KeyRecord, at: UnixMillis) -> KeyRecord {
    KeyRecord::new(
        record.id().clone(),
        *record.digest(),
        record.account().clone(),
        record.kind(),
        at,
    )
    .with_parent(record.parent().cloned())
    .with_expires_at(record.expires_at())
}

async fn revoking_reaches_exactly_the_named(bench: Bench) -> Checked {
    let all = ["a", "a2", "ta", "tb", "ta2", "b", "u", "c", "v"];
    bench.put([secret("a"), secret("b"), secret_of("other", "c")]).await?;
    same("rotation", bench.rotate("a", secret("a2"), after(HOUR)).await?, Rotated::Yes)?;
    bench.put([token("ta", "a"), token("tb", "a"), token("ta2", "a2")]).await?;
    bench.put([token("u", "b"), token_of("other", "v", "c")]).await?;
    bench.revoked(&all, &[]).await?;
    for (what, count, revoked) in [
        (Revocation::Key(id("nobody")), 0, &[][..]),
        (Revocation::Account("nobody".into()), 0, &[]),
        (Revocation::Account("acm".into()), 0, &[]),
        (Revocation::Alone(id("ta")), 1, &["ta"]),
        (Revocation::Alone(id("a")), 3, &["a", "ta", "tb"]),
        (Revocation::Key(id("a")), 5, &["a", "a2", "ta", "tb", "ta2"]),
        (Revocation::Account("acme".into()), 7, &["a", "a2", "ta", "tb", "ta2", "b", "u"]),
        (Revocation::Account("acme".into()), 7, &["a", "a2", "ta", "tb", "ta2", "b", "u"]),
        (Revocation::Account("other".into()), 2, &all),
    ] {
        let what_text = format!("{what:?}");
        same(&format!("count of {what_text}"), bench.revoke(&what).await?, count)?;
        bench.revoked(&all, revoked).await.map_err(|seen| seen.after(&what_text))?;
    }
    Ok(())
}

async fn issued_before_is_exclusive(bench: Bench) -> Checked {
    let at = |millis| after(Duration::from_millis(millis));
    let all = ["0", "t", "1", "2", "other"];
    bench
        .put([
            made_at(secret("0"), at(0)),
            made_at(secret("1"), at(1)),
            made_at(secret("2"), at(2)),
            made_at(secret_of("rival", "other"), at(0)),
            // A token goes with its parent, whenever it was made.
            made_at(token("t", "0"), at(2)),
        ])
        .await?;
    let before = |at| Revocation::IssuedBefore { account: "acme".into(), at };
    for (time, count, revoked) in [
        (at(0), 0, &[][..]),
        (at(1), 2, &["0", "t"]),
        (at(2), 3, &["0", "t", "1"]),
        (UnixMillis::new(u64::MAX), 4, &["0", "t", "1", "2"]),
    ] {
        same(&format!("count before {time:?}"), bench.revoke(&before(time)).await?, count)?;
        bench.revoked(&all, revoked).await?;
    }
    Ok(())
}

async fn the_first_revocation_stays(bench: Bench) -> Checked {
    bench.put([secret("a"), token("t", "a"), token("u", "a")]).await?;
    let at = |seconds| after(Duration::from_secs(seconds));
    let revoke =
        async |what: Revocation, seconds| bench.store.revoke(&what, &Stamp::new(at(seconds))).await;
    same("a token", revoke(Revocation::Key(id("t")), 1).await?, 1)?;
    for (seconds, what) in [
        (2, Revocation::Key(id("a"))),
        (3, Revocation::Key(id("a"))),
        (1, Revocation::Alone(id("a"))),
        (4, Revocation::Account("acme".into())),
        (5, Revocation::IssuedBefore { account: "acme".into(), at: at(9) }),
    ] {
        same("how many are revoked", revoke(what.clone(), seconds).await?, 3)?;
        let key = bench.found("a").await?;
        same(&format!("time of the key after {what:?}"), key.revoked_at(), Some(at(2)))?;
        for (name, own) in [("t", Some(at(1))), ("u", None)] {
            let token = bench.found(name).await?;
            let parent = token.parent().and_then(crate::Parent::revoked_at);
            same(&format!("times of {name}"), (token.revoked_at(), parent), (own, Some(at(2))))?;
        }
    }
    Ok(())
}

/// What a hub tells, as it tells it.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<KeyId>>>);

impl Heard {
    /// Everything that the store tells from now on; `None` if it tells nothing.
    fn of(bench: &Bench) -> Option<Self> {
        let heard = Self::default();
        let writing = heard.clone();
        bench.store.revocations()?.subscribe(move |news| writing.note(news));
        Some(heard)
    }

    fn note(&self, news: News<'_>) {
        if let News::Revoked(ids) = news {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(ids.iter().cloned());
        }
    }

    fn take(&self) -> Vec<KeyId> {
        let mut heard = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        heard.sort();
        heard.dedup();
        heard
    }
}

async fn unknown_keys_make_news(bench: Bench) -> Checked {
    let Some(heard) = Heard::of(&bench) else { return Ok(()) };
    bench.put([secret("gone")]).await?;
    bench.store.remove(&id("gone"), &stamp()).await?;
    heard.take();
    for what in [Revocation::Key, Revocation::Alone] {
        for name in ["never there", "gone"] {
            same("count", bench.revoke(&what(id(name))).await?, 0)?;
            same(&format!("news of {:?}", what(id(name))), heard.take(), [id(name)])?;
        }
    }
    Ok(())
}

async fn news_come_before_the_answer(bench: Bench) -> Checked {
    let Some(heard) = Heard::of(&bench) else { return Ok(()) };
    bench.put([secret("a"), secret("b"), token("t", "a"), secret("c"), secret("d")]).await?;
    same("rotation", bench.rotate("a", secret("a2"), after(HOUR)).await?, Rotated::Yes)?;
    same("news of inserts and rotations", heard.take(), [])?;
    let account = Revocation::Account("acme".into());
    for (what, must) in [
        (Revocation::Key(id("t")), &["t"][..]),
        (Revocation::Alone(id("b")), &["b"]),
        (Revocation::Key(id("a2")), &["a", "a2"]),
        (Revocation::Key(id("a2")), &["a", "a2"]),
        (account, &["a", "a2", "b", "c", "d"]),
    ] {
        bench.revoke(&what).await?;
        let mut told = heard.take();
        // With the key, the tokens that it minted may be named or not.
        if !must.contains(&"t") && must.contains(&"a") {
            told.retain(|told| told.as_str() != "t");
        }
        let must: Vec<KeyId> = must.iter().map(|name| id(name)).collect();
        same(&format!("news of {what:?}"), told, must)?;
    }
    bench.store.remove(&id("d"), &stamp()).await?;
    same("news of a removal", heard.take(), [id("d")])
}

/// Whoever hears of a key and asks for it then is shown what has become of it.
async fn news_come_after_the_change(bench: Bench) -> Checked {
    let Some(hub) = bench.store.revocations() else { return Ok(()) };
    let heard: Arc<Mutex<Vec<(KeyId, Lookup)>>> = Arc::default();
    // A hub must not own its store.
    let (writing, store) = (Arc::clone(&heard), Arc::downgrade(&bench.store));
    hub.subscribe(move |news| {
        let (News::Revoked(ids), Some(store)) = (news, store.upgrade()) else { return };
        for key in ids.iter().cloned() {
            let mut lookup = store.lookup(&digest(key.as_str()));
            // Asked now, whenever the answer comes.
            let lookup = (&mut lookup).now_or_never().map_or(lookup, Answer::ready);
            writing.lock().unwrap_or_else(PoisonError::into_inner).push((key, lookup));
        }
    });
    bench.put([secret("a"), secret("b"), secret("c"), token("t", "a")]).await?;
    let heard = || heard.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, count) in [
        (Revocation::Key(id("t")), 1),
        (Revocation::Alone(id("a")), 2),
        (Revocation::Account("acme".into()), 5),
    ] {
        bench.revoke(&what).await?;
        bench.at_last("news", async || Ok(heard().len() >= count)).await?;
    }
    bench.store.remove(&id("c"), &stamp()).await?;
    bench.at_last("news of a removal", async || Ok(heard().len() >= 6)).await?;
    let lookups = std::mem::take(&mut *heard());
    let mut live = Vec::new();
    for (key, lookup) in lookups {
        if lookup.await?.is_some_and(|found| !found.is_revoked()) {
            live.push(key);
        }
    }
    same("told of, and still shown alive", live, [])
}
