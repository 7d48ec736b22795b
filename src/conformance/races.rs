//! Of two that come at once, each sees the other or is seen by it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::BoxFuture;

use super::{
    bench::{Bench, HOUR, NOW, after, digest, id, secret, stamp, token},
    finding::{Checked, holds, same},
    rules,
    tasks::give_way,
};
use crate::{Inserted, KeyFilter, KeyKind, KeyRecord, Revocation, Rotated, StoreError};

rules![Bench:
    one_of_equals_is_inserted,
    no_key_of_a_revoked_line_is_left,
    no_child_of_a_revoked_parent_is_left,
    a_lookup_after_a_revocation_shows_it,
];

/// How often two are let race.
const ROUNDS: usize = 100;
/// Who looks at a key while it is changed.
const READERS: usize = 3;

/// Lets two race, in every other round the second before the first.
async fn race_both(
    bench: &Bench,
    round: usize,
    first: impl Future<Output = Checked> + Send + 'static,
    second: impl Future<Output = Checked> + Send + 'static,
) -> Checked {
    let mut tasks: Vec<BoxFuture<'static, Checked>> = vec![Box::pin(first), Box::pin(second)];
    if round % 2 == 1 {
        tasks.reverse();
    }
    bench.race(tasks).await?.into_iter().collect()
}

/// Lets several look, again and again, while `change` is made. `look` is told who looks, from 0, and
/// whether the change has been answered, so that it must be seen.
pub(super) async fn race_with_readers(
    bench: &Bench,
    look: impl Fn(usize, bool) -> BoxFuture<'static, Checked> + Send + Sync + 'static,
    change: impl Future<Output = Checked> + Send + 'static,
) -> Checked {
    let (look, has_answered) = (Arc::new(look), Arc::new(AtomicBool::new(false)));
    let mut tasks: Vec<BoxFuture<'static, Checked>> = Vec::new();
    for reader in 0..READERS {
        let (look, has_answered) = (Arc::clone(&look), Arc::clone(&has_answered));
        tasks.push(Box::pin(async move {
            loop {
                let must_show = has_answered.load(Ordering::SeqCst);
                look(reader, must_show).await?;
                if must_show {
                    return Ok(());
                }
                give_way().await;
            }
        }));
    }
    tasks.push(Box::pin(async move {
        let changed = change.await;
        // Even if it failed, so that the readers come to an end.
        has_answered.store(true, Ordering::SeqCst);
        changed
    }));
    bench.race(tasks).await?.into_iter().collect()
}

async fn one_of_equals_is_inserted(bench: Bench) -> Checked {
    for round in 0..ROUNDS / 5 {
        let rival = |number: usize, same_id: bool| {
            let (shared, own) =
                (format!("r{round}{same_id}"), format!("r{round}{same_id}-{number}"));
            let (name, text) = if same_id { (&shared, &own) } else { (&own, &shared) };
            KeyRecord::new(id(name), digest(text), own.as_str(), KeyKind::Secret, NOW)
        };
        for same_id in [true, false] {
            let tasks = (0..4).map(|number| {
                let (store, record) = (Arc::clone(&bench.store), rival(number, same_id));
                Box::pin(async move { store.insert(record, None, &stamp()).await }) as _
            });
            let answers = bench.race(tasks.collect()).await?;
            let answers = answers.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
            let mut stored = 0;
            for (number, answer) in answers.iter().enumerate() {
                let record = rival(number, same_id);
                let found = bench.store.lookup(record.digest()).await?;
                let is_there = found.is_some_and(|found| found.account() == record.account());
                same("said to be inserted, and stored", *answer == Inserted::Yes, is_there)?;
                stored += usize::from(is_there);
            }
            same("stored of four with one id or digest", stored, 1)?;
        }
    }
    Ok(())
}

async fn no_key_of_a_revoked_line_is_left(bench: Bench) -> Checked {
    for round in 0..ROUNDS {
        let (old, new) = (format!("{round}old"), format!("{round}new"));
        bench.put([secret(&old)]).await?;
        let (rotating, revoking) = (bench.clone(), bench.clone());
        let (from, line) = (old.clone(), Revocation::Key(id(&old)));
        let rotation = async move {
            let rotated = rotating.rotate(&from, secret(&new), after(HOUR)).await?;
            let is_either = matches!(rotated, Rotated::Yes | Rotated::Gone);
            holds(is_either, || format!("rotation against revocation: {rotated:?}"))
        };
        let revocation = async move { revoking.revoke(&line).await.map(|_| ()) };
        race_both(&bench, round, rotation, revocation).await?;
        for record in bench.store.list(&KeyFilter::default()).await? {
            holds(record.is_revoked(), || format!("{}, live in a revoked line", record.id()))?;
        }
    }
    Ok(())
}

/// Whoever mints asks for the parent once the token is stored, and takes the token back if the
/// parent is gone. What it misses, the revocation must reach.
async fn no_child_of_a_revoked_parent_is_left(bench: Bench) -> Checked {
    for round in 0..ROUNDS {
        let (parent, child) = (format!("{round}p"), format!("{round}t"));
        bench.put([secret(&parent)]).await?;
        let (minting, revoking) = (bench.clone(), bench.clone());
        let (record, of, what) =
            (token(&child, &parent), id(&parent), Revocation::Key(id(&parent)));
        let minted_of_living = Arc::new(AtomicBool::new(false));
        let lives = Arc::clone(&minted_of_living);
        let mint = async move {
            let inserted = minting.store.insert(record, Some(9), &stamp()).await?;
            same("mint", inserted, Inserted::Yes)?;
            let found = minting.store.find(&of).await?;
            lives.store(found.is_some_and(|key| !key.is_revoked()), Ordering::SeqCst);
            Ok(())
        };
        let revocation = async move { revoking.revoke(&what).await.map(|_| ()) };
        race_both(&bench, round, mint, revocation).await?;
        if minted_of_living.load(Ordering::SeqCst) {
            holds(bench.is_gone(&child).await?, || "a live token of a revoked key")?;
        }
    }
    Ok(())
}

async fn a_lookup_after_a_revocation_shows_it(bench: Bench) -> Checked {
    for round in 0..ROUNDS {
        let (parent, child) = (format!("{round}p"), format!("{round}t"));
        bench.put([secret(&parent), token(&child, &parent)]).await?;
        let (revoking, what) = (bench.clone(), Revocation::Key(id(&parent)));
        let revocation = async move { same("revoked", revoking.revoke(&what).await?, 2) };
        let looking = bench.clone();
        let look = move |reader: usize, must_show: bool| -> BoxFuture<'static, Checked> {
            let name = if reader.is_multiple_of(2) { child.clone() } else { parent.clone() };
            let bench = looking.clone();
            Box::pin(async move {
                let is_gone = bench.is_gone(&name).await?;
                holds(is_gone || !must_show, || format!("{name}, live after its revocation"))
            })
        };
        race_with_readers(&bench, look, revocation).await?;
    }
    Ok(())
}
