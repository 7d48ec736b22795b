//! Inputs as the events of a client, and what the guard does with them against the model.
//!
//! A first line has one letter, for the number of the terms; every other line is an event, of
//! which all that the guard hands on must leave what is locked as it is.

use std::sync::LazyLock;

use serde_json::Value;

use crate::{
    guarded::Guarded,
    session::{Mode, Terms},
};

/// What is between two events: no JSON has it, and few texts.
const BETWEEN: char = '\u{1e}';

static TERMS: LazyLock<Vec<Terms>> = LazyLock::new(terms);

/// Whether the last of the events that the input says is handed on may depend on all before.
pub fn guard(input: &[u8]) {
    let [number, b'\n', rest @ ..] = input else { return };
    let (Ok(events), Some(terms)) =
        (std::str::from_utf8(rest), TERMS.get(usize::from(number.wrapping_sub(b'a'))))
    else {
        return;
    };
    let mut guarded = Guarded::new(terms);
    for event in events.split(BETWEEN) {
        if let Err(wrong) = guarded.send(event) {
            panic!("{wrong}\nunder {terms:#?}");
        }
    }
}

fn terms() -> Vec<Terms> {
    const FLAT: &str = r#"{"instructions":"Say only what the customer may know.","voice":"marin","tools":[{"type":"function","name":"lookup","parameters":{"type":"object"}}],"tool_choice":"auto","speed":1,"temperature":0.8,"output_audio_format":"pcm16","input_audio_format":"pcm16","turn_detection":{"type":"server_vad","threshold":0.5},"input_audio_transcription":{"model":"whisper-1","language":"en"},"input_audio_noise_reduction":{"type":"near_field"},"modalities":["text"],"max_response_output_tokens":512,"prompt":{"id":"pmpt_1","version":"1"}}"#;
    const NESTED: &str = r#"{"type":"realtime","instructions":"Say only what the customer may know.","audio":{"output":{"voice":"marin","speed":1,"format":{"type":"audio/pcm","rate":24000}},"input":{"format":{"type":"audio/pcm","rate":24000},"turn_detection":{"type":"server_vad","threshold":0.5},"transcription":{"model":"whisper-1","language":"en"},"noise_reduction":{"type":"near_field"}}},"tools":[{"type":"function","name":"lookup","parameters":{"type":"object"}}],"tool_choice":"auto","temperature":0.8,"output_modalities":["text"],"max_output_tokens":512,"prompt":{"id":"pmpt_1","version":"1"}}"#;
    const OWN: &str = r#"{"speaker":"marin","generation":{"temperature":0.5},"conversation":"auto","out":{"speed":1}}"#;
    let (set, all, nothing) = (Mode::Set, Mode::All, Mode::Nothing);
    let of = |settings: &str, mode, paths: &[&str]| Terms {
        settings: (!settings.is_empty()).then(|| {
            let Ok(Value::Object(settings)) = serde_json::from_str(settings) else {
                panic!("no settings: {settings}")
            };
            settings
        }),
        mode,
        paths: paths.iter().map(|path| (*path).into()).collect(),
        model: None,
        models: None,
        refuses: false,
        locks_when_begun: false,
        own: false,
    };
    let parts = ["turn_detection.threshold", "turn_detection.more.deep", "x.y"];
    let set_parts =
        r#"{"turn_detection":{"type":"server_vad","threshold":0.5,"more":{"deep":1,"x":2}}}"#;
    vec![
        Terms { model: Some("demo-voice".into()), ..of(FLAT, set, &[]) },
        Terms { model: Some("demo-voice".into()), ..of(NESTED, set, &[]) },
        Terms { refuses: true, ..of(FLAT, set, &[]) },
        Terms { refuses: true, ..of(NESTED, all, &[]) },
        of(r#"{"voice":"marin"}"#, set, &[]),
        of(r#"{"voice":"marin"}"#, all, &[]),
        of(r#"{"audio":{"output":{"voice":"marin"}},"x":{"y":1}}"#, set, &["tools", "prompt"]),
        of(r#"{"instructions":"Be kind."}"#, set, &[]),
        of(r#"{"tools":[]}"#, set, &[]),
        of(set_parts, nothing, &parts),
        Terms { refuses: true, ..of(set_parts, nothing, &parts) },
        of(r#"{"voice":"marin","x":1}"#, nothing, &["audio.output", "audio.input.format"]),
        Terms {
            models: Some(vec!["demo-voice".into(), "whisper-1".into()]),
            ..of("", nothing, &[])
        },
        Terms {
            model: Some("demo-voice".into()),
            models: Some(vec!["demo-voice".into()]),
            ..of(r#"{"audio":{"input":{"transcription":{"model":"whisper-1"}}}}"#, set, &[])
        },
        Terms { locks_when_begun: true, ..of("", nothing, &[]) },
        of("", set, &["audio", "metadata.role"]),
        of("", nothing, &[]),
        Terms { locks_when_begun: true, ..of(FLAT, nothing, &["instructions"]) },
        Terms { locks_when_begun: true, refuses: true, ..of(r#"{"voice":"marin"}"#, set, &[]) },
        Terms { own: true, ..of(OWN, set, &["metadata", "generation.topK"]) },
        Terms { own: true, locks_when_begun: true, ..of("", set, &["out"]) },
    ]
}
