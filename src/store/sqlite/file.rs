//! The file: made, opened, and watched, that it still is the one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    fault::Fault,
    schema::{self, StoreId},
};
use crate::key::random_base62;

/// How many prepared statements a connection keeps: more than there are.
const STATEMENTS: usize = 64;
/// One page, of the smallest that there are.
const MIN_LEN: u64 = 512;
/// How soon a file that was locked is tried again where SQLite does not wait by itself.
const RETRY: Duration = Duration::from_millis(10);

/// Where the store is, and which one it is.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Where SQLite keeps what is not in the file yet.
    log: PathBuf,
    /// By which processes tell each other what is in the log.
    index: PathBuf,
    busy_deadline: Duration,
    store: StoreId,
}

/// A connection, and which file it has open.
pub(super) struct Open {
    pub(super) connection: Connection,
    file: Identity,
    log: Identity,
    index: Identity,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Place {
    /// Finds the store at `path`, or makes one where there is no file.
    pub(super) fn prepare(path: &Path, busy_deadline: Duration) -> Result<Self, Fault> {
        // The working directory may change later.
        let path = std::path::absolute(path)
            .map_err(|error| Fault::io("the path of the file is not known", &error))?;
        create_if_missing(&path)?;
        let deadline = Instant::now() + busy_deadline;
        let store = loop {
            match update(&path, busy_deadline) {
                // Between two processes that do so at once, SQLite does not always wait.
                Err(fault) if fault.is_lock() && Instant::now() < deadline => thread::sleep(RETRY),
                prepared => break prepared?,
            }
        };
        // SQLite names the log after the file itself, not after a link to it.
        let file = fs::canonicalize(&path)
            .map_err(|error| Fault::io("the file cannot be looked at", &error))?;
        let (log, index) = (log_of(&file), with_suffix(&file, "-shm"));
        Ok(Self { path, log, index, busy_deadline, store })
    }

    /// Opens the file that is there now, if it is this store.
    pub(super) fn open(&self, access: Access) -> Result<Open, Fault> {
        static OPENED: AtomicU64 = AtomicU64::new(0);

        let file = self.file()?;
        // Before it is opened: what lies beside it may still be the other's.
        if schema::store(&peek(&self.path)?)? != self.store {
            return Err(ANOTHER);
        }
        let connection = connect(&self.path, self.busy_deadline)?;
        if schema::identify(&connection)? != self.store {
            return Err(ANOTHER);
        }
        // A copy that was made by some tool may not keep one.
        keep_log(&connection)?;
        connection.pragma_update(None, "query_only", access == Access::Read)?;
        // They are there by now, and stay for as long as anybody has the file open.
        let (log, index) = (self.log()?, self.index()?);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let open = Open { connection, file, log, index, number };
        open.tidies_up(false);
        open.check(self)?;
        Ok(open)
    }
}

impl Open {
    /// Fails if what is open is not what stands there: what it answers would be of a file that
    /// nobody else sees.
    pub(super) fn check(&self, place: &Place) -> Result<(), Fault> {
        if place.file()? != self.file {
            return Err(Fault::of_file("another file was put in the place of the store's"));
        }
        // First, because by another index others have written what the log is not saved over.
        if place.index() != Ok(self.index) {
            self.tidies_up(false);
            return Err(INDEX_GONE);
        }
        if place.log() != Ok(self.log) {
            self.save_log();
            return Err(LOG_GONE);
        }
        Ok(())
    }

    /// Closes the file. Whoever is the last to do so brings into it what is in the log, and removes
    /// that; but not by an index that others do not use: they may have written what it does not
    /// know of.
    pub(super) fn close(self, place: &Place) {
        if self.check(place).is_ok() {
            self.tidies_up(true);
        }
    }

    /// Brings into the file what is in the log: that may be a log which is gone from its folder.
    fn save_log(&self) {
        let _tried = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        // If it cannot be done now, it is when the connection is closed.
        self.tidies_up(true);
    }

    fn tidies_up(&self, on_close: bool) {
        let not = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        let _set = self.connection.set_db_config(not, !on_close);
    }

    /// Which file is open.
    pub(super) const fn file(&self) -> Identity {
        self.file
    }

    /// Another for every connection.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

const ANOTHER: Fault = Fault::of_file(
    "another store stands in the place of the one that was opened: restart to use it",
);

/// The connection is kept, because it is the last that can read what the log held.
const LOG_GONE: Fault =
    Fault::new("the log of the file (-wal) was removed or replaced: put it back, or restart");

/// The connection is kept: as long as one is open, SQLite gives the same index to all of a process.
const INDEX_GONE: Fault =
    Fault::new("the index of the file's log (-shm) was removed or replaced: restart");

/// Which file it is, by whatever name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// Numbers of inodes are used again.
    created: Option<SystemTime>,
}

impl Place {
    fn file(&self) -> Result<Identity, Fault> {
        stat(&self.path)?.ok_or(Fault::of_file("the file is gone"))
    }

    fn log(&self) -> Result<Identity, Fault> {
        fs::metadata(&self.log).map(|found| Identity::from(&found)).map_err(|_| LOG_GONE)
    }

    fn index(&self) -> Result<Identity, Fault> {
        fs::metadata(&self.index).map(|found| Identity::from(&found)).map_err(|_| INDEX_GONE)
    }
}

#[cfg(unix)]
impl From<&fs::Metadata> for Identity {
    fn from(found: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device: found.dev(), inode: found.ino(), created: found.created().ok() }
    }
}

/// Elsewhere a file that is open cannot be replaced.
#[cfg(not(unix))]
impl From<&fs::Metadata> for Identity {
    fn from(_: &fs::Metadata) -> Self {
        Self { device: 0, inode: 0, created: None }
    }
}

/// Which file stands there, if any.
fn stat(path: &Path) -> Result<Option<Identity>, Fault> {
    match fs::metadata(path) {
        // SQLite would take it for a new database.
        Ok(found) if found.is_file() && found.len() < MIN_LEN => {
            Err(Fault::of_file("the file is empty or cut off: restore it from a backup"))
        }
        Ok(found) => Ok(Some(Identity::from(&found))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::io("the file cannot be looked at", &error)),
    }
}

/// Makes the file if there is none, readable to its owner alone.
fn create_if_missing(path: &Path) -> Result<(), Fault> {
    if stat(path)?.is_some() {
        return Ok(());
    }
    // SQLite would throw the log away, and with it what was written last.
    if fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0) {
        return Err(Fault::of_file(
            "the file is gone and its log (-wal) is there: restore both, or remove the log",
        ));
    }
    // Under another name until it is whole, so that one that is empty was never ours.
    let mut new = String::from(".");
    random_base62(12, &mut new)
        .map_err(|_| Fault::new("the operating system gave no random numbers"))?;
    let new = with_suffix(path, &new);
    let made = create(&new).and_then(|()| match fs::hard_link(&new, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(cannot_make(&error)),
        // Somebody else was quicker.
        _ => sync_folder(path).map_err(|error| cannot_make(&error)),
    });
    let _tidy = fs::remove_file(&new);
    made
}

fn create(path: &Path) -> Result<(), Fault> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Closed before SQLite opens it: on Unix, closing a file gives up all locks on it.
    drop(options.open(path).map_err(|error| cannot_make(&error))?);
    let mut connection = connect(path, Duration::ZERO)?;
    schema::create(&mut connection)
}

fn cannot_make(error: &io::Error) -> Fault {
    Fault::io("the file cannot be made", error)
}

fn log_of(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// So that the file's name is still there after a loss of power.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Brings the file up to this version; answers which store it is.
fn update(path: &Path, busy_deadline: Duration) -> Result<StoreId, Fault> {
    let mut connection = connect(path, busy_deadline)?;
    schema::migrate(&mut connection)?;
    keep_log(&connection)?;
    schema::identify(&connection)
}

/// With a log, readers see what is committed while others write.
fn keep_log(connection: &Connection) -> Result<(), Fault> {
    let mode = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    if connection.pragma_update_and_check(None, "journal_mode", "wal", mode)? != "wal" {
        return Err(Fault::of_file("the file system cannot share memory between processes"));
    }
    // It is opened by whoever reads next.
    Ok(connection.query_row("SELECT 1 FROM meta", [], |_| Ok(()))?)
}

/// Opens the file alone: neither its log nor a lock is looked at or made.
fn peek(path: &Path) -> Result<Connection, Fault> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(uri, flags)?)
}

/// Opens the file, which must be there, and changes nothing in it.
fn connect(path: &Path, busy_deadline: Duration) -> Result<Connection, Fault> {
    // Each connection belongs to one thread, and a path is a path even if it looks like a URI.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_deadline)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // What is committed has reached the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A damaged file is found out where it is read, and runs no functions.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}
