//! Which settings are locked, and what an update may change.
//!
//! 1. Every setting that the key carries is locked, as a whole value: arrays and objects too.
//! 2. Only `audio`, `audio.input` and `audio.output` are looked into, because they merely group:
//!    a key that sets `audio.output.voice` leaves `audio.input` to the client.
//! 3. Two spellings of one setting ([`ALIASES`]) are one, in both directions.
//! 4. A value equal to the locked one may always be sent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Objects that group settings and are not settings themselves.
const GROUPS: [&str; 3] = ["audio", "audio.input", "audio.output"];

/// The flat spelling (OpenAI's beta, Swaram) of what OpenAI now spells as a path.
const ALIASES: [(&str, &str); 9] = [
    ("voice", "audio.output.voice"),
    ("speed", "audio.output.speed"),
    ("output_audio_format", "audio.output.format"),
    ("input_audio_format", "audio.input.format"),
    ("input_audio_transcription", "audio.input.transcription"),
    ("input_audio_noise_reduction", "audio.input.noise_reduction"),
    ("turn_detection", "audio.input.turn_detection"),
    ("modalities", "output_modalities"),
    ("max_response_output_tokens", "max_output_tokens"),
];

fn canonical(path: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == path).map_or(path, |(_, canonical)| canonical)
}

/// The locked settings by their canonical paths, and the values they are locked to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lock(BTreeMap<String, Value>);

impl Lock {
    /// The path at which `settings` set one thing to different values in two spellings.
    #[cfg(feature = "mint")]
    pub(crate) fn contradiction(settings: &Map<String, Value>) -> Option<String> {
        let mut rest = settings.clone();
        Self::new(settings).filter(&mut rest).into_iter().next()
    }

    /// Locks everything that `settings` set.
    pub(crate) fn new(settings: &Map<String, Value>) -> Self {
        let mut lock = Self::default();
        lock.add("", settings);
        lock
    }

    fn add(&mut self, parent: &str, settings: &Map<String, Value>) {
        for (name, value) in settings {
            let path = join(parent, name);
            match value {
                Value::Object(group) if is_group(&path) => self.add(&path, group),
                value => self.lock(&path, value.clone()),
            }
        }
    }

    /// Locks one setting to `value`.
    pub(crate) fn lock(&mut self, path: &str, value: Value) {
        self.0.insert(canonical(path).to_owned(), value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes from `update` whatever would change a locked setting; answers the paths removed,
    /// as the client spelled them.
    pub(crate) fn filter(&self, update: &mut Map<String, Value>) -> Vec<String> {
        let mut kept = Vec::new();
        self.filter_group("", update, &mut kept);
        kept
    }

    fn filter_group(&self, parent: &str, group: &mut Map<String, Value>, kept: &mut Vec<String>) {
        group.retain(|name, value| {
            let path = join(parent, name);
            if let (Value::Object(inner), true) = (&mut *value, is_group(&path)) {
                let was_empty = inner.is_empty();
                self.filter_group(&path, inner, kept);
                return was_empty || !inner.is_empty();
            }
            let passes = self.allows(canonical(&path), value);
            if !passes {
                kept.push(path);
            }
            passes
        });
    }

    fn allows(&self, path: &str, value: &Value) -> bool {
        match self.0.get(path) {
            Some(locked) => locked == value,
            None => !self.locks_around(path) && !self.locks_inside(path),
        }
    }

    /// Whether a group that `path` lies in is itself locked to something that is no object.
    fn locks_around(&self, path: &str) -> bool {
        let ends = path.match_indices('.').map(|(end, _)| end);
        ends.filter_map(|end| path.get(..end)).any(|group| self.0.contains_key(group))
    }

    /// Whether something is locked inside of `group`, which whatever is not an object would sweep
    /// away.
    fn locks_inside(&self, group: &str) -> bool {
        let prefix = format!("{group}.");
        let mut from_there_on = self.0.range(prefix.clone()..);
        from_there_on.next().is_some_and(|(path, _)| path.starts_with(&prefix))
    }
}

pub(super) fn is_group(path: &str) -> bool {
    GROUPS.contains(&path)
}

pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    /// What is locked, what is sent, what gets through, what is kept.
    const CASES: &[(&str, &str, &str, &[&str])] = &[
        // Not set: the client's.
        (r#"{"voice":"a"}"#, r#"{"instructions":"x"}"#, r#"{"instructions":"x"}"#, &[]),
        // Equal: passes.
        (r#"{"voice":"a"}"#, r#"{"voice":"a"}"#, r#"{"voice":"a"}"#, &[]),
        // Changed, nulled, of another type: kept; the rest goes through.
        (r#"{"voice":"a"}"#, r#"{"voice":"b","x":1}"#, r#"{"x":1}"#, &["voice"]),
        (r#"{"voice":"a"}"#, r#"{"voice":null}"#, "{}", &["voice"]),
        (r#"{"voice":"a"}"#, r#"{"voice":{"id":"a"}}"#, "{}", &["voice"]),
        // Both spellings, both directions.
        (
            r#"{"voice":"a"}"#,
            r#"{"audio":{"output":{"voice":"b"}}}"#,
            "{}",
            &["audio.output.voice"],
        ),
        (r#"{"audio":{"output":{"voice":"a"}}}"#, r#"{"voice":"b"}"#, "{}", &["voice"]),
        (r#"{"audio":{"output":{"voice":"a"}}}"#, r#"{"voice":"a"}"#, r#"{"voice":"a"}"#, &[]),
        // Groups are looked into ...
        (
            r#"{"audio":{"output":{"voice":"a"}}}"#,
            r#"{"audio":{"input":{"format":"f"},"output":{"voice":"b","speed":2}}}"#,
            r#"{"audio":{"input":{"format":"f"},"output":{"speed":2}}}"#,
            &["audio.output.voice"],
        ),
        // ... and cannot be swept away.
        (r#"{"audio":{"output":{"voice":"a"}}}"#, r#"{"audio":null}"#, "{}", &["audio"]),
        (r#"{"voice":"a"}"#, r#"{"audio":{"output":[]}}"#, "{}", &["audio.output"]),
        (r#"{"voice":"a"}"#, r#"{"audio":{}}"#, r#"{"audio":{}}"#, &[]),
        // Arrays and other objects are whole.
        (r#"{"tools":[{"name":"a"}]}"#, r#"{"tools":[]}"#, "{}", &["tools"]),
        (r#"{"tools":[]}"#, r#"{"tools":[{"name":"a"}]}"#, "{}", &["tools"]),
        (r#"{"prompt":{"id":"p"}}"#, r#"{"prompt":{"id":"p","version":"2"}}"#, "{}", &["prompt"]),
        // A group that the key sets to no object is a value like any other.
        (
            r#"{"audio":null}"#,
            r#"{"audio":{"output":{"voice":"b"}}}"#,
            "{}",
            &["audio.output.voice"],
        ),
    ];

    #[test]
    fn updates_lose_what_is_locked_and_nothing_else() {
        for (locked, sent, through, kept) in CASES {
            let lock = Lock::new(&object(locked));
            let mut update = object(sent);
            assert_eq!(lock.filter(&mut update), *kept, "{locked} <- {sent}");
            assert_eq!(update, object(through), "{locked} <- {sent}");
        }
    }
}
