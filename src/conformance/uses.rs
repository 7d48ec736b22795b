//! Uses are counted, and the last one is noted.

use std::{sync::Arc, time::Duration};

use super::{
    bench::{Bench, MINUTE, NOW, after, id, secret, stamp, token},
    finding::{Checked, Seen, holds, same},
    rules,
};
use crate::{Grants, KeyRecord, StoreError, UnixMillis, Use};

rules![Bench: uses_are_counted, unspent_uses_come_back, uses_are_exact_in_a_race, notes_of_use_do_not_lie];

fn limited(name: &str, uses: u32) -> KeyRecord {
    secret(name).with_grants(Grants::default().with_uses(uses))
}

/// Takes a use and spends it; answers whether there was one.
async fn spend(bench: &Bench, record: &Arc<KeyRecord>) -> Result<bool, Seen> {
    Ok(bench.store.redeem(record).await?.map(Use::commit).is_some())
}

async fn uses_are_counted(bench: Bench) -> Checked {
    let of_token = token("t", "none").with_grants(Grants::default().with_uses(1));
    bench.put([limited("none", 0), limited("two", 2), of_token, secret("any")]).await?;
    for (name, uses) in [("none", 0), ("t", 1), ("two", 2)] {
        let record = bench.found(name).await?;
        for number in 0..uses {
            holds(spend(&bench, &record).await?, || format!("no use {number} of {name}"))?;
        }
        for _ in 0..2 {
            holds(!spend(&bench, &record).await?, || format!("more than {uses} of {name}"))?;
        }
    }
    let any = bench.found("any").await?;
    for _ in 0..5 {
        holds(spend(&bench, &any).await?, || "no use of a key without a limit")?;
    }
    let removed = bench.found("two").await?;
    bench.store.remove(&id("two"), &stamp()).await?;
    holds(!spend(&bench, &removed).await?, || "a use of a key that was removed")
}

async fn unspent_uses_come_back(bench: Bench) -> Checked {
    bench.put([limited("two", 2), limited("other", 1)]).await?;
    let (two, other) = (bench.found("two").await?, bench.found("other").await?);
    let take = async |record| Ok::<_, Seen>(bench.store.redeem(record).await?);
    let held = [take(&two).await?, take(&two).await?];
    holds(held.iter().all(Option::is_some), || "no two uses of two")?;
    holds(take(&two).await?.is_none(), || "a third use of two")?;
    holds(spend(&bench, &other).await?, || "no use of another key")?;
    let [first, second] = held;
    drop(first);
    // A store may need a while to write it down.
    bench.at_last("the use that was dropped", async || spend(&bench, &two).await).await?;
    drop(second);
    bench.at_last("the other use that was dropped", async || spend(&bench, &two).await).await?;
    holds(!spend(&bench, &two).await?, || "more uses came back than were dropped")?;
    holds(!spend(&bench, &other).await?, || "a use of another key came back")
}

async fn uses_are_exact_in_a_race(bench: Bench) -> Checked {
    const USES: usize = 5;
    for round in 0..10 {
        let name = format!("k{round}");
        bench.put([limited(&name, USES as u32)]).await?;
        let record = bench.found(&name).await?;
        let tasks = (0..3 * USES).map(|_| {
            let (store, record) = (Arc::clone(&bench.store), Arc::clone(&record));
            Box::pin(async move { store.redeem(&record).await.map(|one| one.map(Use::commit)) })
                as _
        });
        let taken = bench.race(tasks.collect()).await?;
        let taken = taken.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        same("uses taken", taken.iter().flatten().count(), USES)?;
    }
    Ok(())
}

async fn notes_of_use_do_not_lie(bench: Bench) -> Checked {
    bench.put([secret("a"), secret("b")]).await?;
    let mut before: Option<UnixMillis> = None;
    let mut latest = NOW;
    for seconds in [300, 301, 10, 400] {
        let at = after(Duration::from_secs(seconds));
        latest = latest.max(at);
        bench.store.note_use(&bench.found("a").await?, at);
        let shown = bench.store.find(&id("a")).await?.and_then(|record| record.last_used_at());
        let what = || format!("{shown:?}, used last at {latest:?}, shown before {before:?}");
        holds(shown.is_none_or(|shown| latest.since(shown) <= MINUTE && shown <= latest), what)?;
        holds(shown >= before, what)?;
        before = shown;
    }
    let other = bench.found("b").await?.last_used_at();
    same("use of another key", other, None)
}
