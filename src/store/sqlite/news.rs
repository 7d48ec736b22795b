//! News of revocations between the processes that have the file open: they read the audit trail.

use std::{sync::Arc, time::Duration};

use rusqlite::{Connection, params};

use super::{fault::Fault, file::Identity, rows, worker::Readers};
use crate::{Answer, Heard, KeyId, NewsCarrier, Runtime, Write};

/// How many entries are read at once.
const AT_ONCE: u32 = 1_024;

/// Looks every so often whether another process has revoked something.
pub(super) struct Poll {
    /// One thread: only one and the same connection sees that the file has changed.
    reader: Readers,
    runtime: Arc<dyn Runtime>,
    every: Duration,
    /// Entries with this origin are this store's own.
    origin: i64,
    seen: Seen,
    /// Whether there was more than could be read at once.
    is_behind: bool,
}

/// How far the trail was read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    number: i64,
    /// The file, and what SQLite counts its changes by. `None` before the first look.
    file: Option<(Identity, i64)>,
}

impl Poll {
    /// Begins behind the entry `number`.
    pub(super) fn new(
        reader: Readers,
        runtime: Arc<dyn Runtime>,
        every: Duration,
        origin: i64,
        number: i64,
    ) -> Self {
        let seen = Seen { number, file: None };
        Self { reader, runtime, every, origin, seen, is_behind: false }
    }
}

impl NewsCarrier for Poll {
    fn next(&mut self) -> Write<'_, Heard> {
        Answer::pending(async {
            if !self.is_behind {
                self.runtime.sleep(self.every).await;
            }
            let (seen, origin) = (self.seen, self.origin);
            let look = move |connection: &Connection, file| look(connection, file, seen, origin);
            let (heard, seen, is_behind) = self.reader.ask_file(look).await?;
            // Only now: who gave up waiting before this has missed nothing.
            self.seen = seen;
            self.is_behind = is_behind;
            Ok(heard)
        })
    }
}

fn look(
    connection: &Connection,
    file: Identity,
    seen: Seen,
    origin: i64,
) -> Result<(Heard, Seen, bool), Fault> {
    // Before the entries: what comes in between is looked at again.
    let version: i64 = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
    let now = Some((file, version));
    if seen.file == now {
        return Ok((Heard::Revoked(Vec::new()), seen, false));
    }
    if seen.file.is_some_and(|(known, _)| known != file) {
        // A copy, perhaps an older one: its numbers tell nothing of what happened in the other.
        let seen = Seen { number: last_number(connection)?, file: now };
        return Ok((Heard::Lost, seen, false));
    }
    let entries = rows::all(
        connection,
        "SELECT number, key_id, origin <> ?2 AND action IN ('revoked', 'removed') AS is_news \
         FROM audit WHERE number > ?1 ORDER BY number LIMIT ?3",
        params![seen.number, origin, AT_ONCE],
        |row| {
            let id = KeyId::new(rows::column::<Box<str>>(row, "key_id")?);
            Ok((rows::column::<i64>(row, "number")?, rows::column::<bool>(row, "is_news")?, id))
        },
    )?;
    let number = entries.last().map_or(seen.number, |(number, _, _)| *number);
    let is_behind = entries.len() >= AT_ONCE as usize;
    let revoked = entries.into_iter().filter_map(|(_, is_news, id)| is_news.then_some(id));
    let file = if is_behind { seen.file } else { now };
    Ok((Heard::Revoked(revoked.collect()), Seen { number, file }, is_behind))
}

/// The last entry that was ever written.
pub(super) fn last_number(connection: &Connection) -> Result<i64, Fault> {
    let statement = "SELECT coalesce(max(number), 0) FROM audit";
    Ok(rows::one(connection, statement, [], |row| Ok(row.get(0)?))?.unwrap_or(0))
}
