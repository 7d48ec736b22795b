//! What a key may do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Plan;

#[cfg(feature = "session")]
use crate::session::{Lock, Settings};

/// What a key may do. The default grants everything and locks nothing.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    models: Option<Arc<[Arc<str>]>>,
    origins: Option<Arc<[Arc<str>]>>,
    uses: Option<u32>,
    max_session: Option<Duration>,
    metadata: Option<Arc<BTreeMap<Arc<str>, Arc<str>>>>,
    plan: Plan,
    #[cfg(feature = "session")]
    session: Option<Settings>,
    #[cfg(feature = "session")]
    lock: Option<Lock>,
}

impl Grants {
    /// The same, for these models alone. An empty list allows none.
    #[must_use]
    pub fn with_models<T: Into<Arc<str>>>(mut self, models: impl IntoIterator<Item = T>) -> Self {
        self.models = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// The same, for requests from these origins alone (`https://app.example`, as browsers write
    /// them, RFC 6454 §6.2). They are compared byte for byte, and a request without an `Origin` is
    /// refused. An empty list allows none.
    #[must_use]
    pub fn with_origins<T: Into<Arc<str>>>(mut self, origins: impl IntoIterator<Item = T>) -> Self {
        self.origins = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    /// The same, for this many sessions in all. A use is spent when a handshake completes; plain
    /// requests spend none.
    #[must_use]
    pub fn with_uses(mut self, uses: u32) -> Self {
        self.uses = Some(uses);
        self
    }

    /// The same, for sessions no longer than this. It counts from the beginning of each session
    /// and has nothing to do with the key's expiry, which only keeps new sessions from beginning.
    ///
    /// With the feature `session`, `GuardedSocket` ends sessions by it.
    #[must_use]
    pub fn with_max_session(mut self, max_session: Duration) -> Self {
        self.max_session = Some(max_session);
        self
    }

    /// The same, with these names and values, for whoever reads the key's record: whom it was made
    /// for, say. They grant nothing and lock nothing, and no client is told of them.
    #[must_use]
    pub fn with_metadata<K: Into<Arc<str>>, V: Into<Arc<str>>>(
        mut self,
        metadata: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let metadata = metadata.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.metadata = Some(Arc::new(metadata.collect()));
        self
    }

    /// The same, with this much of everything.
    #[must_use]
    pub const fn with_plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// The same, with these session settings, which are locked unless
    /// [`with_lock`](Self::with_lock) says otherwise.
    #[cfg(feature = "session")]
    #[must_use]
    pub fn with_session(mut self, session: Settings) -> Self {
        self.session = Some(session);
        self
    }

    /// The same, with another lock on the session settings. The default is [`Lock::set`]; what is
    /// minted inherits its parent's.
    #[cfg(feature = "session")]
    #[must_use]
    pub fn with_lock(mut self, lock: Lock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// The models that may be named. `None`: any.
    #[must_use]
    pub fn models(&self) -> Option<&[Arc<str>]> {
        self.models.as_deref()
    }

    /// The origins that may be called from. `None`: any, and none.
    #[must_use]
    pub fn origins(&self) -> Option<&[Arc<str>]> {
        self.origins.as_deref()
    }

    /// How many sessions the key opens in all. `None`: any number.
    #[must_use]
    pub const fn uses(&self) -> Option<u32> {
        self.uses
    }

    #[cfg(feature = "session")]
    pub(crate) fn shared_models(&self) -> Option<Arc<[Arc<str>]>> {
        self.models.clone()
    }

    /// The longest that one session may last. `None`: as long as the service lets it.
    #[must_use]
    pub const fn max_session(&self) -> Option<Duration> {
        self.max_session
    }

    /// What whoever made the key has noted of it.
    #[must_use]
    pub fn metadata(&self) -> Option<&BTreeMap<Arc<str>, Arc<str>>> {
        self.metadata.as_deref()
    }

    /// How much the key may be used. An ephemeral key draws on what its parent may, and its own
    /// plan only narrows that.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The settings that every session of the key starts with.
    #[cfg(feature = "session")]
    #[must_use]
    pub const fn session(&self) -> Option<&Settings> {
        self.session.as_ref()
    }

    /// Which of the settings its sessions cannot change, if that was said.
    #[cfg(feature = "session")]
    #[must_use]
    pub const fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }
}
