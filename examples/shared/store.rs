//! Which store to keep keys in, as `--store` names it.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use tower_realtime_auth::{KeyAdmin, MemoryStore, SqliteOptions, SqliteStore, StoreError};

/// Whichever store was chosen.
pub type Store = Arc<dyn KeyAdmin>;

/// The name of a store.
#[derive(Clone)]
pub enum StoreName {
    /// In this process; gone when it ends.
    Memory,
    /// In a file, which is made if there is none.
    Sqlite(PathBuf),
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl FromStr for StoreName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.split_once(':') {
            None if name == "memory" => Ok(Self::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err("use memory, or sqlite:FILE".to_owned()),
        }
    }
}

impl StoreName {
    /// Opens the store; with these options, if it has any.
    pub async fn open(&self, options: SqliteOptions) -> Result<Store, StoreError> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryStore::new()),
            Self::Sqlite(path) => Arc::new(SqliteStore::open_with(path, options).await?),
        })
    }
}
