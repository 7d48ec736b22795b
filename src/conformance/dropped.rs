//! Whoever asks may go away before the answer is there.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use super::{
    bench::{Bench, HOUR, after, id, secret, stamp, token},
    finding::{Checked, Seen, same},
    rules,
    tasks::give_way,
};
use crate::{AuditAction, Grants, Parent, Plan, Revocation, Rotated};

rules![Bench:
    a_dropped_insert_is_whole_or_nothing,
    a_dropped_rotation_is_whole_or_nothing,
    a_dropped_revocation_is_whole_or_nothing,
    a_dropped_change_of_plan_is_whole_or_nothing,
    a_dropped_removal_is_whole_or_nothing,
    a_dropped_use_comes_back,
];

/// After how many polls the question is dropped.
const POLLS: usize = 12;

/// Polls a future so often, and drops it.
async fn begin<F: Future>(asked: F, polls: usize) {
    let mut asked = pin!(asked);
    for _ in 0..polls {
        // Ready whatever the future says, so that nobody waits for it.
        let poll = |cx: &mut Context<'_>| Poll::Ready(Pin::as_mut(&mut asked).poll(cx).is_ready());
        if poll_fn(poll).await {
            return;
        }
        give_way().await;
    }
}

/// Whether the trail says that this was done to the key.
async fn is_noted(bench: &Bench, key: &str, action: &AuditAction) -> Result<bool, Seen> {
    Ok(bench.trail().await?.iter().any(|(done, id)| done == action && id == key))
}

async fn is_there(bench: &Bench, key: &str) -> Result<bool, Seen> {
    Ok(bench.store.find(&id(key)).await?.is_some())
}

async fn a_dropped_insert_is_whole_or_nothing(bench: Bench) -> Checked {
    bench.put([secret("not dropped")]).await?;
    for polls in 0..POLLS {
        let key = format!("a{polls}");
        begin(bench.store.insert(secret(&key), None, &stamp()), polls).await;
        bench
            .at_last("stored and noted, or neither", async || {
                Ok(is_there(&bench, &key).await?
                    == is_noted(&bench, &key, &AuditAction::Created).await?)
            })
            .await?;
    }
    Ok(())
}

async fn a_dropped_rotation_is_whole_or_nothing(bench: Bench) -> Checked {
    for polls in 0..POLLS {
        let (old, new) = (format!("old{polls}"), format!("new{polls}"));
        bench.put([secret(&old)]).await?;
        let old_id = id(&old);
        begin(bench.store.rotate(&old_id, secret(&new), after(HOUR), &stamp()), polls).await;
        let action = AuditAction::Rotated { successor: id(&new) };
        bench
            .at_last("the new key, the old one's expiry and the trail, or none", async || {
                let is_noted = is_noted(&bench, &old, &action).await?;
                let old = bench.store.find(&old_id).await?;
                let expires = old.is_some_and(|old| old.expires_at().is_some());
                Ok([expires, is_noted] == [is_there(&bench, &new).await?; 2])
            })
            .await?;
    }
    Ok(())
}

async fn a_dropped_revocation_is_whole_or_nothing(bench: Bench) -> Checked {
    for polls in 0..POLLS {
        let (key, child) = (format!("a{polls}"), format!("t{polls}"));
        bench.put([secret(&key), token(&child, &key)]).await?;
        begin(bench.store.revoke(&Revocation::Key(id(&key)), &stamp()), polls).await;
        bench
            .at_last("key, token and trail, or none", async || {
                let is_noted = is_noted(&bench, &key, &AuditAction::Revoked).await?;
                Ok([is_noted, bench.is_gone(&child).await?] == [bench.is_gone(&key).await?; 2])
            })
            .await?;
    }
    Ok(())
}

async fn a_dropped_change_of_plan_is_whole_or_nothing(bench: Bench) -> Checked {
    let to = Plan::unbounded().with_requests_per_minute(1);
    for polls in 0..POLLS {
        let [old, new, child] = ["old", "new", "t"].map(|name| format!("{name}{polls}"));
        bench.put([secret(&old), token(&child, &old)]).await?;
        same("rotation", bench.rotate(&old, secret(&new), after(HOUR)).await?, Rotated::Yes)?;
        let old_id = id(&old);
        begin(bench.store.set_plan(&old_id, to, &stamp()), polls).await;
        let action = AuditAction::Replanned { from: Plan::unbounded(), to };
        bench
            .at_last("both keys, the token and the trail, or none", async || {
                let is_noted = is_noted(&bench, &old, &action).await?;
                let mut have = [false; 3];
                for (has, name) in have.iter_mut().zip([&old, &new, &child]) {
                    let found = bench.store.find(&id(name)).await?;
                    let found = found.ok_or_else(|| Seen::new(format!("no record of {name}")))?;
                    let plan = found.parent().map_or(found.grants().plan(), Parent::plan);
                    *has = *plan == to;
                }
                Ok(have == [is_noted; 3])
            })
            .await?;
    }
    Ok(())
}

async fn a_dropped_removal_is_whole_or_nothing(bench: Bench) -> Checked {
    for polls in 0..POLLS {
        let (key, child) = (format!("a{polls}"), format!("t{polls}"));
        bench.put([secret(&key), token(&child, &key)]).await?;
        begin(bench.store.remove(&id(&key), &stamp()), polls).await;
        bench
            .at_last("key and token and no entry, or an entry alone", async || {
                let is_left = !is_noted(&bench, &key, &AuditAction::Removed).await?;
                Ok([is_left, is_there(&bench, &child).await?] == [is_there(&bench, &key).await?; 2])
            })
            .await?;
    }
    Ok(())
}

async fn a_dropped_use_comes_back(bench: Bench) -> Checked {
    for polls in 0..POLLS {
        let key = format!("a{polls}");
        bench.put([secret(&key).with_grants(Grants::default().with_uses(1))]).await?;
        let record = bench.found(&key).await?;
        begin(bench.store.redeem(&record), polls).await;
        bench
            .at_last("the use that nobody took", async || {
                Ok(bench.store.redeem(&record).await?.is_some())
            })
            .await?;
    }
    Ok(())
}
