//! Keys in one SQLite file.

mod fault;
mod file;
mod news;
mod options;
mod reads;
mod rows;
mod schema;
mod uses;
mod worker;
mod writes;

use std::{fmt, path::Path, sync::Arc, time::Duration};

pub use self::options::SqliteOptions;
use self::{
    fault::Fault,
    file::{Access, Place},
    news::{Poll, Seen},
    uses::Uses,
    worker::{Ending, Readers, Writer},
    writes::Author,
};
use super::{
    Answer, AuditEntry, AuditFilter, Inserted, KeyAdmin, KeyFilter, KeyStore, Lookup, News,
    Redeemed, Revocation, Revocations, Rotated, Stamp, StoreError, Use, Write,
};
#[cfg(feature = "tokio")]
use crate::TokioRuntime;
use crate::{KeyDigest, KeyId, KeyRecord, Plan, Runtime, UnixMillis};

/// Threads that look keys up: one more than one, so that a long list holds up nobody.
const READERS: usize = 2;
/// The file is looked at so often within the time in which sessions are to hear.
const LOOKS: u32 = 4;

/// A store in one SQLite file, which several processes of one machine may have open at once.
///
/// What was answered is on the disk. Every lookup reads the file, so that a key that was revoked,
/// by whichever process, opens nothing new from then on; sessions that are open hear of it within
/// [`SqliteOptions::with_revoked_within`]. Another plan of a key holds for whatever is asked next.
///
/// The file is made if it is missing, readable to its owner alone, with two more beside it (`-wal`
/// and `-shm`) that belong to it. It must lie on a local disk. Back it up with
/// `sqlite3 keys.db '.backup copy.db'`, never by copying it alone. While the file is away, or
/// another store's stands in its place, or SQLite finds it damaged, the store answers nothing
/// ([`StoreError`]); once it is back, the store answers again. If its `-wal` is taken away, put that
/// back or restart; if its `-shm` is, restart.
///
/// Ephemeral keys are forgotten a minute after they expired; secret keys and the audit trail stay.
/// When a key was last used is written within 30 seconds, or when the store is dropped, which waits
/// for that, a second at most. A use of a key with few uses that is taken and not spent while the
/// process ends stays taken.
///
/// SQLite needs no installation: it is compiled in, for which a C compiler is needed. The crate that
/// does so promises no older Rust than what was stable when it was released: with this feature, the
/// minimum may be higher than the 1.88 of the others.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use tower_realtime_auth::{Keys, NewKey, SqliteStore};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("keys.db");
///
/// let keys = Keys::new(SqliteStore::open(&path).await?);
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// drop(keys);
///
/// let keys = Keys::new(SqliteStore::open(&path).await?);
/// assert!(keys.find(issued.record().id()).await?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteStore {
    readers: Readers,
    writer: Writer,
    uses: Arc<Uses>,
    revocations: Revocations,
    /// Tells this store's entries in the audit trail from those of other processes.
    origin: i64,
    /// Below `writer`, so that it is dropped after it.
    _ending: Ending,
}

impl SqliteStore {
    /// The store in the file at `path`, which is made if it is missing.
    ///
    /// # Errors
    /// If the file cannot be made, read or written, or is not one of this crate's, or is one of a
    /// newer version; and outside of a tokio runtime.
    #[cfg(feature = "tokio")]
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, SqliteOptions::default()).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    #[cfg(feature = "tokio")]
    pub async fn open_with(
        path: impl AsRef<Path>,
        options: SqliteOptions,
    ) -> Result<Self, StoreError> {
        tokio::runtime::Handle::try_current().map_err(StoreError::new)?;
        Self::open_with_runtime(path, options, TokioRuntime).await
    }

    /// The same on another runtime, which runs the task that brings news from other processes.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_with_runtime(
        path: impl AsRef<Path>,
        options: SqliteOptions,
        runtime: impl Runtime,
    ) -> Result<Self, StoreError> {
        let (path, busy_deadline) = (path.as_ref().to_owned(), options.busy_deadline);
        let (place, seen) = worker::once(move || prepare(&path, busy_deadline)).await?;
        let (origin, uses) = (random()?, Arc::new(Uses::default()));
        let (writer, _ending) = Writer::start(&place, Arc::clone(&uses))?;
        let store = Self {
            readers: Readers::start(&place, READERS)?,
            writer,
            uses,
            revocations: Revocations::default(),
            origin,
            _ending,
        };
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        // Never without a pause, and never silent for longer than is waited for it.
        let every = options.revoked_within.min(options.patience) / LOOKS;
        let every = every.max(Duration::from_millis(1));
        let reader = Readers::start(&place, 1)?;
        let poll = Poll::new(reader, Arc::clone(&runtime), every, origin, seen);
        let follow = store.revocations.follow(poll, Arc::clone(&runtime), options.patience);
        runtime.spawn(Box::pin(follow));
        Ok(store)
    }

    fn author(&self, stamp: &Stamp) -> Author {
        Author { stamp: stamp.clone(), origin: self.origin }
    }
}

fn prepare(path: &Path, busy_deadline: Duration) -> Result<(Arc<Place>, Seen), Fault> {
    let place = Place::prepare(path, busy_deadline)?;
    let seen = Seen::now(&place.open(Access::Read)?)?;
    Ok((Arc::new(place), seen))
}

fn random() -> Result<i64, Fault> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|_| Fault::new("the operating system gave no random numbers"))?;
    Ok(i64::from_ne_bytes(bytes))
}

impl KeyStore for SqliteStore {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let (digest, uses) = (*digest, Arc::clone(&self.uses));
        self.readers.ask(move |file| {
            let found = reads::lookup(file, &digest)?;
            Ok(found.inspect(|record| uses.show(record)).map(Arc::new))
        })
    }

    fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
        let (current, previous, uses) = (*current, *previous, Arc::clone(&self.uses));
        self.readers.ask(move |file| {
            let found = reads::lookup_either(file, &current, &previous)?;
            Ok(found.inspect(|record| uses.show(record)).map(Arc::new))
        })
    }

    fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
        let Some(allowed) = record.grants().uses() else {
            return Answer::ready(Ok(Some(Use::new(|| ()))));
        };
        let (id, writer) = (record.id().clone(), self.writer.clone());
        let given_back = id.clone();
        let give_back = move || {
            // Nobody waits for it. If it cannot be queued, the use stays spent.
            drop(writer.ask(move |file| writes::give_back(file, &given_back), |()| ()));
        };
        // Made of it only once it is on the disk; from there on it goes back if nobody takes it.
        let take = move |is_left: bool| is_left.then(|| Use::new(give_back));
        self.writer.ask(move |file| writes::redeem(file, &id, allowed), take)
    }

    fn note_use(&self, record: &Arc<KeyRecord>, at: UnixMillis) {
        record.note_use(at);
        self.uses.note(record.id(), at);
    }

    fn revocations(&self) -> Option<&Revocations> {
        Some(&self.revocations)
    }
}

impl KeyAdmin for SqliteStore {
    fn insert(
        &self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Write<'_, Inserted> {
        let author = self.author(stamp);
        let insert = move |file: &_| writes::insert(file, &record, max_children, &author);
        self.writer.ask(insert, |inserted| inserted)
    }

    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
        let (id, uses) = (id.clone(), Arc::clone(&self.uses));
        self.readers.ask(move |file| {
            let found = reads::find(file, &id)?;
            Ok(found.inspect(|record| uses.show(record)).map(Arc::new))
        })
    }

    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        let (filter, uses) = (filter.clone(), Arc::clone(&self.uses));
        self.readers.ask(move |file| {
            let records = reads::list(file, &filter)?;
            records.iter().for_each(|record| uses.show(record));
            Ok(records)
        })
    }

    fn rotate(
        &self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Write<'_, Rotated> {
        let (old, author) = (old.clone(), self.author(stamp));
        let rotate = move |file: &_| writes::rotate(file, &old, new, old_expires_at, &author);
        self.writer.ask(rotate, |rotated| rotated)
    }

    fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64> {
        let (what, author, hub) = (what.clone(), self.author(stamp), self.revocations.clone());
        // Even of keys that there is no record of: a session may outlive the record of its key.
        let publish = move |(keys, records): (Vec<KeyId>, u64)| {
            hub.publish(News::Revoked(&keys));
            records
        };
        self.writer.ask(move |file| writes::revoke(file, &what, &author), publish)
    }

    fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool> {
        let (id, author, hub) = (id.clone(), self.author(stamp), self.revocations.clone());
        let removed = id.clone();
        let publish = move |is_removed| {
            hub.publish(News::Revoked(&[removed]));
            is_removed
        };
        self.writer.ask(move |file| writes::remove(file, &id, &author), publish)
    }

    fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool> {
        let (id, author) = (id.clone(), self.author(stamp));
        let set_plan = move |file: &_| writes::set_plan(file, &id, plan, &author);
        self.writer.ask(set_plan, |is_known| is_known)
    }

    fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
        let filter = filter.clone();
        self.readers.ask(move |file| reads::audit(file, &filter))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("revocations", &self.revocations)
            .finish_non_exhaustive()
    }
}
