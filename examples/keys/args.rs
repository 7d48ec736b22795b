//! What can be asked for.

use std::{num::ParseIntError, str::FromStr, time::Duration};

use clap::{ArgGroup, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
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
    /// Change how much a key may be used; what is not named stays as it is
    Plan(Replan),
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

    #[command(flatten)]
    pub bounds: Bounds,
}

#[derive(clap::Args)]
#[command(group = ArgGroup::new("named").args(Bounds::ALL).required(true).multiple(true))]
pub struct Replan {
    /// The id of the key; those before and after it in its line of rotations get it too, and its
    /// tokens are held to it
    pub id: String,

    #[command(flatten)]
    pub bounds: Bounds,
}

// A doc comment here would stand in the place of the command's own.
#[derive(clap::Args)]
pub struct Bounds {
    /// How many requests it may make in a minute: a number, or none for as many as it likes. The
    /// server that is asked counts, in its memory
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<Bound<u32>>,

    /// How many units of usage it has in a month, if it is a live key; counted likewise, where a
    /// service tells what is used
    #[arg(long, value_name = "N")]
    usage_limit: Option<Bound<u64>>,

    /// How many sessions it may begin in a minute; counted likewise
    #[arg(long, value_name = "N")]
    sessions_per_minute: Option<Bound<u32>>,

    /// How many sessions it may have at once; counted likewise
    #[arg(long, value_name = "N")]
    max_sessions: Option<Bound<u32>>,
}

impl Bounds {
    const ALL: [&str; 4] =
        ["requests_per_minute", "usage_limit", "sessions_per_minute", "max_sessions"];

    /// The plan with what was named in the place of what it has.
    pub fn over(&self, plan: &Plan) -> Plan {
        let requests = over(self.requests_per_minute, plan.requests_per_minute());
        let usage = over(self.usage_limit, plan.usage_per_month());
        let new_sessions = over(self.sessions_per_minute, plan.sessions_per_minute());
        let sessions = over(self.max_sessions, plan.max_sessions());

        let plan = Plan::unbounded();
        let plan = requests.map_or(plan, |requests| plan.with_requests_per_minute(requests));
        let plan = usage.map_or(plan, |usage| plan.with_usage_per_month(usage));
        let plan = new_sessions.map_or(plan, |sessions| plan.with_sessions_per_minute(sessions));
        sessions.map_or(plan, |sessions| plan.with_max_sessions(sessions))
    }
}

fn over<T>(named: Option<Bound<T>>, before: Option<T>) -> Option<T> {
    named.map_or(before, |Bound(bound)| bound)
}

/// A number, or `none`.
#[derive(Clone, Copy)]
struct Bound<T>(Option<T>);

impl<T: FromStr<Err = ParseIntError>> FromStr for Bound<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let bound = text.parse().map_err(|error| format!("{error}: use a number, or none"))?;
        Ok(Self(Some(bound)))
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
