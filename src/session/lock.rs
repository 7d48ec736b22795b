//! Which of the settings that a key carries its sessions cannot change.

use std::sync::Arc;

use crate::ConfigError;

/// The deepest path, in names.
const MAX_DEPTH: usize = 32;

/// Which settings the sessions of a key cannot change: Gemini's modes, and none.
///
/// | | what the key sets | what it does not set |
/// |---|---|---|
/// | [`Lock::set`], the default | locked | the client's |
/// | [`Lock::all`] | locked | locked at the provider's default |
/// | [`Lock::nothing`] | where the session starts | the client's |
/// | any of them [`and`](Self::and) paths | as above | as above; the paths locked in any case |
///
/// A path is dotted, in the spelling of OpenAI's present session object or in any that the
/// profile knows for the same setting.
///
/// ```
/// use tower_realtime_auth::{Grants, Lock, SessionGuard, Settings, Verdict};
///
/// let settings = Settings::parse(r#"{"voice": "marin"}"#)?;
/// let lock = Lock::set().and(["tools"])?;
/// let grants = Grants::default().with_session(settings).with_lock(lock);
/// let mut guard = SessionGuard::new(&grants, None);
///
/// let update = r#"{"type": "session.update", "session": {"tools": [], "speed": 2}}"#;
/// let Verdict::Rewrite { text, .. } = guard.client(update) else { panic!("not kept") };
/// assert_eq!(text, r#"{"session":{"speed":2},"type":"session.update"}"#);
///
/// assert!(Lock::set().and(["tools.0.name"]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    extent: Extent,
    paths: Option<Arc<[Box<str>]>>,
}

/// How far a lock reaches without its paths. In the order of how much is locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    Nothing,
    #[default]
    Set,
    All,
}

impl Lock {
    /// Locks what the key sets.
    #[must_use]
    pub const fn set() -> Self {
        Self { extent: Extent::Set, paths: None }
    }

    /// Locks every setting. One that the key does not set stays at the provider's default.
    #[must_use]
    pub const fn all() -> Self {
        Self { extent: Extent::All, paths: None }
    }

    /// Locks nothing: what the key sets is where its sessions start.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { extent: Extent::Nothing, paths: None }
    }

    /// Locks these paths too. One that the key does not set stays at the provider's default.
    ///
    /// # Errors
    /// If a path has an empty name, more than 32 names, or an array's index: arrays are locked as
    /// a whole.
    pub fn and<'a>(self, paths: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let mut all: Vec<Box<str>> = self.paths().to_vec();
        for path in paths {
            let is_name =
                |name: &str| !name.is_empty() && !name.bytes().all(|byte| byte.is_ascii_digit());
            if !path.split('.').all(is_name) || path.split('.').count() > MAX_DEPTH {
                return Err(ConfigError::SettingPath { path: path.to_owned() });
            }
            if !all.iter().any(|known| **known == *path) {
                all.push(path.into());
            }
        }
        Ok(Self { paths: (!all.is_empty()).then(|| all.into()), ..self })
    }

    /// The lock of a child: all that its parent's locks, and all that its own does.
    #[cfg(feature = "mint")]
    pub(crate) fn with_parent(self, parent: &Self) -> Self {
        let mut paths = parent.paths().to_vec();
        paths.extend(self.paths().iter().filter(|path| !parent.paths().contains(path)).cloned());
        Self {
            extent: self.extent.max(parent.extent),
            paths: (!paths.is_empty()).then(|| paths.into()),
        }
    }

    /// Locks every setting, and still these paths.
    pub(super) fn lock_all(&mut self) {
        self.extent = Extent::All;
    }

    pub(super) const fn extent(&self) -> Extent {
        self.extent
    }

    /// What a store keeps of it: its extent by name, and its paths.
    #[cfg(feature = "sqlite")]
    pub(crate) fn to_parts(&self) -> (&'static str, &[Box<str>]) {
        let extent = match self.extent {
            Extent::Nothing => "nothing",
            Extent::Set => "set",
            Extent::All => "all",
        };
        (extent, self.paths())
    }

    /// The lock that a store has kept so; `None` if it is none.
    #[cfg(feature = "sqlite")]
    pub(crate) fn from_parts<'a>(
        extent: &str,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let lock = match extent {
            "nothing" => Self::nothing(),
            "set" => Self::set(),
            "all" => Self::all(),
            _ => return None,
        };
        lock.and(paths).ok()
    }

    /// The paths that are locked in any case.
    #[must_use]
    pub fn paths(&self) -> &[Box<str>] {
        self.paths.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_names() {
        let deepest = ["a"; MAX_DEPTH].join(".");
        for path in ["a", "a.b", "a1.2b", &deepest] {
            let lock = Lock::set().and([path]).unwrap();
            assert_eq!(lock.paths(), [Box::from(path)]);
        }
        let too_deep = ["a"; MAX_DEPTH + 1].join(".");
        for path in ["", ".", "a.", ".a", "a..b", "0", "a.12", &too_deep] {
            let refused = Lock::set().and(["good", path]).unwrap_err();
            assert_eq!(refused, ConfigError::SettingPath { path: path.to_owned() });
        }
    }

    #[test]
    fn a_path_is_named_once() {
        let lock = Lock::nothing().and(["a", "b"]).unwrap().and(["b", "c"]).unwrap();
        assert_eq!(lock.paths(), ["a", "b", "c"].map(Box::from));
        assert_eq!(Lock::set().and([]).unwrap(), Lock::set());
    }

    #[cfg(feature = "mint")]
    #[test]
    fn a_child_locks_all_that_its_parent_does_and_its_own() {
        let named = |lock: Lock, paths: &[&str]| lock.and(paths.iter().copied()).unwrap();
        for (child, parent, together) in [
            (Lock::nothing(), Lock::set(), Lock::set()),
            (Lock::all(), Lock::set(), Lock::all()),
            (Lock::set(), Lock::all(), Lock::all()),
            (Lock::nothing(), Lock::nothing(), Lock::nothing()),
            (
                named(Lock::nothing(), &["b", "c"]),
                named(Lock::set(), &["a", "b"]),
                named(Lock::set(), &["a", "b", "c"]),
            ),
            (Lock::set(), named(Lock::nothing(), &["a"]), named(Lock::set(), &["a"])),
            (named(Lock::set(), &["a"]), Lock::nothing(), named(Lock::set(), &["a"])),
        ] {
            assert_eq!(child.clone().with_parent(&parent), together, "{child:?} of {parent:?}");
        }
    }
}
