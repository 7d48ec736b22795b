//! What is answered: tables for people, JSON for programs.

use std::{
    error::Error,
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tabwriter::TabWriter;
use tower_realtime_auth::{
    AuditAction, AuditEntry, Environment, Issued, KeyId, KeyRecord, Parent, Plan, Revocation,
    UnixMillis,
};

pub struct Show {
    pub json: bool,
}

type Done = Result<(), Box<dyn Error>>;

impl Show {
    /// A key that was just made: the one time that it is shown.
    pub fn issued(&self, issued: &Issued) -> Done {
        let (key, record) = (issued.key().expose(), issued.record());
        if self.json {
            let mut value = of_record(record);
            value["key"] = key.into();
            return unless_lost(record, print_json(&value));
        }
        let head = format!("{key}\n\nShown this once. What is known of it:\n");
        unless_lost(record, print_line(&head))?;
        self.record(record)
    }

    pub fn record(&self, record: &KeyRecord) -> Done {
        let value = of_record(record);
        if self.json {
            return print_json(&value);
        }
        let fields = value.as_object().into_iter().flatten();
        let rows = fields.filter(|(_, value)| !value.is_null());
        table(rows.map(|(name, value)| vec![name.clone(), text(value)]))
    }

    pub fn records(&self, records: &[Arc<KeyRecord>]) -> Done {
        const COLUMNS: [&str; 8] = [
            "id",
            "key_hint",
            "account",
            "kind",
            "environment",
            "state",
            "created_at",
            "last_used_at",
        ];
        let values = records.iter().map(|record| of_record(record));
        if self.json {
            return print_json(&values.collect::<Value>());
        }
        let head = COLUMNS.map(|name| name.to_uppercase().replace('_', " ")).to_vec();
        let rows = values.map(|value| COLUMNS.map(|name| text(&value[name])).to_vec());
        table([head].into_iter().chain(rows))
    }

    pub fn revoked(&self, what: &Revocation, count: u64) -> Done {
        if self.json {
            return print_json(&json!({ "revoked": count }));
        }
        let of = match what {
            Revocation::Key(id) | Revocation::Alone(id) => format!("key {id}"),
            Revocation::Account(account) => format!("account {}", plain(account)),
            Revocation::IssuedBefore { account, at } => {
                format!("account {}, made before {}", plain(account), time(*at))
            }
            other => format!("{other:?}"),
        };
        print_line(&format!("revoked: {of}; {count} keys and tokens in all"))
    }

    pub fn removed(&self, id: &str) -> Done {
        if self.json {
            return print_json(&json!({ "deleted": id }));
        }
        print_line(&format!("deleted: key {}", plain(id)))
    }

    pub fn audit(&self, entries: &[AuditEntry]) -> Done {
        const COLUMNS: [&str; 8] =
            ["at", "by", "action", "id", "account", "successor", "plan_from", "plan_to"];
        let values = entries.iter().map(of_entry);
        if self.json {
            return print_json(&values.collect::<Value>());
        }
        let head = COLUMNS.map(|name| name.to_uppercase().replace('_', " ")).to_vec();
        let rows = values.map(|value| COLUMNS.map(|name| text(&value[name])).to_vec());
        table([head].into_iter().chain(rows))
    }
}

fn of_record(record: &KeyRecord) -> Value {
    let (grants, plan) = (record.grants(), record.grants().plan());
    json!({
        "id": record.id().as_str(),
        "account": **record.account(),
        "kind": record.kind().as_str(),
        "environment": match record.environment() {
            Environment::Live => "live",
            _ => "test",
        },
        "state": state(record),
        "key_hint": record.hint().map(ToString::to_string),
        "algorithm": record.algorithm().to_string(),
        "line": record.line().as_str(),
        "successor": record.successor().map(KeyId::as_str),
        "parent": record.parent().map(|parent| parent.id().as_str()),
        "created_at": time(record.created_at()),
        "expires_at": record.expires_at().map(time),
        "revoked_at": revoked_at(record).map(time),
        "last_used_at": record.last_used_at().map(time),
        "models": grants.models().map(list),
        "origins": grants.origins().map(list),
        "uses": grants.uses(),
        "max_session_seconds": grants.max_session().map(|max| max.as_secs()),
        "metadata": grants.metadata().map(|metadata| {
            let pairs = metadata.iter().map(|(name, value)| (name.to_string(), json!(**value)));
            Value::Object(pairs.collect())
        }),
        "requests_per_minute": plan.requests_per_minute(),
        "usage_limit": plan.usage_per_month(),
        "sessions_per_minute": plan.sessions_per_minute(),
        "max_sessions": plan.max_sessions(),
    })
}

fn of_entry(entry: &AuditEntry) -> Value {
    let (from, to) = match entry.action() {
        AuditAction::Replanned { from, to } => (Some(of_plan(from)), Some(of_plan(to))),
        _ => (None, None),
    };
    json!({
        "number": entry.number(),
        "at": time(entry.stamp().at()),
        "by": entry.stamp().by(),
        "action": entry.action().as_str(),
        "id": entry.key_id().as_str(),
        "account": entry.account().map(|account| &**account),
        "successor": match entry.action() {
            AuditAction::Rotated { successor } => Some(successor.as_str()),
            _ => None,
        },
        "plan_from": from,
        "plan_to": to,
    })
}

/// What it bounds.
fn of_plan(plan: &Plan) -> Value {
    let bounds = [
        ("requests_per_minute", plan.requests_per_minute().map(u64::from)),
        ("usage_limit", plan.usage_per_month()),
        ("sessions_per_minute", plan.sessions_per_minute().map(u64::from)),
        ("max_sessions", plan.max_sessions().map(u64::from)),
    ];
    let bounds = bounds.into_iter().filter_map(|(name, bound)| Some((name, bound?)));
    bounds.map(|(name, bound)| (name.to_owned(), Value::from(bound))).collect()
}

fn list(texts: &[Arc<str>]) -> Value {
    texts.iter().map(|text| Value::from(&**text)).collect()
}

fn revoked_at(record: &KeyRecord) -> Option<UnixMillis> {
    record.revoked_at().or_else(|| record.parent().and_then(Parent::revoked_at))
}

fn state(record: &KeyRecord) -> &'static str {
    if record.is_revoked() {
        "revoked"
    } else if record.is_expired(SystemTime::now().into()) {
        "expired"
    } else {
        "active"
    }
}

/// By RFC 3339; past what that can tell, in milliseconds.
fn time(at: UnixMillis) -> String {
    /// 9999-12-31T23:59:59Z.
    const LAST: u64 = 253_402_300_799_000;
    if at.get() > LAST {
        return format!("{} ms", at.get());
    }
    let at = UNIX_EPOCH + Duration::from_millis(at.get());
    humantime::format_rfc3339_millis(at).to_string()
}

/// A value as a cell of a table.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

/// Without what a terminal would obey, a table break at, or an eye be deceived by.
fn plain(text: &str) -> String {
    let escape = |char: char| match char {
        // Nothing to see, or the direction of writing.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        _ => char.is_control(),
    };
    let chars = text.chars();
    chars
        .flat_map(|char| if escape(char) { char.escape_default().collect() } else { vec![char] })
        .collect()
}

fn table(rows: impl IntoIterator<Item = Vec<String>>) -> Done {
    let mut table = TabWriter::new(io::stdout().lock());
    for row in rows {
        writeln!(table, "{}", row.join("\t"))?;
    }
    Ok(table.flush()?)
}

fn print_json(value: &Value) -> Done {
    print_line(&format!("{value:#}"))
}

fn print_line(line: &str) -> Done {
    let mut out = io::stdout().lock();
    // In one piece: whoever reads it gets all of it or nothing.
    out.write_all(format!("{line}\n").as_bytes())?;
    Ok(out.flush()?)
}

/// What is known of a key that nobody was shown: enough to take it back.
fn unless_lost(record: &KeyRecord, shown: Done) -> Done {
    let id = record.id();
    shown.map_err(|error| {
        format!("key {id} was made and cannot be shown, revoke it: {error}").into()
    })
}
