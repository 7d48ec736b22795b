//! A store on the bench, and the records that are tried on it.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    finding::{Checked, Seen, holds, same},
    tasks,
};
use crate::{
    AuditAction, AuditFilter, Inserted, KeyAdmin, KeyDigest, KeyFilter, KeyId, KeyKind, KeyRecord,
    Parent, Revocation, Rotated, Runtime, Stamp, UnixMillis,
};

/// When most of the keys are made.
pub(super) const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// How often what may come later is asked for, and how long until it is asked for again.
const TRIES: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn after(duration: Duration) -> UnixMillis {
    NOW.saturating_add(duration)
}

/// The stamp of whatever is done a second later.
pub(super) fn stamp() -> Stamp {
    Stamp::new(after(Duration::from_secs(1))).with_by(Some("suite".into()))
}

pub(super) fn id(name: &str) -> KeyId {
    KeyId::new(name)
}

pub(super) fn digest(name: &str) -> KeyDigest {
    KeyDigest::sha256(name.as_bytes())
}

/// A secret key of `acme`, under this id.
pub(super) fn secret(name: &str) -> KeyRecord {
    secret_of("acme", name)
}

pub(super) fn secret_of(account: &str, name: &str) -> KeyRecord {
    KeyRecord::new(id(name), digest(name), account, KeyKind::Secret, NOW)
}

/// A token of `acme` that lives for an hour.
pub(super) fn token(name: &str, parent: &str) -> KeyRecord {
    token_of("acme", name, parent)
}

pub(super) fn token_of(account: &str, name: &str, parent: &str) -> KeyRecord {
    KeyRecord::new(id(name), digest(name), account, KeyKind::Ephemeral, NOW)
        .with_parent(Some(Parent::new(id(parent))))
        .with_expires_at(Some(after(HOUR)))
}

/// All that a record says, to be compared and shown.
pub(super) fn image(record: &KeyRecord) -> Vec<String> {
    #[cfg(feature = "session")]
    let session = record.grants().session().map(crate::Settings::as_json);
    #[cfg(not(feature = "session"))]
    let session = None::<String>;
    vec![
        format!("id {:?}", record.id()),
        format!("digest {:?}", record.digest().as_bytes()),
        format!("algorithm {}", record.algorithm()),
        format!("account {:?}", record.account()),
        format!("kind {}", record.kind().as_str()),
        format!("environment {:?}", record.environment()),
        format!("parent {:?}", record.parent()),
        format!("line {:?}", record.line()),
        format!("successor {:?}", record.successor()),
        format!("hint {:?}", record.hint()),
        format!("created {:?}", record.created_at()),
        format!("expires {:?}", record.expires_at()),
        format!("revoked {:?}", record.revoked_at()),
        format!("used {:?}", record.last_used_at()),
        format!("{:?}", record.grants()),
        format!("session {session:?}"),
    ]
}

/// Two records are the same; if not, what is different is told.
pub(super) fn alike(what: &str, seen: &KeyRecord, expected: &KeyRecord) -> Checked {
    let (seen, expected) = (image(seen), image(expected));
    let different = seen.iter().zip(&expected).find(|(seen, expected)| seen != expected);
    different.map_or(Ok(()), |(seen, expected)| same(what, seen, expected))
}

/// A store, fresh and empty, and the runtime that it runs on.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) store: Arc<dyn KeyAdmin>,
    runtime: Arc<dyn Runtime>,
}

impl Bench {
    pub(super) fn new(store: Arc<dyn KeyAdmin>, runtime: Arc<dyn Runtime>) -> Self {
        Self { store, runtime }
    }

    /// Inserts records that must be new.
    pub(super) async fn put(&self, records: impl IntoIterator<Item = KeyRecord>) -> Checked {
        for record in records {
            let id = record.id().clone();
            let inserted = self.store.insert(record, None, &stamp()).await?;
            same(&format!("insert of {id}"), inserted, Inserted::Yes)?;
        }
        Ok(())
    }

    pub(super) async fn rotate(
        &self,
        old: &str,
        new: KeyRecord,
        old_expires_at: UnixMillis,
    ) -> Result<Rotated, Seen> {
        Ok(self.store.rotate(&id(old), new, old_expires_at, &stamp()).await?)
    }

    pub(super) async fn revoke(&self, what: &Revocation) -> Result<u64, Seen> {
        Ok(self.store.revoke(what, &stamp()).await?)
    }

    /// The record with this id. Lookup, find and list must agree on it.
    pub(super) async fn look(&self, name: &str) -> Result<Option<Arc<KeyRecord>>, Seen> {
        let found = self.store.find(&id(name)).await?;
        let digest = found.as_ref().map_or_else(|| digest(name), |record| *record.digest());
        let looked_up =
            self.store.lookup(&digest).await?.filter(|record| record.id().as_str() == name);
        let listed = self.store.list(&KeyFilter::default()).await?;
        let listed = listed.into_iter().find(|record| record.id().as_str() == name);
        for (what, shown) in [("lookup", looked_up), ("list", listed)] {
            match (&shown, &found) {
                (Some(shown), Some(found)) => alike(&format!("{what}, not as find"), shown, found)?,
                (shown, found) => {
                    let what = format!("{what} knows of {name}, as find does");
                    same(&what, shown.is_some(), found.is_some())?;
                }
            }
        }
        Ok(found)
    }

    /// The same, which must be there.
    pub(super) async fn found(&self, name: &str) -> Result<Arc<KeyRecord>, Seen> {
        self.look(name).await?.ok_or_else(|| Seen::new(format!("no record of {name}")))
    }

    /// Whether the store shows the key as revoked, or not at all.
    pub(super) async fn is_gone(&self, name: &str) -> Result<bool, Seen> {
        let record = self.store.lookup(&digest(name)).await?;
        Ok(record.is_none_or(|record| record.is_revoked()))
    }

    /// Exactly these of `all` are revoked.
    pub(super) async fn revoked(&self, all: &[&str], expected: &[&str]) -> Checked {
        let mut revoked = Vec::new();
        for name in all {
            if self.found(name).await?.is_revoked() {
                revoked.push(*name);
            }
        }
        same("revoked are", revoked.as_slice(), expected)
    }

    /// The trail, as action and key.
    pub(super) async fn trail(&self) -> Result<Vec<(AuditAction, String)>, Seen> {
        let entries = self.store.audit(&AuditFilter::default()).await?;
        let told = |entry: &crate::AuditEntry| (entry.action().clone(), entry.key_id().to_string());
        Ok(entries.iter().map(told).collect())
    }

    /// Runs tasks that begin at once.
    pub(super) async fn race<T: Send + 'static>(
        &self,
        tasks: Vec<BoxFuture<'static, T>>,
    ) -> Result<Vec<T>, Seen> {
        tasks::race(&*self.runtime, tasks).await
    }

    /// The runtime, for a task beside this one.
    /// Asks again and again, for 10 seconds, for what may come later.
    pub(super) async fn at_last(
        &self,
        what: &str,
        mut is_so: impl AsyncFnMut() -> Result<bool, Seen>,
    ) -> Checked {
        for _ in 0..TRIES {
            if is_so().await? {
                return Ok(());
            }
            self.runtime.sleep(PAUSE).await;
        }
        holds(false, || format!("{what}: not even after {:?}", PAUSE * TRIES as u32))
    }
}
