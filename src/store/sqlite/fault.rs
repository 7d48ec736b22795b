//! Why the file could not answer.

use std::{borrow::Cow, error::Error, fmt, io};

use rusqlite::ErrorCode;

use crate::StoreError;

/// Why the file could not answer, for an operator to act on: no SQL, no values.
///
/// It can be cloned, because one failed commit fails all that was to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    what: Cow<'static, str>,
    /// Whether the connection is of no use any more.
    is_of_connection: bool,
    is_lock: bool,
}

impl Fault {
    /// A fault that leaves the connection as it is.
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what: Cow::Borrowed(what), is_of_connection: false, is_lock: false }
    }

    /// A fault after which the file must be opened anew.
    pub(super) const fn of_file(what: &'static str) -> Self {
        Self { what: Cow::Borrowed(what), is_of_connection: true, is_lock: false }
    }

    pub(super) fn io(what: &'static str, error: &io::Error) -> Self {
        Self { what: format!("{what}: {error}").into(), is_of_connection: true, is_lock: false }
    }

    pub(super) const fn is_of_connection(&self) -> bool {
        self.is_of_connection
    }

    /// Whether another process had the file locked for too long.
    pub(super) const fn is_lock(&self) -> bool {
        self.is_lock
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode::{
            CannotOpen, ConstraintViolation, DatabaseBusy, DatabaseCorrupt, DatabaseLocked,
            DiskFull, NotADatabase, PermissionDenied, ReadOnly, SystemIoFailure,
        };
        let Some(sqlite) = error.sqlite_error() else {
            // A column of another type than was written, for one. What it holds is not shown.
            return Self::new("the file holds a row that cannot be read: was it edited?");
        };
        let what = match sqlite.code {
            DatabaseBusy | DatabaseLocked => "another process holds the file locked",
            DiskFull => "the disk is full",
            ReadOnly => "the file, or the folder that it is in, cannot be written",
            DatabaseCorrupt => "the file is damaged: restore it from a backup",
            NotADatabase => "the file is not an SQLite database",
            CannotOpen => "the file cannot be opened",
            PermissionDenied => "the file may not be read",
            SystemIoFailure => "the disk cannot be read or written",
            _ => "SQLite refused",
        };
        let is_lock = matches!(sqlite.code, DatabaseBusy | DatabaseLocked);
        let is_of_connection = !is_lock && !matches!(sqlite.code, DiskFull | ConstraintViolation);
        let what = format!("{what} (SQLite error {})", sqlite.extended_code).into();
        Self { what, is_of_connection, is_lock }
    }
}

/// An error that the store has made of what it read.
impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let what = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Self { what: what.into(), is_of_connection: false, is_lock: false }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Fault {}
