//! The guard: the client's events in, verdicts out, no I/O.

use serde_json::{Map, Value};

use super::{Fault, Lock, parse};
use crate::Grants;

/// How deep an event may be nested.
const MAX_DEPTH: usize = 64;

/// The events that carry settings, and the field that holds them.
const CARRIERS: [(&str, &str); 3] = [
    ("session.update", "session"),
    ("transcription_session.update", "session"),
    ("response.create", "response"),
];

/// Keeps a session to the settings that its key has locked.
///
/// Give it every event that the client sends before anything else reads it. What it forwards is
/// exactly what it judged.
///
/// ```
/// use tower_realtime_auth::{Grants, SessionGuard, Settings, Verdict};
///
/// let settings = Settings::parse(r#"{"voice": "marin"}"#)?;
/// let guard = SessionGuard::new(&Grants::default().with_session(settings), None);
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
/// # Ok::<(), tower_realtime_auth::InvalidSettings>(())
/// ```
#[derive(Debug, Clone)]
pub struct SessionGuard {
    lock: Lock,
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
}

impl SessionGuard {
    /// A guard over the settings that the key sets, and over the model that the session is bound
    /// to, if it is to one.
    #[must_use]
    pub fn new(grants: &Grants, model: Option<&str>) -> Self {
        let mut lock = grants.session().map_or_else(Lock::default, |set| Lock::new(set.as_map()));
        if let Some(model) = model {
            lock.lock("model", model.into());
        }
        Self { lock }
    }

    /// Whether nothing is locked, so that every event is forwarded.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lock.is_empty()
    }

    /// Judges one event of the client: a whole text message.
    pub fn client<'a>(&self, text: &'a str) -> Verdict<'a> {
        if self.is_idle() {
            return Verdict::Forward(text);
        }
        let mut event = match parse(text.as_bytes(), MAX_DEPTH) {
            Ok(Value::Object(event)) => event,
            Ok(_) | Err(Fault::Syntax) => {
                return refuse("invalid_json", "The event is not one JSON object.");
            }
            Err(Fault::TooDeep) => {
                return refuse("invalid_json", "The event is nested too deep.");
            }
            Err(Fault::Duplicate(_)) => {
                return refuse("invalid_json", "The event names something twice in one object.");
            }
        };
        let Some((field, settings)) = settings_of(&mut event) else {
            return Verdict::Forward(text);
        };
        let Value::Object(settings) = settings else {
            return refuse("invalid_event", "The settings of the event are not an object.");
        };
        let kept = self.lock.filter(settings);
        if kept.is_empty() {
            return Verdict::Forward(text);
        }
        let kept = kept.into_iter().map(|path| format!("{field}.{path}")).collect();
        Verdict::Rewrite { text: Value::Object(event).to_string(), kept }
    }
}

/// The settings that `event` carries, and the field they stand in.
fn settings_of(event: &mut Map<String, Value>) -> Option<(&'static str, &mut Value)> {
    let kind = event.get("type")?.as_str()?;
    let (_, field) = CARRIERS.iter().find(|(carrier, _)| *carrier == kind)?;
    Some((field, event.get_mut(*field)?))
}

fn refuse(code: &str, message: &str) -> Verdict<'static> {
    let event = serde_json::json!({
        "type": "error",
        "event_id": "event_refused",
        "error": {
            "type": "invalid_request_error",
            "code": code,
            "message": message,
            "param": null,
            "event_id": null,
        },
    });
    Verdict::Reply(event.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn guard() -> SessionGuard {
        let settings = r#"{"model":"m","voice":"a","instructions":"Be kind.","tools":[]}"#;
        let grants = Grants::default().with_session(Settings::parse(settings).unwrap());
        SessionGuard::new(&grants, None)
    }

    #[test]
    fn every_event_that_carries_settings_is_held_to_the_lock() {
        for (event, field) in CARRIERS {
            let sent = format!(
                r#"{{"type":"{event}","event_id":"e1","{field}":{{"voice":"b","instructions":"x","temperature":1}}}}"#
            );
            let guard = guard();
            let Verdict::Rewrite { text, kept } = guard.client(&sent) else { panic!("{event}") };
            let through: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(through[field], serde_json::json!({"temperature": 1}));
            assert_eq!(through["event_id"], "e1");
            assert_eq!(kept, [format!("{field}.instructions"), format!("{field}.voice")]);
        }
    }

    #[test]
    fn equal_values_and_other_events_pass_byte_for_byte() {
        for sent in [
            r#"{ "type":"session.update", "session":{ "model":"m", "voice":"a" } }"#,
            r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#,
            r#"{"type":"response.create"}"#,
            r#"{"no":"type"}"#,
        ] {
            assert_eq!(guard().client(sent), Verdict::Forward(sent));
        }
    }

    #[test]
    fn what_cannot_be_judged_is_not_forwarded() {
        for sent in [
            "",
            "[]",
            "{",
            r#"{"type":"session.update","type":"x","session":{"voice":"b"}}"#,
            r#"{"type":"session.update","session":{"voice":"a","\u0076oice":"b"}}"#,
            r#"{"type":"session.update","session":null}"#,
            r#"{"type":"session.update","session":[{"voice":"b"}]}"#,
            r#"{"type":"x","a":"\ud800"}"#,
        ] {
            let verdict = guard().client(sent);
            let Verdict::Reply(event) = verdict else { panic!("{sent}: {verdict:?}") };
            let event: Value = serde_json::from_str(&event).unwrap();
            assert_eq!(event["type"], "error", "{sent}");
        }
    }

    #[test]
    fn an_escaped_type_is_read_as_what_it_means() {
        let sent = r#"{"type":"session\u002eupdate","session":{"voice":"b"}}"#;
        assert!(matches!(guard().client(sent), Verdict::Rewrite { .. }));
    }

    #[test]
    fn the_model_that_a_session_is_bound_to_is_locked() {
        let guard = SessionGuard::new(&Grants::default(), Some("m"));
        let update =
            |model| format!(r#"{{"type":"session.update","session":{{"model":"{model}"}}}}"#);
        assert!(matches!(guard.client(&update("m")), Verdict::Forward(_)));
        assert!(matches!(guard.client(&update("n")), Verdict::Rewrite { .. }));
    }

    #[test]
    fn without_a_lock_everything_is_forwarded() {
        let guard = SessionGuard::new(&Grants::default(), None);
        assert!(guard.is_idle());
        assert_eq!(guard.client("not json"), Verdict::Forward("not json"));
    }
}
