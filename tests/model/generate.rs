//! Requests by chance: nearly right ones mostly, for what is all wrong is refused at the door.

use crate::{
    dice::Dice,
    model::{
        Bytes, HeaderForm, HttpVersion, Inner, MAX_CREDENTIAL, MAX_OFFERED_BYTES, OfferForm,
        Request, Setting,
        subject::{FORCED, ISSUED, Subject},
    },
};

/// A request, how the inner service will answer it, and the number of the setting.
#[derive(Clone, Debug)]
pub struct Case {
    pub request: Request,
    pub inner: Inner,
    pub setting: usize,
}

pub fn case(dice: &mut Dice, subject: &Subject) -> Case {
    let mut number = dice.below(subject.settings());
    if subject.setting(number).profile.offers.is_empty() {
        // Profiles that know few places are tried less often.
        number = dice.below(subject.settings());
    }
    let setting = subject.setting(number);
    let inner = match dice.below(10) {
        0 => Inner::Chooses(FORCED),
        1 => Inner::Declines,
        _ => Inner::Completes,
    };
    // Several places hold the same key more often than chance would have it.
    let favourite = key_text(dice, setting);
    let mut request = envelope(dice);
    // One place mostly, sometimes more, sometimes none.
    let place = dice.below(10);
    if place < 4 || dice.one_in(8) {
        add_header_credentials(dice, setting, &favourite, &mut request);
    }
    if (4..6).contains(&place) || dice.one_in(8) {
        request.query = Some(query(dice, setting, &favourite));
    } else if dice.one_in(2) {
        let others = ["model=m1", "model=m+2", "model=m3", "model=m1&model=m1", "a=b"];
        request.query = Some(dice.pick(&others).into());
    }
    if (6..9).contains(&place) || dice.one_in(8) {
        add_offers(dice, setting, &favourite, &mut request);
    }
    if dice.one_in(2) {
        for _ in 0..dice.prefer(&[1, 2]) {
            let origin = dice.prefer(&["https://app.example", "https://evil.example", "null", ""]);
            add(&mut request, "origin", origin);
        }
    }
    if dice.one_in(8) {
        add(&mut request, "user-agent", "generated");
    }
    Case { request, inner, setting: number }
}

fn add(request: &mut Request, name: &str, value: impl Into<Vec<u8>>) {
    request.headers.push((name.into(), Bytes(value.into())));
}

/// A request without credentials: a handshake mostly.
fn envelope(dice: &mut Dice) -> Request {
    let mut request = Request {
        method: "GET".into(),
        version: HttpVersion::Http11,
        authority: dice.one_in(8).then(|| "api.example:8443".into()),
        path: dice
            .prefer(&["/v1/realtime", "/", "/v1/%72ealtime", "/v1/realtime/client_secrets"])
            .into(),
        query: None,
        headers: Vec::new(),
    };
    match dice.below(8) {
        0 => {
            request.method = dice.pick(&["GET", "POST", "OPTIONS", "HEAD"]).into();
            request.version =
                dice.pick(&[HttpVersion::Http11, HttpVersion::Http2, HttpVersion::Http10]);
        }
        1 => {
            request.method = "CONNECT".into();
            request.version = dice.prefer(&[HttpVersion::Http2, HttpVersion::Http11]);
            request.authority = Some("api.example".into());
            add(&mut request, "sec-websocket-version", dice.prefer(&["13", "8"]));
            if dice.one_in(8) {
                request.path = String::new();
            }
        }
        _ => {
            let connection =
                dice.prefer(&["Upgrade", "keep-alive, Upgrade", "UPGRADE,close", ",upgrade"]);
            add(&mut request, "connection", connection);
            let upgrade = dice.prefer(&["websocket", "WebSocket", "h2c, websocket"]);
            add(&mut request, "upgrade", upgrade);
            add(&mut request, "sec-websocket-version", "13");
            let nonce = dice.prefer(&["dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA=="]);
            add(&mut request, "sec-websocket-key", nonce);
            if dice.one_in(10) {
                spoil(dice, &mut request);
            }
        }
    }
    request
}

fn spoil(dice: &mut Dice, request: &mut Request) {
    let header = dice.below(request.headers.len());
    match dice.below(5) {
        0 => request.method = dice.pick(&["POST", "get", "OPTIONS"]).into(),
        1 => request.version = dice.pick(&[HttpVersion::Http10, HttpVersion::Http2]),
        2 => drop(request.headers.remove(header)),
        3 => request.headers.push(request.headers[header].clone()),
        _ => {
            let odd = [
                "",
                "h2c",
                "14",
                "13 ",
                "close",
                "dGhlIHNhbXBsZSBub25jZQ",
                "AAAAAAAAAAAAAAAAAAAAAB==",
                "web socket",
            ];
            request.headers[header].1 = Bytes(dice.pick(&odd).into());
        }
    }
}

fn key_text(dice: &mut Dice, setting: &Setting) -> Vec<u8> {
    match dice.below(40) {
        0..16 => b"good".to_vec(),
        16..30 => {
            // The longest one costs time.
            let key = dice.pick(&setting.keys).text.into_bytes();
            if key.len() > 1_000 && !dice.one_in(8) { b"other".to_vec() } else { key }
        }
        30..33 => dice.pick(&["nobody", "Good", "goo", "ek_1", "rt_", "k.e-y_~!"]).into(),
        33 => ISSUED.replace("7d0", dice.pick(&["7d1", "7d", "7d00"])).into(),
        34 => Vec::new(),
        35 => b"null".to_vec(),
        36 if dice.one_in(4) => vec![b'k'; MAX_CREDENTIAL + 1 + dice.below(5_000)],
        _ => dice
            .pick(&[
                &b"go od"[..],
                b"good,x",
                b"g\xffod",
                b"\xc3\xa4",
                b"go\tod",
                b"good=",
                b"\"good\"",
            ])
            .into(),
    }
}

fn this_or_another(dice: &mut Dice, favourite: &[u8], setting: &Setting) -> Vec<u8> {
    if dice.below(4) > 0 { favourite.into() } else { key_text(dice, setting) }
}

fn odd_case(dice: &mut Dice, text: &str) -> String {
    match dice.below(4) {
        0 => text.to_ascii_lowercase(),
        1 => text.to_ascii_uppercase(),
        _ => text.into(),
    }
}

fn add_header_credentials(
    dice: &mut Dice,
    setting: &Setting,
    favourite: &[u8],
    request: &mut Request,
) {
    for _ in 0..dice.prefer(&[1, 1, 2, 3]) {
        let (name, mut value) = match dice.pick(&setting.profile.headers) {
            _ if dice.one_in(10) => {
                let other =
                    ["Basic dTpw", "Bearer", "Bearergood", "Token good", "", " Bearer good"];
                ("authorization", dice.pick(&other).into())
            }
            _ if dice.one_in(20) => {
                (dice.pick(&["x-api-key", "x-goog-api-key", "api-key"]), Vec::new())
            }
            HeaderForm::Key(name) => (name, dice.prefer(&["", " ", "\t"]).into()),
            HeaderForm::Scheme(name, scheme) => {
                let blank = dice.prefer(&[" ", "  ", "    ", "\t", " \t", "\t ", ":", ""]);
                (name, (odd_case(dice, scheme) + blank).into())
            }
        };
        value.extend(this_or_another(dice, favourite, setting));
        if dice.one_in(10) {
            value.extend(dice.pick(&[" ", "\t", " x", ",y", " \t "]).bytes());
        }
        add(request, name, value);
    }
}

fn query(dice: &mut Dice, setting: &Setting, favourite: &[u8]) -> String {
    let names = &setting.profile.query_names;
    let names = if names.is_empty() || dice.one_in(10) {
        &["api_key", "key", "API_KEY"]
    } else {
        &names[..]
    };
    let mut pairs = Vec::new();
    for _ in 0..dice.prefer(&[1, 2, 3]) {
        let name = dice.pick(names);
        let name = escape(dice, name.as_bytes());
        let key = this_or_another(dice, favourite, setting);
        let value = escape(dice, &key);
        pairs.push(match dice.below(20) {
            0 => name,
            1 => {
                name + "=" + &value + dice.pick(&["%", "%4", "%zz", "%00", "%FF", "+", "=", "%2C"])
            }
            _ => name + "=" + &value,
        });
    }
    for _ in 0..dice.below(3) {
        let other = [
            "model=m1",
            "model=m1",
            "model=m+2",
            "model=m%202",
            "mod%65l=m1",
            "model=m3",
            "model=",
            "model=%6",
            "model",
            "Model=m1",
            "a=1",
            "",
            "b=%2",
            "%2=b",
            "=",
            "deployment=m1",
            "intent=transcription",
            "call_id=c",
            "c={}|^`",
            "d=ö",
        ];
        let place = dice.below(pairs.len() + 1);
        pairs.insert(place, dice.pick(&other).into());
    }
    pairs.join("&")
}

/// The text in a query: escaped where it must be, and sometimes where it need not be.
fn escape(dice: &mut Dice, text: &[u8]) -> String {
    let also = dice.prefer(&[usize::MAX, 4, 1]);
    let mut escaped = String::new();
    for byte in text {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~+=!:".contains(byte);
        if is_plain && (also == usize::MAX || !dice.one_in(also)) {
            escaped.push(char::from(*byte));
        } else if dice.one_in(2) {
            escaped += &format!("%{byte:02x}");
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

fn add_offers(dice: &mut Dice, setting: &Setting, favourite: &[u8], request: &mut Request) {
    let profile = &setting.profile;
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for _ in 0..dice.prefer(&[1, 1, 2, 0]) {
        let key = this_or_another(dice, favourite, setting);
        let forms = &profile.offers;
        match if forms.is_empty() {
            OfferForm::Prefix("xai-client-secret.")
        } else {
            dice.pick(forms)
        } {
            OfferForm::Prefix(prefix) => entries.push([prefix.as_bytes(), &key].concat()),
            OfferForm::Base64Url(prefix) => {
                let odd = dice.prefer(&["", "=", "==", "A", "*"]);
                entries.push((prefix.to_owned() + &base64url(&key) + odd).into());
            }
            OfferForm::After(marker) => entries.extend([marker.into(), key]),
            OfferForm::Beginning(with) => {
                entries.push(dice.pick(&[key, b"rt_good".to_vec(), with.into()]));
            }
        }
    }
    for _ in 0..dice.below(4) {
        let others = [
            &b"realtime"[..],
            b"realtime",
            b"v5.channel",
            b"token",
            b"bearer",
            b"REALTIME",
            b"foo",
            b"openai-organization.o",
            b"openai-agents-sdk.0.20.0",
            b"openai-beta.realtime-v1",
            b"OpenAI-Insecure-Api-Key.good",
            b"openai-insecure-api-key",
            b"openai-insecure-api-key.",
            b"base64url.bearer.",
            b"",
            b"\"a",
            b"\xff\xfe",
            b"a b",
            b"a=b",
        ];
        // Not between a marker and its key, mostly.
        let place = if dice.one_in(4) {
            dice.below(entries.len() + 1)
        } else {
            dice.pick(&[0, entries.len()])
        };
        entries.insert(place, dice.pick(&others).into());
    }
    if dice.one_in(40) {
        let extra = dice.pick(&[26, 29, 31, 32, 33]);
        entries.extend((0..extra).map(|number| format!("p{number}").into()));
    }
    let mut line = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 && dice.one_in(10) {
            add(request, "sec-websocket-protocol", std::mem::take(&mut line));
        } else if index > 0 {
            line.extend(dice.prefer(&[", ", ",", " ,\t", ",, ", ",,"]).bytes());
        }
        line.extend(entry);
    }
    if dice.one_in(60) {
        // Just within the bound of all lines together, or just past it.
        let before: usize = request
            .headers
            .iter()
            .map(|(name, value)| if name == "sec-websocket-protocol" { value.0.len() } else { 0 })
            .sum();
        let bound = MAX_OFFERED_BYTES + dice.pick(&[0, 1]);
        line.push(b',');
        line.resize(bound.saturating_sub(before).max(line.len()), b'x');
    }
    add(request, "sec-websocket-protocol", line);
}

fn base64url(text: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for three in text.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte))
            << (24 - 8 * three.len());
        for digit in 0..=three.len() {
            encoded.push(char::from(ALPHABET[bits >> (18 - 6 * digit) & 63]));
        }
    }
    encoded
}
