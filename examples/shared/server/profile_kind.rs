//! The flag `--profile`.

use clap::ValueEnum;
use tower_realtime_auth::Profile;

/// Whose clients are served.
#[derive(Clone, Copy, ValueEnum)]
pub enum ProfileKind {
    /// All of them at once
    Any,
    Openai,
    Xai,
    Decart,
    Swaram,
    Svara,
}

impl ProfileKind {
    pub fn profile(self) -> Profile {
        match self {
            Self::Any => Profile::default(),
            Self::Openai => Profile::openai(),
            Self::Xai => Profile::xai(),
            Self::Decart => Profile::decart(),
            Self::Swaram => Profile::swaram(),
            Self::Svara => Profile::svara(),
        }
    }
}
