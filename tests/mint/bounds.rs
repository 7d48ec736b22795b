//! What no token can have, whoever asks for it: by JSON or with grants made by hand.

use std::{iter, time::Duration};

use tower_realtime_auth::{Grants, MemoryStore, MintError, NewKey, NewToken};

use super::Desk;

/// The field that is at fault if a key with `of_parent` mints with `asked`; `None` if it does.
async fn fault(of_parent: &Grants, asked: &Grants) -> Option<(&'static str, String)> {
    let key = NewKey::secret("acme").with_grants(of_parent.clone());
    let desk = Desk::over(MemoryStore::new(), key).await;
    let token = NewToken::lasting(Duration::from_secs(60)).with_grants(asked.clone());
    let minted = desk.keys.mint(&desk.principal(), token).await;
    let tokens = desk.tokens().await.len();
    assert_eq!(tokens, usize::from(minted.is_ok()), "a refusal mints nothing");
    match minted {
        Ok(_) => None,
        Err(MintError::Invalid { field: Some(field), .. }) => Some(("invalid", field)),
        Err(MintError::ExceedsParent { field, .. }) => Some(("exceeds", field)),
        Err(other) => panic!("{other:?}"),
    }
}

fn models<'a>(models: impl IntoIterator<Item = &'a str>) -> Grants {
    Grants::default().with_models(models)
}

fn origins<'a>(origins: impl IntoIterator<Item = &'a str>) -> Grants {
    Grants::default().with_origins(origins)
}

fn uses(uses: u32) -> Grants {
    Grants::default().with_uses(uses)
}

fn metadata(pairs: usize, name_len: usize, value_len: usize) -> Grants {
    // Names that differ in their first two digits and nothing else.
    let pair = |at| (format!("{at:0<2}{}", "n".repeat(name_len - 2)), "v".repeat(value_len));
    Grants::default().with_metadata((10..10 + pairs).map(pair))
}

#[tokio::test]
async fn grants_made_by_hand_are_bounded_too() {
    let any = Grants::default();
    let long = "m".repeat(256);
    let longer = "m".repeat(257);
    let wide = "é".repeat(129);
    let long_origin = format!("https://{}", "h".repeat(248));
    let longer_origin = format!("https://{}", "h".repeat(249));
    let table = [
        (any.clone(), models(["a"]), None),
        (any.clone(), models([]), Some(("invalid", "models"))),
        (any.clone(), models(iter::repeat_n("a", 20)), None),
        (any.clone(), models(iter::repeat_n("a", 21)), Some(("invalid", "models"))),
        (any.clone(), models(["a", ""]), Some(("invalid", "models.1"))),
        (any.clone(), models([long.as_str()]), None),
        (any.clone(), models([longer.as_str()]), Some(("invalid", "models.0"))),
        (any.clone(), models([wide.as_str()]), Some(("invalid", "models.0"))),
        (models(["a", "b"]), any.clone(), None),
        (models(["a", "b"]), models(["b"]), None),
        (models(["a", "b"]), models(["b", "c"]), Some(("exceeds", "models.1"))),
        // What allows none gives none.
        (models([]), models(["a"]), Some(("exceeds", "models.0"))),
        (models([]), any.clone(), None),
        (any.clone(), origins([]), Some(("invalid", "origins"))),
        (any.clone(), origins(iter::repeat_n("https://a", 20)), None),
        (any.clone(), origins(iter::repeat_n("https://a", 21)), Some(("invalid", "origins"))),
        (any.clone(), origins([long_origin.as_str()]), None),
        (any.clone(), origins([longer_origin.as_str()]), Some(("invalid", "origins.0"))),
        (any.clone(), origins(["https://a", "a"]), Some(("invalid", "origins.1"))),
        (origins(["https://a"]), origins(["https://a"]), None),
        (origins(["https://a"]), origins(["https://b"]), Some(("exceeds", "origins.0"))),
        (any.clone(), uses(0), Some(("invalid", "uses"))),
        (any.clone(), uses(1), None),
        (any.clone(), uses(1_000_000), None),
        (any.clone(), uses(1_000_001), Some(("invalid", "uses"))),
        (uses(2), uses(2), None),
        (uses(2), uses(3), Some(("exceeds", "uses"))),
        (uses(2), uses(0), Some(("invalid", "uses"))),
        (any.clone(), metadata(0, 2, 0), None),
        (any.clone(), metadata(16, 64, 512), None),
        (any.clone(), metadata(17, 2, 0), Some(("invalid", "metadata"))),
        (any.clone(), metadata(1, 65, 0), Some(("invalid", "metadata"))),
        (any.clone(), metadata(1, 2, 513), Some(("invalid", "metadata.10"))),
    ];
    for (row, (of_parent, asked, expected)) in table.into_iter().enumerate() {
        let expected = expected.map(|(kind, field)| (kind, field.to_owned()));
        assert_eq!(fault(&of_parent, &asked).await, expected, "row {row}: {asked:?}");
    }
}

#[tokio::test]
async fn origins_are_as_browsers_write_them() {
    let any = Grants::default();
    for origin in [
        "https://app.example",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "https://[2001:db8::1]",
        "https://xn--bcher-kva.example",
        "https://a_b.example:65535",
        "http://a.example:443",
        "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai",
        "safari-web-extension://5A2B7E10-0C7A-4C3A-9A06-0D5C1F6E9B11",
        "capacitor://localhost",
    ] {
        assert_eq!(fault(&any, &origins([origin])).await, None, "{origin}");
    }
    for origin in [
        "",
        "*",
        "null",
        "app.example",
        "//app.example",
        "https:app.example",
        "https://",
        "https:///",
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?q",
        "https://app.example#f",
        "https://user@app.example",
        "https://App.example",
        "HTTPS://app.example",
        "https://bücher.example",
        "https://*.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://app.example:",
        "https://app.example:0443",
        "https://app.example:+444",
        "https://app.example:65536",
        "https://app.example:1:2",
        "https://[::1",
        "https://[::1]x",
        "https://[::G]",
        "https://[::FFFF]",
        "https://::1",
        " https://app.example",
        "https://app.example ",
        "https://a.example, https://b.example",
        "https://a.example\0",
        "1http://a.example",
    ] {
        let expected = Some(("invalid", "origins.0".to_owned()));
        assert_eq!(fault(&any, &origins([origin])).await, expected, "{origin:?}");
    }
}

/// What a token does not ask for it has from its key, and metadata that it does are its own.
#[tokio::test]
async fn what_is_left_out_is_inherited() {
    let grants = models(["a", "b"])
        .with_origins(["https://a"])
        .with_uses(3)
        .with_max_session(Duration::from_secs(60))
        .with_metadata([("team", "red"), ("role", "host")]);
    let desk = Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await;
    let lasting = NewToken::lasting(Duration::from_secs(60));
    let issued = desk.keys.mint(&desk.principal(), lasting.clone()).await.unwrap();
    let (token, key) = (issued.record().grants(), desk.parent.record().grants());
    assert_eq!(token.models(), key.models());
    assert_eq!(token.origins(), key.origins());
    assert_eq!(token.uses(), Some(3));
    assert_eq!(token.max_session(), Some(Duration::from_secs(60)));
    assert_eq!(token.metadata(), key.metadata());

    let asked = lasting.with_grants(Grants::default().with_metadata([("role", "viewer")]));
    let issued = desk.keys.mint(&desk.principal(), asked).await.unwrap();
    let metadata = issued.record().grants().metadata().unwrap();
    assert_eq!(metadata.len(), 1);
    assert_eq!(metadata.get("role").map(|role| &**role), Some("viewer"));
}

/// The plain call has the bounds of the endpoint.
#[tokio::test]
async fn a_body_is_bounded_without_http_too() {
    let desk = Desk::open().await;
    let body = format!("{{}}{}", " ".repeat(64 * 1024 - 2));
    assert!(desk.endpoint.mint(&desk.principal(), body.as_bytes()).await.is_ok());
    let error = desk.endpoint.mint(&desk.principal(), format!("{body} ").as_bytes()).await;
    assert!(matches!(error, Err(MintError::BodyTooLong)), "{error:?}");
}
