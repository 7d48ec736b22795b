//! The tables of a store in memory, and what is done to them as one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    AuditEntry, AuditFilter, Inserted, KeyFilter, Revocation, Rotated, Stamp, index::Index,
    trail::Trail,
};
use crate::{AuditAction, KeyDigest, KeyId, KeyKind, KeyRecord, Parent, Plan, UnixMillis};

/// How long an expired ephemeral key is remembered, so that its refusal can say why.
const REMEMBER_EXPIRED: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Tables {
    index: Index,
    children: HashMap<KeyId, Children>,
    /// The keys of each line that has more than one.
    lines: HashMap<KeyId, Vec<KeyId>>,
    expiring: BTreeSet<(UnixMillis, KeyId)>,
    used: HashMap<KeyId, u32>,
    trail: Trail,
}

#[derive(Default)]
struct Children {
    all: HashSet<KeyId>,
    /// Those that count against a cap, by when they expire. Their number is at hand, so that a key
    /// that has too many cannot keep everybody waiting by asking for more.
    live: BTreeSet<(UnixMillis, KeyId)>,
}

impl Tables {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn lookup(&self, digest: &KeyDigest) -> Option<&Arc<KeyRecord>> {
        self.index.lookup(digest)
    }

    pub(super) fn find(&self, id: &KeyId) -> Option<&Arc<KeyRecord>> {
        self.index.find(id)
    }

    pub(super) fn list(&self, filter: &KeyFilter) -> Vec<Arc<KeyRecord>> {
        let fitting = self.index.records().filter(|record| filter.fits(record));
        let mut records: Vec<_> = fitting.cloned().collect();
        records.sort_by(|a, b| (a.created_at(), a.id()).cmp(&(b.created_at(), b.id())));
        records.truncate(filter.limit.unwrap_or(usize::MAX));
        records
    }

    pub(super) fn audit(&self, filter: &AuditFilter) -> Vec<AuditEntry> {
        self.trail.fitting(filter)
    }

    pub(super) fn insert(
        &mut self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Inserted {
        let now = record.created_at();
        self.forget_expired(now);
        if self.is_taken(&record) {
            return Inserted::Taken;
        }
        if let (Some(parent), Some(max)) = (record.parent(), max_children)
            && self.live_children(parent.id(), now) >= usize::try_from(max).unwrap_or(usize::MAX)
        {
            return Inserted::TooManyChildren;
        }
        if record.kind() == KeyKind::Secret {
            let account = record.account().clone();
            self.trail.note(stamp, AuditAction::Created, record.id().clone(), Some(account));
        }
        // A parent may be revoked between its request and the insert of what it minted.
        let parent = record.parent().map(|parent| {
            let known = self.find(parent.id()).map(|record| Parent::of(record));
            let revoked_at = known.as_ref().and_then(Parent::revoked_at).or(parent.revoked_at());
            known.unwrap_or_else(|| parent.clone()).with_revoked_at(revoked_at)
        });
        self.add(record.with_parent(parent));
        Inserted::Yes
    }

    pub(super) fn rotate(
        &mut self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Rotated {
        let Some(found) = self.find(old) else { return Rotated::Unknown };
        if found.is_revoked() || found.is_expired(new.created_at()) {
            return Rotated::Gone;
        }
        if found.successor().is_some() {
            return Rotated::Replaced;
        }
        if self.is_taken(&new) {
            return Rotated::Taken;
        }
        let (account, line) = (found.account().clone(), found.line().clone());
        // As the line has it now, which may have got another since the new record was made.
        let grants = new.grants().clone().with_plan(*found.grants().plan());
        let expires_at = found.expires_at().map_or(old_expires_at, |own| own.min(old_expires_at));
        let successor = new.id().clone();
        self.change(old, |record| {
            record.with_expires_at(Some(expires_at)).with_successor(Some(successor.clone()))
        });
        self.trail.note(
            stamp,
            AuditAction::Rotated { successor },
            old.clone(),
            Some(account.clone()),
        );
        self.trail.note(stamp, AuditAction::Created, new.id().clone(), Some(account));
        self.add(new.with_line(line).with_grants(grants));
        Rotated::Yes
    }

    /// Answers the keys that were named by it, and how many records it revoked.
    pub(super) fn revoke(&mut self, what: &Revocation, stamp: &Stamp) -> (Vec<KeyId>, u64) {
        let roots = self.roots(what);
        // Of an account, a child is both a key of its own and its parent's: it counts once.
        let mut revoked = HashSet::new();
        for root in &roots {
            let found = self.find(root);
            if found.is_none_or(|record| record.revoked_at().is_none()) {
                let account = found.map(|record| record.account().clone());
                self.trail.note(stamp, AuditAction::Revoked, root.clone(), account);
            }
            revoked.extend(self.change(root, |record| {
                let first = record.revoked_at().unwrap_or(stamp.at());
                record.with_revoked_at(Some(first))
            }));
            revoked.extend(self.change_children(root, |parent| {
                let first = parent.revoked_at().unwrap_or(stamp.at());
                parent.with_revoked_at(Some(first))
            }));
        }
        (roots, revoked.len() as u64)
    }

    /// The keys that a revocation names. Of an account, not those whose parent is among them: it
    /// takes them with it.
    fn roots(&self, what: &Revocation) -> Vec<KeyId> {
        let all = |fits: &dyn Fn(&KeyRecord) -> bool| {
            let parent = |record: &KeyRecord| self.find(record.parent()?.id());
            let goes_with_parent = |record: &KeyRecord| parent(record).is_some_and(|key| fits(key));
            let records = self.index.records();
            let records = records.filter(|record| fits(record) && !goes_with_parent(record));
            records.map(|record| record.id().clone()).collect()
        };
        match what {
            Revocation::Alone(id) => vec![id.clone()],
            Revocation::Key(id) => self.line_of(id),
            Revocation::Account(account) => all(&|record| record.account() == account),
            Revocation::IssuedBefore { account, at } => {
                all(&|record| record.account() == account && record.created_at() < *at)
            }
        }
    }

    /// The keys of the line of `id`, itself among them, also if it was removed from its line: there
    /// may be sessions of it.
    fn line_of(&self, id: &KeyId) -> Vec<KeyId> {
        let line = self.find(id).map_or(id, |record| record.line());
        let mut keys = self.lines.get(line).cloned().unwrap_or_default();
        if !keys.contains(id) {
            keys.push(id.clone());
        }
        keys
    }

    pub(super) fn set_plan(&mut self, id: &KeyId, plan: Plan, stamp: &Stamp) -> bool {
        if self.find(id).is_none() {
            return false;
        }
        for key in self.line_of(id) {
            let Some(record) = self.find(&key) else { continue };
            let (from, account) = (*record.grants().plan(), record.account().clone());
            if from == plan {
                continue;
            }
            self.change(&key, |record| {
                let grants = record.grants().clone().with_plan(plan);
                record.with_grants(grants)
            });
            self.change_children(&key, |parent| parent.with_plan(plan));
            self.trail.note(stamp, AuditAction::Replanned { from, to: plan }, key, Some(account));
        }
        true
    }

    pub(super) fn remove(&mut self, id: &KeyId, stamp: &Stamp) -> bool {
        let Some(record) = self.find(id).cloned() else { return false };
        for child in self.children.remove(id).unwrap_or_default().all {
            self.forget(&child);
        }
        self.forget(id);
        self.trail.note(stamp, AuditAction::Removed, id.clone(), Some(record.account().clone()));
        true
    }

    pub(super) fn redeem(&mut self, record: &KeyRecord) -> bool {
        let Some(allowed) = record.grants().uses() else { return true };
        if self.find(record.id()).is_none() {
            return false;
        }
        let used = self.used.entry(record.id().clone()).or_default();
        let is_left = *used < allowed;
        if is_left {
            *used += 1;
        }
        is_left
    }

    pub(super) fn give_back(&mut self, id: &KeyId) {
        if let Some(used) = self.used.get_mut(id) {
            *used = used.saturating_sub(1);
        }
    }

    fn is_taken(&self, record: &KeyRecord) -> bool {
        self.find(record.id()).is_some() || self.lookup(record.digest()).is_some()
    }

    fn add(&mut self, record: KeyRecord) {
        if let Some(parent) = record.parent() {
            let children = self.children.entry(parent.id().clone()).or_default();
            children.all.insert(record.id().clone());
            if !record.is_revoked() {
                children.live.insert(by_expiry(&record));
            }
        }
        if record.line() != record.id() {
            let line = record.line().clone();
            let keys = self.lines.entry(line.clone()).or_insert_with(|| vec![line]);
            keys.push(record.id().clone());
        }
        if let (KeyKind::Ephemeral, Some(expires_at)) = (record.kind(), record.expires_at()) {
            self.expiring.insert((expires_at, record.id().clone()));
        }
        self.index.put(Arc::new(record));
    }

    /// Changes a record; answers its id if there is such a record.
    fn change(&mut self, id: &KeyId, change: impl FnOnce(KeyRecord) -> KeyRecord) -> Option<KeyId> {
        let record = Arc::new(change(KeyRecord::clone(self.find(id)?)));
        self.index.put(Arc::clone(&record));
        if record.is_revoked()
            && let Some(parent) = record.parent()
            && let Some(children) = self.children.get_mut(parent.id())
        {
            children.live.remove(&by_expiry(&record));
        }
        Some(id.clone())
    }

    /// Changes what the children of a key know of it; answers their ids.
    fn change_children(&mut self, parent: &KeyId, change: impl Fn(Parent) -> Parent) -> Vec<KeyId> {
        let children = self.children.get(parent).map(|children| children.all.clone());
        let children = children.unwrap_or_default();
        let changed = children.iter().filter_map(|child| {
            self.change(child, |record| {
                let parent = record.parent().cloned().map(&change);
                record.with_parent(parent)
            })
        });
        changed.collect()
    }

    /// How many children of `parent` are neither expired nor revoked.
    fn live_children(&mut self, parent: &KeyId, now: UnixMillis) -> usize {
        let Some(Children { live, .. }) = self.children.get_mut(parent) else { return 0 };
        while live.first().is_some_and(|(expires_at, _)| *expires_at <= now) {
            live.pop_first();
        }
        live.len()
    }

    fn forget_expired(&mut self, now: UnixMillis) {
        while let Some((expires_at, _)) = self.expiring.first() {
            if expires_at.saturating_add(REMEMBER_EXPIRED) > now {
                break;
            }
            let Some((_, id)) = self.expiring.pop_first() else { break };
            self.forget(&id);
        }
    }

    /// Takes a record out of all tables.
    fn forget(&mut self, id: &KeyId) {
        self.used.remove(id);
        let Some(record) = self.index.remove(id) else { return };
        if let Some(expires_at) = record.expires_at() {
            self.expiring.remove(&(expires_at, id.clone()));
        }
        if let Some(parent) = record.parent().map(Parent::id)
            && let Some(children) = self.children.get_mut(parent)
        {
            children.all.remove(id);
            children.live.remove(&by_expiry(&record));
            if children.all.is_empty() {
                self.children.remove(parent);
            }
        }
        // Of a line, the others still know each other by the name of the first.
        if let Some(keys) = self.lines.get_mut(record.line()) {
            keys.retain(|key| key != id);
            if keys.is_empty() {
                self.lines.remove(record.line());
            }
        }
    }
}

/// A child's place among those that live.
fn by_expiry(record: &KeyRecord) -> (UnixMillis, KeyId) {
    let never = UnixMillis::new(u64::MAX);
    (record.expires_at().unwrap_or(never), record.id().clone())
}
