//! The shape of a mint endpoint: what it reads and what it answers.

use http::StatusCode;

use super::{MintError, NewToken, response::Fault};
use crate::{Issued, Lifetimes, Profile};

/// In which shape a [`MintEndpoint`](super::MintEndpoint) reads and answers.
pub trait Shape: Send + Sync + 'static {
    /// What the endpoint is called in messages.
    const NAME: &'static str;

    /// Whether its answer holds the signed twin of a token.
    const ANSWERS_TWIN: bool = false;

    /// The profile that is followed unless another is given.
    fn profile() -> Profile {
        Profile::default()
    }

    /// How long its tokens live.
    fn lifetimes(profile: &Profile) -> Lifetimes {
        profile.lifetimes().clone()
    }

    /// What token the body asks for.
    fn read(body: &[u8], profile: &Profile) -> Result<NewToken, MintError>;

    /// What the body calls the field that is a token's `checked`, such as `lifetime`.
    fn name_of(checked: &str) -> String;

    /// The answer that holds a new token, as JSON.
    fn minted(issued: &Issued) -> String;

    /// The answer that holds none, as JSON.
    fn refused(fault: &Fault) -> String {
        fault.as_openai()
    }

    /// The status of that answer.
    fn status(fault: &Fault) -> StatusCode {
        fault.status
    }
}
