//! What a key fixes stays, whatever its client sends.
//!
//! `PROPERTY_CASES` says how many sessions. A failure names its seed: `PROPERTY_SEED=…
//! PROPERTY_CASES=1` brings the same session back.

#[path = "model/dice.rs"]
mod dice;
#[path = "model/events.rs"]
mod events;
#[path = "model/guarded.rs"]
mod guarded;
#[path = "model/session.rs"]
mod session;

use std::{
    collections::BTreeMap,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use dice::Dice;
use guarded::Guarded;
use serde_json::{Value, json};
use session::{Mode, Outcome, Terms};
use tower_realtime_auth::{
    Carries, Grants, Lock, Profile, SessionGuard, SessionRules, Settings, Verdict,
};

#[test]
fn what_is_locked_stays_and_the_rest_is_the_clients() {
    let cases = number("PROPERTY_CASES").unwrap_or(5_000);
    let first_seed = number("PROPERTY_SEED").unwrap_or(0);
    let mut outcomes = BTreeMap::new();
    for seed in first_seed..first_seed + cases {
        let mut dice = Dice::new(seed);
        let terms = events::terms(&mut dice);
        let events = events::events(&mut dice, &terms);
        match run(&terms, &events) {
            Ok(all) => {
                for outcome in all {
                    *outcomes.entry(outcome).or_insert(0_u64) += 1;
                }
            }
            Err(_) => fail(seed, terms, events),
        }
    }
    // Under that, chance alone would fail it.
    if cases >= 5_000 {
        for outcome in [
            Outcome::Idle,
            Outcome::Forwarded,
            Outcome::TookOut,
            Outcome::PutIn,
            Outcome::Replied("immutable_field_update"),
            Outcome::Replied("invalid_event"),
            Outcome::Replied("invalid_json"),
            Outcome::Replied("invalid_value"),
            Outcome::Replied("session_ended"),
        ] {
            let occurred = outcomes.get(&outcome).copied().unwrap_or_default();
            assert!(occurred >= cases / 200, "{outcome:?} is too rare: {outcomes:#?}");
        }
    }
    // Shown with `--nocapture`.
    println!("{outcomes:#?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn run(terms: &Terms, events: &[String]) -> Result<Vec<Outcome>, String> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut guarded = Guarded::new(terms);
        events.iter().map(|event| guarded.send(event)).collect()
    }))
    .unwrap_or_else(|_| Err("there was a panic".into()))
}

fn fail(seed: u64, mut terms: Terms, mut events: Vec<String>) -> ! {
    loop {
        let fewer = smaller_events(&events).find(|fewer| run(&terms, fewer).is_err());
        let simpler = smaller_terms(&terms).find(|simpler| run(simpler, &events).is_err());
        if fewer.is_none() && simpler.is_none() {
            break;
        }
        events = fewer.unwrap_or(events);
        if let Some(simpler) = simpler.filter(|simpler| run(simpler, &events).is_err()) {
            terms = simpler;
        }
    }
    let wrong = run(&terms, &events).expect_err("it still fails");
    panic!("seed {seed}, made smaller: {terms:#?}\n{}\n{wrong}", events.join("\n"));
}

/// The events with one less, or with one that has a part less.
fn smaller_events(events: &[String]) -> impl Iterator<Item = Vec<String>> {
    let without = (0..events.len()).map(|index| {
        let mut fewer = events.to_vec();
        fewer.remove(index);
        fewer
    });
    let shorter = events.iter().enumerate().flat_map(move |(index, event)| {
        let event: Value = serde_json::from_str(event).unwrap_or_default();
        smaller_values(&event).into_iter().map(move |smaller| {
            let mut events = events.to_vec();
            events[index] = smaller.to_string();
            events
        })
    });
    without.chain(shorter)
}

fn smaller_terms(terms: &Terms) -> impl Iterator<Item = Terms> {
    let settings = terms.settings.clone().map(Value::Object).unwrap_or_default();
    let fewer_settings = smaller_values(&settings).into_iter().map(|settings| {
        let settings = settings.as_object().cloned();
        Terms { settings, ..terms.clone() }
    });
    let fewer_paths = (0..terms.paths.len()).map(|index| {
        let mut fewer = terms.clone();
        fewer.paths.remove(index);
        fewer
    });
    let others = [
        terms.model.is_some().then(|| Terms { model: None, ..terms.clone() }),
        terms.models.is_some().then(|| Terms { models: None, ..terms.clone() }),
        terms.refuses.then(|| Terms { refuses: false, ..terms.clone() }),
        terms.locks_when_begun.then(|| Terms { locks_when_begun: false, ..terms.clone() }),
        terms.own.then(|| Terms { own: false, ..terms.clone() }),
    ];
    fewer_settings.chain(fewer_paths).chain(others.into_iter().flatten())
}

/// The value with a part less, at any depth.
fn smaller_values(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let mut smaller = object.clone();
                smaller.remove(name);
                all.push(smaller.into());
                for inner in smaller_values(value) {
                    let mut smaller = object.clone();
                    smaller.insert(name.clone(), inner);
                    all.push(smaller.into());
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let mut smaller = items.clone();
                smaller.remove(index);
                all.push(smaller.into());
                for inner in smaller_values(item) {
                    let mut smaller = items.clone();
                    smaller[index] = inner;
                    all.push(smaller.into());
                }
            }
        }
        Value::String(text) if text.len() > 4 && !text.contains('.') => all.push("".into()),
        _ => {}
    }
    all
}

/// What the model has found in the guard, each in the fewest events.
#[test]
fn what_was_once_wrong_is_right() {
    let terms = |settings: &str, mode, path: Option<&str>, locks_when_begun| Terms {
        settings: serde_json::from_str(settings).unwrap(),
        mode,
        paths: path.into_iter().map(Into::into).collect(),
        model: None,
        models: None,
        refuses: false,
        locks_when_begun,
        own: false,
    };
    let update = |settings: &str| format!(r#"{{"type":"session.update","session":{settings}}}"#);
    let begin = r#"{"type":"input_audio_buffer.commit"}"#.to_owned();
    let close = r#"{"type":"session.close","x":1}"#.to_owned();
    let own = |terms| Terms { own: true, ..terms };
    let refusing = |terms| Terms { refuses: true, ..terms };
    let prompt = r#"{"prompt":{"id":"p","variables":{"role":"boss"}}}"#;
    let (set, nothing) = (Mode::Set, Mode::Nothing);
    let mut differing = Vec::new();
    for (name, terms, events) in [
        (
            "before the conversation begins, what the client has set is still the client's",
            terms("{}", set, None, true),
            vec![update(r#"{"speed":1}"#), update(r#"{"speed":2}"#)],
        ),
        (
            "of two spellings the last that was sent counts when the conversation begins",
            terms("{}", nothing, None, true),
            vec![
                update(r#"{"audio":{"output":{"voice":"a"}}}"#),
                update(r#"{"voice":"b"}"#),
                begin.clone(),
                update(r#"{"voice":"a"}"#),
            ],
        ),
        (
            "what was refused does not count when the conversation begins",
            refusing(terms(r#"{"voice":"a"}"#, set, None, true)),
            vec![update(r#"{"voice":"b","speed":2}"#), begin.clone(), update(r#"{"speed":2}"#)],
        ),
        (
            "a session does not end by an event that was refused",
            refusing(terms("{}", Mode::All, None, false)),
            vec![close, begin.clone()],
        ),
        (
            "an equal value may always be sent, whatever is in it",
            terms(prompt, set, None, false),
            vec![update(prompt)],
        ),
        (
            "a name ends at a NUL, whatever follows",
            terms(r#"{"instructions":"i"}"#, set, None, false),
            vec![update(r#"{"prompt\u0000.x":{"id":"q"}}"#)],
        ),
        (
            "a part that only lax servers take for the locked one does not stand for it",
            terms(
                r#"{"turn_detection":{"threshold":1}}"#,
                nothing,
                Some("turn_detection.threshold"),
                false,
            ),
            vec![update(r#"{"turn_detection":{"Threshold":1}}"#)],
        ),
        (
            "a spelling of a spelling is one of the setting",
            own(terms(r#"{"voice":"a"}"#, set, None, false)),
            vec![update(r#"{"speaker":"b"}"#)],
        ),
        (
            "a spelling may lead through a group of its own",
            own(terms("{}", set, Some("top_k"), false)),
            vec![update(r#"{"generation":{"topK":1}}"#)],
        ),
        (
            "a group in one that is locked to no object is locked in its own spelling too",
            own(terms(r#"{"audio":null}"#, set, None, false)),
            vec![update(r#"{"out":[]}"#)],
        ),
        (
            "what instructs may be sent in a group if it is what the key sets",
            terms(r#"{"audio":{"x":{"role":"x"}},"instructions":"i"}"#, set, None, false),
            vec![update(r#"{"audio":{"x":{"role":"x"},"y":1}}"#)],
        ),
        (
            "what a path locks stays locked when the conversation begins",
            terms("{}", set, Some("metadata"), true),
            vec![begin.clone(), update(r#"{"metadata":{"a":"1"}}"#)],
        ),
        (
            "what the client has swept away is not what the key set when the conversation begins",
            terms(r#"{"turn_detection":{}}"#, nothing, None, true),
            vec![
                update(r#"{"audio":1}"#),
                update(r#"{"audio":{"output":{"voice":"a"}}}"#),
                begin.clone(),
                update(r#"{"voice":"a"}"#),
            ],
        ),
    ] {
        if let Err(wrong) = run(&terms, &events) {
            differing.push(format!("{name}: {wrong}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}

/// What is sent, and what the provider is to get. `None`: nothing, but the client an error event.
type Case<'a> = (&'a str, Option<&'a str>);

fn check(grants: &Grants, cases: &[Case<'_>]) {
    for (sent, through) in cases {
        let mut guard = SessionGuard::new(grants, None);
        let update = format!(r#"{{"type":"session.update","session":{sent}}}"#);
        let handed = match guard.client(&update) {
            Verdict::Forward(text) => Some(text.to_owned()),
            Verdict::Rewrite { text, .. } => Some(text),
            _ => None,
        };
        let handed: Option<Value> = handed.map(|text| serde_json::from_str(&text).unwrap());
        let settings = handed.map(|mut event| event["session"].take());
        let expected = through.map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(settings, expected, "{sent}");
    }
}

fn grants(settings: Option<&str>, lock: Lock) -> Grants {
    let grants = Grants::default().with_lock(lock);
    match settings {
        Some(json) => grants.with_session(Settings::parse(json).unwrap()),
        None => grants,
    }
}

/// What a caller of Gemini's SDKs says, and what it locks.
#[test]
fn the_modes_of_gemini() {
    let set = r#"{"voice":"a","temperature":0.5}"#;
    let other = r#"{"voice":"b","temperature":0.5,"top_k":9}"#;
    let only = |paths: &[&str]| Lock::nothing().and(paths.iter().copied()).unwrap();
    for (settings, lock, through) in [
        // No constraints: nothing is locked.
        (None, Lock::set(), other),
        // Constraints and no `lockAdditionalFields`: all is locked, what is not set to its default.
        (Some(set), Lock::all(), r#"{"temperature":0.5}"#),
        // Constraints and an empty list: what is set is locked.
        (Some(set), Lock::set(), r#"{"temperature":0.5,"top_k":9}"#),
        // Constraints and a list: what is named is locked too, to its default.
        (Some(set), Lock::set().and(["top_k"]).unwrap(), r#"{"temperature":0.5}"#),
        // A list alone.
        (None, only(&["top_k"]), r#"{"voice":"b","temperature":0.5}"#),
        // A mask that leaves out something that is set.
        (Some(set), only(&["temperature"]), other),
        (Some(set), only(&["voice"]), r#"{"temperature":0.5,"top_k":9}"#),
        (Some(set), Lock::nothing(), other),
    ] {
        check(&grants(settings, lock), &[(other, Some(through))]);
    }
}

/// Google's own names: a group of them is one with an alias into it.
#[test]
fn settings_of_another_provider_are_grouped_by_an_alias() {
    let lock = Lock::set().and(["generationConfig.topK"]).unwrap();
    let grants = grants(Some(r#"{"generationConfig":{"temperature":0.5}}"#), lock);
    let rules = SessionRules::default()
        .without_events()
        .with_event("setup", Carries::SessionSettings("setup".into()))
        .with_event("clientContent", Carries::Nothing)
        .with_alias("temperature", "generationConfig.temperature")
        .with_member("requestId");
    let mut guard = SessionGuard::with_rules(&grants, None, Arc::new(rules));
    let sent = r#"{"type":"setup","requestId":"r","setup":{"generationConfig":{"temperature":1,"topK":3,"topP":0.9},"temperature":1}}"#;
    let Verdict::Rewrite { text, kept } = guard.client(sent) else { panic!("not kept") };
    let through = r#"{"requestId":"r","setup":{"generationConfig":{"topP":0.9}},"type":"setup"}"#;
    assert_eq!(text, through);
    assert_eq!(
        kept,
        ["setup.generationConfig.temperature", "setup.generationConfig.topK", "setup.temperature"]
    );
    let plain = r#"{"type":"clientContent","requestId":7}"#;
    assert_eq!(guard.client(plain), Verdict::Forward(plain));
    for unknown in [r#"{"type":"session.update","session":{}}"#, r#"{"type":"response.create"}"#] {
        assert!(matches!(guard.client(unknown), Verdict::Reply(_)), "{unknown}");
    }
}

/// A guard by Decart's rules.
fn decart(grants: &Grants) -> SessionGuard {
    let rules = Arc::clone(Profile::decart().session_rules());
    SessionGuard::with_rules(grants, None, rules)
}

/// What its clients read of an error: a text and nothing else.
fn error_text(verdict: Verdict<'_>) -> String {
    let Verdict::Reply(event) = verdict else { panic!("no reply: {verdict:?}") };
    let event: Value = serde_json::from_str(&event).unwrap();
    let text = event["error"].as_str().expect("a text").to_owned();
    assert_eq!(event, json!({ "type": "error", "error": text }));
    text
}

/// A token of Decart's has a list of models at most.
#[test]
fn what_the_clients_of_decart_send_passes_a_list_of_models_and_no_other_model_does() {
    let mut guard = decart(&Grants::default().with_models(["lucy-2.1"]));
    for sent in [
        r#"{"type":"livekit_join"}"#,
        r#"{"type":"livekit_join","passthrough":true}"#,
        r#"{"type":"prompt","prompt":"A pirate.","enhance_prompt":true}"#,
        r#"{"type":"set_image","image_data":null,"prompt":null}"#,
        r#"{"type":"set_image","image_data":"QUJD","prompt":"A pirate.","enhance_prompt":false}"#,
        r#"{"type":"set_image","image_ref":"file_1","prompt":"A pirate."}"#,
    ] {
        assert_eq!(guard.client(sent), Verdict::Forward(sent));
        for other in [r#""model":"x""#, r#""Model":"x""#, r#""session":{"model":"x"}"#] {
            let naming = sent.replacen('{', &format!("{{{other},"), 1);
            let Verdict::Rewrite { text, .. } = guard.client(&naming) else { panic!("{naming}") };
            let [text, sent]: [Value; 2] = [&*text, sent].map(|t| serde_json::from_str(t).unwrap());
            assert_eq!(text, sent, "{naming}");
        }
    }
    // What a client can do it says in an object, which might say anything.
    let able = r#"{"type":"livekit_join","client_capabilities":{"frame_timing":true}}"#;
    let Verdict::Rewrite { text, .. } = guard.client(able) else { panic!("{able}") };
    assert_eq!(text, r#"{"type":"livekit_join"}"#);
    let unknown = r#"{"type":"set_model","model":"x"}"#;
    assert!(error_text(guard.client(unknown)).contains("this type"));
    assert!(error_text(guard.client("[]")).contains("JSON"));
}

#[test]
fn locked_instructions_are_not_prompted_away() {
    let grants = grants(Some(r#"{"instructions":"i"}"#), Lock::set());
    for sent in [r#"{"type":"prompt","prompt":"x"}"#, r#"{"type":"set_image","prompt":"x"}"#] {
        assert!(error_text(decart(&grants).client(sent)).contains("locked"), "{sent}");
    }
}

#[test]
fn paths_of_a_lock_may_be_spelled_in_any_way() {
    for path in ["voice", "audio.output.voice", "Audio.Output.Voice", "audio.output", "audio"] {
        let lock = Lock::nothing().and([path]).unwrap();
        check(
            &grants(Some(r#"{"voice":"a"}"#), lock),
            &[
                (r#"{"voice":"b","x":1}"#, Some(r#"{"x":1}"#)),
                (r#"{"audio":{"output":{"voice":"b"}},"x":1}"#, Some(r#"{"x":1}"#)),
                (r#"{"audio":null,"x":1}"#, Some(r#"{"x":1}"#)),
                (
                    r#"{"audio":{"output":{"voice":"a"}}}"#,
                    Some(r#"{"audio":{"output":{"voice":"a"}}}"#),
                ),
                (r#"[]"#, None),
            ],
        );
    }
}

#[test]
fn paths_that_cannot_be_locked_are_refused() {
    let deep = |names: usize| vec!["x"; names].join(".");
    for path in ["", ".", "a.", ".a", "a..b", "tools.0", "0", "a.12.b", &deep(33)] {
        assert!(Lock::set().and([path]).is_err(), "{path:?}");
    }
    for path in ["a", "a.b", "tools.x0", &deep(32)] {
        assert!(Lock::set().and([path]).is_ok(), "{path:?}");
    }
    let twice = Lock::all().and(["a", "b", "a"]).unwrap().and(["b", "c"]).unwrap();
    assert_eq!(twice.paths().iter().map(|path| &**path).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn rules_say_what_events_carry() {
    let rules = SessionRules::default();
    let session = Carries::SessionSettings("session".into());
    assert_eq!(rules.carries("session.update"), Some(&session));
    assert_eq!(rules.carries("Session.update"), None);
    let rules = rules
        .with_event("session.update", Carries::Nothing)
        .with_event("agent.configure", Carries::SessionSettings("agent".into()));
    assert_eq!(rules.carries("session.update"), Some(&Carries::Nothing), "the last counts");
    assert_eq!(rules.carries("response.cancel"), Some(&Carries::Nothing));
    let agent = Carries::SessionSettings("agent".into());
    assert_eq!(rules.carries("agent.configure"), Some(&agent));
    assert_eq!(rules.without_events().carries("agent.configure"), None);
}
