//! The guard: the client's events in, verdicts out, no I/O.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Carries, End, Held, Lock, OnChange, SessionRules, Settings, items,
    refused::{Refused, read},
    scan::plain_type,
    settings::follow,
};
use crate::Grants;

/// Keeps a session to the settings that its key has locked.
///
/// Give it every event that the client sends, whole and in order, before anything else reads it.
/// What it forwards is exactly what it judged.
///
/// - What would change a locked setting is taken out of the event and the rest goes on, or the
///   event is refused ([`OnChange`]).
/// - While something is locked, an event of a type that the [`SessionRules`] do not know is
///   refused with an error event, and the session lives on. So is what parsers read in different
///   ways: a name twice in an object, a lone surrogate, anything nested deeper than 64.
/// - Equal values pass, in any spelling that the rules know.
///
/// ```
/// use tower_realtime_auth::{Grants, SessionGuard, Settings, Verdict};
///
/// let settings = Settings::parse(r#"{"voice": "marin"}"#)?;
/// let mut guard = SessionGuard::new(&Grants::default().with_session(settings), None);
///
/// // What the key did not set is the client's ...
/// let update = r#"{"type": "session.update", "session": {"instructions": "Hi."}}"#;
/// assert!(matches!(guard.client(update), Verdict::Forward(_)));
///
/// // ... what it did set stays.
/// let update = r#"{"type": "session.update", "session": {"voice": "cedar"}}"#;
/// let Verdict::Rewrite { text, kept } = guard.client(update) else { panic!("not kept") };
/// assert_eq!(text, r#"{"session":{},"type":"session.update"}"#);
/// assert_eq!(kept, ["session.voice"]);
///
/// // An event that nobody can judge is refused, with an error event for the client.
/// assert!(matches!(guard.client(r#"{"type": "session.become"}"#), Verdict::Reply(_)));
/// # Ok::<(), tower_realtime_auth::InvalidSettings>(())
/// ```
#[derive(Debug, Clone)]
pub struct SessionGuard {
    settings: Option<Settings>,
    /// What they are by now, where the client's are to be locked too. `None`: as they were.
    chosen: Option<Settings>,
    lock: Lock,
    model: Option<Arc<str>>,
    models: Option<Arc<[Arc<str>]>>,
    max_session: Option<Duration>,
    rules: Arc<SessionRules>,
    state: State,
    refused: u32,
    /// Kept for as long as the session lasts, if it is one of few.
    #[cfg(feature = "limit")]
    #[expect(dead_code, reason = "it is there to be dropped")]
    permit: Option<crate::limit::SessionPermit>,
}

/// How far the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Only session settings were sent.
    NotBegun,
    Begun,
    /// The client ended it.
    Ended,
}

/// What to do with an event of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict<'a> {
    /// Pass it on as it is.
    Forward(&'a str),
    /// Pass this on instead: the event without what would have changed a locked setting.
    Rewrite {
        /// The event to pass on.
        text: String,
        /// The paths at which the locked value was kept, as the client spelled them.
        kept: Vec<String>,
    },
    /// Pass nothing on; send this error event to the client. The session lives on.
    Reply(String),
    /// Pass nothing on, and end the session like this.
    End(End),
}

/// What was done to an event that may be passed on.
#[derive(Default)]
struct Judged {
    /// The paths taken out.
    kept: Vec<String>,
    /// Whether something was put in.
    completed: bool,
}

impl Judged {
    fn add(&mut self, more: Self) {
        self.kept.extend(more.kept);
        self.completed |= more.completed;
    }
}

impl SessionGuard {
    /// A guard over the settings and models of these grants, and over the model that the session
    /// is bound to, if it is to one. By the rules of the default profile.
    #[must_use]
    pub fn new(grants: &Grants, model: Option<&str>) -> Self {
        Self::with_rules(grants, model.map(Arc::from), Arc::default())
    }

    /// The same by other rules.
    #[must_use]
    pub fn with_rules(grants: &Grants, model: Option<Arc<str>>, rules: Arc<SessionRules>) -> Self {
        Self {
            settings: grants.session().cloned(),
            chosen: None,
            lock: grants.lock().cloned().unwrap_or_default(),
            model,
            models: grants.shared_models(),
            max_session: grants.max_session(),
            rules,
            state: State::NotBegun,
            refused: 0,
            #[cfg(feature = "limit")]
            permit: None,
        }
    }

    /// The same, that holds a place among the sessions at once.
    #[cfg(feature = "limit")]
    pub(crate) fn with_permit(self, permit: Option<crate::limit::SessionPermit>) -> Self {
        Self { permit, ..self }
    }

    /// Whether nothing is locked and nothing will be, so that every text message is forwarded.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.rules.lock_when_begun() && self.held().is_nothing()
    }

    /// What a proxy sends to the provider before anything of the client: an event that sets what
    /// the key sets. The model is named when connecting, not here. `None` if the key sets nothing
    /// else.
    #[must_use]
    pub fn opening(&self) -> Option<String> {
        let mut session = self.settings.as_ref()?.as_map().clone();
        session.remove("model");
        if session.keys().all(|name| name == "type") {
            return None;
        }
        session.entry("type").or_insert_with(|| "realtime".into());
        Some(json!({ "type": "session.update", "session": session }).to_string())
    }

    /// Whether binary messages may be passed on. If not, the session is to end with 1003.
    #[must_use]
    pub fn takes_binary(&self) -> bool {
        self.rules.takes_binary()
    }

    /// The longest message of the client, in bytes. Past it the session is to end with 1009.
    #[must_use]
    pub fn max_message_len(&self) -> usize {
        self.rules.max_message_len()
    }

    /// What the client is told before the Close of this end.
    pub(super) fn last_event(&self, end: &End) -> Option<String> {
        end.event_by(&self.rules)
    }

    /// The longest that the session may last ([`Grants::max_session`]).
    #[must_use]
    pub const fn max_session(&self) -> Option<Duration> {
        self.max_session
    }

    /// Judges one event of the client: a whole text message.
    pub fn client<'a>(&mut self, text: &'a str) -> Verdict<'a> {
        if text.len() > self.max_message_len() {
            return Verdict::End(End::too_big());
        }
        if self.is_idle() {
            return Verdict::Forward(text);
        }
        if self.state != State::Ended
            && let Some(kind) =
                plain_type(text, |name| self.rules.is_member(name, &Carries::Nothing))
            && self.rules.carries_of(kind) == Some(&Carries::Nothing)
        {
            self.begin();
            return Verdict::Forward(text);
        }
        let mut event = match read(text) {
            Ok(event) => event,
            Err(refused) => return self.reply(refused, Value::Null),
        };
        match self.judge(&mut event) {
            Ok(Judged { kept, completed: false }) if kept.is_empty() => Verdict::Forward(text),
            Ok(Judged { kept, .. }) => {
                Verdict::Rewrite { text: Value::Object(event).to_string(), kept }
            }
            Err(refused) => {
                let id = event.remove("event_id").filter(Value::is_string).unwrap_or_default();
                self.reply(refused, id)
            }
        }
    }

    fn judge(&mut self, event: &mut Map<String, Value>) -> Result<Judged, Refused> {
        if self.state == State::Ended {
            return Err(Refused::new("session_ended", "The session has ended."));
        }
        let Some(Value::String(kind)) = event.get("type") else {
            let refused = Refused::new("invalid_event", "The event has no 'type' of text.");
            return Err(refused.at("type"));
        };
        // A clone of the few bytes that name a field, so that the session may change meanwhile.
        let Some(carries) = self.rules.carries(kind).cloned() else {
            // The type is not repeated: it is the client's, and of any length.
            let message = "Events of this type are not taken while settings are locked.";
            return Err(Refused::new("invalid_value", message).at("type"));
        };
        if !matches!(carries, Carries::SessionSettings(_) | Carries::End) {
            self.begin();
        }
        let mut judged = self.take_out_strangers(event, &carries);
        match &carries {
            Carries::SessionSettings(field) | Carries::ResponseSettings(field) => {
                judged.add(self.judge_settings(event, field)?);
            }
            Carries::Item(field) => {
                if !event.get(&**field).is_none_or(|item| items::passes(&self.held(), item)) {
                    let message = "Instructions and tools are locked for this session: only items \
                                   of the user and the assistant may be added.";
                    return Err(Refused::locked(message).at(&**field));
                }
            }
            Carries::Instruction => {
                if !items::may_instruct(&self.held()) {
                    let message = "Instructions are locked for this session.";
                    return Err(Refused::locked(message).at("type"));
                }
            }
            Carries::Nothing | Carries::End => {}
        }
        if let (Some(path), OnChange::Refuse) = (judged.kept.first(), self.rules.on_change()) {
            return Err(Refused::locked("This is locked for the session.").at(path));
        }
        match carries {
            Carries::SessionSettings(field) => self.follow(event, &field),
            Carries::End => self.state = State::Ended,
            _ => {}
        }
        Ok(judged)
    }

    /// Takes out what no such event has beside its `type` and what it carries.
    fn take_out_strangers(&self, event: &mut Map<String, Value>, carries: &Carries) -> Judged {
        let mut judged = Judged::default();
        event.retain(|name, value| {
            let passes = name == "type"
                || carries.field().is_some_and(|field| name == field)
                || (self.rules.is_member(name.as_bytes(), carries)
                    && !value.is_object()
                    && !value.is_array());
            if !passes {
                judged.kept.push(name.clone());
            }
            passes
        });
        judged
    }

    /// Judges the settings in `field`.
    fn judge_settings(
        &self,
        event: &mut Map<String, Value>,
        field: &str,
    ) -> Result<Judged, Refused> {
        let settings = match event.get_mut(field) {
            Some(Value::Object(settings)) => settings,
            None => return Ok(Judged::default()),
            Some(_) => {
                let message = "The settings of the event are not an object.";
                return Err(Refused::new("invalid_value", message).at(field));
            }
        };
        let held = self.held();
        let mut kept = items::filter(&held, settings);
        let filtered = held.filter(settings);
        kept.extend(filtered.kept);
        let kept = kept.into_iter().map(|path| format!("{field}.{path}")).collect();
        Ok(Judged { kept, completed: filtered.completed })
    }

    /// Notes what the client has set, if that is to be locked once the conversation begins.
    fn follow(&mut self, event: &Map<String, Value>, field: &str) {
        if let (State::NotBegun, true) = (self.state, self.rules.lock_when_begun())
            && let Some(Value::Object(update)) = event.get(field)
        {
            let mut settings = self.present();
            follow(&self.rules, &mut settings, update);
            self.chosen = Some(Settings::from_map(settings));
        }
    }

    /// What is set before the conversation begins, each setting at its one path.
    fn present(&self) -> Map<String, Value> {
        if let Some(chosen) = &self.chosen {
            return Map::clone(chosen.as_map());
        }
        let mut settings = Map::new();
        if let Some(set) = &self.settings {
            follow(&self.rules, &mut settings, set.as_map());
        }
        settings
    }

    /// The conversation has begun, if it had not.
    fn begin(&mut self) {
        if self.state == State::NotBegun {
            self.state = State::Begun;
            if self.rules.lock_when_begun() {
                self.settings = Some(Settings::from_map(self.present()));
                self.chosen = None;
                self.lock.lock_all();
            }
        }
    }

    fn held(&self) -> Held<'_> {
        Held {
            settings: self.settings.as_ref().map(Settings::as_map),
            lock: &self.lock,
            model: self.model.as_deref(),
            models: self.models.as_deref(),
            rules: &self.rules,
        }
    }

    fn reply(&mut self, refused: Refused, event_id: Value) -> Verdict<'static> {
        if self.rules.error_texts() {
            return Verdict::Reply(refused.into_text_event());
        }
        self.refused = self.refused.wrapping_add(1);
        let id = format!("event_refused_{}", self.refused);
        Verdict::Reply(refused.into_event(&id, event_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard_by(settings: &str, rules: SessionRules) -> SessionGuard {
        let grants = Grants::default().with_session(Settings::parse(settings).unwrap());
        SessionGuard::with_rules(&grants, None, Arc::new(rules))
    }

    fn guard_over(settings: &str) -> SessionGuard {
        guard_by(settings, SessionRules::default())
    }

    fn guard() -> SessionGuard {
        guard_over(r#"{"model":"m","voice":"a","instructions":"Be kind.","tools":[]}"#)
    }

    /// The error object of a reply.
    fn error(verdict: Verdict<'_>) -> Value {
        let Verdict::Reply(event) = verdict else { panic!("no reply: {verdict:?}") };
        let mut event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["type"], "error");
        assert!(event["event_id"].is_string());
        event["error"].take()
    }

    #[test]
    fn every_event_that_carries_settings_is_held_to_the_lock() {
        for (event, field) in [
            ("session.update", "session"),
            ("transcription_session.update", "session"),
            ("session.start", "session"),
            ("response.create", "response"),
        ] {
            let sent = format!(
                r#"{{"type":"{event}","event_id":"e1","{field}":{{"voice":"b","instructions":"x","temperature":1}}}}"#
            );
            let mut guard = guard();
            let Verdict::Rewrite { text, kept } = guard.client(&sent) else { panic!("{event}") };
            let through: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                through,
                json!({ "type": event, "event_id": "e1", field: { "temperature": 1 } })
            );
            assert_eq!(kept, [format!("{field}.instructions"), format!("{field}.voice")]);
        }
    }

    #[test]
    fn what_no_event_has_is_taken_out() {
        for (sent, through, strangers) in [
            (
                r#"{"type":"session.update","voice":"b","event_id":"e"}"#,
                r#"{"event_id":"e","type":"session.update"}"#,
                &["voice"][..],
            ),
            (
                r#"{"type":"response.create","Response":{}}"#,
                r#"{"type":"response.create"}"#,
                &["Response"],
            ),
            (
                r#"{"type":"input_audio_buffer.append","audio":"A","session":{},"x":1}"#,
                r#"{"audio":"A","type":"input_audio_buffer.append"}"#,
                &["session", "x"],
            ),
            (
                r#"{"type":"input_audio_buffer.append","audio":{},"event_id":[]}"#,
                r#"{"type":"input_audio_buffer.append"}"#,
                &["audio", "event_id"],
            ),
        ] {
            let mut guard = guard();
            let Verdict::Rewrite { text, kept } = guard.client(sent) else { panic!("{sent}") };
            assert_eq!(text, through);
            assert_eq!(kept, strangers);
        }
    }

    #[test]
    fn equal_values_and_plain_events_pass_byte_for_byte() {
        for sent in [
            r#"{ "type":"session.update", "session":{ "model":"m", "voice":"a" } }"#,
            r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#,
            r#"{"type":"input_audio_buffer.append","audio":"A\n"}"#,
            r#"{"type":"response.create"}"#,
            r#"{"type":"response.create","response":{"input":"text","metadata":{}}}"#,
            r#"{"type":"conversation.item.create","item":{"type":"message","role":"user"}}"#,
            r#"{"type":"conversation.item.create","item":{"type":"function_call_output"}}"#,
            r#"{"type":"conversation.item.create"}"#,
        ] {
            assert_eq!(guard().client(sent), Verdict::Forward(sent));
        }
    }

    #[test]
    fn what_cannot_be_judged_is_not_forwarded() {
        for (sent, code) in [
            ("", "invalid_json"),
            ("[]", "invalid_json"),
            ("{", "invalid_json"),
            (r#"{"type":"session.update","type":"x","session":{"voice":"b"}}"#, "invalid_json"),
            (
                r#"{"type":"session.update","session":{"voice":"a","\u0076oice":"b"}}"#,
                "invalid_json",
            ),
            (r#"{"type":"x","a":"\ud800"}"#, "invalid_json"),
            (r#"{"type":"session.update","session":null}"#, "invalid_value"),
            (r#"{"type":"session.update","session":[{"voice":"b"}]}"#, "invalid_value"),
            (r#"{"type":"Session.Update","session":{"voice":"b"}}"#, "invalid_value"),
            (r#"{"type":"session.patch"}"#, "invalid_value"),
            (r#"{"type":["session.update"]}"#, "invalid_event"),
            (r#"{"no":"type"}"#, "invalid_event"),
        ] {
            assert_eq!(error(guard().client(sent))["code"], code, "{sent}");
        }
        let deep = |depth: usize| {
            let array = ["[".repeat(depth), "]".repeat(depth)].concat();
            format!(r#"{{"type":"session.update","session":{{"x":{array}}}}}"#)
        };
        assert!(matches!(guard().client(&deep(62)), Verdict::Forward(_)));
        assert_eq!(error(guard().client(&deep(63)))["code"], "invalid_json");
    }

    #[test]
    fn a_reply_names_the_event_that_it_is_about() {
        let mut guard = guard();
        let sent = r#"{"type":"unknown","event_id":"e7"}"#;
        let error = error(guard.client(sent));
        assert_eq!((&error["event_id"], &error["param"]), (&"e7".into(), &"type".into()));
        let first = guard.client(sent);
        assert_ne!(first, guard.client(sent), "events have names of their own");
    }

    #[test]
    fn an_escaped_type_is_read_as_what_it_means() {
        let sent = r#"{"type":"session\u002eupdate","session":{"voice":"b"}}"#;
        assert!(matches!(guard().client(sent), Verdict::Rewrite { .. }));
    }

    #[test]
    fn locked_instructions_let_no_other_instructs() {
        let refused = [
            r#"{"type":"conversation.item.create","item":{"type":"message","role":"system"}}"#,
            r#"{"type":"conversation.item.create","item":{"type":"message","role":"developer"}}"#,
            r#"{"type":"conversation.item.create","item":{"type":"message","role":"System"}}"#,
            r#"{"type":"conversation.item.create","item":{"type":"message","role":"tool"}}"#,
            r#"{"type":"conversation.item.create","item":{"type":"message","role":null}}"#,
            r#"{"type":"conversation.item.create","item":{"Role":"system"}}"#,
            r#"{"type":"conversation.item.create","item":[{"role":"system"}]}"#,
            r#"{"type":"decision.item.create","item":{"role":"system"}}"#,
            r#"{"type":"response.item.create","item":{"role":"system"}}"#,
            r#"{"type":"session.instructions.append","content":"x"}"#,
            r#"{"type":"prompt","prompt":"x"}"#,
        ];
        for set in [r#"{"instructions":"i"}"#, r#"{"prompt":{"id":"p"}}"#] {
            for sent in refused {
                let error = error(guard_over(set).client(sent));
                assert_eq!(error["code"], "immutable_field_update", "{sent}");
            }
        }
        for sent in refused {
            assert_eq!(guard_over(r#"{"voice":"a"}"#).client(sent), Verdict::Forward(sent));
        }
        let sent = r#"{"type":"conversation.item.create","item":{"type":"mcp_list_tools"}}"#;
        assert_eq!(guard_over(r#"{"voice":"a"}"#).client(sent), Verdict::Forward(sent));
        assert_eq!(guard_over(r#"{"instructions":"i"}"#).client(sent), Verdict::Forward(sent));
        for sent in [sent, &sent.replace("mcp_list_tools", "MCP_List_Tools")] {
            assert_eq!(error(guard_over(r#"{"tools":[]}"#).client(sent))["param"], "item");
        }
    }

    #[test]
    fn the_input_of_a_response_loses_what_instructs() {
        let sent = r#"{"type":"response.create","response":{"input":[{"role":"system"},{"role":"user"},{"role":"developer"},{"type":"mcp_list_tools"},"x"]}}"#;
        let Verdict::Rewrite { text, kept } = guard().client(sent) else { panic!("forwarded") };
        let through: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(through["response"], json!({ "input": [{ "role": "user" }, "x"] }));
        let places = [0, 2, 3].map(|place| format!("response.input[{place}]"));
        assert_eq!(kept, places);
        assert_eq!(guard_over(r#"{"voice":"a"}"#).client(sent), Verdict::Forward(sent));

        let sent = r#"{"type":"response.create","response":{"input":{"role":"system"}}}"#;
        let Verdict::Rewrite { text, kept } = guard().client(sent) else { panic!("forwarded") };
        assert_eq!(text, r#"{"response":{},"type":"response.create"}"#);
        assert_eq!(kept, ["response.input"]);
        assert_eq!(guard_over(r#"{"voice":"a"}"#).client(sent), Verdict::Forward(sent));
    }

    #[test]
    fn a_role_in_a_tool_or_in_metadata_is_no_item() {
        for sent in [
            r#"{"type":"session.update","session":{"tools":[{"parameters":{"role":"boss"}}]}}"#,
            r#"{"type":"response.create","response":{"metadata":{"role":"boss"}}}"#,
        ] {
            assert_eq!(guard_over(r#"{"instructions":"i"}"#).client(sent), Verdict::Forward(sent));
        }
    }

    #[test]
    fn what_is_not_locked_keeps_its_last_digit() {
        for number in ["1111111111111111111110", "0.1", "123456789012345678", "1e-7"] {
            let sent =
                format!(r#"{{"type":"session.update","session":{{"voice":"b","x":{number}}}}}"#);
            let mut guard = guard();
            let Verdict::Rewrite { text, .. } = guard.client(&sent) else { panic!("{sent}") };
            let through: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(through["session"]["x"].as_f64(), number.parse().ok(), "{text}");
        }
    }

    #[test]
    fn a_change_may_be_refused_instead() {
        let rules = SessionRules::default().with_on_change(OnChange::Refuse);
        let mut guard = guard_by(r#"{"voice":"a"}"#, rules);
        let sent = r#"{"type":"session.update","session":{"voice":"b","x":1}}"#;
        let error = error(guard.client(sent));
        assert_eq!(error["code"], "immutable_field_update");
        assert_eq!(error["param"], "session.voice");
        let sent = r#"{"type":"session.update","session":{"voice":"a","x":1}}"#;
        assert_eq!(guard.client(sent), Verdict::Forward(sent));
    }

    #[test]
    fn an_event_that_is_only_completed_is_rewritten_whatever_happens_to_changes() {
        let settings = Settings::parse(r#"{"turn_detection":{"x":1}}"#).unwrap();
        let lock = Lock::nothing().and(["turn_detection.x"]).unwrap();
        let grants = Grants::default().with_session(settings).with_lock(lock);
        for on_change in [OnChange::Keep, OnChange::Refuse] {
            let rules = SessionRules::default().with_on_change(on_change);
            let mut guard = SessionGuard::with_rules(&grants, None, Arc::new(rules));
            let sent = r#"{"type":"session.update","session":{"turn_detection":{"y":2}}}"#;
            let through = r#"{"session":{"turn_detection":{"x":1,"y":2}},"type":"session.update"}"#;
            let expected = Verdict::Rewrite { text: through.to_owned(), kept: Vec::new() };
            assert_eq!(guard.client(sent), expected);
        }
    }

    #[test]
    fn the_model_that_a_session_is_bound_to_is_locked() {
        let mut guard = SessionGuard::new(&Grants::default(), Some("m"));
        let update =
            |model| format!(r#"{{"type":"session.update","session":{{"model":"{model}"}}}}"#);
        assert!(matches!(guard.client(&update("m")), Verdict::Forward(_)));
        assert!(matches!(guard.client(&update("n")), Verdict::Rewrite { .. }));
    }

    #[test]
    fn without_a_lock_everything_is_forwarded() {
        let mut guard = SessionGuard::new(&Grants::default(), None);
        assert!(guard.is_idle());
        assert_eq!(guard.client("not json"), Verdict::Forward("not json"));
        assert!(!guard_over(r#"{"voice":"a"}"#).is_idle());
    }

    #[test]
    fn all_locks_when_the_conversation_begins_if_the_profile_says_so() {
        let update = r#"{"type":"session.update","session":{"instructions":"mine"}}"#;
        let other = r#"{"type":"session.update","session":{"instructions":"others","speed":2}}"#;
        for begins in [
            r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#,
            r#"{"type":"input_audio_buffer.append","audio":"\u0041"}"#,
            r#"{"type":"response.create"}"#,
            r#"{"type":"conversation.item.create","item":{"role":"user"}}"#,
            r#"{"type":"session.instructions.append","content":"x"}"#,
        ] {
            let rules = SessionRules::default().with_lock_when_begun(true);
            let mut guard = SessionGuard::with_rules(&Grants::default(), None, Arc::new(rules));
            assert!(!guard.is_idle());
            assert_eq!(guard.client(update), Verdict::Forward(update));
            guard.client(begins);
            assert_eq!(guard.client(update), Verdict::Forward(update), "equal to what was set");
            let Verdict::Rewrite { kept, .. } = guard.client(other) else { panic!("{begins}") };
            assert_eq!(kept, ["session.instructions", "session.speed"]);
            assert_eq!(guard.client(update), Verdict::Forward(update), "and still is");
        }
    }

    #[test]
    fn what_was_locked_from_the_start_stays_when_the_conversation_begins() {
        let rules = SessionRules::default().with_lock_when_begun(true);
        let mut guard = guard_by(r#"{"voice":"a"}"#, rules);
        guard.client(r#"{"type":"session.update","session":{"voice":"b","speed":2}}"#);
        guard.client(r#"{"type":"response.create"}"#);
        let sent = r#"{"type":"session.update","session":{"voice":"a","speed":2}}"#;
        assert_eq!(guard.client(sent), Verdict::Forward(sent));
    }

    #[test]
    fn what_a_path_locks_stays_locked_when_the_conversation_begins() {
        let lock = Lock::set().and(["metadata"]).unwrap();
        let rules = SessionRules::default().with_lock_when_begun(true);
        let grants = Grants::default().with_lock(lock);
        let mut guard = SessionGuard::with_rules(&grants, None, Arc::new(rules));
        let sent = r#"{"type":"session.update","session":{"id":"s","metadata":{"a":"1"}}}"#;
        let through = r#"{"session":{"id":"s"},"type":"session.update"}"#;
        for _ in 0..2 {
            let Verdict::Rewrite { text, .. } = guard.client(sent) else { panic!("not kept") };
            assert_eq!(text, through);
            guard.client(r#"{"type":"response.create"}"#);
        }
    }

    #[test]
    fn what_the_client_swept_away_is_not_locked_to_what_the_key_set() {
        let grants = Grants::default()
            .with_session(Settings::parse(r#"{"turn_detection":{"x":1}}"#).unwrap())
            .with_lock(Lock::nothing());
        let rules = SessionRules::default().with_lock_when_begun(true);
        let mut guard = SessionGuard::with_rules(&grants, None, Arc::new(rules));
        for settings in [r#"{"audio":1}"#, r#"{"audio":{"output":{"voice":"a"}}}"#] {
            let update = format!(r#"{{"type":"session.update","session":{settings}}}"#);
            assert!(matches!(guard.client(&update), Verdict::Forward(_)));
        }
        guard.client(r#"{"type":"response.create"}"#);
        let sent = r#"{"type":"session.update","session":{"turn_detection":{"x":1},"voice":"a"}}"#;
        let Verdict::Rewrite { kept, .. } = guard.client(sent) else { panic!("not kept") };
        assert_eq!(kept, ["session.turn_detection"]);
    }

    #[test]
    fn what_instructs_may_be_sent_in_a_group_if_it_is_what_the_key_sets() {
        let set = r#"{"audio":{"x":{"role":"x"}},"instructions":"i"}"#;
        let update =
            |audio: &str| format!(r#"{{"type":"session.update","session":{{"audio":{audio}}}}}"#);
        let equal = update(r#"{"x":{"role":"x"},"y":1}"#);
        assert_eq!(guard_over(set).client(&equal), Verdict::Forward(&equal));
        let other = update(r#"{"x":{"role":"x"},"y":{"role":"x"}}"#);
        assert!(matches!(guard_over(set).client(&other), Verdict::Rewrite { .. }));
    }

    #[test]
    fn after_its_end_a_session_takes_nothing() {
        let mut guard = guard();
        let close = r#"{"type":"session.close"}"#;
        assert_eq!(guard.client(close), Verdict::Forward(close));
        for sent in [r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#, close] {
            assert_eq!(error(guard.client(sent))["code"], "session_ended");
        }
    }

    #[test]
    fn the_opening_sets_what_the_key_sets() {
        let opening = guard().opening().unwrap();
        let expected = json!({
            "type": "session.update",
            "session": { "type": "realtime", "voice": "a", "instructions": "Be kind.", "tools": [] },
        });
        assert_eq!(serde_json::from_str::<Value>(&opening).unwrap(), expected);
        let of_type = guard_over(r#"{"type":"transcription","speed":1}"#).opening().unwrap();
        assert!(of_type.contains(r#""type":"transcription""#));
        assert_eq!(guard_over(r#"{"model":"m","type":"realtime"}"#).opening(), None);
        assert_eq!(SessionGuard::new(&Grants::default(), None).opening(), None);
    }

    #[test]
    fn bounds_are_those_of_the_rules() {
        let rules = SessionRules::default().with_binary(true).with_max_message_len(7);
        let other = guard_by("{}", rules);
        assert_eq!((other.takes_binary(), other.max_message_len()), (true, 7));
        assert_eq!((guard().takes_binary(), guard().max_message_len()), (false, 16 * 1024 * 1024));
        let mut other = other;
        assert_eq!(other.client("seven 7"), Verdict::Forward("seven 7"), "nothing is locked");
        assert_eq!(other.client("eight  8"), Verdict::End(End::too_big()));
        assert_eq!(other.max_session(), None);
        let longest = Duration::from_secs(60);
        let grants = Grants::default().with_max_session(longest);
        assert_eq!(SessionGuard::new(&grants, None).max_session(), Some(longest));
    }
}
