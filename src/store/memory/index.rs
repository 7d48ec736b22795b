//! All records, found by what names them.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    marker::PhantomData,
    sync::Arc,
};

use crate::{KeyDigest, KeyId, KeyRecord};

/// Every record by its digest and by its id. Both stand in the record alone: the index adds two
/// pointers to it.
// Std's sets hash with a random seed, so that imported keys cannot be chosen to collide.
#[derive(Default)]
pub(super) struct Index {
    by_digest: HashSet<By<KeyDigest>>,
    by_id: HashSet<By<KeyId>>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn lookup(&self, digest: &KeyDigest) -> Option<&Arc<KeyRecord>> {
        self.by_digest.get(digest).map(|entry| &entry.record)
    }

    pub(super) fn find(&self, id: &KeyId) -> Option<&Arc<KeyRecord>> {
        self.by_id.get(id).map(|entry| &entry.record)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<KeyRecord>> {
        self.by_id.iter().map(|entry| &entry.record)
    }

    /// Puts a record in, in the place of the one with the same id and digest if there is one.
    pub(super) fn put(&mut self, record: Arc<KeyRecord>) {
        self.by_digest.replace(By::new(Arc::clone(&record)));
        self.by_id.replace(By::new(record));
    }

    pub(super) fn remove(&mut self, id: &KeyId) -> Option<Arc<KeyRecord>> {
        let By { record, .. } = self.by_id.take(id)?;
        self.by_digest.remove(record.digest());
        Some(record)
    }
}

/// A record in a set in which its name `N` stands for it.
struct By<N> {
    record: Arc<KeyRecord>,
    name: PhantomData<N>,
}

/// One of the names of a record.
trait Name: Hash + Eq {
    fn of(record: &KeyRecord) -> &Self;
}

impl Name for KeyDigest {
    fn of(record: &KeyRecord) -> &Self {
        record.digest()
    }
}

impl Name for KeyId {
    fn of(record: &KeyRecord) -> &Self {
        record.id()
    }
}

impl<N> By<N> {
    const fn new(record: Arc<KeyRecord>) -> Self {
        Self { record, name: PhantomData }
    }
}

impl<N: Name> Borrow<N> for By<N> {
    fn borrow(&self) -> &N {
        N::of(&self.record)
    }
}

// As the names do, which `Borrow` asks for.
impl<N: Name> Hash for By<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        N::of(&self.record).hash(state);
    }
}

impl<N: Name> PartialEq for By<N> {
    fn eq(&self, other: &Self) -> bool {
        N::of(&self.record) == N::of(&other.record)
    }
}

impl<N: Name> Eq for By<N> {}
