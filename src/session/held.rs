//! What the lock of one session holds, and what of an update gets past it.
//!
//! 1. A setting is locked as a whole value, arrays and objects too, unless a path of the lock
//!    leads inside of it.
//! 2. Only groups are looked into: objects that the aliases of the rules lead through (`audio`,
//!    `audio.input`, `audio.output`).
//! 3. The spellings of one setting are one, in every direction, and so are those that only a lax
//!    server takes for it (`Voice`).
//! 4. A value equal to the locked one may always be sent.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Lock, SessionRules, Settings,
    json::same,
    lock::Extent,
    path::{at, ending, exactly_at, fold, is_inside, join, put},
    tables::{BACK_DOORS, NO_SETTINGS},
};
use crate::Grants;

/// What is locked in one session, and by what rules it is read.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    /// What the key sets, in the spelling it was minted with.
    pub(crate) settings: Option<&'a Map<String, Value>>,
    pub(crate) lock: &'a Lock,
    /// The model that the session is bound to.
    pub(crate) model: Option<&'a str>,
    /// The models that may be named anywhere.
    pub(crate) models: Option<&'a [Arc<str>]>,
    pub(crate) rules: &'a SessionRules,
}

/// What was done to an update.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    /// The paths taken out, as the client spelled them.
    pub(crate) kept: Vec<String>,
    /// Whether something was put in.
    pub(crate) completed: bool,
}

/// What is to be said of a value at a path.
enum Judged {
    Passes,
    Kept,
    /// It groups settings, each of which is judged by itself.
    Group,
}

/// What a setting is locked to.
enum Locked<'a> {
    To(&'a Value),
    ToModel(&'a str),
    /// To what the provider has for it.
    ToDefault,
}

impl<'a> Held<'a> {
    /// What the grants of a key hold in a session that is bound to `model`.
    pub(crate) fn by(grants: &'a Grants, model: Option<&'a str>, rules: &'a SessionRules) -> Self {
        Self {
            settings: grants.session().map(Settings::as_map),
            lock: grants.lock().unwrap_or(const { &Lock::set() }),
            model,
            models: grants.models(),
            rules,
        }
    }

    /// What `lock` holds of `settings`, whatever the models.
    #[cfg(feature = "mint")]
    pub(crate) fn of(
        settings: Option<&'a Settings>,
        lock: &'a Lock,
        rules: &'a SessionRules,
    ) -> Self {
        let settings = settings.map(Settings::as_map);
        Self { settings, lock, model: None, models: None, rules }
    }

    /// Whether nothing is locked.
    pub(crate) fn is_nothing(&self) -> bool {
        let sets = self.settings.is_some_and(|settings| !settings.is_empty());
        let locks = match self.lock.extent() {
            Extent::Nothing => false,
            Extent::Set => sets,
            Extent::All => true,
        };
        !locks && self.lock.paths().is_empty() && self.model.is_none() && self.models.is_none()
    }

    /// Whether the setting at `path` is locked.
    pub(crate) fn locks(&self, path: &str) -> bool {
        self.locked(path).is_some()
    }

    /// Takes out of `update` what would change a locked setting, and puts in what must stand
    /// beside the rest.
    pub(crate) fn filter(&self, update: &mut Map<String, Value>) -> Filtered {
        let mut filtered = Filtered::default();
        self.filter_group(["", ""], update, &mut filtered);
        filtered
    }

    /// `folded` is the group's path as a lax server reads it, `spelled` as the client wrote it.
    fn filter_group(
        &self,
        [folded, spelled]: [&str; 2],
        group: &mut Map<String, Value>,
        done: &mut Filtered,
    ) {
        group.retain(|name, value| {
            let folded = join(folded, &fold(name));
            let spelled = join(spelled, name);
            let path = self.rules.canonical(&folded);
            match (self.judge(&path, value), &mut *value) {
                (Judged::Group, Value::Object(inner)) => {
                    let was_empty = inner.is_empty();
                    self.filter_group([&folded, &spelled], inner, done);
                    done.completed |= self.complete(&path, inner);
                    was_empty || !inner.is_empty()
                }
                (Judged::Passes, _) => true,
                (Judged::Kept | Judged::Group, _) => {
                    done.kept.push(spelled);
                    false
                }
            }
        });
    }

    /// What is left of a value without what the key sets just so. The path is folded.
    pub(super) fn beyond_set(&self, path: &str, value: &Value) -> Option<Value> {
        let path = self.rules.canonical(path);
        if self.set(&path).is_some_and(|set| same(set, value)) {
            return None;
        }
        let Some(group) = value.as_object().filter(|_| self.rules.is_group(&path)) else {
            return Some(value.clone());
        };
        let beyond = |(name, value): (&String, &Value)| {
            Some((name.clone(), self.beyond_set(&join(&path, &fold(name)), value)?))
        };
        Some(Value::Object(group.iter().filter_map(beyond).collect()))
    }

    fn judge(&self, path: &str, value: &Value) -> Judged {
        let passes = match self.locked(path) {
            Some(Locked::To(locked)) => same(locked, value),
            Some(Locked::ToModel(model)) => value == model,
            // What OpenAI's clients say of every session, and every session is.
            Some(Locked::ToDefault) => path == "type" && value == "realtime",
            None if self.is_looked_into(path) => {
                if value.is_object() {
                    return Judged::Group;
                }
                !self.locks_inside(path)
            }
            None => !self.names_another_model(path, value),
        };
        if passes { Judged::Passes } else { Judged::Kept }
    }

    /// What the setting at `path` is locked to as a whole.
    fn locked(&self, path: &str) -> Option<Locked<'a>> {
        self.locked_by_itself(path).or_else(|| {
            let back_door = BACK_DOORS
                .iter()
                .any(|(front, back)| *back == path && self.locked_by_itself(front).is_some());
            back_door.then(|| self.set(path).map_or(Locked::ToDefault, Locked::To))
        })
    }

    fn locked_by_itself(&self, path: &str) -> Option<Locked<'a>> {
        if let ("model", Some(model)) = (path, self.model) {
            return Some(Locked::ToModel(model));
        }
        let set = self.set(path);
        let is_around = self.is_locked_around(path);
        if self.is_looked_into(path) && set.is_none_or(Value::is_object) && !is_around {
            return None;
        }
        let is_locked = match self.lock.extent() {
            Extent::Nothing => false,
            Extent::All if !NO_SETTINGS.contains(&path) => true,
            Extent::Set | Extent::All => set.is_some(),
        };
        if is_locked || is_around || self.is_named(path) {
            return Some(set.map_or(Locked::ToDefault, Locked::To));
        }
        None
    }

    /// What the key sets at `path`, in whatever spelling.
    fn set(&self, path: &str) -> Option<&'a Value> {
        let settings = self.settings?;
        at(settings, path)
            .or_else(|| self.rules.spellings(path).find_map(|spelled| at(settings, &spelled)))
    }

    /// Whether the lock names `path`, or something that it lies in.
    fn is_named(&self, path: &str) -> bool {
        self.named().any(|named| named == path || is_inside(path, &named))
    }

    fn named(&self) -> impl Iterator<Item = String> {
        let paths = self.lock.paths().iter();
        paths.map(|path| self.rules.canonical(&fold(path)).into_owned())
    }

    /// Whether a group that `path` lies in is itself locked to something that is no object.
    fn is_locked_around(&self, path: &str) -> bool {
        path.match_indices('.')
            .filter_map(|(end, _)| path.get(..end))
            .any(|group| self.set(group).is_some_and(|set| !set.is_object()) && self.locks(group))
    }

    /// Whether what lies in the object at `path` is judged piece by piece: in a group, and where
    /// the lock names a part of something that is not locked as a whole.
    fn is_looked_into(&self, path: &str) -> bool {
        self.rules.is_group(path)
            || (!self.locks_whole(path) && self.named().any(|named| is_inside(&named, path)))
    }

    /// Whether the lock holds all of what is at `path`.
    fn locks_whole(&self, path: &str) -> bool {
        match self.lock.extent() {
            _ if self.is_named(path) || self.is_locked_around(path) => true,
            Extent::Nothing => false,
            Extent::Set => self.set(path).is_some(),
            Extent::All => true,
        }
    }

    /// Whether something is locked inside of the group at `path`, or all of it, which whatever is
    /// not an object would sweep away.
    fn locks_inside(&self, path: &str) -> bool {
        let sets = || {
            let grouped = self.set(path).and_then(Value::as_object);
            grouped.is_some_and(|group| !group.is_empty())
                || self.rules.aliases_inside(path).any(|alias| {
                    self.settings.is_some_and(|settings| at(settings, alias).is_some())
                })
        };
        let locks = match self.lock.extent() {
            Extent::Nothing => false,
            Extent::Set => sets(),
            Extent::All => true,
        };
        locks || self.is_named(path) || self.named().any(|named| is_inside(&named, path))
    }

    /// Providers take an object that is no group as a whole: what is locked inside of it must
    /// stand in it, or it would fall back to the default. Answers whether it did not yet.
    fn complete(&self, path: &str, object: &mut Map<String, Value>) -> bool {
        let mut completed = false;
        for (spelled, named) in self.lock.paths().iter().zip(self.named()) {
            let inner = named.strip_prefix(path).and_then(|rest| rest.strip_prefix('.'));
            let Some(inner) = inner.filter(|_| !self.rules.is_group(path)) else { continue };
            let inner = ending(spelled, inner);
            if let Some(value) = self.set(&named)
                && exactly_at(object, inner).is_none_or(|there| !same(there, value))
            {
                put(object, inner, value);
                completed = true;
            }
        }
        completed
    }

    /// Whether `value`, or something in it, names a model that the key does not grant.
    fn names_another_model(&self, path: &str, value: &Value) -> bool {
        let Some(models) = self.models else { return false };
        // Parameters of a function may well be called `model`.
        let is_model = path == "model" || path.ends_with(".model");
        path != "tools" && names_another(models, is_model, value)
    }
}

/// Whether `value` names a model beyond `models`.
fn names_another(models: &[Arc<str>], is_model: bool, value: &Value) -> bool {
    match value {
        // A model is named, not described.
        Value::Object(object) => {
            is_model
                || object
                    .iter()
                    .any(|(name, value)| names_another(models, fold(name) == "model", value))
        }
        Value::Array(items) => items.iter().any(|item| names_another(models, is_model, item)),
        value => is_model && !models.iter().any(|model| *value == **model),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    /// Runs `update` past a lock on `settings`; answers what got through, what was kept, and
    /// whether something was put in.
    fn pass(settings: &str, lock: &Lock, update: &str) -> (Map<String, Value>, Vec<String>, bool) {
        let (settings, mut update) = (object(settings), object(update));
        let rules = SessionRules::default();
        let held =
            Held { settings: Some(&settings), lock, model: None, models: None, rules: &rules };
        let Filtered { kept, completed } = held.filter(&mut update);
        (update, kept, completed)
    }

    /// What is set, what is sent, what gets through, what is kept.
    type Case = (&'static str, &'static str, &'static str, &'static [&'static str]);

    fn check(lock: &Lock, cases: &[Case]) {
        for (set, sent, through, kept) in cases {
            let expected = (object(through), kept.iter().map(ToString::to_string).collect(), false);
            assert_eq!(pass(set, lock, sent), expected, "{set} <- {sent}");
        }
    }

    #[test]
    fn what_lies_in_a_group_that_is_locked_to_no_object_is_locked_in_any_spelling() {
        let settings = object(r#"{"audio":null}"#);
        let rules = SessionRules::default().with_alias("out", "audio.output");
        let lock = Lock::set();
        let held = Held {
            settings: Some(&settings),
            lock: &lock,
            model: None,
            models: None,
            rules: &rules,
        };
        for out in ["[]", "{}", r#"{"voice":"a"}"#] {
            let mut update = object(&format!(r#"{{"out":{out},"x":1}}"#));
            assert_eq!(held.filter(&mut update).kept, ["out"], "{out}");
            assert_eq!(update, object(r#"{"x":1}"#));
        }
    }

    #[test]
    fn what_is_set_is_locked_and_nothing_else() {
        check(
            &Lock::set(),
            &[
                // Not set: the client's.
                (r#"{"voice":"a"}"#, r#"{"instructions":"x"}"#, r#"{"instructions":"x"}"#, &[]),
                // Equal: passes.
                (r#"{"voice":"a"}"#, r#"{"voice":"a"}"#, r#"{"voice":"a"}"#, &[]),
                (r#"{"speed":1}"#, r#"{"speed":1.0}"#, r#"{"speed":1.0}"#, &[]),
                // 2^53 + 1, and what a float can say of it.
                (r#"{"x":9007199254740993}"#, r#"{"x":9007199254740992.0}"#, "{}", &["x"]),
                (r#"{"x":1e300}"#, r#"{"x":1e301}"#, "{}", &["x"]),
                (r#"{"speed":1}"#, r#"{"speed":1.5}"#, "{}", &["speed"]),
                (r#"{"speed":1}"#, r#"{"speed":2}"#, "{}", &["speed"]),
                (r#"{"speed":1}"#, r#"{"speed":"1"}"#, "{}", &["speed"]),
                (r#"{"x":[1,{"y":2}]}"#, r#"{"x":[1.0,{"y":2}]}"#, r#"{"x":[1.0,{"y":2}]}"#, &[]),
                (r#"{"x":[1,{"y":2}]}"#, r#"{"x":[1,{"z":2}]}"#, "{}", &["x"]),
                (r#"{"x":[1]}"#, r#"{"x":[1,2]}"#, "{}", &["x"]),
                (r#"{"x":{"y":1}}"#, r#"{"x":{"y":1,"z":1}}"#, "{}", &["x"]),
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
                (
                    r#"{"audio":{"output":{"voice":"a"}}}"#,
                    r#"{"voice":"a"}"#,
                    r#"{"voice":"a"}"#,
                    &[],
                ),
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
                (r#"{"voice":"a"}"#, r#"{"audio":"x"}"#, "{}", &["audio"]),
                (r#"{"voice":"a"}"#, r#"{"audio":{}}"#, r#"{"audio":{}}"#, &[]),
                // Where nothing is locked inside, they are the client's.
                (
                    r#"{"voice":"a"}"#,
                    r#"{"audio":{"input":null}}"#,
                    r#"{"audio":{"input":null}}"#,
                    &[],
                ),
                (r#"{"audio":{}}"#, r#"{"audio":null}"#, r#"{"audio":null}"#, &[]),
                // Arrays and other objects are whole.
                (r#"{"tools":[{"name":"a"}]}"#, r#"{"tools":[]}"#, "{}", &["tools"]),
                (r#"{"tools":[]}"#, r#"{"tools":[{"name":"a"}]}"#, "{}", &["tools"]),
                (
                    r#"{"tracing":{"id":"p"}}"#,
                    r#"{"tracing":{"id":"p","version":"2"}}"#,
                    "{}",
                    &["tracing"],
                ),
                // A group that the key sets to no object is a value like any other.
                (r#"{"audio":null}"#, r#"{"audio":{"output":{"voice":"b"}}}"#, "{}", &["audio"]),
                (r#"{"audio":null}"#, r#"{"voice":"b"}"#, "{}", &["voice"]),
                (r#"{"audio":null}"#, r#"{"audio":null}"#, r#"{"audio":null}"#, &[]),
                // What would change it by the back door.
                (r#"{"instructions":"i"}"#, r#"{"prompt":{"id":"p"}}"#, "{}", &["prompt"]),
                (r#"{"tools":[]}"#, r#"{"prompt":{"id":"p"}}"#, "{}", &["prompt"]),
                (r#"{"prompt":{"id":"p"}}"#, r#"{"instructions":"i"}"#, "{}", &["instructions"]),
                (r#"{"instructions":"i"}"#, r#"{"delegation":{}}"#, "{}", &["delegation"]),
                (
                    r#"{"instructions":"i","prompt":{"id":"p"}}"#,
                    r#"{"prompt":{"id":"p"}}"#,
                    r#"{"prompt":{"id":"p"}}"#,
                    &[],
                ),
                (r#"{"voice":"a"}"#, r#"{"prompt":{"id":"p"}}"#, r#"{"prompt":{"id":"p"}}"#, &[]),
            ],
        );
    }

    #[test]
    fn a_lock_on_all_pins_what_is_not_set() {
        check(
            &Lock::all(),
            &[
                (r#"{"voice":"a"}"#, r#"{"voice":"a"}"#, r#"{"voice":"a"}"#, &[]),
                (
                    r#"{"voice":"a"}"#,
                    r#"{"voice":"b","speed":2,"tools":null}"#,
                    "{}",
                    &["speed", "tools", "voice"],
                ),
                ("{}", r#"{"audio":{"input":{"x":1}}}"#, "{}", &["audio.input.x"]),
                ("{}", r#"{"audio":null}"#, "{}", &["audio"]),
                // Beside the settings.
                (
                    "{}",
                    r#"{"type":"realtime","metadata":{"a":1},"conversation":"none"}"#,
                    r#"{"type":"realtime","metadata":{"a":1},"conversation":"none"}"#,
                    &[],
                ),
                ("{}", r#"{"type":"transcription"}"#, "{}", &["type"]),
                (r#"{"type":"transcription"}"#, r#"{"type":"realtime"}"#, "{}", &["type"]),
                ("{}", r#"{"tools":"realtime"}"#, "{}", &["tools"]),
            ],
        );
    }

    #[test]
    fn named_paths_are_locked_too() {
        let lock = Lock::set().and(["tools", "turn_detection.threshold"]).unwrap();
        check(
            &lock,
            &[
                (
                    r#"{"voice":"a"}"#,
                    r#"{"voice":"b","tools":[],"x":1}"#,
                    r#"{"x":1}"#,
                    &["tools", "voice"],
                ),
                // The lock leads inside of an object that is not set: the rest is the client's.
                (
                    "{}",
                    r#"{"turn_detection":{"threshold":1,"type":"t"}}"#,
                    r#"{"turn_detection":{"type":"t"}}"#,
                    &["turn_detection.threshold"],
                ),
                ("{}", r#"{"turn_detection":null}"#, "{}", &["turn_detection"]),
                // One that is set is locked as a whole.
                (
                    r#"{"turn_detection":{"type":"t"}}"#,
                    r#"{"audio":{"input":{"turn_detection":{"type":"t","x":1}}}}"#,
                    "{}",
                    &["audio.input.turn_detection"],
                ),
            ],
        );
        let lock = Lock::nothing().and(["audio.output"]).unwrap();
        check(
            &lock,
            &[
                (
                    r#"{"voice":"a"}"#,
                    r#"{"voice":"b","speed":1,"x":1}"#,
                    r#"{"x":1}"#,
                    &["speed", "voice"],
                ),
                (r#"{"voice":"a","x":1}"#, r#"{"voice":"a","x":2}"#, r#"{"voice":"a","x":2}"#, &[]),
                ("{}", r#"{"audio":{"output":null}}"#, "{}", &["audio.output"]),
                ("{}", r#"{"audio":{"input":null}}"#, r#"{"audio":{"input":null}}"#, &[]),
            ],
        );
    }

    #[test]
    fn what_is_set_and_not_locked_locks_nothing_inside_of_it() {
        let lock = Lock::nothing().and(["tools"]).unwrap();
        check(&lock, &[(r#"{"audio":null}"#, r#"{"voice":"b"}"#, r#"{"voice":"b"}"#, &[])]);
    }

    #[test]
    fn a_whole_that_is_named_is_not_looked_into_for_its_parts() {
        let named = ["turn_detection", "turn_detection.threshold"];
        let lock = Lock::nothing().and(named).unwrap();
        check(&lock, &[("{}", r#"{"turn_detection":{}}"#, "{}", &["turn_detection"])]);
        // The same where something that is no object lies around it.
        let lock = Lock::set().and(["audio.input.turn_detection.threshold"]).unwrap();
        check(&lock, &[(r#"{"audio":1}"#, r#"{"turn_detection":{}}"#, "{}", &["turn_detection"])]);
    }

    #[test]
    fn a_part_that_is_locked_stands_in_whatever_replaces_the_whole() {
        let set = r#"{"turn_detection":{"threshold":0.5,"type":"t","more":{"deep":1}}}"#;
        let lock =
            Lock::nothing().and(["turn_detection.threshold", "turn_detection.more.deep"]).unwrap();
        for (sent, through, kept, completed) in [
            (
                r#"{"turn_detection":{"type":"u"}}"#,
                r#"{"turn_detection":{"type":"u","threshold":0.5,"more":{"deep":1}}}"#,
                &[][..],
                true,
            ),
            (
                r#"{"turn_detection":{"threshold":0.9,"more":3}}"#,
                r#"{"turn_detection":{"threshold":0.5,"more":{"deep":1}}}"#,
                &["turn_detection.more", "turn_detection.threshold"],
                true,
            ),
            (
                r#"{"turn_detection":{"threshold":0.5,"more":{"deep":1,"x":1}}}"#,
                r#"{"turn_detection":{"threshold":0.5,"more":{"deep":1,"x":1}}}"#,
                &[],
                false,
            ),
        ] {
            let kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
            assert_eq!(pass(set, &lock, sent), (object(through), kept, completed), "{sent}");
        }
    }

    #[test]
    fn a_list_of_models_covers_every_path_that_names_one() {
        let models = [Arc::from("m"), Arc::from("n")];
        let (lock, rules) = (Lock::set(), SessionRules::default());
        let settings = object(r#"{"input_audio_transcription":{"model":"w"}}"#);
        let held = Held {
            settings: Some(&settings),
            lock: &lock,
            model: Some("m"),
            models: Some(&models),
            rules: &rules,
        };
        for (sent, through) in [
            (r#"{"model":"m"}"#, r#"{"model":"m"}"#),
            // Bound to one of them.
            (r#"{"model":"n"}"#, "{}"),
            (r#"{"model":["m"]}"#, "{}"),
            (r#"{"delegation":{"model":"n"}}"#, r#"{"delegation":{"model":"n"}}"#),
            (r#"{"delegation":{"model":"x"}}"#, "{}"),
            (r#"{"delegation":{"a":[{"model":"x"}]}}"#, "{}"),
            (r#"{"audio":{"model":"x"}}"#, "{}"),
            (r#"{"audio":{"model":{"id":"m"}}}"#, "{}"),
            (r#"{"x":{"model":["x"]}}"#, "{}"),
            (r#"{"x":{"model":["m","n"]}}"#, r#"{"x":{"model":["m","n"]}}"#),
            (r#"{"x":{"model":null}}"#, "{}"),
            (r#"{"x":"other"}"#, r#"{"x":"other"}"#),
            // What the key itself sets may be said again.
            (
                r#"{"audio":{"input":{"transcription":{"model":"w"}}}}"#,
                r#"{"audio":{"input":{"transcription":{"model":"w"}}}}"#,
            ),
            (r#"{"audio":{"input":{"transcription":{"model":"m"}}}}"#, "{}"),
            // The parameter of a function.
            (
                r#"{"tools":[{"parameters":{"properties":{"model":{"type":"string"}}}}]}"#,
                r#"{"tools":[{"parameters":{"properties":{"model":{"type":"string"}}}}]}"#,
            ),
        ] {
            let mut update = object(sent);
            held.filter(&mut update);
            assert_eq!(update, object(through), "{sent}");
        }
    }

    #[test]
    fn nothing_is_locked_by_a_lock_without_anything_to_lock() {
        let (rules, empty, set) = (SessionRules::default(), Map::new(), object(r#"{"x":1}"#));
        let models = [Arc::from("m")];
        let (all, of_set, nothing) = (Lock::all(), Lock::set(), Lock::nothing());
        let named = Lock::nothing().and(["x"]).unwrap();
        let held =
            |settings, lock| Held { settings, lock, model: None, models: None, rules: &rules };
        for (held, is_nothing) in [
            (held(None, &of_set), true),
            (held(Some(&empty), &of_set), true),
            (held(Some(&set), &of_set), false),
            (held(Some(&set), &nothing), true),
            (held(None, &named), false),
            (held(None, &all), false),
            (Held { model: Some("m"), ..held(None, &of_set) }, false),
            (Held { models: Some(&models), ..held(None, &of_set) }, false),
        ] {
            assert_eq!(held.is_nothing(), is_nothing);
        }
    }
}
