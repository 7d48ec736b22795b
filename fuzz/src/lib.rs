//! Inputs as requests, and the layer's answer against the model's; events of a client are in
//! `events`.
//!
//! An input is text, so that the corpus can be read: a first line that says the setting (a letter
//! for the number of a `Setting`, then `-`, `!` or `x` for how the inner service answers), and what
//! the target makes of the rest.

mod events;
#[path = "../../tests/model/guarded.rs"]
mod guarded;
#[path = "../../tests/model/mod.rs"]
mod model;
#[path = "../../tests/model/session.rs"]
mod session;

use std::sync::LazyLock;

use model::{
    Bytes, HttpVersion, Inner, Request, judge,
    subject::{FORCED, Subject},
};

pub use events::guard;

static SUBJECT: LazyLock<Subject> = LazyLock::new(Subject::new);

/// Every line is the value of an `Authorization`.
pub fn authorization(input: &[u8]) {
    check(input, |rest| Some(get(None, headers("authorization", rest))));
}

/// The rest is the query.
pub fn query(input: &[u8]) {
    check(input, |rest| Some(get(Some(std::str::from_utf8(rest).ok()?.into()), Vec::new())));
}

/// Every line is a `Sec-WebSocket-Protocol` of a proper handshake.
pub fn offers(input: &[u8]) {
    check(input, |rest| {
        let mut headers = headers("sec-websocket-protocol", rest);
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.push((name.into(), Bytes(value.into())));
        }
        Some(get(None, headers))
    });
}

/// A whole request: `METHOD TARGET VERSION`, then headers in lower case as on the wire.
pub fn handshake(input: &[u8]) {
    check(input, |rest| {
        let mut lines = rest.split(|byte| *byte == b'\n');
        let request_line = std::str::from_utf8(lines.next()?).ok()?;
        let (method, rest) = request_line.split_once(' ')?;
        let (target, version) = rest.rsplit_once(' ')?;
        let version = match version {
            "1.0" => HttpVersion::Http10,
            "1.1" => HttpVersion::Http11,
            "2" => HttpVersion::Http2,
            _ => return None,
        };
        let (target, query) = match target.split_once('?') {
            Some((target, query)) => (target, Some(query.into())),
            None => (target, None),
        };
        let (authority, path) = match target.find('/') {
            Some(slash) => target.split_at(slash),
            None => (target, ""),
        };
        let headers = lines.filter_map(|line| {
            let colon = line.windows(2).position(|two| two == b": ")?;
            let name = std::str::from_utf8(&line[..colon]).ok()?.to_ascii_lowercase();
            Some((name, Bytes(line[colon + 2..].into())))
        });
        Some(Request {
            method: method.into(),
            version,
            authority: (!authority.is_empty()).then(|| authority.into()),
            path: path.into(),
            query,
            headers: headers.collect(),
        })
    });
}

fn check(input: &[u8], request: impl FnOnce(&[u8]) -> Option<Request>) {
    let [setting, inner, b'\n', rest @ ..] = input else { return };
    let setting = usize::from(setting.wrapping_sub(b'a'));
    let inner = match inner {
        b'!' => Inner::Chooses(FORCED),
        b'x' => Inner::Declines,
        _ => Inner::Completes,
    };
    let Some(request) = request(rest) else { return };
    let Some(answer) = SUBJECT.answer(&request, inner, setting) else { return };
    let setting = SUBJECT.setting(setting);
    let expected = judge(&request, inner, setting);
    assert_eq!(
        answer, expected,
        "left: the layer, right: the model, for {request:?} with {:?} and {:?}",
        setting.conflicts, setting.profile,
    );
}

fn get(query: Option<String>, headers: Vec<(String, Bytes)>) -> Request {
    let (method, path) = ("GET".into(), "/v1/realtime".into());
    Request { method, version: HttpVersion::Http11, authority: None, path, query, headers }
}

fn headers(name: &str, lines: &[u8]) -> Vec<(String, Bytes)> {
    lines.split(|byte| *byte == b'\n').map(|value| (name.into(), Bytes(value.into()))).collect()
}
