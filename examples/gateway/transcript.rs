//! What the model was told, for those who want to see whether a lock held.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde_json::json;

/// A file with a line for every event that the model sees.
pub struct Transcript(Mutex<File>);

impl Transcript {
    /// Opens the file, to append to what is in it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(File::options().append(true).create(true).open(path)?)))
    }

    /// Writes down one event as the model gets it.
    pub fn write(&self, session: &str, text: &str) {
        let line = format!("{}\n", json!({ "session": session, "text": text }));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::error!(%error, "cannot write the transcript");
        }
    }
}
