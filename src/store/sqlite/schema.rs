//! The tables of the file, and how older ones become the present ones.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Fault;

/// "TwRt": which program a file belongs to, as `PRAGMA application_id` tells.
const APPLICATION: i64 = 0x5477_5274;

/// The random name of one store: a copy of the file has it too, another store never.
pub(super) type StoreId = [u8; 16];

/// Each makes of a file of the version before one of the next; `user_version` counts them.
///
/// Times are milliseconds since the Unix epoch.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (
        one   INTEGER PRIMARY KEY CHECK (one = 1),
        store BLOB NOT NULL CHECK (length(store) = 16)
    ) STRICT;
    INSERT INTO meta VALUES (1, randomblob(16));

    CREATE TABLE keys (
        id                TEXT NOT NULL PRIMARY KEY,
        digest            BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
        algorithm         TEXT NOT NULL,
        account           TEXT NOT NULL,
        kind              TEXT NOT NULL,
        environment       TEXT NOT NULL,
        parent            TEXT,
        -- Of a parent that is not in this table.
        parent_revoked_at INTEGER,
        line              TEXT NOT NULL,
        successor         TEXT,
        hint_prefix       TEXT,
        hint_last_four    TEXT,
        created_at        INTEGER NOT NULL,
        expires_at        INTEGER,
        revoked_at        INTEGER,
        last_used_at      INTEGER,
        used              INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
        grants            TEXT NOT NULL
    ) STRICT;
    CREATE INDEX keys_by_parent ON keys (parent) WHERE parent IS NOT NULL;
    CREATE INDEX keys_by_line ON keys (line);
    CREATE INDEX keys_by_account ON keys (account, created_at, id);
    CREATE INDEX keys_by_time ON keys (created_at, id);
    CREATE INDEX tokens_by_expiry ON keys (expires_at) WHERE kind = 'ephemeral';

    CREATE TABLE audit (
        number    INTEGER PRIMARY KEY AUTOINCREMENT,
        at        INTEGER NOT NULL,
        actor     TEXT,
        action    TEXT NOT NULL,
        key_id    TEXT NOT NULL,
        account   TEXT,
        successor TEXT,
        -- Which open store wrote it: the others read here what is news to them.
        origin    INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_key ON audit (key_id, number);
    CREATE INDEX audit_by_account ON audit (account, number);
",
    "
    ALTER TABLE audit ADD COLUMN plan_from TEXT;
    ALTER TABLE audit ADD COLUMN plan_to TEXT;
",
];

/// Makes the tables of a new file.
pub(super) fn create(connection: &mut Connection) -> Result<(), Fault> {
    let change = Transaction::new(connection, TransactionBehavior::Immediate)?;
    apply(&change, 0)?;
    Ok(change.commit()?)
}

/// Makes of a file of an older version one of this. Several processes may do so at once.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    if version(connection)? < MIGRATIONS.len() {
        let change = Transaction::new(connection, TransactionBehavior::Immediate)?;
        // Again, now that nobody else can change it.
        apply(&change, version(&change)?)?;
        change.commit()?;
    }
    Ok(())
}

fn apply(change: &Transaction<'_>, version: usize) -> Result<(), Fault> {
    for migration in MIGRATIONS.get(version..).unwrap_or_default() {
        change.execute_batch(migration)?;
    }
    change.pragma_update(None, "application_id", APPLICATION)?;
    Ok(change.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?)
}

/// Which store the file is, if it is of this version.
pub(super) fn identify(connection: &Connection) -> Result<StoreId, Fault> {
    if version(connection)? != MIGRATIONS.len() {
        return Err(Fault::of_file("an older version of this program has made the file: restart"));
    }
    store(connection)
}

/// Which store the file is, of whatever version.
pub(super) fn store(connection: &Connection) -> Result<StoreId, Fault> {
    Ok(connection.query_row("SELECT store FROM meta", [], |row| row.get(0))?)
}

/// How many migrations the file has behind it.
fn version(connection: &Connection) -> Result<usize, Fault> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let version = usize::try_from(number("user_version")?).unwrap_or(0);
    if number("application_id")? != APPLICATION || version == 0 {
        return Err(Fault::of_file("the file is an SQLite database of another program"));
    }
    if version > MIGRATIONS.len() {
        return Err(Fault::of_file("a newer version of this program has made the file: update"));
    }
    Ok(version)
}
