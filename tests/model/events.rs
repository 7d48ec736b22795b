//! Sessions by chance: what a key fixes, and what its client tries.

use serde_json::{Map, Value, json};

use crate::{
    dice::Dice,
    session::{Mode, OWN_EVENT, Terms},
};

/// A setting: its spellings, and values that it may have.
struct Setting {
    spellings: &'static [&'static str],
    values: Vec<Value>,
}

pub fn terms(dice: &mut Dice) -> Terms {
    let mut settings = Map::new();
    if !dice.one_in(10) {
        let all = all();
        for _ in 0..1 + dice.below(5) {
            let setting = &all[dice.below(all.len())];
            let value = dice.pick(&setting.values);
            let spelled = dice.pick(setting.spellings);
            put(&mut settings, spelled, value);
        }
        if dice.one_in(30) {
            let group = dice.pick(&["audio", "audio.input", "audio.output"]);
            let value = dice.pick(&[json!(null), json!({}), json!("none")]);
            settings.clear();
            put(&mut settings, group, value);
        }
    }
    let paths = if dice.one_in(3) {
        (0..1 + dice.below(3)).map(|_| dice.pick(&PATHS).to_owned()).collect()
    } else {
        Vec::new()
    };
    if dice.one_in(12) {
        // A part of what providers take as a whole.
        return Terms {
            settings: json!({ "turn_detection": { "type": "t", "threshold": 0.5 } })
                .as_object()
                .cloned(),
            mode: Mode::Nothing,
            paths: vec!["turn_detection.threshold".into()],
            model: None,
            models: None,
            refuses: dice.one_in(4),
            locks_when_begun: dice.one_in(4),
            own: false,
        };
    }
    Terms {
        settings: (!settings.is_empty() || dice.one_in(4)).then_some(settings),
        mode: dice.pick(&[Mode::Set, Mode::Set, Mode::Set, Mode::All, Mode::Nothing]),
        paths,
        model: dice.one_in(4).then(|| "m".into()),
        models: dice.one_in(3).then(|| vec!["m".into(), "n".into()]),
        refuses: dice.one_in(4),
        locks_when_begun: dice.one_in(4),
        own: dice.one_in(4),
    }
}

/// The events of a client, one to twenty.
pub fn events(dice: &mut Dice, terms: &Terms) -> Vec<String> {
    let count = 1 + dice.below(20);
    // By chance alone, conversations begin soon.
    let before = if terms.locks_when_begun { dice.below(6) } else { 0 };
    (0..count)
        .map(|index| {
            if index < before {
                let update = update(dice, terms);
                write(dice, &update)
            } else {
                event(dice, terms)
            }
        })
        .collect()
}

fn update(dice: &mut Dice, terms: &Terms) -> Value {
    let (kind, field) = if terms.own && dice.one_in(3) {
        OWN_EVENT
    } else {
        (dice.prefer(&["session.update", "session.start"]), "session")
    };
    let both = dice.one_in(6);
    let settings = if both { both_spellings(dice, terms) } else { settings(dice, terms) };
    json!({ "type": kind, field: settings })
}

fn event(dice: &mut Dice, terms: &Terms) -> String {
    let mut event = match dice.below(40) {
        0..16 => json!({ "type": "session.update", "session": settings(dice, terms) }),
        16 => {
            json!({ "type": "transcription_session.update", "session": settings(dice, terms) })
        }
        17 => update(dice, terms),
        18..25 => {
            let mut response = settings(dice, terms);
            if dice.one_in(3) {
                let items: Vec<_> = (0..dice.below(4)).map(|_| item(dice)).collect();
                let input = if dice.one_in(6) { item(dice) } else { items.into() };
                response[dice.prefer(&["input", "Input", "items"])] = input;
            }
            json!({ "type": "response.create", "response": response })
        }
        25..29 => {
            let kinds =
                ["conversation.item.create", "decision.item.create", "response.item.create"];
            json!({ "type": dice.prefer(&kinds), "item": item(dice) })
        }
        29..34 => plain(dice),
        34 => json!({ "type": dice.pick(&["session.instructions.append", "prompt", "set_image"]),
                      "content": "x" }),
        35 => unknown(dice),
        36 if dice.one_in(8) => json!({ "type": "session.close" }),
        36 => json!({ "type": "response.create" }),
        37 => dice.pick(&[
            json!([]),
            json!(null),
            json!("session.update"),
            json!({}),
            json!({ "type": "session.update" }),
            json!({ "type": "session.update", "session": null }),
            json!({ "type": "session.update", "session": [{ "voice": "b" }] }),
            json!({ "type": "response.create", "response": "x" }),
        ]),
        _ => json!({ "type": "session.update", "session": both_spellings(dice, terms) }),
    };
    if let (true, Some(event)) = (dice.one_in(8), event.as_object_mut()) {
        let (name, value) = beside(dice, terms);
        event.insert(name.into(), value);
    }
    let text = write(dice, &event);
    if dice.one_in(30) { break_up(dice, &text) } else { text }
}

/// What may stand beside what an event holds, or not.
fn beside(dice: &mut Dice, terms: &Terms) -> (&'static str, Value) {
    let name = dice.pick(&[
        "event_id",
        "event_id",
        "previous_item_id",
        "audio",
        "item_id",
        "voice",
        "instructions",
        "session",
        "response",
        "Session",
        "item",
        "Type",
        "x",
        "",
    ]);
    let value = match dice.below(4) {
        0 => settings(dice, terms),
        1 => dice.pick(&[json!(null), json!(1), json!([1]), json!({ "role": "system" })]),
        _ => json!("e1"),
    };
    (name, value)
}

fn plain(dice: &mut Dice) -> Value {
    let kind = dice.prefer(&[
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "conversation.item.truncate",
        "session.input_audio.append",
        "input_audio_buffer.append.x",
    ]);
    let mut event = json!({ "type": kind, "audio": "A".repeat(dice.below(40) * dice.below(40)) });
    if dice.one_in(3) {
        for _ in 0..dice.below(10) {
            let name = dice.pick(&[
                "audio",
                "audio_end_ms",
                "content_index",
                "event_id",
                "item_id",
                "passthrough",
                "response_id",
                "type ",
                "x",
            ]);
            event[name] = dice.pick(&[
                json!(0),
                json!(1234),
                json!(-1),
                json!(1.5),
                json!(true),
                json!(null),
                json!("\" \\ \u{e9}"),
                json!("item"),
                json!({}),
                json!([]),
            ]);
        }
    }
    event
}

fn unknown(dice: &mut Dice) -> Value {
    let kind = dice.pick(&[
        json!("session.patch"),
        json!("Session.Update"),
        json!("session.update\0"),
        json!(" session.update"),
        json!(""),
        json!(null),
        json!(1),
        json!(["session.update"]),
    ]);
    json!({ "type": kind, "session": { "voice": "b" } })
}

fn item(dice: &mut Dice) -> Value {
    dice.pick(&[
        json!({ "type": "message", "role": "user", "content": [{ "text": "x" }] }),
        json!({ "type": "message", "role": "assistant" }),
        json!({ "type": "function_call_output", "output": "x" }),
        json!({ "type": "message", "role": "system", "content": [] }),
        json!({ "type": "message", "role": "developer" }),
        json!({ "type": "message", "role": "tool" }),
        json!({ "type": "message", "role": "System" }),
        json!({ "Role": "system" }),
        json!({ "role\0": "system" }),
        json!({ "role": null }),
        json!({ "role": ["user"] }),
        json!([{ "role": "system" }]),
        json!({ "type": "message", "role": "user", "content": [{ "role": "system" }] }),
        json!({ "type": "mcp_list_tools", "tools": [] }),
        json!({ "type": "MCP_list_tools" }),
        json!("text"),
        json!(null),
    ])
}

fn settings(dice: &mut Dice, terms: &Terms) -> Value {
    let mut settings = Map::new();
    let all = all();
    for _ in 0..dice.below(6) {
        let setting = &all[dice.below(all.len())];
        let value = value(dice, terms, setting);
        put(&mut settings, dice.pick(setting.spellings), value);
    }
    // What the key fixes is what is worth a try.
    if let (true, Some(fixed)) = (dice.one_in(2), &terms.settings) {
        let names: Vec<_> = fixed.keys().collect();
        if !names.is_empty() {
            let name = dice.pick(&names);
            let value = if dice.one_in(2) { fixed[name].clone() } else { other(dice) };
            settings.insert(name.clone(), value);
        }
    }
    if dice.one_in(12) {
        let group = dice.pick(&["audio", "audio", "audio.input", "audio.output", "out"]);
        put(&mut settings, group, other(dice));
    }
    if dice.one_in(12) {
        respell(dice, &mut settings);
    }
    Value::Object(settings)
}

fn both_spellings(dice: &mut Dice, terms: &Terms) -> Value {
    let mut settings = Map::new();
    let all = all();
    let twice: Vec<_> = all.iter().filter(|setting| setting.spellings.len() > 1).collect();
    let setting = twice[dice.below(twice.len())];
    for spelled in setting.spellings {
        put(&mut settings, spelled, value(dice, terms, setting));
    }
    Value::Object(settings)
}

fn value(dice: &mut Dice, terms: &Terms, setting: &Setting) -> Value {
    let fixed = setting.spellings.iter().find_map(|spelled| {
        let settings = terms.settings.as_ref()?;
        let (first, rest) = spelled.split_once('.').unwrap_or((spelled, ""));
        let pointer = format!("/{}", rest.replace('.', "/"));
        let value = settings.get(first)?;
        if rest.is_empty() { Some(value) } else { value.pointer(&pointer) }
    });
    match (dice.below(10), fixed) {
        (0..4, Some(fixed)) => fixed.clone(),
        (0, None) | (4, _) => other(dice),
        (5, Some(Value::Object(fixed))) => {
            // A part of it, or it and more.
            let mut fixed = fixed.clone();
            if let (true, Some(name)) = (dice.one_in(2), fixed.keys().next().cloned()) {
                if dice.one_in(2) {
                    let value = fixed.remove(&name).unwrap_or_default();
                    fixed.insert(name.to_uppercase(), value);
                } else {
                    fixed.remove(&name);
                }
            } else {
                fixed.insert(dice.pick(&["x", "Model", "model", "role"]).into(), "x".into());
            }
            Value::Object(fixed)
        }
        _ => dice.pick(&setting.values),
    }
}

/// A value that hardly any setting has.
fn other(dice: &mut Dice) -> Value {
    dice.pick(&[
        json!(null),
        json!({}),
        json!([]),
        json!(""),
        json!(1e100),
        json!(18446744073709551615u64),
        json!(false),
        json!({ "model": "x" }),
        json!({ "a": [{ "Model": "x" }] }),
        json!([{ "role": "system" }, { "role": "user" }]),
        json!({ "output": { "voice": null } }),
        json!({ "OUTPUT": { "voice": "b" }, "input": {} }),
        json!({ "threshold": 0.5 }),
        json!({ "more": 3, "Threshold": 0.5 }),
    ])
}

/// Names as only lax servers take them.
fn respell(dice: &mut Dice, settings: &mut Map<String, Value>) {
    let names: Vec<_> = settings.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = dice.pick(&names);
    let value = settings.remove(&name).unwrap_or_default();
    let respelled = match dice.below(7) {
        0 => name.to_uppercase(),
        1 => format!("{name}\0"),
        2 => format!("{name}\0.x"),
        3 => name.replace('s', "ſ"),
        4 => name.replace('k', "\u{212a}"),
        5 => format!("{name} "),
        _ => name[..1].to_uppercase() + &name[1..],
    };
    settings.insert(respelled, value);
}

/// What a lock may name.
const PATHS: [&str; 20] = [
    "tools",
    "voice",
    "audio",
    "audio.output",
    "audio.input.format",
    "output_audio_format",
    "turn_detection",
    "turn_detection.threshold",
    "audio.input.turn_detection.more.deep",
    "tracing.id",
    "x.y",
    "instructions",
    "prompt",
    "input_audio_transcription.model",
    "speaker",
    "out",
    "temperature",
    "generation",
    "metadata",
    "conversation",
];

fn all() -> Vec<Setting> {
    let setting = |spellings, values: Value| {
        let Value::Array(values) = values else { panic!("a list of values") };
        Setting { spellings, values }
    };
    vec![
        setting(
            &["voice", "audio.output.voice", "speaker", "out.voice", "audio.output.speaker"],
            json!(["a", "b", "c", { "id": "a" }]),
        ),
        setting(&["speed", "audio.output.speed", "out.speed"], json!([1, 1.0, 2, 0.8, "1"])),
        setting(
            &["output_audio_format", "audio.output.format"],
            json!(["pcm16", { "type": "audio/pcm", "rate": 24000 }, { "type": "audio/pcm", "rate": 24000.0 }]),
        ),
        setting(&["input_audio_format", "audio.input.format"], json!(["pcm16", "g711"])),
        setting(
            &["input_audio_transcription", "audio.input.transcription"],
            json!([{ "model": "m" }, { "model": "w" }, { "model": "m", "language": "en" }, null]),
        ),
        setting(
            &["input_audio_noise_reduction", "audio.input.noise_reduction"],
            json!([{ "type": "near_field" }, null]),
        ),
        setting(
            &["turn_detection", "audio.input.turn_detection"],
            json!([
                { "type": "server_vad", "threshold": 0.5 },
                { "type": "server_vad", "threshold": 0.9 },
                { "type": "semantic_vad" },
                { "threshold": 1 },
                { "threshold": 1.0, "more": { "deep": 1, "x": 2 } },
                { "more": { "x": 1 } },
                { "more": { "deep": 2 } },
                {},
                null
            ]),
        ),
        setting(&["modalities", "output_modalities"], json!([["text"], ["text", "audio"], []])),
        setting(&["max_response_output_tokens", "max_output_tokens"], json!([512, "inf"])),
        setting(&["instructions"], json!(["i", "j", ""])),
        setting(
            &["tools"],
            json!([
                [],
                [{ "type": "function", "name": "f" }],
                [{ "type": "function", "parameters": { "properties": { "model": {}, "role": {} } } }],
                [{ "type": "mcp_list_tools" }]
            ]),
        ),
        setting(&["tool_choice"], json!(["auto", "required"])),
        setting(&["temperature", "generation.temperature"], json!([0.8, 0.1, 1])),
        setting(
            &["prompt"],
            json!([{ "id": "p" }, { "id": "q" }, { "id": "p", "variables": { "role": "boss" } }, null]),
        ),
        setting(&["delegation"], json!([{ "model": "n" }, { "model": "x" }, null])),
        setting(&["model"], json!(["m", "n", "x", ["m"], null])),
        setting(&["tracing"], json!(["auto", { "id": "p" }, { "id": "p", "version": "2" }, null])),
        setting(&["type"], json!(["realtime", "transcription"])),
        setting(&["metadata"], json!([{ "a": "1" }, { "role": "boss" }, null])),
        setting(&["conversation"], json!(["none", "auto"])),
        setting(&["top_k", "generation.topK"], json!([1, 40])),
        setting(&["generation"], json!([null, {}, { "temperature": 1 }])),
        setting(&["id"], json!(["s", "t"])),
        setting(&["include"], json!([["item"], []])),
        setting(
            &["x"],
            json!([1, { "y": 1 }, { "y": 2, "z": 1 }, { "z": [{ "role": "x" }] }, null]),
        ),
        setting(&["audio.x"], json!([1, { "role": "x" }, { "model": "x" }])),
        setting(&["audio.input.model"], json!(["m", "x"])),
    ]
}

/// Puts a value at a dotted path, through objects that are made where there are none.
fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.into(), value);
        }
        Some((group, rest)) => {
            let group = object.entry(group).or_insert_with(|| json!({}));
            if !group.is_object() {
                *group = json!({});
            }
            put(group.as_object_mut().expect("it is one now"), rest, value);
        }
    }
}

/// A value as JSON: in any of the ways that mean the same, mostly.
fn write(dice: &mut Dice, value: &Value) -> String {
    let style = Style { space: dice.one_in(8), escapes: dice.one_in(12), repeats: dice.one_in(25) };
    let mut text = String::new();
    style.write(dice, value, &mut text);
    text
}

struct Style {
    space: bool,
    escapes: bool,
    repeats: bool,
}

impl Style {
    fn write(&self, dice: &mut Dice, value: &Value, text: &mut String) {
        self.gap(dice, text);
        match value {
            Value::Object(object) => {
                text.push('{');
                let mut members: Vec<_> = object.iter().collect();
                if dice.one_in(2) {
                    members.reverse();
                }
                if let (true, Some(first)) = (self.repeats && dice.one_in(3), members.first()) {
                    members.push(*first);
                }
                for (index, (name, value)) in members.into_iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    self.gap(dice, text);
                    self.string(dice, name, text);
                    self.gap(dice, text);
                    text.push(':');
                    self.write(dice, value, text);
                }
                text.push('}');
            }
            Value::Array(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    self.write(dice, item, text);
                }
                text.push(']');
            }
            Value::String(string) => self.string(dice, string, text),
            other => text.push_str(&other.to_string()),
        }
        self.gap(dice, text);
    }

    fn string(&self, dice: &mut Dice, string: &str, text: &mut String) {
        if !self.escapes {
            text.push_str(&Value::from(string).to_string());
            return;
        }
        text.push('"');
        for char in string.chars() {
            if char.is_ascii_graphic() && !"\"\\".contains(char) && !dice.one_in(4) {
                text.push(char);
            } else {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        text.push('"');
    }

    fn gap(&self, dice: &mut Dice, text: &mut String) {
        if self.space && dice.one_in(3) {
            text.push_str(dice.pick(&[" ", "\n", "\t\r\n  "]));
        }
    }
}

/// A text with something cut out, put in or replaced.
fn break_up(dice: &mut Dice, text: &str) -> String {
    let mut chars: Vec<_> = text.chars().collect();
    let place = dice.below(chars.len());
    let bits = [
        "\"",
        "\\",
        ",",
        ":",
        "{",
        "}",
        "[",
        "]",
        "0",
        "\0",
        "\u{feff}",
        "é",
        "//",
        "\\ud800",
        "null",
        "{\"type\":\"x\"}",
        "\"type\":\"x\",",
    ];
    let bit = dice.pick(&bits);
    let end = place + dice.below(3).min(chars.len() - place);
    chars.splice(place..end, bit.chars());
    match dice.below(8) {
        0 => chars.truncate(place),
        1 => chars.extend(bit.chars()),
        _ => {}
    }
    chars.into_iter().collect()
}
