//! What the clients of a provider may send in a session, and what of it is a setting.

use std::{borrow::Cow, sync::Arc};

use super::{
    path::{fold, is_inside},
    tables::{
        ALIASES, INSTRUCTION_MEMBERS, INSTRUCTIONS, ITEMS, MEMBERS, PLAIN, PLAIN_MEMBERS,
        SESSION_SETTINGS,
    },
};

/// The longest message of a client unless told otherwise: OpenAI's clients send up to 15 MiB of
/// audio in one event.
const MAX_MESSAGE_LEN: usize = 16 * 1024 * 1024;

/// What an event of the client carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carries {
    /// Nothing that could be a setting.
    Nothing,
    /// Settings of the session, in the field of this name.
    SessionSettings(Box<str>),
    /// Settings of one response, in the field of this name.
    ResponseSettings(Box<str>),
    /// An item of the conversation, in the field of this name. One from the system or a developer
    /// is an instruction.
    Item(Box<str>),
    /// An instruction.
    Instruction,
    /// The end of the session.
    End,
}

impl Carries {
    /// The field that it stands in.
    pub(super) fn field(&self) -> Option<&str> {
        match self {
            Self::SessionSettings(field) | Self::ResponseSettings(field) | Self::Item(field) => {
                Some(field)
            }
            Self::Nothing | Self::Instruction | Self::End => None,
        }
    }
}

/// What becomes of a change to a locked setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnChange {
    /// The locked value is kept and the rest of the event goes through, as with Gemini. Several
    /// real clients send such changes by themselves, and one stops for good at an error.
    #[default]
    Keep,
    /// The event is refused with an error event, code `immutable_field_update`, as with OpenAI
    /// Live.
    Refuse,
}

/// What the clients of a provider may send in a session, and what of it is a setting.
///
/// The default knows every client event of OpenAI Realtime (general availability, beta,
/// transcription, translation), OpenAI Live, xAI, Swaram and Decart:
///
/// | event | carries |
/// |---|---|
/// | `session.update`, `transcription_session.update`, `session.start` | settings in `session` |
/// | `response.create` | settings of one response in `response`, items in its `input` |
/// | `conversation.item.create`, `decision.item.create`, `response.item.create` | an item |
/// | `session.instructions.append`, `session.thinking.append`, `session.commentary.append`, `decision.create`, `prompt`, `set_image` | an instruction |
/// | `session.close` | the end |
/// | `input_audio_buffer.*`, `output_audio_buffer.clear`, `conversation.item.delete`, `.retrieve`, `.truncate`, `response.cancel`, `session.input_audio*`, `livekit_join`, … | nothing |
///
/// Any other event is refused while something is locked: what it means cannot be judged. What an
/// event has beside that field and the members known by name ([`with_member`](Self::with_member))
/// is taken out.
///
/// ```
/// use tower_realtime_auth::{Carries, OnChange, Profile, SessionRules};
///
/// let rules = SessionRules::default()
///     .with_event("agent.configure", Carries::SessionSettings("agent".into()))
///     .with_event("agent.ping", Carries::Nothing)
///     .with_alias("speaker", "audio.output.voice")
///     .with_on_change(OnChange::Refuse);
/// let profile = Profile::default().with_session_rules(rules);
/// ```
#[derive(Debug, Clone)]
pub struct SessionRules {
    events: Arc<[(Box<str>, Carries)]>,
    members: Arc<[Box<str>]>,
    aliases: Arc<[(Box<str>, Box<str>)]>,
    on_change: OnChange,
    locks_when_begun: bool,
    takes_binary: bool,
    error_texts: bool,
    max_message_len: usize,
}

impl Default for SessionRules {
    fn default() -> Self {
        let carries = |carries: Carries| move |event: &&str| (Box::from(*event), carries.clone());
        let session = Carries::SessionSettings("session".into());
        let events = [
            PLAIN.iter().map(carries(Carries::Nothing)).collect::<Vec<_>>(),
            SESSION_SETTINGS.iter().map(carries(session)).collect(),
            vec![("response.create".into(), Carries::ResponseSettings("response".into()))],
            ITEMS.iter().map(carries(Carries::Item("item".into()))).collect(),
            INSTRUCTIONS.iter().map(carries(Carries::Instruction)).collect(),
            vec![("session.close".into(), Carries::End)],
        ];
        let aliases = ALIASES.iter().map(|(alias, path)| (Box::from(*alias), Box::from(*path)));
        Self {
            events: events.into_iter().flatten().collect(),
            members: MEMBERS.iter().map(|name| Box::from(*name)).collect(),
            aliases: aliases.collect(),
            on_change: OnChange::default(),
            locks_when_begun: false,
            takes_binary: false,
            error_texts: false,
            max_message_len: MAX_MESSAGE_LEN,
        }
    }
}

impl SessionRules {
    /// The same, with an event that carries this, whatever it carried before.
    #[must_use]
    pub fn with_event(self, event: &str, carries: Carries) -> Self {
        let others = self.events.iter().filter(|(known, _)| **known != *event).cloned();
        Self { events: others.chain([(event.into(), carries.clone())]).collect(), ..self }
    }

    /// The same, without knowledge of any event.
    #[must_use]
    pub fn without_events(self) -> Self {
        Self { events: [].into(), ..self }
    }

    /// The same, with a member that events may have beside what they carry: a text, a number, a
    /// truth value or null, and no setting.
    #[must_use]
    pub fn with_member(self, name: &str) -> Self {
        Self { members: self.members.iter().cloned().chain([name.into()]).collect(), ..self }
    }

    /// The same, with another spelling of the setting at the dotted `path`, which may itself be
    /// one of several. The objects that either leads through are groups: each setting in them is
    /// judged by itself.
    #[must_use]
    pub fn with_alias(self, alias: &str, path: &str) -> Self {
        let (alias, path) = (fold(alias), fold(path));
        let (known, path) = (self.canonical(&alias), self.canonical(&path));
        if known == path {
            return self;
        }
        // What was a spelling of the alias is now one of the path.
        let others = self.aliases.iter().map(|(other, leads_to)| {
            let inside = leads_to.strip_prefix(&*known);
            match inside.filter(|inside| inside.is_empty() || inside.starts_with('.')) {
                Some(inside) => (other.clone(), format!("{path}{inside}").into()),
                None => (other.clone(), leads_to.clone()),
            }
        });
        let added = [&alias, &known].map(|alias| (Box::from(&**alias), Box::from(&*path)));
        let aliases = others.chain(added).collect();
        Self { aliases, ..self }
    }

    /// What becomes of a change to a locked setting. The default is [`OnChange::Keep`].
    #[must_use]
    pub fn with_on_change(self, on_change: OnChange) -> Self {
        Self { on_change, ..self }
    }

    /// Whether all settings lock when the conversation begins, which is when the client first
    /// sends anything but session settings. Swaram's do; the default is no.
    #[must_use]
    pub fn with_lock_when_begun(self, locks_when_begun: bool) -> Self {
        Self { locks_when_begun, ..self }
    }

    /// Whether binary messages carry nothing that could be a setting, audio for instance. The
    /// default is no: they end the session with 1003.
    #[must_use]
    pub fn with_binary(self, takes_binary: bool) -> Self {
        Self { takes_binary, ..self }
    }

    /// Whether error events carry a text alone, `{"type": "error", "error": TEXT}`, as Decart's do:
    /// its clients take nothing else for an error. The default is no: they carry OpenAI's object.
    #[must_use]
    pub fn with_error_texts(self, error_texts: bool) -> Self {
        Self { error_texts, ..self }
    }

    /// The longest message of a client, in bytes; past it the session ends with 1009. The default
    /// is 16 MiB.
    #[must_use]
    pub fn with_max_message_len(self, max_message_len: usize) -> Self {
        Self { max_message_len, ..self }
    }

    /// What an event of this type carries. `None`: it is not known.
    #[must_use]
    pub fn carries(&self, event: &str) -> Option<&Carries> {
        self.carries_of(event.as_bytes())
    }

    pub(super) fn carries_of(&self, event: &[u8]) -> Option<&Carries> {
        let mut events = self.events.iter();
        events.find(|(known, _)| known.as_bytes() == event).map(|(_, carries)| carries)
    }

    /// Whether an event that carries this may have a member of this name beside.
    pub(super) fn is_member(&self, name: &[u8], carries: &Carries) -> bool {
        let of_its_kind: &[&str] = match carries {
            Carries::Nothing | Carries::End => &PLAIN_MEMBERS,
            Carries::Instruction => &INSTRUCTION_MEMBERS,
            Carries::SessionSettings(_) | Carries::ResponseSettings(_) | Carries::Item(_) => &[],
        };
        of_its_kind.iter().any(|known| known.as_bytes() == name)
            || self.members.iter().any(|known| known.as_bytes() == name)
    }

    pub(super) const fn on_change(&self) -> OnChange {
        self.on_change
    }

    pub(crate) const fn lock_when_begun(&self) -> bool {
        self.locks_when_begun
    }

    pub(super) const fn takes_binary(&self) -> bool {
        self.takes_binary
    }

    pub(super) const fn error_texts(&self) -> bool {
        self.error_texts
    }

    pub(super) const fn max_message_len(&self) -> usize {
        self.max_message_len
    }

    /// The one path of a setting, whatever its spelling. The path given is [`fold`]ed.
    pub(super) fn canonical<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let mut path = Cow::Borrowed(path);
        // What a group is an alias of may have aliases inside.
        if let Some((group, name)) = path.rsplit_once('.')
            && let Cow::Owned(group) = self.canonical(group)
        {
            path = Cow::Owned(format!("{group}.{name}"));
        }
        match self.aliases.iter().find(|(alias, _)| **alias == *path) {
            Some((_, canonical)) => Cow::Owned(canonical.to_string()),
            None => path,
        }
    }

    /// The other spellings of a setting, by its one path.
    pub(super) fn spellings<'a>(&'a self, canonical: &'a str) -> impl Iterator<Item = String> + 'a {
        self.aliases.iter().filter_map(move |(alias, path)| {
            let inside = canonical.strip_prefix(&**path)?;
            (inside.is_empty() || inside.starts_with('.')).then(|| format!("{alias}{inside}"))
        })
    }

    /// The aliases of what lies inside of the group at `path`.
    pub(super) fn aliases_inside<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        self.aliases
            .iter()
            .filter(move |(alias, inner)| is_inside(inner, path) || is_inside(alias, path))
            .map(|(alias, _)| &**alias)
    }

    /// Whether the object at `path` merely groups settings.
    pub(super) fn is_group(&self, path: &str) -> bool {
        self.aliases.iter().any(|(alias, inner)| is_inside(inner, path) || is_inside(alias, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_spellings_are_one_setting() {
        let rules = SessionRules::default()
            .with_alias("speaker", "voice")
            .with_alias("out", "audio.output")
            .with_alias("Generation.TopK", "top_k")
            .with_alias("audio.output.speed", "pace")
            .with_alias("voice", "speaker");
        for (spelled, path) in [
            ("voice", "audio.output.voice"),
            ("speaker", "audio.output.voice"),
            ("speaker.id", "audio.output.voice.id"),
            ("out.voice", "audio.output.voice"),
            ("generation.topk", "top_k"),
            ("speed", "pace"),
            ("out.speed", "pace"),
            ("audio.output.speed", "pace"),
            ("x.speaker", "x.speaker"),
        ] {
            assert_eq!(rules.canonical(spelled), path, "{spelled}");
        }
        for group in ["audio", "audio.output", "generation"] {
            assert!(rules.is_group(group), "{group}");
        }
        assert!(!rules.is_group("audio.output.voice"));
    }
}
