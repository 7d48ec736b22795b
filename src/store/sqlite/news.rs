//! News of revocations between the processes that have the file open: they read the audit trail.

use std::{sync::Arc, time::Duration};

use rusqlite::{Connection, params};

use super::{
    fault::Fault,
    file::{Identity, Open},
    rows,
    worker::Readers,
};
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
}

/// How far the trail was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    number: i64,
    file: Identity,
    /// If that was all: the connection that read it, and what that counts changes of the file by.
    all: Option<(u64, i64)>,
}

impl Poll {
    pub(super) fn new(
        reader: Readers,
        runtime: Arc<dyn Runtime>,
        every: Duration,
        origin: i64,
        seen: Seen,
    ) -> Self {
        Self { reader, runtime, every, origin, seen }
    }
}

impl Seen {
    /// Everything that is in the file now.
    pub(super) fn now(open: &Open) -> Result<Self, Fault> {
        Ok(Self { number: last_number(&open.connection)?, file: open.file(), all: None })
    }
}

impl NewsCarrier for Poll {
    fn next(&mut self) -> Write<'_, Heard> {
        Answer::pending(async {
            if self.seen.all.is_some() {
                self.runtime.sleep(self.every).await;
            }
            let (seen, origin) = (self.seen, self.origin);
            let (heard, seen) = self.reader.ask_file(move |open| look(open, seen, origin)).await?;
            // Only now: who gave up waiting before this has missed nothing.
            self.seen = seen;
            Ok(heard)
        })
    }
}

fn look(open: &Open, seen: Seen, origin: i64) -> Result<(Heard, Seen), Fault> {
    let (connection, file) = (&open.connection, open.file());
    // Before the entries: what comes in between is looked at again.
    let version = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
    let all = Some((open.number(), version));
    if seen.all == all {
        return Ok((Heard::Revoked(Vec::new()), seen));
    }
    if seen.file != file {
        // A copy, perhaps an older one: its numbers tell nothing of what happened in the other.
        return Ok((Heard::Lost, Seen { all, ..Seen::now(open)? }));
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
    let all = all.filter(|_| entries.len() < AT_ONCE as usize);
    let revoked = entries.into_iter().filter_map(|(_, is_news, id)| is_news.then_some(id));
    Ok((Heard::Revoked(revoked.collect()), Seen { number, file, all }))
}

/// The last entry that was ever written.
fn last_number(connection: &Connection) -> Result<i64, Fault> {
    let statement = "SELECT coalesce(max(number), 0) FROM audit";
    Ok(rows::one(connection, statement, [], |row| Ok(row.get(0)?))?.unwrap_or(0))
}
