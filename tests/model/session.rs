//! What a guard may do with an event, written a second time: from the documentation, with tables
//! and a flattening of its own, sharing no line with the crate. Slow and obvious on purpose.
//!
//! It does not say what a guard answers, but judges what one did: what is handed on must leave
//! every locked setting as it is, for whoever reads it, and nothing else may be lost.
#![allow(dead_code, reason = "each test uses its part")]

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What a session is held to.
#[derive(Clone, Debug)]
pub struct Terms {
    pub settings: Option<Map<String, Value>>,
    pub mode: Mode,
    pub paths: Vec<String>,
    /// The model that the session is bound to.
    pub model: Option<String>,
    pub models: Option<Vec<String>>,
    /// Whether a change is refused, instead of taken out.
    pub refuses: bool,
    pub locks_when_begun: bool,
    /// Whether its provider has events and spellings of its own: `OWN_EVENT`, `OWN_ALIASES`.
    pub own: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Nothing,
    Set,
    All,
}

/// What a guard did with an event.
#[derive(Clone, Debug)]
pub enum Done<'a> {
    Forwarded(&'a str),
    Rewrote(&'a str, &'a [String]),
    Replied(&'a str),
}

/// What was right to do, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Idle,
    Forwarded,
    TookOut,
    PutIn,
    Replied(&'static str),
}

/// Settings by their one path. More than one value: who knows which of them counts.
type State = BTreeMap<String, Vec<Value>>;

/// A session as a provider sees it.
#[derive(Clone, Debug)]
pub struct Session {
    terms: Terms,
    /// What the settings were when they were locked.
    fixed: State,
    /// What they are now.
    now: State,
    begun: bool,
    ended: bool,
}

/// An update of one merges.
const GROUPS: [&str; 3] = ["audio", "audio.input", "audio.output"];

/// Old name and new.
const RENAMED: &[(&str, &str)] = &[
    ("input_audio_format", "audio.input.format"),
    ("input_audio_noise_reduction", "audio.input.noise_reduction"),
    ("input_audio_transcription", "audio.input.transcription"),
    ("max_response_output_tokens", "max_output_tokens"),
    ("modalities", "output_modalities"),
    ("output_audio_format", "audio.output.format"),
    ("speed", "audio.output.speed"),
    ("turn_detection", "audio.input.turn_detection"),
    ("voice", "audio.output.voice"),
];

/// An event that only some providers know, and what its settings stand in.
pub const OWN_EVENT: (&str, &str) = ("agent.configure", "agent");

/// Spellings that only some providers know, and what they are said to be spellings of.
pub const OWN_ALIASES: [(&str, &str); 4] = [
    ("speaker", "voice"),
    ("out", "audio.output"),
    ("temperature", "generation.temperature"),
    ("generation.topK", "top_k"),
];

/// What follows of that.
const OWN_RENAMED: &[(&str, &str)] = &[
    ("speaker", "audio.output.voice"),
    ("out", "audio.output"),
    ("temperature", "generation.temperature"),
    ("generation.topk", "top_k"),
];
const OWN_GROUP: &str = "generation";

/// Beside the settings, and none: what locks all leaves them.
const BESIDE: [&str; 5] = ["conversation", "id", "input", "metadata", "object"];

/// Where a `role` is no speaker's.
const WITHOUT_ITEMS: [&str; 2] = ["metadata", "tools"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Holds {
    Session,
    OwnSession,
    Response,
    Item,
    Instruction,
    End,
    Nothing,
}

impl Holds {
    fn of(kind: &str, own: bool) -> Option<Self> {
        Some(match kind {
            _ if own && kind == OWN_EVENT.0 => Self::OwnSession,
            "session.update" | "transcription_session.update" | "session.start" => Self::Session,
            "response.create" => Self::Response,
            "conversation.item.create" | "decision.item.create" | "response.item.create" => {
                Self::Item
            }
            "session.instructions.append"
            | "session.thinking.append"
            | "session.commentary.append"
            | "decision.create"
            | "prompt"
            | "set_image" => Self::Instruction,
            "session.close" => Self::End,
            "input_audio_buffer.append"
            | "input_audio_buffer.commit"
            | "input_audio_buffer.clear"
            | "output_audio_buffer.clear"
            | "response.cancel"
            | "conversation.item.delete"
            | "conversation.item.retrieve"
            | "conversation.item.truncate"
            | "session.input_audio_buffer.append"
            | "session.input_audio.append"
            | "session.input_audio.mute"
            | "session.input_audio.unmute"
            | "session.output_audio.fixture.play"
            | "decision.item.delete"
            | "transport.dtmf.send"
            | "livekit_join" => Self::Nothing,
            _ => return None,
        })
    }

    fn field(self) -> Option<&'static str> {
        match self {
            Self::Session => Some("session"),
            Self::OwnSession => Some(OWN_EVENT.1),
            Self::Response => Some("response"),
            Self::Item => Some("item"),
            Self::Instruction | Self::End | Self::Nothing => None,
        }
    }

    fn is_of_session(self) -> bool {
        matches!(self, Self::Session | Self::OwnSession)
    }

    fn has_settings(self) -> bool {
        self.is_of_session() || self == Self::Response
    }

    /// Whether such an event may have a plain value of this name beside what it holds.
    fn has_beside(self, name: &str) -> bool {
        let others: &[&str] = match self {
            Self::Session | Self::OwnSession | Self::Response | Self::Item => &[],
            Self::Instruction => {
                &["content", "delegation_id", "enhance_prompt", "image_data", "image_ref", "prompt"]
            }
            Self::End | Self::Nothing => &[
                "audio",
                "audio_end_ms",
                "content_index",
                "event",
                "item_id",
                "passthrough",
                "response_id",
            ],
        };
        ["event_id", "previous_item_id"].contains(&name) || others.contains(&name)
    }
}

/// What of an event was not handed on.
#[derive(Default)]
struct Difference {
    taken: Vec<String>,
    /// What may have been taken out in part.
    odd: Vec<String>,
    put_in: bool,
}

impl Session {
    pub fn new(terms: Terms) -> Self {
        let mut fixed = State::new();
        let settings = terms.settings.clone().unwrap_or_default();
        Names { own: terms.own }.assign(&mut fixed, &settings);
        Self { terms, now: fixed.clone(), fixed, begun: false, ended: false }
    }

    /// Takes note of an event and of what a guard did with it. Answers what was right to do, or
    /// what was wrong.
    pub fn hear(&mut self, sent: &str, done: &Done<'_>) -> Result<Outcome, String> {
        if !self.terms.locks_when_begun && self.locks_nothing() {
            return match done {
                Done::Forwarded(text) if *text == sent => Ok(Outcome::Idle),
                _ => Err("nothing is locked, and yet it was not forwarded".into()),
            };
        }
        let event = strict(sent).filter(|event| depth(event) <= 64);
        let Some(Value::Object(event)) = event else {
            return replied(done, &["invalid_json"]);
        };
        if self.ended {
            return replied(done, &["session_ended"]);
        }
        let Some(Value::String(kind)) = event.get("type") else {
            return replied(done, &["invalid_event"]);
        };
        let Some(holds) = Holds::of(kind, self.terms.own) else {
            return replied(done, &["invalid_value"]);
        };
        if !holds.is_of_session() && holds != Holds::End {
            self.begin();
        }
        let held = holds.field().and_then(|field| event.get(field));
        match holds {
            _ if holds.has_settings() && held.is_some_and(|held| !held.is_object()) => {
                return replied(done, &["invalid_value"]);
            }
            Holds::Item if held.is_some_and(|item| self.is_closed_to(item)) => {
                return replied(done, &["immutable_field_update"]);
            }
            Holds::Instruction if self.closes_instructions() => {
                return replied(done, &["immutable_field_update"]);
            }
            _ => {}
        }
        let text = match done {
            Done::Forwarded(text) if *text == sent => text,
            Done::Forwarded(_) => return Err("something else was forwarded".into()),
            Done::Rewrote(text, _) => text,
            Done::Replied(_) if self.terms.refuses => {
                // Is there a thing to take out?
                let mut without = Map::new();
                self.trim(&event, &mut without, holds);
                if without == event {
                    return Err("refused without a reason".into());
                }
                return replied(done, &["immutable_field_update"]);
            }
            Done::Replied(_) => return Err("refused instead of rewritten".into()),
        };
        let Some(Value::Object(handed)) = strict(text).filter(|event| depth(event) <= 64) else {
            return Err("what was handed on is read in more than one way".into());
        };
        self.check_harmless(&handed, holds)?;
        let difference = self.difference(&event, &handed, holds)?;
        if let Done::Rewrote(_, kept) = done {
            let (mut kept, mut taken) = (kept.to_vec(), difference.taken.clone());
            // Where a name has a dot, what is meant by a path is anybody's guess.
            let is_clear = |path: &String| {
                let is_of =
                    |odd: &String| path == odd || path.strip_prefix(&**odd).is_some_and(is_inner);
                !difference.odd.iter().any(is_of)
            };
            kept.retain(is_clear);
            taken.retain(is_clear);
            kept.sort();
            taken.sort();
            if kept != taken {
                return Err(format!("said to be kept: {kept:?}, in truth: {taken:?}"));
            }
            if taken.is_empty() && difference.odd.is_empty() && !difference.put_in {
                return Err("rewritten without a reason".into());
            }
            if self.terms.refuses && !taken.is_empty() {
                return Err("a change was taken out instead of refused".into());
            }
        }
        let settings = holds.field().and_then(|field| handed.get(field));
        if let (true, Some(Value::Object(settings))) = (holds.is_of_session(), settings) {
            self.names().assign(&mut self.now, settings);
        }
        self.ended |= holds == Holds::End;
        Ok(match (difference.taken.is_empty(), difference.put_in) {
            (false, _) => Outcome::TookOut,
            (true, true) => Outcome::PutIn,
            (true, false) => Outcome::Forwarded,
        })
    }

    /// The locked settings that are not what they were.
    pub fn changed(&self) -> Vec<String> {
        let paths = self.fixed.keys().chain(self.now.keys());
        let is_changed = |path: &&String| {
            self.allowed(path).is_some_and(|allowed| {
                let now = self.now.get(*path).into_iter().flatten();
                !now.clone().all(|now| allowed.iter().any(|value| same(value, now)))
                    || (now.count() == 0 && self.fixed.contains_key(*path))
            })
        };
        // The model is set when connecting.
        let is_model = |path: &&String| *path == "model" && self.terms.model.is_some();
        paths.filter(|path| !is_model(path)).filter(is_changed).cloned().collect()
    }

    fn begin(&mut self) {
        if !self.begun && self.terms.locks_when_begun {
            self.terms.mode = Mode::All;
            self.fixed = self.now.clone();
        }
        self.begun = true;
    }

    fn locks_nothing(&self) -> bool {
        let terms = &self.terms;
        let of_mode = match terms.mode {
            Mode::Nothing => false,
            Mode::Set => terms.settings.as_ref().is_some_and(|settings| !settings.is_empty()),
            Mode::All => true,
        };
        !of_mode && terms.paths.is_empty() && terms.model.is_none() && terms.models.is_none()
    }

    /// The values that the setting may be given, if it is locked.
    fn allowed(&self, path: &str) -> Option<Vec<Value>> {
        if let ("model", Some(model)) = (path, &self.terms.model) {
            return Some(vec![model.as_str().into()]);
        }
        let closing: &[&str] = match path {
            "prompt" | "delegation" => &["instructions", "tools"],
            "instructions" => &["prompt"],
            _ => &[],
        };
        if !self.is_locked(path) && !closing.iter().any(|front| self.is_locked(front)) {
            return None;
        }
        let mut allowed: Vec<_> = self.fixed_at(path).into_iter().cloned().collect();
        if path == "type" && allowed.is_empty() {
            // So it is by default.
            allowed.push("realtime".into());
        }
        Some(allowed)
    }

    fn is_locked(&self, path: &str) -> bool {
        self.is_named(path)
            || match self.terms.mode {
                Mode::Nothing => false,
                Mode::All if !BESIDE.contains(&path) => true,
                Mode::Set | Mode::All => {
                    !self.fixed_at(path).is_empty()
                        || outer(path).any(|group| {
                            let set = self.fixed.get(group).into_iter().flatten();
                            set.clone().count() > 0 && set.clone().all(|set| !set.is_object())
                        })
                }
            }
    }

    /// Whether the terms name it, or something around it.
    fn is_named(&self, path: &str) -> bool {
        self.named().any(|named| named == path || inner(path, &named).is_some())
    }

    fn named(&self) -> impl Iterator<Item = String> {
        self.terms.paths.iter().map(|path| self.names().canonical(&lax(path)))
    }

    fn names(&self) -> Names {
        Names { own: self.terms.own }
    }

    /// What is fixed at a path, which may lead into a setting.
    fn fixed_at(&self, path: &str) -> Vec<&Value> {
        let whole = self.fixed.get(path).into_iter().flatten();
        let part = outer(path).flat_map(|group| {
            let rest = inner(path, group).unwrap_or_default();
            self.fixed.get(group).into_iter().flatten().filter_map(|set| dig(set, rest))
        });
        whole.chain(part).collect()
    }

    /// What is locked inside of the setting or group at `path`.
    fn locked_inside(&self, path: &str) -> Vec<String> {
        let set = self.fixed.keys().filter(|_| self.terms.mode != Mode::Nothing).cloned();
        set.chain(self.named()).filter(|locked| inner(locked, path).is_some()).collect()
    }

    /// Whether the key groups anything there, though it may be empty.
    fn mints_inside(&self, path: &str) -> bool {
        let pointer = format!("/{}", path.replace('.', "/"));
        let settings = self.terms.settings.clone().map(Value::Object).unwrap_or_default();
        settings.pointer(&pointer).and_then(Value::as_object).is_some_and(|group| !group.is_empty())
    }

    /// Whether the settings in the object at `path` are settings of their own.
    fn is_looked_into(&self, path: &str) -> bool {
        // One that is locked to no object is a setting like any other.
        let mut around = outer(path).chain([path]).filter(|around| self.is_locked(around));
        let is_group = self.names().is_group(path)
            && around
                .all(|around| self.fixed.get(around).into_iter().flatten().all(Value::is_object));
        is_group
            || (!self.is_locked(path) && self.named().any(|named| inner(&named, path).is_some()))
    }

    /// What an assignment changes that is locked.
    fn harm(&self, path: &str, value: &Value) -> Option<String> {
        if let Some(allowed) = self.allowed(path) {
            let is_allowed = allowed.iter().any(|allowed| same(allowed, value));
            return (!is_allowed).then(|| format!("{path} is locked"));
        }
        // But for what is locked.
        let mut others = value.clone();
        for locked in self.locked_inside(path) {
            let rest = inner(&locked, path).unwrap_or_default();
            take_out(&mut others, rest);
            let (fixed, now) = (self.fixed_at(&locked), dig(value, rest));
            let lax = lax_dig(value, rest);
            let is_kept = match now {
                None => fixed.is_empty(),
                Some(now) => fixed.iter().any(|fixed| same(fixed, now)),
            };
            if !is_kept || !lax.iter().all(|now| fixed.iter().any(|fixed| same(fixed, now))) {
                return Some(format!("{locked} is locked, and {path} around it is set"));
            }
        }
        self.names_another_model(path, &others).then(|| format!("{path} names another model"))
    }

    fn names_another_model(&self, path: &str, value: &Value) -> bool {
        let Some(models) = &self.terms.models else { return false };
        let is_model = path == "model" || path.ends_with(".model");
        path != "tools" && names_another_model(models, is_model, value)
    }

    fn closes_instructions(&self) -> bool {
        self.is_locked("instructions") || self.is_locked("prompt")
    }

    /// Whether an item would instruct or give tools where that is locked.
    fn is_closed_to(&self, item: &Value) -> bool {
        (self.closes_instructions() && has(item, &instructs))
            || (self.is_locked("tools") && has(item, &gives_tools))
    }

    /// The same of the value of a setting.
    fn is_closed_to_items_in(&self, name: &str, value: &Value) -> bool {
        let rest = self.beyond_fixed(&self.names().path_of("", name), value);
        !WITHOUT_ITEMS.contains(&&*lax(name)) && self.is_closed_to(&rest)
    }

    /// What is left of the value of a setting or group without what is fixed just so.
    fn beyond_fixed(&self, path: &str, value: &Value) -> Value {
        if self.fixed_at(path).iter().any(|fixed| same(fixed, value)) {
            return Value::Null;
        }
        let Value::Object(group) = value else { return value.clone() };
        let mut rest = group.clone();
        if self.names().is_group(path) {
            for (name, value) in group {
                let beyond = self.beyond_fixed(&self.names().path_of(path, name), value);
                if beyond.is_null() {
                    rest.remove(name);
                } else {
                    rest[name] = beyond;
                }
            }
        }
        rest.into()
    }

    fn check_harmless(&self, handed: &Map<String, Value>, holds: Holds) -> Result<(), String> {
        for (name, value) in handed {
            let is_plain = !value.is_object() && !value.is_array();
            if name != "type"
                && Some(name.as_str()) != holds.field()
                && !(is_plain && holds.has_beside(name))
            {
                return Err(format!("{name:?} arrived beside the settings"));
            }
        }
        let held = holds.field().and_then(|field| handed.get(field));
        match (holds, held) {
            (_, Some(Value::Object(settings))) if holds.has_settings() => {
                for (path, value) in self.names().assignments(settings) {
                    if let Some(harm) = self.harm(&path, value) {
                        return Err(format!("this arrived: {path} = {value}: {harm}"));
                    }
                }
                for (name, value) in settings {
                    if self.is_closed_to_items_in(name, value) {
                        return Err(format!("an item in {name:?} arrived"));
                    }
                }
                Ok(())
            }
            (_, Some(_)) if holds.has_settings() => Err("no settings arrived".into()),
            (Holds::Item, Some(item)) if self.is_closed_to(item) => Err("an item arrived".into()),
            (Holds::Instruction, _) if self.closes_instructions() => {
                Err("an instruction arrived".into())
            }
            _ => Ok(()),
        }
    }

    /// What of `event` is not in `handed`, or what should be.
    fn difference(
        &self,
        event: &Map<String, Value>,
        handed: &Map<String, Value>,
        holds: Holds,
    ) -> Result<Difference, String> {
        let mut difference = Difference::default();
        for (name, value) in event {
            let is_held = Some(name.as_str()) == holds.field();
            match (value, handed.get(name)) {
                (_, Some(same)) if same == value => {}
                (Value::Object(settings), Some(Value::Object(handed)))
                    if is_held && holds != Holds::Item =>
                {
                    self.compare("", &format!("{name}."), settings, handed, &mut difference)?;
                }
                (_, Some(_)) => return Err(format!("{name:?} was changed")),
                (_, None) if is_held || name == "type" => return Err(format!("{name:?} is lost")),
                (Value::Object(_) | Value::Array(_), None) => difference.taken.push(name.clone()),
                (_, None) if holds.has_beside(name) => return Err(format!("{name:?} is lost")),
                (_, None) => difference.taken.push(name.clone()),
            }
        }
        match handed.keys().find(|name| !event.contains_key(*name)) {
            Some(name) => Err(format!("{name:?} was put in")),
            None => Ok(difference),
        }
    }

    /// The same of the settings in the object at `parent`.
    fn compare(
        &self,
        parent: &str,
        spelled: &str,
        sent: &Map<String, Value>,
        handed: &Map<String, Value>,
        difference: &mut Difference,
    ) -> Result<(), String> {
        for (name, value) in sent {
            let path = self.names().path_of(parent, name);
            let spelled = format!("{spelled}{name}");
            let has_items = parent.is_empty() && self.is_closed_to_items_in(name, value);
            match (value, handed.get(name)) {
                (_, Some(handed)) if handed == value => {}
                _ if self.is_odd(name) || self.is_torn(&path) => difference.odd.push(spelled),
                (Value::Array(items), handed) if has_items => {
                    let rest: Vec<_> =
                        items.iter().filter(|item| !self.is_closed_to(item)).cloned().collect();
                    for (index, item) in items.iter().enumerate() {
                        if self.is_closed_to(item) {
                            difference.taken.push(format!("{spelled}[{index}]"));
                        }
                    }
                    let rest = Value::Array(rest);
                    match handed {
                        Some(handed) if *handed == rest => {}
                        Some(_) => return Err(format!("{spelled} was changed")),
                        None if self.may_take(name, &path, &rest) => difference.taken.push(spelled),
                        None => return Err(format!("{spelled} is lost")),
                    }
                }
                (_, None) if has_items => difference.taken.push(spelled),
                (Value::Object(inner), Some(Value::Object(handed)))
                    if self.is_looked_into(&path) =>
                {
                    self.compare(&path, &format!("{spelled}."), inner, handed, difference)?;
                }
                (Value::Object(inner), None) if !inner.is_empty() && self.is_looked_into(&path) => {
                    let none = Map::new();
                    self.compare(&path, &format!("{spelled}."), inner, &none, difference)?;
                }
                (_, None) if self.may_take(name, &path, value) => difference.taken.push(spelled),
                (_, None) => return Err(format!("{spelled} is lost: {value}")),
                // Taken out, and what is locked put in.
                (_, Some(handed))
                    if self.may_take(name, &path, value) && self.may_put_in(&path, handed) =>
                {
                    difference.taken.push(spelled);
                    difference.put_in = true;
                }
                (_, Some(handed)) => {
                    return Err(format!("{spelled} was changed from {value} to {handed}"));
                }
            }
        }
        for (name, value) in handed.iter().filter(|(name, _)| !sent.contains_key(*name)) {
            if !self.may_put_in(&self.names().path_of(parent, name), value) {
                return Err(format!("{spelled}{name} was put in"));
            }
            difference.put_in = true;
        }
        Ok(())
    }

    /// Whether something may be taken out.
    fn may_take(&self, name: &str, path: &str, value: &Value) -> bool {
        let hides_locked =
            !value.is_object() && (!self.locked_inside(path).is_empty() || self.mints_inside(path));
        let is_ambiguous = self.fixed_at(path).len() > 1;
        self.is_odd(name) || hides_locked || is_ambiguous || self.harm(path, value).is_some()
    }

    /// Whether it is a name that hardly anybody has, and that may be taken for another.
    fn is_odd(&self, name: &str) -> bool {
        let name = lax(name);
        name.contains('.') || !name.is_ascii()
    }

    /// Whether it is a group that was set as a whole, to no object, and in parts as well: who knows
    /// what is left of it.
    fn is_torn(&self, path: &str) -> bool {
        self.names().is_group(path)
            && outer(path)
                .chain([path])
                .any(|group| self.fixed.get(group).is_some_and(|values| values.len() > 1))
    }

    /// Whether something may be put in: what the terms name, as it is fixed.
    fn may_put_in(&self, path: &str, value: &Value) -> bool {
        if self.is_named(path) && self.fixed_at(path).iter().any(|fixed| same(fixed, value)) {
            return true;
        }
        value.as_object().is_some_and(|object| {
            !object.is_empty()
                && object
                    .iter()
                    .all(|(name, value)| self.may_put_in(&self.names().path_of(path, name), value))
        })
    }

    /// What is left of an event without all that may be taken out.
    fn trim(&self, event: &Map<String, Value>, left: &mut Map<String, Value>, holds: Holds) {
        for (name, value) in event {
            let is_plain = !value.is_object() && !value.is_array();
            if name == "type" || (is_plain && holds.has_beside(name)) {
                left.insert(name.clone(), value.clone());
            }
            if Some(name.as_str()) == holds.field() {
                let mut inner = value.clone();
                if let (Value::Object(inner), false) = (&mut inner, holds == Holds::Item) {
                    inner.retain(|name, value| !self.is_closed_to_items_in(name, value));
                    self.trim_settings("", inner);
                }
                left.insert(name.clone(), inner);
            }
        }
    }

    fn trim_settings(&self, parent: &str, settings: &mut Map<String, Value>) {
        settings.retain(|name, value| {
            let path = self.names().path_of(parent, name);
            match value {
                Value::Object(inner) if self.is_looked_into(&path) && !self.is_odd(name) => {
                    let was_empty = inner.is_empty();
                    self.trim_settings(&path, inner);
                    was_empty || !inner.is_empty()
                }
                _ => !self.may_take(name, &path, value),
            }
        });
    }
}

/// Whether an error event was the answer, with one of these codes.
fn replied(done: &Done<'_>, codes: &[&'static str]) -> Result<Outcome, String> {
    let Done::Replied(text) = done else {
        return Err(format!("passed on instead of refused as {codes:?}"));
    };
    let event: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let code = codes.iter().find(|code| event["error"]["code"] == **code);
    match (event["type"].as_str(), code) {
        (Some("error"), Some(code)) => Ok(Outcome::Replied(code)),
        _ => Err(format!("refused as {}, not as {codes:?}", event["error"]["code"])),
    }
}

// Settings

/// The names that a provider has for its settings.
#[derive(Clone, Copy)]
struct Names {
    own: bool,
}

impl Names {
    /// What an update assigns, by one path a setting.
    ///
    /// No setting has a dot in its name.
    fn assignments(self, settings: &Map<String, Value>) -> Vec<(String, &Value)> {
        let mut found = Vec::new();
        self.add_assignments("", settings, &mut found);
        found
    }

    fn add_assignments<'v>(
        self,
        parent: &str,
        settings: &'v Map<String, Value>,
        found: &mut Vec<(String, &'v Value)>,
    ) {
        for (name, value) in settings {
            let path = self.path_of(parent, name);
            match value {
                _ if lax(name).contains('.') => {}
                Value::Object(inner) if self.is_group(&path) => {
                    self.add_assignments(&path, inner, found);
                }
                _ => found.push((path, value)),
            }
        }
    }

    /// Where two spellings of one setting differ, both values may count. So may what was in a
    /// group that is no object any more, or was none before.
    fn assign(self, state: &mut State, settings: &Map<String, Value>) {
        let assigned = self.assignments(settings);
        for (path, _) in &assigned {
            state.remove(path);
        }
        for (path, value) in &assigned {
            state.entry(path.clone()).or_default().push((*value).clone());
        }
        for (path, _) in &assigned {
            for (known, values) in state.iter_mut() {
                if inner(known, path).is_some() || inner(path, known).is_some() {
                    values.push(Value::Null);
                }
            }
        }
    }

    fn path_of(self, parent: &str, name: &str) -> String {
        let name = lax(name);
        if parent.is_empty() {
            self.canonical(&name)
        } else {
            self.canonical(&format!("{parent}.{name}"))
        }
    }

    /// The present name of a setting, or of what is in it.
    fn canonical(self, path: &str) -> String {
        let own = OWN_RENAMED.iter().filter(|_| self.own);
        for (old, new) in RENAMED.iter().chain(own) {
            match inner(path, old) {
                _ if path == *old => return (*new).into(),
                Some(rest) => return format!("{new}.{rest}"),
                None => {}
            }
        }
        path.into()
    }

    /// Whether an update of it merges.
    fn is_group(self, path: &str) -> bool {
        GROUPS.contains(&path) || (self.own && path == OWN_GROUP)
    }
}

/// A name as the most careless server reads it.
fn lax(name: &str) -> String {
    let name = name.split('\0').next().unwrap_or_default();
    name.replace('ſ', "s").replace('\u{212a}', "k").to_lowercase()
}

/// What is left of a path inside of `outer`.
fn inner<'p>(path: &'p str, outer: &str) -> Option<&'p str> {
    path.strip_prefix(outer)?.strip_prefix('.')
}

/// Whether that is what follows of a path or an index inside.
fn is_inner(rest: &str) -> bool {
    rest.starts_with(['.', '['])
}

/// The paths around a path.
fn outer(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(dot, _)| &path[..dot])
}

fn dig<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

fn take_out(value: &mut Value, path: &str) {
    let Some(object) = value.as_object_mut() else { return };
    match path.split_once('.') {
        None => drop(object.remove(path)),
        Some((first, rest)) => {
            if let Some(inner) = object.get_mut(first) {
                take_out(inner, rest);
            }
        }
    }
}

/// What a careless server may find at the path.
fn lax_dig<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let object = value.as_object().into_iter().flatten();
    let found = object.filter(|(name, _)| lax(name) == first).map(|(_, value)| value);
    if rest.is_empty() { found.collect() } else { found.flat_map(|v| lax_dig(v, rest)).collect() }
}

fn names_another_model(models: &[String], is_model: bool, value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| names_another_model(models, is_model, item)),
        // A model is named, not described.
        Value::Object(object) => {
            is_model
                || object
                    .iter()
                    .any(|(name, value)| names_another_model(models, lax(name) == "model", value))
        }
        _ => is_model && !models.iter().any(|model| value == model),
    }
}

fn instructs(name: &str, value: &Value) -> bool {
    name == "role" && !["assistant", "user"].iter().any(|speaker| value == speaker)
}

fn gives_tools(name: &str, value: &Value) -> bool {
    name == "type" && value.as_str().is_some_and(|kind| lax(kind) == "mcp_list_tools")
}

/// Whether anything in `value` has such a member.
fn has(value: &Value, member: &dyn Fn(&str, &Value) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has(item, member)),
        Value::Object(object) => {
            object.iter().any(|(name, value)| member(&lax(name), value) || has(value, member))
        }
        _ => false,
    }
}

/// Whether two values are one to a reader: `1` and `1.0` are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|((name, one), (known, other))| name == known && same(one, other))
        }
        _ => one == other,
    }
}

// JSON

/// The value of a text that all parsers read in one way.
pub fn strict(text: &str) -> Option<Value> {
    serde_json::from_str::<NothingTwice>(text).ok().map(|value| value.0)
}

struct NothingTwice(Value);

impl<'de> Deserialize<'de> for NothingTwice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON with no name twice")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut array = Vec::new();
                while let Some(NothingTwice(item)) = items.next_element()? {
                    array.push(item);
                }
                Ok(array.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((name, NothingTwice(value))) = members.next_entry::<String, _>()? {
                    if object.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a name stands twice"));
                    }
                }
                Ok(object.into())
            }
        }

        deserializer.deserialize_any(Any).map(Self)
    }
}

/// How many objects and arrays are around the innermost.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}
