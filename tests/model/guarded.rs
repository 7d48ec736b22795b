//! The guard, under the terms of the model.

use std::sync::Arc;

use serde_json::Value;
use tower_realtime_auth::{
    Carries, Grants, Lock, OnChange, SessionGuard, SessionRules, Settings, Verdict,
};

use crate::session::{Done, Mode, OWN_ALIASES, OWN_EVENT, Outcome, Session, Terms};

/// A guard, and a model that watches it.
pub struct Guarded {
    guard: SessionGuard,
    pub session: Session,
}

impl Guarded {
    pub fn new(terms: &Terms) -> Self {
        let Terms { settings, mode, paths, model, models, refuses, locks_when_begun, own } = terms;
        let lock = match mode {
            Mode::Nothing => Lock::nothing(),
            Mode::Set => Lock::set(),
            Mode::All => Lock::all(),
        };
        let lock = lock.and(paths.iter().map(String::as_str)).expect("the paths are proper");
        let mut grants = Grants::default().with_lock(lock);
        if let Some(settings) = settings {
            let settings = Value::Object(settings.clone()).to_string();
            grants = grants.with_session(Settings::parse(&settings).expect("they are settings"));
        }
        if let Some(models) = models {
            grants = grants.with_models(models.iter().map(String::as_str));
        }
        let on_change = if *refuses { OnChange::Refuse } else { OnChange::Keep };
        let mut rules = SessionRules::default()
            .with_on_change(on_change)
            .with_lock_when_begun(*locks_when_begun);
        if *own {
            let (event, field) = OWN_EVENT;
            rules = rules.with_event(event, Carries::SessionSettings(field.into()));
            for (alias, path) in OWN_ALIASES {
                rules = rules.with_alias(alias, path);
            }
        }
        let model = model.as_deref().map(Arc::from);
        Self {
            guard: SessionGuard::with_rules(&grants, model, Arc::new(rules)),
            session: Session::new(terms.clone()),
        }
    }

    /// Sends an event; answers what the guard rightly did with it, or what was wrong.
    pub fn send(&mut self, text: &str) -> Result<Outcome, String> {
        let verdict = self.guard.client(text);
        let done = match &verdict {
            Verdict::Forward(text) => Done::Forwarded(text),
            Verdict::Rewrite { text, kept } => Done::Rewrote(text, kept),
            Verdict::Reply(event) => Done::Replied(event),
            other => return Err(format!("the model does not know {other:?}")),
        };
        self.session
            .hear(text, &done)
            .and_then(|outcome| match self.session.changed() {
                changed if changed.is_empty() => Ok(outcome),
                changed => Err(format!("changed for good: {changed:?}")),
            })
            .map_err(|wrong| format!("{wrong}\n{text:?}\n{verdict:?}"))
    }
}
