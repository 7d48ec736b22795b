//! A store that fails says so.

use std::sync::Arc;

use super::{
    bench::{HOUR, after, digest, id, image, secret, stamp, token},
    finding::{Checked, Seen, holds, same},
    rules,
};
use crate::{
    Answer, AuditFilter, Grants, Inserted, KeyAdmin, KeyFilter, KeyId, Plan, Revocation,
    StoreError, Use,
};

rules![Arc<dyn Fragile>: a_broken_store_knows_nothing, a_mended_store_is_the_old_one];

/// A store whose failure can be brought about: the file that is taken away, the server that is
/// stopped.
pub trait Fragile: KeyAdmin {
    /// Breaks the store: from the answer on, it cannot answer anything.
    fn break_store(&self) -> Answer<'_, ()>;

    /// Mends it: from the answer on, it can.
    fn mend(&self) -> Answer<'_, ()>;
}

async fn put(store: &Arc<dyn Fragile>) -> Checked {
    let limited = secret("a").with_grants(Grants::default().with_uses(1));
    for record in [limited, secret("b"), token("t", "a")] {
        same("insert", store.insert(record, None, &stamp()).await?, Inserted::Yes)?;
    }
    Ok(())
}

/// An answer must be an error.
fn failed<T>(what: &str, answer: Result<T, StoreError>) -> Checked {
    holds(answer.is_err(), || format!("{what}: an answer of a broken store"))
}

async fn a_broken_store_knows_nothing(store: Arc<dyn Fragile>) -> Checked {
    put(&store).await?;
    let known = store.find(&id("a")).await?.ok_or_else(|| Seen::new("no record of a"))?;
    store.break_store().await;
    for name in ["a", "t", "nobody"] {
        failed("lookup", store.lookup(&digest(name)).await)?;
        failed("lookup_either", store.lookup_either(&digest(name), &digest("b")).await)?;
        failed("find", store.find(&id(name)).await)?;
        let revocation = Revocation::Key(id(name));
        failed("revoke", store.revoke(&revocation, &stamp()).await)?;
        failed("remove", store.remove(&id(name), &stamp()).await)?;
        let rotated = store.rotate(&id(name), secret("new"), after(HOUR), &stamp()).await;
        failed("rotate", rotated)?;
        let plan = Plan::unbounded().with_max_sessions(1);
        failed("set_plan", store.set_plan(&id(name), plan, &stamp()).await)?;
    }
    failed("insert", store.insert(secret("c"), None, &stamp()).await)?;
    failed("redeem", store.redeem(&known).await.map(|one| one.map(Use::commit)))?;
    failed("list", store.list(&KeyFilter::default()).await)?;
    failed("audit", store.audit(&AuditFilter::default()).await)
}

/// What was said before the failure holds after it, and what was refused meanwhile has not happened.
async fn a_mended_store_is_the_old_one(store: Arc<dyn Fragile>) -> Checked {
    put(&store).await?;
    store.revoke(&Revocation::Key(id("b")), &stamp()).await?;
    let before = picture(&store).await?;
    store.break_store().await;
    failed("insert", store.insert(secret("c"), None, &stamp()).await)?;
    failed("revoke", store.revoke(&Revocation::Key(id("a")), &stamp()).await)?;
    let plan = Plan::unbounded().with_max_sessions(1);
    failed("set_plan", store.set_plan(&id("a"), plan, &stamp()).await)?;
    store.mend().await;
    same("keys and trail", picture(&store).await?, before)?;
    let first = store.lookup(&digest("a")).await?.ok_or_else(|| Seen::new("no record of a"))?;
    let uses = [store.redeem(&first).await?, store.redeem(&first).await?].map(|one| one.is_some());
    same("uses of one", uses, [true, false])?;
    same("revoked", store.revoke(&Revocation::Key(id("a")), &stamp()).await?, 2)
}

/// All keys and the whole trail.
async fn picture(store: &Arc<dyn Fragile>) -> Result<(Vec<String>, Vec<(u64, KeyId)>), Seen> {
    let records = store.list(&KeyFilter::default()).await?;
    let entries = store.audit(&AuditFilter::default()).await?;
    Ok((
        records.iter().flat_map(|record| image(record)).collect(),
        entries.iter().map(|entry| (entry.number(), entry.key_id().clone())).collect(),
    ))
}
