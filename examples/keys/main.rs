//! Keys from the command line: made, listed, rotated, limited, taken back, while servers run on the
//! same store.
//!
//!     cargo run --example keys -- create --account acme
//!     cargo run --example keys -- list
//!     cargo run --example keys -- rotate ID --overlap 10m
//!     cargo run --example keys -- plan ID --requests-per-minute 60
//!     cargo run --example keys -- revoke ID
//!     cargo run --example keys -- --help
//!
//! A key is shown when it is made, and never again.

mod args;
mod show;
#[path = "../shared/store.rs"]
mod store;

use std::{
    env,
    error::Error,
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
};

use clap::Parser as _;
use tower_realtime_auth::{
    ApiKey, AuditFilter, KeyDigest, KeyError, KeyFilter, KeyId, KeyKind, Keys, MAX_CREDENTIAL_LEN,
    Revocation, SqliteOptions,
};

use crate::{
    args::{Args, Command, Import, New, Replan, Revoke, Which},
    show::Show,
    store::{Store, StoreName},
};

/// How many records are asked for at once.
const PAGE: usize = 1_000;

type Done = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("keys: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn run(Args { store, json, command }: Args) -> Done {
    match &store {
        StoreName::Memory => {
            return Err("keys in memory would be gone at once; use --store sqlite:FILE".into());
        }
        // A mistyped name is not to look like a store without keys.
        StoreName::Sqlite(path) if !command.makes_keys() && path.symlink_metadata().is_err() => {
            return Err(format!("there is no file {path:?}; `create` and `import` make it").into());
        }
        StoreName::Sqlite(_) => {}
    }
    let keys = Keys::new(store.open(SqliteOptions::default()).await?).with_actor(actor());
    let show = Show { json };
    match command {
        Command::Create(new) => {
            let issued = keys.issue(new.into()).await?;
            show.issued(&issued)
        }
        Command::Import(import) => take_in(&keys, &show, import).await,
        Command::List(which) => list(&keys, &show, which).await,
        Command::Describe { id } => {
            let found = keys.find(&KeyId::new(id.as_str())).await?;
            let record = found.ok_or_else(|| no_such_key(&id))?;
            show.record(&record)
        }
        Command::Rotate { id, overlap } => {
            let issued = keys.rotate(&KeyId::new(id.as_str()), overlap).await;
            show.issued(&issued.map_err(|error| unrotated(&id, error))?)
        }
        Command::Plan(Replan { id, bounds }) => {
            let key = KeyId::new(id.as_str());
            let found = keys.find(&key).await?.ok_or_else(|| no_such_key(&id))?;
            keys.set_plan(&key, bounds.over(found.grants().plan())).await?;
            let record = keys.find(&key).await?.ok_or_else(|| no_such_key(&id))?;
            show.record(&record)
        }
        Command::Revoke(what) => revoke(&keys, &show, what).await,
        Command::Delete { id } => {
            let removed = keys.remove(&KeyId::new(id.as_str())).await?;
            if removed { show.removed(&id) } else { Err(no_such_key(&id).into()) }
        }
        Command::Audit { account, key } => audit(&keys, &show, account, key).await,
    }
}

fn unrotated(id: &str, error: KeyError) -> Box<dyn Error> {
    match error {
        KeyError::Unknown => no_such_key(id).into(),
        other => other.into(),
    }
}

fn no_such_key(id: &str) -> String {
    format!("there is no key {id:?}; `list` tells the ids")
}

/// Who is to stand in the audit trail.
fn actor() -> String {
    let user = env::var("SUDO_USER").or_else(|_| env::var("USER"));
    user.map_or_else(|_| "keys".to_owned(), |user| format!("keys ({user})"))
}

async fn take_in(
    keys: &Keys<Store>,
    show: &Show,
    Import { digest, algorithm, new }: Import,
) -> Done {
    let record = match digest {
        Some(digest) => {
            keys.import_digest(KeyDigest::from_bytes(digest), algorithm, new.into()).await?
        }
        None => keys.import(&read_key()?, new.into()).await?,
    };
    show.record(&record)
}

/// A key from standard input: as an argument, every list of processes would show it.
fn read_key() -> Result<ApiKey, Box<dyn Error>> {
    if io::stdin().is_terminal() {
        eprintln!("Type or paste the key, then Enter and Ctrl-D.");
    }
    let mut text = String::new();
    // A little more than a key may have, for the end of the line.
    io::stdin().take(MAX_CREDENTIAL_LEN as u64 + 2).read_to_string(&mut text)?;
    Ok(ApiKey::new(text.trim_end())?)
}

async fn list(keys: &Keys<Store>, show: &Show, which: Which) -> Done {
    let mut filter = KeyFilter::default();
    filter.account = which.account.map(Into::into);
    filter.prefix = which.prefix.map(Into::into);
    filter.last_four = which.last_four.map(Into::into);
    if !which.tokens {
        filter = filter.with_kind(KeyKind::Secret);
    }
    let mut records = Vec::new();
    loop {
        let last = records.last().cloned();
        let page = keys.list(&filter.clone().with_page(last.as_deref(), PAGE)).await?;
        let is_last = page.len() < PAGE;
        records.extend(page);
        if is_last {
            return show.records(&records);
        }
    }
}

async fn revoke(keys: &Keys<Store>, show: &Show, what: Revoke) -> Done {
    let Revoke { id, account, issued_before, alone } = what;
    let (what, revoked) = match (id, account, issued_before) {
        (Some(id), ..) => {
            let key = KeyId::new(id.as_str());
            let revoked =
                if alone { keys.revoke_alone(&key).await? } else { keys.revoke(&key).await? };
            // Taken back nevertheless, should there be sessions of it.
            if revoked == 0 {
                return Err(no_such_key(&id).into());
            }
            (if alone { Revocation::Alone(key) } else { Revocation::Key(key) }, revoked)
        }
        (None, Some(account), None) => {
            let revoked = keys.revoke_account(account.as_str()).await?;
            // Who takes back in a hurry must not be left to think that it is done.
            if revoked == 0 {
                return Err(format!("there is no key of account {account:?}").into());
            }
            (Revocation::Account(account.into()), revoked)
        }
        (None, Some(account), Some(at)) => {
            let revoked = keys.revoke_issued_before(account.as_str(), at).await?;
            (Revocation::IssuedBefore { account: account.into(), at }, revoked)
        }
        (None, None, _) => return Err("name a key, or an account".into()),
    };
    show.revoked(&what, revoked)
}

async fn audit(
    keys: &Keys<Store>,
    show: &Show,
    account: Option<String>,
    key: Option<String>,
) -> Done {
    let mut filter = AuditFilter::default();
    filter.account = account.map(Into::into);
    filter.key_id = key.map(KeyId::new);
    let mut entries = Vec::new();
    loop {
        let last = entries.last().map(tower_realtime_auth::AuditEntry::number);
        let page = keys.audit(&filter.clone().with_page(last, PAGE)).await?;
        let is_last = page.len() < PAGE;
        entries.extend(page);
        if is_last {
            return show.audit(&entries);
        }
    }
}

impl From<New> for tower_realtime_auth::NewKey {
    fn from(new: New) -> Self {
        let plan = new.bounds.over(&tower_realtime_auth::Plan::unbounded());
        let mut key = Self::secret(new.account)
            .with_environment(new.env.into())
            .with_grants(tower_realtime_auth::Grants::default().with_plan(plan));
        if let Some(lifetime) = new.expires {
            key = key.with_lifetime(lifetime);
        }
        key
    }
}
