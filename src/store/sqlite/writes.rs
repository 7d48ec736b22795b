//! What is changed in the file. Each of these is done within a transaction.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{
    super::stored,
    fault::Fault,
    reads,
    rows::{self, to_millis},
};
use crate::{
    AuditAction, Inserted, KeyId, KeyKind, KeyRecord, Plan, Revocation, Rotated, Stamp, UnixMillis,
};

/// How long an expired ephemeral key is remembered, so that its refusal can say why: a minute, in
/// milliseconds.
const REMEMBER_EXPIRED: i64 = 60_000;
/// How many expired keys are removed beside each that is stored.
const FORGET_AT_ONCE: i64 = 64;

/// Who writes, for the audit trail: when, by whom, and from which open store.
pub(super) struct Author {
    pub(super) stamp: Stamp,
    pub(super) origin: i64,
}

pub(super) fn insert(
    connection: &Connection,
    record: &KeyRecord,
    max_children: Option<u32>,
    author: &Author,
) -> Result<Inserted, Fault> {
    forget_expired(connection, record.created_at())?;
    if is_taken(connection, record)? {
        return Ok(Inserted::Taken);
    }
    if let (Some(parent), Some(max)) = (record.parent(), max_children)
        && live_children(connection, parent.id(), record.created_at(), max)? >= i64::from(max)
    {
        return Ok(Inserted::TooManyChildren);
    }
    rows::insert(connection, record)?;
    if record.kind() == KeyKind::Secret {
        note(connection, author, &AuditAction::Created, record.id(), Some(record.account()))?;
    }
    Ok(Inserted::Yes)
}

pub(super) fn rotate(
    connection: &Connection,
    old: &KeyId,
    new: KeyRecord,
    old_expires_at: UnixMillis,
    author: &Author,
) -> Result<Rotated, Fault> {
    let Some(found) = reads::find(connection, old)? else { return Ok(Rotated::Unknown) };
    if found.is_revoked() || found.is_expired(new.created_at()) {
        return Ok(Rotated::Gone);
    }
    if found.successor().is_some() {
        return Ok(Rotated::Replaced);
    }
    if is_taken(connection, &new)? {
        return Ok(Rotated::Taken);
    }
    // The plan as the line has it now, which may have got another since the new record was made.
    let grants = new.grants().clone().with_plan(*found.grants().plan());
    let new = new.with_line(found.line().clone()).with_grants(grants);
    let expires_at = found.expires_at().map_or(old_expires_at, |own| own.min(old_expires_at));
    change(
        connection,
        "UPDATE keys SET expires_at = ?2, successor = ?3 WHERE id = ?1",
        params![old.as_str(), to_millis(expires_at), new.id().as_str()],
    )?;
    rows::insert(connection, &new)?;
    let rotated = AuditAction::Rotated { successor: new.id().clone() };
    note(connection, author, &rotated, old, Some(found.account()))?;
    note(connection, author, &AuditAction::Created, new.id(), Some(found.account()))?;
    Ok(Rotated::Yes)
}

/// Answers the keys that were named by it, and how many records are revoked by it.
pub(super) fn revoke(
    connection: &Connection,
    what: &Revocation,
    author: &Author,
) -> Result<(Vec<KeyId>, u64), Fault> {
    let roots = roots(connection, what)?;
    let mut records = 0;
    for root in &roots {
        records += revoke_one(connection, root, author)?;
    }
    Ok((roots, records))
}

fn revoke_one(connection: &Connection, root: &KeyId, author: &Author) -> Result<u64, Fault> {
    let (id, at) = (root.as_str(), to_millis(author.stamp.at()));
    let found =
        rows::one(connection, "SELECT account, revoked_at FROM keys WHERE id = ?1", [id], |row| {
            Ok((rows::column::<Arc<str>>(row, "account")?, rows::time(row, "revoked_at")?))
        })?;
    if found.as_ref().is_none_or(|(_, revoked_at)| revoked_at.is_none()) {
        let account = found.as_ref().map(|(account, _)| account);
        note(connection, author, &AuditAction::Revoked, root, account)?;
    }
    if found.is_none() {
        // Children of a key that is kept elsewhere: they bear its state themselves.
        return change(
            connection,
            "UPDATE keys SET parent_revoked_at = coalesce(parent_revoked_at, ?2) WHERE parent = ?1",
            params![id, at],
        );
    }
    change(
        connection,
        "UPDATE keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
        params![id, at],
    )?;
    let children = "SELECT count(*) FROM keys WHERE parent = ?1";
    let children: Option<i64> = rows::one(connection, children, [id], |row| Ok(row.get(0)?))?;
    Ok(1 + children.unwrap_or(0).unsigned_abs())
}

/// The keys that a revocation names. Of an account, not those whose parent is among them: it takes
/// them with it.
fn roots(connection: &Connection, what: &Revocation) -> Result<Vec<KeyId>, Fault> {
    const LINE: &str = "SELECT id FROM keys \
         WHERE line = coalesce((SELECT line FROM keys WHERE id = ?1), ?1)";
    const BEFORE: &str = "SELECT id FROM keys k WHERE account = ?1 AND created_at < ?2 \
         AND NOT EXISTS (SELECT 1 FROM keys p \
         WHERE p.id = k.parent AND p.account = ?1 AND p.created_at < ?2)";
    const ALL: &str = "SELECT id FROM keys k WHERE account = ?1 \
         AND NOT EXISTS (SELECT 1 FROM keys p WHERE p.id = k.parent AND p.account = ?1)";
    Ok(match what {
        Revocation::Alone(id) => vec![id.clone()],
        Revocation::Key(id) => {
            let mut line = rows::all(connection, LINE, [id.as_str()], rows::id)?;
            // Also one that was removed from its line: there may be sessions of it.
            if !line.contains(id) {
                line.push(id.clone());
            }
            line
        }
        Revocation::Account(account) => rows::all(connection, ALL, [account], rows::id)?,
        Revocation::IssuedBefore { account, at } => {
            rows::all(connection, BEFORE, params![account, to_millis(*at)], rows::id)?
        }
    })
}

pub(super) fn remove(connection: &Connection, id: &KeyId, author: &Author) -> Result<bool, Fault> {
    let account = "DELETE FROM keys WHERE id = ?1 RETURNING account";
    let account: Option<Arc<str>> =
        rows::one(connection, account, [id.as_str()], |row| Ok(row.get(0)?))?;
    let Some(account) = account else { return Ok(false) };
    change(connection, "DELETE FROM keys WHERE parent = ?1", [id.as_str()])?;
    note(connection, author, &AuditAction::Removed, id, Some(&account))?;
    Ok(true)
}

/// Answers whether there is such a key.
pub(super) fn set_plan(
    connection: &Connection,
    id: &KeyId,
    plan: Plan,
    author: &Author,
) -> Result<bool, Fault> {
    let line = reads::line(connection, id)?;
    for record in &line {
        let from = *record.grants().plan();
        if from == plan {
            continue;
        }
        let grants = stored::grants_to_text(&record.grants().clone().with_plan(plan));
        let statement = "UPDATE keys SET grants = ?2 WHERE id = ?1";
        change(connection, statement, params![record.id().as_str(), grants])?;
        let replanned = AuditAction::Replanned { from, to: plan };
        note(connection, author, &replanned, record.id(), Some(record.account()))?;
    }
    Ok(!line.is_empty())
}

/// Takes one of `allowed` uses; answers whether one was left.
pub(super) fn redeem(connection: &Connection, id: &KeyId, allowed: u32) -> Result<bool, Fault> {
    let statement = "UPDATE keys SET used = used + 1 WHERE id = ?1 AND used < ?2";
    Ok(change(connection, statement, params![id.as_str(), allowed])? > 0)
}

pub(super) fn give_back(connection: &Connection, id: &KeyId) -> Result<(), Fault> {
    let statement = "UPDATE keys SET used = used - 1 WHERE id = ?1 AND used > 0";
    change(connection, statement, [id.as_str()]).map(drop)
}

pub(super) fn last_used(connection: &Connection, id: &KeyId, at: UnixMillis) -> Result<(), Fault> {
    let statement = "UPDATE keys SET last_used_at = max(coalesce(last_used_at, 0), ?2) \
         WHERE id = ?1";
    change(connection, statement, params![id.as_str(), to_millis(at)]).map(drop)
}

fn is_taken(connection: &Connection, record: &KeyRecord) -> Result<bool, Fault> {
    let statement = "SELECT 1 FROM keys WHERE id = ?1 OR digest = ?2";
    let params = params![record.id().as_str(), record.digest().as_bytes()];
    Ok(rows::one(connection, statement, params, |_| Ok(()))?.is_some())
}

/// How many children of `parent` are neither expired nor revoked; counted as far as `max`.
fn live_children(
    connection: &Connection,
    parent: &KeyId,
    now: UnixMillis,
    max: u32,
) -> Result<i64, Fault> {
    let statement = "SELECT count(*) FROM (SELECT 1 FROM keys k LEFT JOIN keys p ON p.id = k.parent \
         WHERE k.parent = ?1 AND coalesce(k.expires_at > ?2, TRUE) \
         AND coalesce(k.revoked_at, k.parent_revoked_at, p.revoked_at) IS NULL LIMIT ?3)";
    let params = params![parent.as_str(), to_millis(now), max];
    Ok(rows::one(connection, statement, params, |row| Ok(row.get(0)?))?.unwrap_or(0))
}

/// A few only: each that is stored takes more with it than it brings.
fn forget_expired(connection: &Connection, now: UnixMillis) -> Result<(), Fault> {
    let forgotten = to_millis(now).saturating_sub(REMEMBER_EXPIRED);
    // Not what has children, though nothing mints such: they would forget that it was revoked.
    let statement = "DELETE FROM keys WHERE rowid IN (SELECT rowid FROM keys k \
         WHERE kind = 'ephemeral' AND expires_at <= ?1 \
         AND NOT EXISTS (SELECT 1 FROM keys c WHERE c.parent = k.id) \
         ORDER BY expires_at LIMIT ?2)";
    change(connection, statement, params![forgotten, FORGET_AT_ONCE]).map(drop)
}

fn note(
    connection: &Connection,
    author: &Author,
    action: &AuditAction,
    key_id: &KeyId,
    account: Option<&Arc<str>>,
) -> Result<(), Fault> {
    let successor = match action {
        AuditAction::Rotated { successor } => Some(successor.as_str()),
        _ => None,
    };
    let (from, to) = match action {
        AuditAction::Replanned { from, to } => (Some(from), Some(to)),
        _ => (None, None),
    };
    change(
        connection,
        "INSERT INTO audit (at, actor, action, key_id, account, successor, plan_from, plan_to, \
         origin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            to_millis(author.stamp.at()),
            author.stamp.by(),
            action.as_str(),
            key_id.as_str(),
            account,
            successor,
            from.map(stored::plan_to_text),
            to.map(stored::plan_to_text),
            author.origin
        ],
    )
    .map(drop)
}

/// Answers how many rows it changed.
fn change(
    connection: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Result<u64, Fault> {
    Ok(connection.prepare_cached(statement)?.execute(params)? as u64)
}
