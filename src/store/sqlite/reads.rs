//! What is asked of the file.

use std::sync::Arc;

use rusqlite::{Connection, named_params};

use super::{
    fault::Fault,
    rows::{self, select_records, to_millis},
};
use crate::{AuditEntry, AuditFilter, KeyDigest, KeyFilter, KeyId, KeyRecord};

/// SQLite's word for "all".
const NO_LIMIT: i64 = -1;

pub(super) fn lookup(
    connection: &Connection,
    digest: &KeyDigest,
) -> Result<Option<KeyRecord>, Fault> {
    const STATEMENT: &str = select_records!("WHERE k.digest = ?1");
    rows::one(connection, STATEMENT, [digest.as_bytes()], rows::record)
}

pub(super) fn lookup_either(
    connection: &Connection,
    current: &KeyDigest,
    previous: &KeyDigest,
) -> Result<Option<KeyRecord>, Fault> {
    const STATEMENT: &str =
        select_records!("WHERE k.digest IN (?1, ?2) ORDER BY k.digest = ?1 DESC LIMIT 1");
    let digests = [current.as_bytes(), previous.as_bytes()];
    rows::one(connection, STATEMENT, digests, rows::record)
}

pub(super) fn find(connection: &Connection, id: &KeyId) -> Result<Option<KeyRecord>, Fault> {
    const STATEMENT: &str = select_records!("WHERE k.id = ?1");
    rows::one(connection, STATEMENT, [id.as_str()], rows::record)
}

/// The keys of the line of `id`, if there is such a key, as they were stored one after the other.
pub(super) fn line(connection: &Connection, id: &KeyId) -> Result<Vec<KeyRecord>, Fault> {
    const STATEMENT: &str =
        select_records!("WHERE k.line = (SELECT line FROM keys WHERE id = ?1) ORDER BY k.rowid");
    rows::all(connection, STATEMENT, [id.as_str()], rows::record)
}

pub(super) fn list(
    connection: &Connection,
    filter: &KeyFilter,
) -> Result<Vec<Arc<KeyRecord>>, Fault> {
    // Apart, so that each goes along an index that has the order already.
    const OF_ACCOUNT: &str = select_records!(
        "WHERE k.account = :account AND (:algorithm IS NULL OR k.algorithm = :algorithm) \
         AND (:kind IS NULL OR k.kind = :kind) AND (:prefix IS NULL OR k.hint_prefix = :prefix) \
         AND (:last_four IS NULL OR k.hint_last_four = :last_four) \
         AND (k.created_at, k.id) > (:after_at, :after_id) \
         ORDER BY k.created_at, k.id LIMIT :limit"
    );
    const OF_ALL: &str = select_records!(
        "WHERE :account IS NULL AND (:algorithm IS NULL OR k.algorithm = :algorithm) \
         AND (:kind IS NULL OR k.kind = :kind) AND (:prefix IS NULL OR k.hint_prefix = :prefix) \
         AND (:last_four IS NULL OR k.hint_last_four = :last_four) \
         AND (k.created_at, k.id) > (:after_at, :after_id) \
         ORDER BY k.created_at, k.id LIMIT :limit"
    );
    let (after_at, after_id) =
        filter.after.as_ref().map_or((-1, ""), |(at, id)| (to_millis(*at), id.as_str()));
    rows::all(
        connection,
        if filter.account.is_some() { OF_ACCOUNT } else { OF_ALL },
        named_params! {
            ":account": filter.account,
            ":algorithm": filter.algorithm.map(|algorithm| algorithm.to_string()),
            ":kind": filter.kind.map(crate::KeyKind::as_str),
            ":prefix": filter.prefix.as_deref(),
            ":last_four": filter.last_four.as_deref(),
            ":after_at": after_at,
            ":after_id": after_id,
            ":limit": limit(filter.limit),
        },
        |row| rows::record(row).map(Arc::new),
    )
}

pub(super) fn audit(
    connection: &Connection,
    filter: &AuditFilter,
) -> Result<Vec<AuditEntry>, Fault> {
    const BY_KEY: &str = "SELECT * FROM audit WHERE key_id = :key_id \
         AND (:account IS NULL OR account = :account) AND number > :after \
         ORDER BY number LIMIT :limit";
    const BY_ACCOUNT: &str = "SELECT * FROM audit WHERE account = :account \
         AND (:key_id IS NULL OR key_id = :key_id) AND number > :after \
         ORDER BY number LIMIT :limit";
    const ALL: &str = "SELECT * FROM audit WHERE :key_id IS NULL AND :account IS NULL \
         AND number > :after ORDER BY number LIMIT :limit";
    rows::all(
        connection,
        match (&filter.key_id, &filter.account) {
            (Some(_), _) => BY_KEY,
            (None, Some(_)) => BY_ACCOUNT,
            (None, None) => ALL,
        },
        named_params! {
            ":key_id": filter.key_id.as_ref().map(KeyId::as_str),
            ":account": filter.account,
            ":after": filter.after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX)),
            ":limit": limit(filter.limit),
        },
        rows::entry,
    )
}

fn limit(limit: Option<usize>) -> i64 {
    limit.map_or(NO_LIMIT, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}
