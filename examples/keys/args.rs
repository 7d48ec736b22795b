//! What can be asked for.

use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use tower_realtime_auth::{DigestAlgorithm, Environment, Plan, UnixMillis};

use crate::store::StoreName;

/// Makes, lists, rotates and takes back keys; servers may run on the same store meanwhile.
#[derive(Parser)]
pub struct Args {
    /// Where keys are kept: sqlite:FILE, made if there is none
    #[arg(long, default_value = "sqlite:keys.db", global = true)]
    pub store: StoreName,

    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make a key, and show it this once
    Create(New),
    /// Take in a key that was made elsewhere: its text from standard input, or its digest
    Import(Import),
    /// List keys, the oldest first
    List(Which),
    /// Show what is known of a key
    Describe {
        /// The id of the key, as `list` shows it
        id: String,
    },
    /// Make a key in the place of another, and show it this once
    Rotate {
        /// The id of the key to be replaced
        id: String,
        /// How long that one is to work beside the new one: 0s, 10m, 24h
        #[arg(long, value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Take keys back, with the tokens that they minted; open sessions end
    Revoke(Revoke),
    /// Take a key back and forget it
    Delete {
        /// The id of the key
        id: String,
    },
    /// Show what was changed, when and by whom
    Audit {
        /// Only of this account's keys
        #[arg(long)]
        account: Option<String>,
        /// Only of the key with this id
        #[arg(long, value_name = "ID")]
        key: Option<String>,
    },
}

impl Command {
    /// Whether it can be the first thing that is done with a store.
    pub const fn makes_keys(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Import(_))
    }
}

#[derive(clap::Args)]
pub struct New {
    /// Whose key it is
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub account: String,

    /// What it is for: the real thing, or a rehearsal
    #[arg(long, value_enum, default_value_t = Env::Live)]
    pub env: Env,

    /// How long it lives: 12h, 30d. For ever if left out
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub expires: Option<Duration>,

    /// How many requests it may make in a minute. Noted with the key, for services that count: the
    /// example servers do not
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,

    /// How many units of usage it has in a month; noted likewise
    #[arg(long, value_name = "N")]
    usage_limit: Option<u64>,

    /// How many sessions it may have at once; noted likewise
    #[arg(long, value_name = "N")]
    max_sessions: Option<u32>,
}

impl New {
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        if let Some(requests) = self.requests_per_minute {
            plan = plan.with_requests_per_minute(requests);
        }
        if let Some(usage) = self.usage_limit {
            plan = plan.with_usage_per_month(usage);
        }
        if let Some(sessions) = self.max_sessions {
            plan = plan.with_max_sessions(sessions);
        }
        plan
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Env {
    Live,
    Test,
}

impl From<Env> for Environment {
    fn from(env: Env) -> Self {
        match env {
            Env::Live => Self::Live,
            Env::Test => Self::Test,
        }
    }
}

#[derive(clap::Args)]
pub struct Import {
    /// The digest of the key, in hex, where its text is not at hand
    #[arg(long, value_name = "HEX", value_parser = digest)]
    pub digest: Option<[u8; 32]>,

    /// What made the digest
    #[arg(long, default_value_t, requires = "digest")]
    pub algorithm: DigestAlgorithm,

    #[command(flatten)]
    pub new: New,
}

#[derive(clap::Args)]
pub struct Which {
    /// Only this account's
    #[arg(long)]
    pub account: Option<String>,

    /// Only those that begin so, as in sk_live_…a1B2
    #[arg(long)]
    pub prefix: Option<String>,

    /// Only those that end so
    #[arg(long, value_name = "CHARACTERS")]
    pub last_four: Option<String>,

    /// Minted tokens too
    #[arg(long)]
    pub tokens: bool,
}

#[derive(clap::Args)]
pub struct Revoke {
    /// The id of the key; those before and after it in its line of rotations go with it
    #[arg(required_unless_present = "account", conflicts_with_all = ["account", "issued_before"])]
    pub id: Option<String>,

    /// All keys of this account
    #[arg(long)]
    pub account: Option<String>,

    /// Of the account, only those made before this time: 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", requires = "account", value_parser = time)]
    pub issued_before: Option<UnixMillis>,

    /// That key alone, none of its line
    #[arg(long, requires = "id", conflicts_with = "account")]
    pub alone: bool,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("a key must live for a while".to_owned()),
        Ok(lifetime) => Ok(lifetime),
        Err(error) => Err(error.to_string()),
    }
}

fn time(text: &str) -> Result<UnixMillis, humantime::TimestampError> {
    humantime::parse_rfc3339_weak(text).map(UnixMillis::from)
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let hex = "must be 64 hexadecimal digits";
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(hex.to_owned());
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| hex)?;
    }
    Ok(digest)
}
