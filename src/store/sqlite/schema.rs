//! The tables of the file, and how older ones become the present ones.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Fault;

/// "TwRt": which program a file belongs to, as `PRAGMA application_id` tells.
const APPLICATION: i32 = 0x5477_5274;

/// The random name of one store: a copy of the file has it too, another store never.
pub(super) type StoreId = [u8; 16];

/// Each makes of a file of the version before one of the next; `user_version` counts them.
///
/// Times are milliseconds since the Unix epoch.
const MIGRATIONS: &[&str] = &["
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
"];

/// Which store the file is; `None` if it is still empty or of an older version.
pub(super) fn identify(connection: &Connection) -> Result<Option<StoreId>, Fault> {
    let version = version(connection)?;
    if version < MIGRATIONS.len() {
        return Ok(None);
    }
    Ok(Some(connection.query_row("SELECT store FROM meta", [], |row| row.get(0))?))
}

/// Makes the tables, or what is missing of them. Several processes may do so at once.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    let change = Transaction::new(connection, TransactionBehavior::Immediate)?;
    // Again, now that nobody else can change it.
    for migration in MIGRATIONS.get(version(&change)?..).unwrap_or_default() {
        change.execute_batch(migration)?;
    }
    change.pragma_update(None, "application_id", APPLICATION)?;
    change.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    Ok(change.commit()?)
}

/// How many migrations the file has behind it.
fn version(connection: &Connection) -> Result<usize, Fault> {
    let application: i32 = number(connection, "application_id")?;
    let version: i32 = number(connection, "user_version")?;
    let of_another = Fault::of_file("the file is an SQLite database of another program");
    if application != APPLICATION {
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = connection.query_row(tables, [], |row| row.get(0))?;
        let is_new = (application, version, tables) == (0, 0, 0);
        return if is_new { Ok(0) } else { Err(of_another) };
    }
    match usize::try_from(version) {
        Ok(version @ 1..) if version <= MIGRATIONS.len() => Ok(version),
        Ok(1..) => Err(Fault::of_file("a newer version of this program has made the file: update")),
        _ => Err(of_another),
    }
}

fn number(connection: &Connection, pragma: &str) -> Result<i32, Fault> {
    Ok(connection.pragma_query_value(None, pragma, |row| row.get(0))?)
}
