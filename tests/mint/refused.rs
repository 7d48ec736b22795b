//! T31: what is not of its type is refused by name, in every shape; nothing wrong counts as absent.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use http_body_util::Full;
use serde_json::Value;
use tower::Service;
use tower_realtime_auth::{
    ClientSecrets, ClientTokens, Grants, JsonBody, MemoryStore, NewKey, RealtimeSessions,
    TranscriptionSessions,
    bytes::Bytes,
    http::{Request, Response, StatusCode},
};

use super::{Desk, Reply, answer, request_by};

/// What a field may be.
#[derive(Debug, Clone, Copy)]
enum Is {
    /// An object with no fields but these, which are in the table too.
    Closed,
    Object,
    ObjectOrNull,
    AutoObjectOrNull,
    Array,
    Text,
    TextOrObject,
    Number,
    NumberOrInf,
    Model,
    Kind,
    Anchor,
    /// Whole seconds from .. to.
    Seconds(u32, u32),
    /// 1 to 20 texts, none of them this one.
    Texts(&'static str),
}
use Is::*;

impl Is {
    /// JSON texts that are something else.
    fn wrong(self) -> Vec<String> {
        let texts: &[&str] = match self {
            Closed => &["null", "true", "1", r#""{}""#, "[]", "[{}]"],
            Object => &["null", "false", "60", r#""a""#, "[]"],
            ObjectOrNull => &["true", "0", r#""null""#, "[]"],
            AutoObjectOrNull => &["true", "1", r#""""#, r#""Auto""#, "[]"],
            Array => &["null", "true", "1", r#""text""#, "{}"],
            Text => &["null", "true", "1", "[]", r#"["a"]"#, "{}"],
            TextOrObject => &["null", "true", "-1", "[]"],
            Number => &["null", "true", r#""0.8""#, r#""""#, "[]", "{}"],
            NumberOrInf => &["null", "true", r#""1""#, r#""Inf""#, r#""infinity""#, "[]", "{}"],
            Model => &["null", "true", "1", r#""""#, "[]", r#"["m"]"#, "{}"],
            Kind => &["null", "true", "1", r#""""#, r#""Realtime""#, "[]", "{}"],
            Anchor => &["null", "true", "1", r#""""#, r#""Created_at""#, r#""now""#, "[]", "{}"],
            Seconds(..) => &[
                "null",
                "true",
                "false",
                r#""60""#,
                r#""""#,
                "60.5",
                "60.0",
                "6e1",
                "-1",
                "-0",
                "-60",
                "0",
                "18446744073709551615",
                "18446744073709551616",
                "1e308",
                "[]",
                "[60]",
                "{}",
                r#"{"seconds":60}"#,
            ],
            Texts(_) => &["null", "true", "1", r#""m""#, "[]", "{}", r#"{"0":"m"}"#],
        };
        let mut texts: Vec<_> = texts.iter().copied().map(String::from).collect();
        match self {
            Model => texts.push(format!(r#""{}""#, "m".repeat(257))),
            Seconds(from, to) => {
                texts.extend([from - 1, to + 1].map(|seconds| seconds.to_string()));
            }
            Texts(good) => texts.push(format!("[{}]", vec![format!("{good:?}"); 21].join(","))),
            _ => {}
        }
        texts
    }
}

/// What is no JSON that every reader reads alike, wherever it stands.
const NO_VALUE: [&str; 18] = [
    "",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e309",
    "-1e309",
    "undefined",
    "None",
    "True",
    "01",
    "+1",
    ".5",
    "1.",
    "0x3c",
    "'a'",
    r#""\ud800""#,
    "\"a\nb\"",
    "[1,]",
];

/// What is not one JSON object.
const NO_OBJECT: [&[u8]; 27] = [
    b"[]",
    b"[{}]",
    b"true",
    b"60",
    b"\"{}\"",
    b"{",
    b"}",
    b"{{}}",
    b"{}}",
    b"{} {}",
    b"{}{}",
    b"{},",
    b"{}\0",
    b"{} // nothing",
    b"/**/{}",
    b"\xef\xbb\xbf{}",
    b"\xef\xbb\xbf",
    b"\xff\xfe{\0}\0",
    b"\xff",
    b"{\"a\xff\":1}",
    b"{\"a\":\"\xc3\x28\"}",
    b"{\"a\":\"\xed\xa0\x80\"}",
    b"{a:1}",
    b"{'a':1}",
    b"{\"a\"}",
    b"{\"a\":1,}",
    b"expires_in=60",
];

/// `{"a":{"b":VALUE}}` for the path `a.b`.
fn body(path: &str, value: &str) -> String {
    let names = path.rsplit('.');
    names.fold(value.to_owned(), |inner, name| format!(r#"{{"{name}":{inner}}}"#))
}

/// A shape: its fields, what else it refuses, and how it is asked.
struct Table {
    fields: Vec<(&'static str, Is)>,
    /// Fields that it does not know.
    unknown: &'static [&'static str],
    /// Bodies as no rule makes them, with the path that is named.
    others: &'static [(&'static str, &'static str)],
}

impl Table {
    /// Wrong bodies, each with the path that is named; an empty one is the body as a whole.
    fn bodies(&self) -> BTreeSet<(Vec<u8>, String)> {
        let mut bodies = BTreeSet::new();
        let mut add =
            |body: String, path: &str| bodies.insert((body.into_bytes(), path.to_owned()));
        for (path, is) in &self.fields {
            for wrong in is.wrong() {
                add(body(path, &wrong), path);
            }
            for wrong in NO_VALUE {
                add(body(path, wrong), "");
            }
            let (place, name) = path.rsplit_once('.').unwrap_or(("", path));
            let inside =
                |object: String| if place.is_empty() { object } else { body(place, &object) };
            add(inside(format!(r#"{{"{name}":{{}},"{name}":{{}}}}"#)), path);
            // The same name in other letters.
            add(
                inside(format!(r#"{{"{name}":1,"\u{:04x}{}":1}}"#, name.as_bytes()[0], &name[1..])),
                path,
            );
            if let Closed = is {
                add(body(path, r#"{"other":1}"#), &format!("{path}.other"));
            }
        }
        for path in self.unknown {
            for value in ["1", "null", "{}", r#""text""#] {
                add(body(path, value), path);
            }
        }
        for (body, path) in self.others {
            add((*body).to_owned(), path);
        }
        let deep = |depth: usize, open: &str, close: &str| {
            format!(r#"{{"a":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
        };
        for depth in [32, 100, 5_000] {
            add(deep(depth, "[", "]"), "");
            add(deep(depth, r#"{"a":"#, "}"), "");
        }
        add("[".repeat(64 * 1024), "");
        bodies.extend(NO_OBJECT.map(|body| (body.to_vec(), String::new())));
        bodies
    }
}

impl Table {
    /// Asserts that `reply` refuses each body by name, of which there are at least 80.
    async fn assert_refused(&self, shape: &str, reply: impl AsyncFn(Vec<u8>) -> Reply) {
        let bodies = self.bodies();
        for (body, path) in &bodies {
            let reply = reply(body.clone()).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            assert!(reply.status.is_client_error(), "{shape}: {shown}: {}", reply.json);
            assert_eq!(named(&reply), *path, "{shape}: {shown}: {}", reply.json);
            assert_eq!(reply.headers["cache-control"], "no-store", "{shape}: {shown}");
        }
        // Shown with `--nocapture`.
        println!("{shape} refuses {} bodies", bodies.len());
        assert!(bodies.len() >= 80);
    }
}

/// The field that a refusal names, in OpenAI's form or in Decart's.
fn named(reply: &Reply) -> String {
    if let error @ Value::Object(_) = &reply.json["error"] {
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].is_string());
        let path = error["param"].as_str().unwrap_or_default();
        assert_eq!(error["code"] == "invalid_json", path.is_empty(), "{error}");
        return path.to_owned();
    }
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
    let detail = &reply.json["detail"][0];
    assert!(detail["msg"].is_string());
    let location = detail["loc"].as_array().expect("a location");
    assert_eq!(location[0], "body");
    assert_eq!(detail["type"] == "json_invalid", location.len() == 1, "{detail}");
    let names = location[1..].iter().map(|name| match name {
        Value::String(name) => name.clone(),
        index => index.as_u64().expect("a name or an index").to_string(),
    });
    names.collect::<Vec<_>>().join(".")
}

/// A key whose tokens have sessions of an hour at most.
async fn desk() -> Desk {
    let grants = Grants::default().with_max_session(Duration::from_secs(3_600));
    Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await
}

async fn refuses<T>(shape: &str, table: Table, endpoint: impl Fn(&Desk) -> T)
where
    T: Service<Request<Full<Bytes>>, Response = Response<JsonBody>, Error = Infallible> + Clone,
{
    let desk = desk().await;
    let endpoint = endpoint(&desk);
    let reply = async |body: Vec<u8>| {
        let request = request_by(desk.parent.key().expose(), Full::from(body));
        answer(&desk.keys, endpoint.clone(), request).await
    };
    table.assert_refused(shape, reply).await;
    assert!(desk.tokens().await.is_empty(), "a refusal mints nothing");
    // It is not that nothing is minted here.
    assert_eq!(reply(b"{}".to_vec()).await.status, StatusCode::OK);
}

/// The settings of [`ClientSecrets`], in `session` and beside it.
const SESSION: [(&str, Is); 17] = [
    ("type", Kind),
    ("model", Model),
    ("instructions", Text),
    ("voice", TextOrObject),
    ("tools", Array),
    ("tool_choice", TextOrObject),
    ("output_modalities", Array),
    ("modalities", Array),
    ("temperature", Number),
    ("speed", Number),
    ("audio", Object),
    ("audio.input", Object),
    ("audio.output", Object),
    ("audio.output.voice", TextOrObject),
    ("audio.output.speed", Number),
    ("turn_detection", ObjectOrNull),
    ("audio.input.turn_detection", ObjectOrNull),
];

#[tokio::test]
async fn client_secrets() {
    let mut fields = vec![
        ("expires_after", Closed),
        ("expires_after.seconds", Seconds(1, 7_200)),
        ("expires_after.anchor", Anchor),
        ("session", Object),
    ];
    fields.extend(SESSION);
    fields.extend(SESSION.map(|(path, is)| (format!("session.{path}").leak() as &str, is)));
    let table = Table {
        fields,
        unknown: &["expires_after.minutes", "expires_after.second"],
        others: &[
            ("null", ""),
            (r#"{"expires_after":{}}"#, "expires_after.seconds"),
            (r#"{"expires_after":{"anchor":"created_at"}}"#, "expires_after.seconds"),
            (r#"{"expires_after":{"seconds":60,"anchor":null}}"#, "expires_after.anchor"),
            (r#"{"expires_after":{"seconds":60,"minutes":1}}"#, "expires_after.minutes"),
            // A setting in both places that is not the same.
            (r#"{"model":"a","session":{"model":"b"}}"#, "model"),
            (r#"{"voice":"a","session":{"voice":"b"}}"#, "voice"),
            // The same setting in two spellings.
            (r#"{"session":{"voice":"a","audio":{"output":{"voice":"b"}}}}"#, "session.voice"),
        ],
    };
    refuses("ClientSecrets", table, |desk| ClientSecrets::new(desk.keys.clone())).await;
}

#[tokio::test]
async fn client_tokens() {
    let table = Table {
        fields: vec![
            ("expiresIn", Seconds(1, 3_600)),
            ("allowedModels", Texts("m")),
            ("allowedOrigins", Texts("https://a")),
            ("constraints", Closed),
            ("constraints.realtime", Closed),
            ("constraints.realtime.maxSessionDuration", Seconds(10, 3_600)),
            ("metadata", Object),
            ("metadata.role", Text),
        ],
        unknown: &["expires_in", "expires_after", "models", "model", "session", "token"],
        others: &[
            (r#"{"allowedModels":["m",""]}"#, "allowedModels.1"),
            (r#"{"allowedModels":["m",1]}"#, "allowedModels.1"),
            (r#"{"allowedModels":[null]}"#, "allowedModels.0"),
            (r#"{"allowedModels":[["m"]]}"#, "allowedModels.0"),
            (r#"{"allowedOrigins":[1]}"#, "allowedOrigins.0"),
            (r#"{"allowedOrigins":["*"]}"#, "allowedOrigins.0"),
            (r#"{"allowedOrigins":["null"]}"#, "allowedOrigins.0"),
            (r#"{"allowedOrigins":["https://a","https://a/"]}"#, "allowedOrigins.1"),
            (
                r#"{"metadata":{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":"","j":"","k":"","l":"","m":"","n":"","o":"","p":"","q":""}}"#,
                "metadata",
            ),
        ],
    };
    refuses("ClientTokens", table, |desk| ClientTokens::new(desk.keys.clone())).await;
}

#[tokio::test]
async fn realtime_sessions() {
    let table = Table {
        fields: vec![
            ("model", Model),
            ("modalities", Array),
            ("instructions", Text),
            ("voice", TextOrObject),
            ("input_audio_format", Text),
            ("output_audio_format", Text),
            ("input_audio_transcription", ObjectOrNull),
            ("input_audio_noise_reduction", ObjectOrNull),
            ("turn_detection", ObjectOrNull),
            ("tools", Array),
            ("tool_choice", TextOrObject),
            ("temperature", Number),
            ("max_response_output_tokens", NumberOrInf),
            ("speed", Number),
            ("tracing", AutoObjectOrNull),
            ("truncation", TextOrObject),
            ("prompt", ObjectOrNull),
            ("include", Array),
        ],
        unknown: &["session", "expires_after", "client_secret", "id", "object", "type", "audio"],
        others: &[("null", "")],
    };
    refuses("RealtimeSessions", table, |desk| RealtimeSessions::new(desk.keys.clone())).await;
}

#[tokio::test]
async fn transcription_sessions() {
    let table = Table {
        fields: vec![
            ("modalities", Array),
            ("input_audio_format", Text),
            ("input_audio_transcription", ObjectOrNull),
            ("input_audio_noise_reduction", ObjectOrNull),
            ("turn_detection", ObjectOrNull),
            ("include", Array),
        ],
        unknown: &["model", "voice", "instructions", "type", "session", "expires_after", "id"],
        others: &[("null", "")],
    };
    let endpoint = |desk: &Desk| TranscriptionSessions::new(desk.keys.clone());
    refuses("TranscriptionSessions", table, endpoint).await;
}
