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
    pub fn write(&self, session: &str, text: &str) -> io::Result<()> {
        let line = format!("{}\n", json!({ "session": session, "text": text }));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
    }
}
