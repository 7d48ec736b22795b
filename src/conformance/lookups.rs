//! What a store promises that only finds keys.

use std::sync::Arc;

use super::{
    bench::{alike, digest},
    finding::{Checked, Seen, holds},
    records::samples,
    rules,
};
use crate::{KeyDigest, KeyRecord, KeyStore};

rules![Arc<dyn KeyStore>:
    lookup_finds_by_the_whole_digest,
    lookup_either_finds_either,
    every_field_survives,
];

type Found = Option<Arc<KeyRecord>>;

fn found(answer: Found, sample: &KeyRecord) -> Checked {
    let record = answer.ok_or_else(|| Seen::new(format!("no record of {}", sample.id())))?;
    alike("the record", &record, sample)
}

async fn lookup_finds_by_the_whole_digest(store: Arc<dyn KeyStore>) -> Checked {
    for place in 0..32 {
        let mut bytes = *digest("plain").as_bytes();
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1;
        }
        let found = store.lookup(&KeyDigest::from_bytes(bytes)).await?;
        holds(found.is_none(), || format!("found by a digest with another byte {place}"))?;
    }
    Ok(())
}

async fn lookup_either_finds_either(store: Arc<dyn KeyStore>) -> Checked {
    let nobody = digest("nobody");
    for sample in samples() {
        found(store.lookup_either(sample.digest(), &nobody).await?, &sample)?;
        found(store.lookup_either(&nobody, sample.digest()).await?, &sample)?;
        found(store.lookup_either(sample.digest(), &digest("plain")).await?, &sample)?;
    }
    holds(store.lookup_either(&nobody, &nobody).await?.is_none(), || "found, of nobody")
}

async fn every_field_survives(store: Arc<dyn KeyStore>) -> Checked {
    for sample in samples() {
        found(store.lookup(sample.digest()).await?, &sample)?;
    }
    Ok(())
}
