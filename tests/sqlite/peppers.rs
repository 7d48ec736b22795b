//! T11: a pepper keeps what is in the file from being what the keys alone would give.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use tower_realtime_auth::{ApiKey, KeyHasher, Pepper, http::StatusCode};

use crate::{beside, figure, issue, open, place, status};

fn pepper(version: u32) -> KeyHasher {
    KeyHasher::peppered(Pepper::new(version, &[version as u8; 32]).expect("a pepper"))
}

/// `STOLEN_DIGESTS` sets another number of keys.
#[tokio::test]
async fn nothing_in_the_file_is_made_of_a_key_alone_or_opens_anything() {
    let (_folder, path) = place();
    let keys = open(&path).await.with_hasher(pepper(1));
    let number = figure("STOLEN_DIGESTS", 1_000);
    let mut of_keys = HashSet::new();
    let mut digests = Vec::new();
    for _ in 0..number / 100 {
        for issued in join_all((0..100).map(|_| issue(&keys, "acme"))).await {
            of_keys.insert(<[u8; 32]>::from(Sha256::digest(issued.key().expose())));
            digests.push(*issued.record().digest().as_bytes());
        }
    }
    assert_eq!(of_keys.len(), number);

    let stored: HashMap<[u8; 32], usize> = digests.iter().map(|digest| (*digest, 0)).collect();
    let bytes = [fs::read(&path).unwrap(), fs::read(beside(&path, "-wal")).unwrap()].concat();
    let mut found = HashSet::new();
    for window in bytes.windows(32) {
        assert!(!of_keys.contains(window), "the digest of a key without the pepper");
        found.extend(stored.get_key_value(window).map(|(digest, _)| *digest));
    }
    assert_eq!(found.len(), number, "what is there is found");

    for digest in &digests {
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = [BASE64_STANDARD.encode(digest), BASE64_URL_SAFE_NO_PAD.encode(digest)];
        let stolen = base64.into_iter().chain([hex.to_uppercase(), hex]);
        for stolen in stolen {
            let stolen = ApiKey::new(&stolen).expect("a credential");
            assert_eq!(status(&keys, &stolen).await, StatusCode::UNAUTHORIZED);
        }
    }
}

/// The pepper now and the one before it are known, and no other.
#[tokio::test]
async fn two_peppers_are_known() {
    let (_folder, path) = place();
    let mut made = Vec::new();
    for version in 0..3 {
        let keys = open(&path).await.with_hasher(pepper(version));
        made.push(join_all((0..20).map(|_| issue(&keys, "acme"))).await);
    }
    let keys = open(&path).await.with_hasher(pepper(2).with_previous(pepper(1)));
    let expected = [StatusCode::UNAUTHORIZED, StatusCode::OK, StatusCode::OK];
    for (made, expected) in made.iter().zip(expected) {
        for issued in made {
            assert_eq!(status(&keys, issued.key()).await, expected);
        }
    }
}
