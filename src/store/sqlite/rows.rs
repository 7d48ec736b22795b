//! Records and entries as rows, and back.

use std::{str::FromStr, sync::Arc};

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, types::FromSql};

use super::{super::stored, fault::Fault};
use crate::{
    AuditAction, AuditEntry, DigestAlgorithm, Environment, KeyDigest, KeyHint, KeyId, KeyKind,
    KeyRecord, Parent, Plan, Stamp, UnixMillis,
};

/// A statement that reads records, with the state of their parents as it is at that moment.
macro_rules! select_records {
    ($which:literal) => {
        concat!(
            "SELECT k.id, k.digest, k.algorithm, k.account, k.kind, k.environment, k.parent, ",
            "coalesce(k.parent_revoked_at, p.revoked_at) AS parent_revoked_at, ",
            "p.line AS parent_line, p.grants AS parent_grants, k.line, k.successor, ",
            "k.hint_prefix, k.hint_last_four, k.created_at, k.expires_at, k.revoked_at, ",
            "k.last_used_at, k.grants FROM keys k LEFT JOIN keys p ON p.id = k.parent ",
            $which
        )
    };
}
pub(super) use select_records;

/// The record of a row of [`select_records`].
pub(super) fn record(row: &Row<'_>) -> Result<KeyRecord, Fault> {
    let hint = column::<Option<Box<str>>>(row, "hint_prefix")?
        .zip(column::<Option<Box<str>>>(row, "hint_last_four")?)
        .map(|(prefix, last_four)| KeyHint::new(prefix, last_four));
    let (id, digest) = (id_of(column(row, "id")?), KeyDigest::from_bytes(column(row, "digest")?));
    let account: Arc<str> = column(row, "account")?;
    let record = KeyRecord::new(id, digest, account, kind(row)?, required_time(row, "created_at")?);
    // A key that was never rotated names no line but its own.
    let line: KeyId = id_of(column(row, "line")?);
    let record = if line == *record.id() { record } else { record.with_line(line) };
    Ok(record
        .with_algorithm(algorithm(row)?)
        .with_environment(environment(row)?)
        .with_parent(parent(row)?)
        .with_successor(column::<Option<Box<str>>>(row, "successor")?.map(id_of))
        .with_hint(hint)
        .with_expires_at(time(row, "expires_at")?)
        .with_revoked_at(time(row, "revoked_at")?)
        .with_last_used_at(time(row, "last_used_at")?)
        .with_grants(stored::grants_from_text(&column::<Box<str>>(row, "grants")?)?))
}

/// The key that minted the one of the row, as it is now; one that is not in the table, as it was.
fn parent(row: &Row<'_>) -> Result<Option<Parent>, Fault> {
    let Some(id) = column::<Option<Box<str>>>(row, "parent")? else { return Ok(None) };
    let mut parent = Parent::new(id_of(id)).with_revoked_at(time(row, "parent_revoked_at")?);
    if let Some(line) = column::<Option<Box<str>>>(row, "parent_line")? {
        parent = parent.with_line(id_of(line));
    }
    if let Some(grants) = column::<Option<Box<str>>>(row, "parent_grants")? {
        parent = parent.with_plan(*stored::grants_from_text(&grants)?.plan());
    }
    Ok(Some(parent))
}

/// Stores a record whose id and digest are free.
pub(super) fn insert(connection: &Connection, record: &KeyRecord) -> Result<(), Fault> {
    let (parent, hint) = (record.parent(), record.hint());
    connection
        .prepare_cached(
            "INSERT INTO keys (id, digest, algorithm, account, kind, environment, parent, \
             parent_revoked_at, line, successor, hint_prefix, hint_last_four, created_at, \
             expires_at, revoked_at, last_used_at, grants) VALUES (:id, :digest, :algorithm, \
             :account, :kind, :environment, :parent, :parent_revoked_at, :line, :successor, \
             :hint_prefix, :hint_last_four, :created_at, :expires_at, :revoked_at, \
             :last_used_at, :grants)",
        )?
        .execute(named_params! {
            ":id": record.id().as_str(),
            ":digest": record.digest().as_bytes(),
            ":algorithm": record.algorithm().to_string(),
            ":account": record.account(),
            ":kind": record.kind().as_str(),
            ":environment": environment_name(record.environment()),
            ":parent": parent.map(|parent| parent.id().as_str()),
            ":parent_revoked_at": parent.and_then(Parent::revoked_at).map(to_millis),
            ":line": record.line().as_str(),
            ":successor": record.successor().map(KeyId::as_str),
            ":hint_prefix": hint.map(KeyHint::prefix),
            ":hint_last_four": hint.map(KeyHint::last_four),
            ":created_at": to_millis(record.created_at()),
            ":expires_at": record.expires_at().map(to_millis),
            ":revoked_at": record.revoked_at().map(to_millis),
            ":last_used_at": record.last_used_at().map(to_millis),
            ":grants": stored::grants_to_text(record.grants()),
        })?;
    Ok(())
}

/// The entry of a row of the table `audit`.
pub(super) fn entry(row: &Row<'_>) -> Result<AuditEntry, Fault> {
    let action: Box<str> = column(row, "action")?;
    let successor = column::<Option<Box<str>>>(row, "successor")?.map(id_of);
    let plans = plan(row, "plan_from")?.zip(plan(row, "plan_to")?);
    let action = match (&*action, successor, plans) {
        ("created", None, None) => AuditAction::Created,
        ("rotated", Some(successor), None) => AuditAction::Rotated { successor },
        ("replanned", None, Some((from, to))) => AuditAction::Replanned { from, to },
        ("revoked", None, None) => AuditAction::Revoked,
        ("removed", None, None) => AuditAction::Removed,
        _ => return Err(unknown()),
    };
    let stamp = Stamp::new(required_time(row, "at")?).with_by(column(row, "actor")?);
    let number = u64::try_from(column::<i64>(row, "number")?).map_err(|_| unknown())?;
    Ok(AuditEntry::new(
        number,
        stamp,
        action,
        id_of(column(row, "key_id")?),
        column(row, "account")?,
    ))
}

/// The one row that a statement finds, or none.
pub(super) fn one<T>(
    connection: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    let mut statement = connection.prepare_cached(statement)?;
    let found = statement.query_row(params, |row| Ok(read(row))).optional()?;
    found.transpose()
}

/// All rows that a statement finds.
pub(super) fn all<T>(
    connection: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// A time as SQLite can hold it. What lies past the year 292,000,000 is the end of time.
pub(super) fn to_millis(at: UnixMillis) -> i64 {
    i64::try_from(at.get()).unwrap_or(i64::MAX)
}

fn from_millis(millis: i64) -> Result<UnixMillis, Fault> {
    match u64::try_from(millis) {
        Ok(_) if millis == i64::MAX => Ok(UnixMillis::new(u64::MAX)),
        Ok(millis) => Ok(UnixMillis::new(millis)),
        Err(_) => Err(unknown()),
    }
}

pub(super) fn column<T: FromSql>(row: &Row<'_>, name: &str) -> Result<T, Fault> {
    Ok(row.get(name)?)
}

pub(super) fn id(row: &Row<'_>) -> Result<KeyId, Fault> {
    Ok(id_of(row.get(0)?))
}

fn id_of(id: Box<str>) -> KeyId {
    KeyId::new(id)
}

fn required_time(row: &Row<'_>, name: &str) -> Result<UnixMillis, Fault> {
    from_millis(column(row, name)?)
}

pub(super) fn time(row: &Row<'_>, name: &str) -> Result<Option<UnixMillis>, Fault> {
    column::<Option<i64>>(row, name)?.map(from_millis).transpose()
}

fn plan(row: &Row<'_>, name: &str) -> Result<Option<Plan>, Fault> {
    let text = column::<Option<Box<str>>>(row, name)?;
    Ok(text.map(|text| stored::plan_from_text(&text)).transpose()?)
}

fn algorithm(row: &Row<'_>) -> Result<DigestAlgorithm, Fault> {
    DigestAlgorithm::from_str(&column::<Box<str>>(row, "algorithm")?).map_err(|_| unknown())
}

fn kind(row: &Row<'_>) -> Result<KeyKind, Fault> {
    match &*column::<Box<str>>(row, "kind")? {
        "secret" => Ok(KeyKind::Secret),
        "ephemeral" => Ok(KeyKind::Ephemeral),
        _ => Err(unknown()),
    }
}

fn environment(row: &Row<'_>) -> Result<Environment, Fault> {
    match &*column::<Box<str>>(row, "environment")? {
        "live" => Ok(Environment::Live),
        "test" => Ok(Environment::Test),
        _ => Err(unknown()),
    }
}

const fn environment_name(environment: Environment) -> &'static str {
    match environment {
        Environment::Live => "live",
        Environment::Test => "test",
    }
}

const fn unknown() -> Fault {
    Fault::new("the file holds something that this version of the program does not know: update")
}
