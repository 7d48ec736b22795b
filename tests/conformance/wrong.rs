//! Stores that are wrong, each in a way of its own.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::yield_now;
use tower_realtime_auth::{
    Answer, AuditAction, AuditEntry, AuditFilter, Inserted, KeyAdmin, KeyDigest, KeyFilter, KeyId,
    KeyKind, KeyRecord, KeyStore, Lookup, MemoryStore, News, Parent, Plan, Redeemed, Revocation,
    Revocations, Rotated, Stamp, StoreError, UnixMillis, Use, Write,
};

/// How a store can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    TakesNothing,
    InsertOverwrites,
    FindsByHalfADigest,
    LooksForPreviousFirst,
    LosesThePlan,
    ParentsPlanStaysBehind,
    ParentsLineStaysBehind,
    KeepsSeconds,
    KeepsSignedNumbers,
    TrimsAccounts,
    EndsTextsAtNul,
    FoldsCase,
    FindIsStale,
    LookupIsStale,
    ForgetsChildren,
    CapIsOneMore,
    CapCountsTheDead,
    CapIsRacy,
    RemoveLeavesChildren,
    RotationExtends,
    SuccessorsAreStrangers,
    RotatesTheRevoked,
    RotationEndsTokens,
    PlansOneOfTheLine,
    PlansTheLivingAlone,
    SuccessorsBringTheirPlan,
    ChildrenKeepTheOldPlan,
    ChildrenGetThePlan,
    PlansRefillUses,
    PlansAreRacy,
    PlansAreInTwoSteps,
    PlansAreNotNoted,
    PlansAreNotedAgain,
    RevokesOneOfTheLine,
    CountsTheNewlyRevoked,
    IssuedBeforeIncludes,
    RevokesAgain,
    IgnoresTheUnknown,
    TellsTooEarly,
    TellsTooLate,
    UsesAreNotCounted,
    UsesNeverComeBack,
    UsesAreRacy,
    NotesTheFuture,
    ListIgnoresTheHint,
    ListIsReversed,
    TrailForgetsWho,
    TrailTellsOfTokens,
    TrailIgnoresTheFilter,
    InsertIsRacy,
    RotationIsRacy,
    ChildrenAreDetached,
    LookupRefillsTheCache,
    InsertIsInTwoSteps,
    RotationIsInTwoSteps,
    RevocationIsInTwoSteps,
    RemovalIsInTwoSteps,
    UseIsInTwoSteps,
}

/// Each with the rule that is meant for it.
pub const ALL: &[(Bug, &str)] = &[
    (Bug::InsertOverwrites, "insert_overwrites_nothing"),
    (Bug::FindsByHalfADigest, "lookup_finds_by_the_whole_digest"),
    (Bug::LooksForPreviousFirst, "lookup_either_finds_either"),
    (Bug::LosesThePlan, "every_field_survives"),
    (Bug::ParentsPlanStaysBehind, "a_parents_line_and_plan_travel_with_its_children"),
    (Bug::ParentsLineStaysBehind, "a_parents_line_and_plan_travel_with_its_children"),
    (Bug::KeepsSeconds, "every_field_survives"),
    (Bug::KeepsSignedNumbers, "every_field_survives"),
    (Bug::TrimsAccounts, "hostile_texts_survive"),
    (Bug::EndsTextsAtNul, "nul_survives"),
    (Bug::FoldsCase, "texts_are_compared_byte_for_byte"),
    (Bug::FindIsStale, "lookups_find_and_lists_are_fresh"),
    (Bug::LookupIsStale, "lookups_find_and_lists_are_fresh"),
    (Bug::ForgetsChildren, "a_parents_state_travels_with_its_children"),
    (Bug::CapIsOneMore, "children_are_capped"),
    (Bug::CapCountsTheDead, "only_living_children_count"),
    (Bug::CapIsRacy, "the_cap_is_exact_in_a_race"),
    (Bug::RemoveLeavesChildren, "removing_takes_the_children"),
    (Bug::RotationExtends, "rotation_bounds_the_old_key"),
    (Bug::SuccessorsAreStrangers, "a_successor_is_of_the_line"),
    (Bug::RotatesTheRevoked, "refused_rotations_change_nothing"),
    (Bug::RotationEndsTokens, "tokens_outlive_a_rotation"),
    (Bug::PlansOneOfTheLine, "a_plan_is_of_the_whole_line"),
    (Bug::PlansTheLivingAlone, "a_plan_is_of_the_whole_line"),
    (Bug::SuccessorsBringTheirPlan, "a_successor_has_the_plan_of_the_line"),
    (Bug::ChildrenKeepTheOldPlan, "a_changed_plan_reaches_the_children"),
    (Bug::ChildrenGetThePlan, "a_changed_plan_reaches_the_children"),
    (Bug::PlansRefillUses, "a_changed_plan_changes_nothing_else"),
    (Bug::PlansAreRacy, "a_line_has_one_plan_after_a_race"),
    (Bug::LookupRefillsTheCache, "a_lookup_after_a_change_of_plan_shows_it"),
    (Bug::PlansAreInTwoSteps, "a_dropped_change_of_plan_is_whole_or_nothing"),
    (Bug::PlansAreNotNoted, "the_trail_tells_every_change"),
    (Bug::PlansAreNotedAgain, "the_trail_tells_nothing_else"),
    (Bug::RevokesOneOfTheLine, "revoking_reaches_the_whole_line"),
    (Bug::CountsTheNewlyRevoked, "revoking_reaches_exactly_the_named"),
    (Bug::IssuedBeforeIncludes, "issued_before_is_exclusive"),
    (Bug::RevokesAgain, "the_first_revocation_stays"),
    (Bug::IgnoresTheUnknown, "unknown_keys_make_news"),
    (Bug::TellsTooEarly, "news_come_after_the_change"),
    (Bug::TellsTooLate, "news_come_before_the_answer"),
    (Bug::UsesAreNotCounted, "uses_are_counted"),
    (Bug::UsesNeverComeBack, "unspent_uses_come_back"),
    (Bug::UsesAreRacy, "uses_are_exact_in_a_race"),
    (Bug::NotesTheFuture, "notes_of_use_do_not_lie"),
    (Bug::ListIgnoresTheHint, "lists_are_filtered"),
    (Bug::ListIsReversed, "lists_are_ordered_and_paged"),
    (Bug::TrailForgetsWho, "the_trail_tells_every_change"),
    (Bug::TrailTellsOfTokens, "the_trail_tells_nothing_else"),
    (Bug::TrailIgnoresTheFilter, "the_trail_is_filtered_and_paged"),
    (Bug::InsertIsRacy, "one_of_equals_is_inserted"),
    (Bug::RotationIsRacy, "no_key_of_a_revoked_line_is_left"),
    (Bug::ChildrenAreDetached, "no_child_of_a_revoked_parent_is_left"),
    (Bug::LookupRefillsTheCache, "a_lookup_after_a_revocation_shows_it"),
    (Bug::InsertIsInTwoSteps, "a_dropped_insert_is_whole_or_nothing"),
    (Bug::RotationIsInTwoSteps, "a_dropped_rotation_is_whole_or_nothing"),
    (Bug::RevocationIsInTwoSteps, "a_dropped_revocation_is_whole_or_nothing"),
    (Bug::RemovalIsInTwoSteps, "a_dropped_removal_is_whole_or_nothing"),
    (Bug::UseIsInTwoSteps, "a_dropped_use_comes_back"),
];

type Found = Option<Arc<KeyRecord>>;

/// A store in memory with one bug.
#[derive(Clone)]
pub struct Wrong(Arc<Inner>);

struct Inner {
    memory: MemoryStore,
    bug: Bug,
    hub: Revocations,
    found: Mutex<HashMap<KeyId, Found>>,
    looked_up: Mutex<HashMap<KeyDigest, Found>>,
    used: Mutex<HashMap<KeyId, u32>>,
    noted: Mutex<HashSet<KeyId>>,
    last_revocation: Mutex<Option<UnixMillis>>,
    /// What is shown as the plans of these keys, or of their parents.
    old_plans: Mutex<HashMap<KeyId, Plan>>,
}

impl Wrong {
    pub fn new(bug: Bug) -> Self {
        Self(Arc::new(Inner {
            memory: MemoryStore::new(),
            bug,
            hub: Revocations::default(),
            found: Mutex::default(),
            looked_up: Mutex::default(),
            used: Mutex::default(),
            noted: Mutex::default(),
            last_revocation: Mutex::default(),
            old_plans: Mutex::default(),
        }))
    }

    fn is(&self, bug: Bug) -> bool {
        self.0.bug == bug
    }

    fn memory(&self) -> &MemoryStore {
        &self.0.memory
    }

    async fn every(&self) -> Vec<Arc<KeyRecord>> {
        self.memory().list(&KeyFilter::default()).await.unwrap()
    }

    async fn children(&self, parent: &KeyId) -> Vec<Arc<KeyRecord>> {
        let mut all = self.every().await;
        all.retain(|record| record.parent().map(Parent::id) == Some(parent));
        all
    }

    /// A record as this store shows it.
    fn shown(&self, record: &Arc<KeyRecord>) -> Arc<KeyRecord> {
        let record = KeyRecord::clone(record);
        let last = *self.0.last_revocation.lock().unwrap();
        let parent = record.parent().cloned();
        let old_plan = self.0.old_plans.lock().unwrap().get(record.id()).copied();
        let record = match old_plan {
            None => record,
            Some(plan) if self.is(Bug::ChildrenKeepTheOldPlan) => {
                record.with_parent(parent.clone().map(|parent| parent.with_plan(plan)))
            }
            Some(plan) => {
                let grants = record.grants().clone().with_plan(plan);
                record.with_grants(grants)
            }
        };
        Arc::new(match self.0.bug {
            Bug::ForgetsChildren => {
                record.with_parent(parent.map(|parent| parent.with_revoked_at(None)))
            }
            Bug::ParentsPlanStaysBehind => {
                record.with_parent(parent.map(|parent| parent.with_plan(Plan::unbounded())))
            }
            Bug::ParentsLineStaysBehind => {
                let alone = |parent: Parent| parent.clone().with_line(parent.id().clone());
                record.with_parent(parent.map(alone))
            }
            Bug::SuccessorsAreStrangers => {
                let own = record.id().clone();
                record.with_line(own)
            }
            Bug::RevokesAgain if record.revoked_at().is_some() => record.with_revoked_at(last),
            _ => record,
        })
    }

    /// A record as this store takes it in.
    fn kept(&self, record: KeyRecord) -> KeyRecord {
        let named = |record: &KeyRecord, account: &str| {
            let made = KeyRecord::new(
                record.id().clone(),
                *record.digest(),
                account,
                record.kind(),
                record.created_at(),
            );
            made.with_grants(record.grants().clone()).with_line(record.line().clone())
        };
        let account = record.account().clone();
        let expires_at = record.expires_at().map(UnixMillis::get);
        match self.0.bug {
            Bug::LosesThePlan => {
                let grants = record.grants().clone().with_plan(Plan::default());
                record.with_grants(grants)
            }
            Bug::KeepsSeconds => {
                let seconds = expires_at.map(|at| UnixMillis::new(at / 1_000 * 1_000));
                record.with_expires_at(seconds)
            }
            Bug::KeepsSignedNumbers => {
                let signed = expires_at.map(|at| UnixMillis::new(at.min(i64::MAX as u64)));
                record.with_expires_at(signed)
            }
            Bug::TrimsAccounts => named(&record, account.trim()),
            Bug::EndsTextsAtNul => named(&record, account.split('\0').next().unwrap()),
            Bug::ChildrenAreDetached if record.parent().is_some() => {
                let no_parent = Parent::new(KeyId::new("detached"));
                record.with_parent(Some(no_parent))
            }
            _ => record,
        }
    }

    async fn look_up(&self, digest: &KeyDigest) -> Found {
        let same_half =
            |record: &Arc<KeyRecord>| record.digest().as_bytes()[..16] == digest.as_bytes()[..16];
        let cached = self.0.looked_up.lock().unwrap().get(digest).cloned();
        let found = match self.0.bug {
            Bug::FindsByHalfADigest => self.every().await.into_iter().find(same_half),
            Bug::LookupIsStale | Bug::LookupRefillsTheCache if cached.is_some() => cached.flatten(),
            _ => self.memory().lookup(digest).await.unwrap(),
        };
        if self.is(Bug::LookupRefillsTheCache) {
            yield_now().await;
        }
        if found.is_some() || self.is(Bug::LookupIsStale) {
            self.0.looked_up.lock().unwrap().insert(*digest, found.clone());
        }
        found.map(|record| self.shown(&record))
    }

    fn forget_lookups(&self) {
        if !self.is(Bug::LookupIsStale) {
            self.0.looked_up.lock().unwrap().clear();
        }
    }

    async fn revoke_wrongly(&self, what: &Revocation, stamp: &Stamp) -> u64 {
        let memory = self.memory();
        let live =
            async || self.every().await.iter().filter(|key| !key.is_revoked()).count() as u64;
        let before = live().await;
        self.0.last_revocation.lock().unwrap().replace(stamp.at());
        match (self.0.bug, what) {
            (Bug::RevokesOneOfTheLine, Revocation::Key(id)) => {
                memory.revoke(&Revocation::Alone(id.clone()), stamp).await.unwrap()
            }
            (Bug::IssuedBeforeIncludes, Revocation::IssuedBefore { account, at }) => {
                let at = at.saturating_add(Duration::from_millis(1));
                let what = Revocation::IssuedBefore { account: account.clone(), at };
                memory.revoke(&what, stamp).await.unwrap()
            }
            (Bug::FoldsCase, Revocation::Account(account)) => {
                let mut count = 0;
                for key in self.every().await {
                    if key.account().eq_ignore_ascii_case(account) {
                        let what = Revocation::Alone(key.id().clone());
                        count += memory.revoke(&what, stamp).await.unwrap();
                    }
                }
                count
            }
            (Bug::RevocationIsInTwoSteps, Revocation::Key(id)) => {
                for child in self.children(id).await {
                    let what = Revocation::Key(child.id().clone());
                    memory.revoke(&what, stamp).await.unwrap();
                }
                yield_now().await;
                memory.revoke(what, stamp).await.unwrap()
            }
            (Bug::CountsTheNewlyRevoked, _) => {
                memory.revoke(what, stamp).await.unwrap();
                before - live().await
            }
            _ => memory.revoke(what, stamp).await.unwrap(),
        }
    }
}

impl KeyStore for Wrong {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let (this, digest) = (self.clone(), *digest);
        Answer::pending(async move { Ok(this.look_up(&digest).await) })
    }

    fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
        let (this, mut both) = (self.clone(), [*current, *previous]);
        if self.is(Bug::LooksForPreviousFirst) {
            both.reverse();
        }
        Answer::pending(async move {
            for digest in both {
                if let Some(found) = this.look_up(&digest).await {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
        let (this, record) = (self.clone(), Arc::clone(record));
        let allowed = record.grants().uses().unwrap_or(u32::MAX);
        match self.0.bug {
            Bug::UsesAreNotCounted => Answer::ready(Ok(Some(Use::new(|| {})))),
            Bug::UsesNeverComeBack => Answer::pending(async move {
                let one = this.memory().redeem(&record).await?;
                Ok(one.map(|one| {
                    one.commit();
                    Use::new(|| {})
                }))
            }),
            Bug::UsesAreRacy => Answer::pending(async move {
                let used = this.0.used.lock().unwrap().get(record.id()).copied().unwrap_or(0);
                yield_now().await;
                if used >= allowed {
                    return Ok(None);
                }
                this.0.used.lock().unwrap().insert(record.id().clone(), used + 1);
                Ok(Some(Use::new(|| {})))
            }),
            Bug::PlansRefillUses => {
                let mut used = self.0.used.lock().unwrap();
                let used = used.entry(record.id().clone()).or_default();
                let is_left = *used < allowed;
                *used += u32::from(is_left);
                Answer::ready(Ok(is_left.then(|| Use::new(|| {}))))
            }
            Bug::UseIsInTwoSteps => Answer::pending(async move {
                let Some(one) = this.memory().redeem(&record).await? else { return Ok(None) };
                one.commit();
                yield_now().await;
                Ok(Some(Use::new(|| {})))
            }),
            _ => self.memory().redeem(&record),
        }
    }

    fn note_use(&self, record: &Arc<KeyRecord>, at: UnixMillis) {
        let ahead = Duration::from_secs(u64::from(self.is(Bug::NotesTheFuture)));
        record.note_use(at.saturating_add(ahead));
    }

    fn revocations(&self) -> Option<&Revocations> {
        Some(&self.0.hub)
    }
}

impl KeyAdmin for Wrong {
    fn insert(
        &self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Write<'_, Inserted> {
        let (memory, stamp) = (self.memory(), stamp.clone());
        let record = self.kept(record);
        Answer::pending(async move {
            let id = record.id().clone();
            let parent = record.parent().map(|parent| parent.id().clone());
            match (self.0.bug, max_children, parent) {
                (Bug::TakesNothing, ..) => Err(StoreError::new("no")),
                (Bug::InsertOverwrites, ..) => {
                    memory.remove(&id, &stamp).await?;
                    memory.insert(record, max_children, &stamp).await
                }
                (Bug::CapIsOneMore, Some(max), _) => {
                    memory.insert(record, Some(max.saturating_add(1)), &stamp).await
                }
                (Bug::CapCountsTheDead, Some(max), Some(parent)) => {
                    if self.children(&parent).await.len() >= max as usize {
                        return Ok(Inserted::TooManyChildren);
                    }
                    memory.insert(record, None, &stamp).await
                }
                (Bug::CapIsRacy, Some(max), Some(parent)) => {
                    let children = self.children(&parent).await;
                    let live = children
                        .iter()
                        .filter(|key| !key.is_revoked() && !key.is_expired(record.created_at()));
                    if live.count() >= max as usize {
                        return Ok(Inserted::TooManyChildren);
                    }
                    yield_now().await;
                    memory.insert(record, None, &stamp).await
                }
                (Bug::InsertIsRacy, ..) => {
                    let is_free = memory.find(&id).await?.is_none()
                        && memory.lookup(record.digest()).await?.is_none();
                    yield_now().await;
                    let inserted = memory.insert(record, max_children, &stamp).await?;
                    Ok(if is_free { Inserted::Yes } else { inserted })
                }
                (Bug::InsertIsInTwoSteps, ..) => {
                    let inserted = memory.insert(record, max_children, &stamp).await?;
                    yield_now().await;
                    self.0.noted.lock().unwrap().insert(id);
                    Ok(inserted)
                }
                _ => memory.insert(record, max_children, &stamp).await,
            }
        })
    }

    fn find(&self, id: &KeyId) -> Write<'_, Found> {
        let id = id.clone();
        Answer::pending(async move {
            let cached = self.0.found.lock().unwrap().get(&id).cloned();
            if let (Bug::FindIsStale, Some(cached)) = (self.0.bug, cached) {
                return Ok(cached);
            }
            let found = self.memory().find(&id).await?.map(|record| self.shown(&record));
            self.0.found.lock().unwrap().insert(id, found.clone());
            Ok(found)
        })
    }

    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        let mut filter = filter.clone();
        Answer::pending(async move {
            if self.is(Bug::ListIgnoresTheHint) {
                filter.last_four = None;
            }
            let mut listed = self.memory().list(&filter).await?;
            if let (Bug::FoldsCase, Some(account)) = (self.0.bug, &filter.account) {
                listed = self.every().await;
                listed.retain(|record| record.account().eq_ignore_ascii_case(account));
            }
            if self.is(Bug::ListIsReversed) {
                listed.reverse();
            }
            Ok(listed.iter().map(|record| self.shown(record)).collect())
        })
    }

    fn rotate(
        &self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Write<'_, Rotated> {
        let (memory, old, stamp) = (self.memory(), old.clone(), stamp.clone());
        Answer::pending(async move {
            let found = memory.find(&old).await?;
            let rotated = match (self.0.bug, found) {
                (Bug::RotationExtends, Some(found)) if found.expires_at().is_some() => {
                    memory.remove(&old, &stamp).await?;
                    let longer = KeyRecord::clone(&found).with_expires_at(None);
                    memory.insert(longer, None, &stamp).await?;
                    memory.rotate(&old, new, old_expires_at, &stamp).await?
                }
                (Bug::RotatesTheRevoked, Some(found)) if found.is_revoked() => {
                    memory.insert(new, None, &stamp).await?;
                    Rotated::Yes
                }
                (Bug::RotationEndsTokens, _) => {
                    for child in self.children(&old).await {
                        memory.remove(child.id(), &stamp).await?;
                    }
                    memory.rotate(&old, new, old_expires_at, &stamp).await?
                }
                (Bug::RotationIsRacy, Some(found)) if !found.is_revoked() => {
                    yield_now().await;
                    let new = new.with_line(found.line().clone());
                    memory.insert(new, None, &stamp).await?;
                    Rotated::Yes
                }
                (Bug::RotationIsInTwoSteps, Some(_)) => {
                    let id = new.id().clone();
                    memory.insert(new.clone(), None, &stamp).await?;
                    yield_now().await;
                    memory.remove(&id, &stamp).await?;
                    memory.rotate(&old, new, old_expires_at, &stamp).await?
                }
                (Bug::SuccessorsBringTheirPlan | Bug::PlansAreRacy, Some(found)) => {
                    let plan = match self.0.bug {
                        Bug::PlansAreRacy => *found.grants().plan(),
                        _ => *new.grants().plan(),
                    };
                    yield_now().await;
                    self.0.old_plans.lock().unwrap().insert(new.id().clone(), plan);
                    memory.rotate(&old, new, old_expires_at, &stamp).await?
                }
                _ => memory.rotate(&old, new, old_expires_at, &stamp).await?,
            };
            Ok(rotated)
        })
    }

    fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64> {
        let (what, stamp) = (what.clone(), stamp.clone());
        Answer::pending(async move {
            // What the store in memory tells is passed on, sooner or later.
            let told: Arc<Mutex<Vec<KeyId>>> = Arc::default();
            let (writing, is_heard) = (Arc::clone(&told), Arc::new(Mutex::new(true)));
            let hears = Arc::clone(&is_heard);
            self.memory().revocations().unwrap().subscribe(move |news| {
                if let (News::Revoked(ids), true) = (news, *hears.lock().unwrap()) {
                    writing.lock().unwrap().extend(ids.iter().cloned());
                }
            });
            if let (Bug::TellsTooEarly, Revocation::Key(id) | Revocation::Alone(id)) =
                (self.0.bug, &what)
            {
                self.0.hub.publish(News::Revoked(std::slice::from_ref(id)));
                yield_now().await;
            }
            let count = self.revoke_wrongly(&what, &stamp).await;
            *is_heard.lock().unwrap() = false;
            self.forget_lookups();
            let told = std::mem::take(&mut *told.lock().unwrap());
            match self.0.bug {
                Bug::IgnoresTheUnknown if count == 0 => {}
                Bug::TellsTooLate => {
                    let hub = self.0.hub.clone();
                    tokio::spawn(async move { hub.publish(News::Revoked(&told)) });
                }
                _ => self.0.hub.publish(News::Revoked(&told)),
            }
            Ok(count)
        })
    }

    fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool> {
        let (memory, id, stamp) = (self.memory(), id.clone(), stamp.clone());
        Answer::pending(async move {
            let children = self.children(&id).await;
            if self.is(Bug::RemovalIsInTwoSteps) {
                for child in &children {
                    memory.remove(child.id(), &stamp).await?;
                    yield_now().await;
                }
            }
            let removed = memory.remove(&id, &stamp).await?;
            if self.is(Bug::RemoveLeavesChildren) {
                for child in children {
                    memory.insert(KeyRecord::clone(&child), None, &stamp).await?;
                }
            }
            self.forget_lookups();
            self.0.hub.publish(News::Revoked(&[id]));
            Ok(removed)
        })
    }

    fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool> {
        let (memory, id, stamp) = (self.memory(), id.clone(), stamp.clone());
        Answer::pending(async move {
            let Some(found) = memory.find(&id).await? else { return Ok(false) };
            let mut old_plans = HashMap::new();
            for key in self.every().await {
                let of_parent = key.parent().map(Parent::plan);
                let own = Some(key.grants().plan()).filter(|_| *key.id() != id);
                let kept = match self.0.bug {
                    Bug::ChildrenKeepTheOldPlan => of_parent,
                    Bug::PlansOneOfTheLine | Bug::PlansAreInTwoSteps => own,
                    _ => None,
                };
                old_plans.extend(kept.map(|plan| (key.id().clone(), *plan)));
            }
            *self.0.old_plans.lock().unwrap() = old_plans;
            match self.0.bug {
                Bug::PlansTheLivingAlone if found.is_revoked() => return Ok(true),
                Bug::ChildrenGetThePlan => {
                    for child in self.children(&id).await {
                        memory.set_plan(child.id(), plan, &stamp).await?;
                    }
                }
                Bug::PlansRefillUses => drop(self.0.used.lock().unwrap().remove(&id)),
                Bug::PlansAreNotedAgain => {
                    let other = plan.with_max_sessions(7);
                    memory.set_plan(&id, other, &stamp).await?;
                }
                _ => {}
            }
            let is_known = memory.set_plan(&id, plan, &stamp).await?;
            if self.is(Bug::PlansAreInTwoSteps) {
                yield_now().await;
                self.0.old_plans.lock().unwrap().clear();
            }
            self.forget_lookups();
            Ok(is_known)
        })
    }

    fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
        let filter = filter.clone();
        Answer::pending(async move {
            let filter = match self.0.bug {
                Bug::TrailIgnoresTheFilter => AuditFilter::default(),
                _ => filter,
            };
            let mut trail = self.memory().audit(&filter).await?;
            let created = |number, record: &KeyRecord| {
                let stamp = Stamp::new(record.created_at());
                let account = Some(record.account().clone());
                AuditEntry::new(number, stamp, AuditAction::Created, record.id().clone(), account)
            };
            match self.0.bug {
                Bug::TrailForgetsWho => {
                    for entry in &mut trail {
                        *entry = AuditEntry::new(
                            entry.number(),
                            Stamp::new(entry.stamp().at()),
                            entry.action().clone(),
                            entry.key_id().clone(),
                            entry.account().cloned(),
                        );
                    }
                }
                Bug::TrailTellsOfTokens => {
                    let tokens = self.every().await;
                    let tokens = tokens.iter().filter(|record| record.kind() == KeyKind::Ephemeral);
                    trail.extend(tokens.zip(1_000..).map(|(token, number)| created(number, token)));
                }
                Bug::PlansAreNotNoted => {
                    trail.retain(|entry| !matches!(entry.action(), AuditAction::Replanned { .. }));
                }
                Bug::InsertIsInTwoSteps => {
                    let noted = self.0.noted.lock().unwrap();
                    trail.retain(|entry| noted.contains(entry.key_id()));
                }
                _ => {}
            }
            Ok(trail)
        })
    }
}
