//! What is listed, and in which order.

use std::time::Duration;

use super::{
    bench::{Bench, NOW, after, digest, id, secret, secret_of, token},
    finding::{Checked, Seen, same},
    rules,
};
use crate::{DigestAlgorithm, KeyFilter, KeyHint, KeyKind, KeyRecord, UnixMillis};

rules![Bench: lists_are_filtered, lists_are_ordered_and_paged];

async fn listed(bench: &Bench, filter: &KeyFilter) -> Result<Vec<String>, Seen> {
    let records = bench.store.list(filter).await?;
    Ok(records.iter().map(|record| record.id().to_string()).collect())
}

async fn lists_are_filtered(bench: Bench) -> Checked {
    let hint = |prefix: &str, last: &str| Some(KeyHint::new(prefix, last));
    let peppered = |pepper| DigestAlgorithm::HmacSha256 { pepper };
    bench
        .put([
            secret("1").with_hint(hint("sk_live_", "a1B2")),
            secret("2").with_algorithm(peppered(1)).with_hint(hint("sk_live_", "A1b2")),
            secret_of("other", "3").with_algorithm(peppered(2)).with_hint(hint("sk_test_", "a1B2")),
            secret_of("other", "4").with_hint(hint("", "%1_2")),
            token("5", "1").with_algorithm(peppered(1)),
        ])
        .await?;
    let (all, acme) = (KeyFilter::default, || KeyFilter::account("acme"));
    for (filter, expected) in [
        (all(), &["1", "2", "3", "4", "5"][..]),
        (acme(), &["1", "2", "5"]),
        (KeyFilter::account("other"), &["3", "4"]),
        (KeyFilter::account("oth"), &[]),
        (KeyFilter::account(""), &[]),
        (KeyFilter::made_by(DigestAlgorithm::Sha256), &["1", "4"]),
        (KeyFilter::made_by(peppered(1)), &["2", "5"]),
        (KeyFilter::made_by(peppered(3)), &[]),
        (all().with_kind(KeyKind::Secret), &["1", "2", "3", "4"]),
        (all().with_kind(KeyKind::Ephemeral), &["5"]),
        (acme().with_kind(KeyKind::Secret), &["1", "2"]),
        (all().with_hint("sk_live_", "a1B2"), &["1"]),
        (all().with_hint("sk_live_", "A1b2"), &["2"]),
        (all().with_hint("", "a1B2"), &[]),
        (all().with_hint("", "%1_2"), &["4"]),
        (all().with_hint("%", "____"), &[]),
        (KeyFilter { last_four: Some("a1B2".into()), ..all() }, &["1", "3"]),
        (KeyFilter { prefix: Some("sk_live_".into()), ..all() }, &["1", "2"]),
        (KeyFilter { algorithm: Some(peppered(1)), ..acme() }.with_kind(KeyKind::Secret), &["2"]),
    ] {
        same(&format!("{filter:?}"), listed(&bench, &filter).await?.as_slice(), expected)?;
    }
    Ok(())
}

async fn lists_are_ordered_and_paged(bench: Bench) -> Checked {
    let at = |name: &str, at| KeyRecord::new(id(name), digest(name), "acme", KeyKind::Secret, at);
    let later = after(Duration::from_millis(1));
    let late = UnixMillis::new(u64::MAX);
    // By time, then by the bytes of the id.
    let expected = ["z", "10", "9", "B", "Z", "_", "a", "b", "é", "語", "A", "latest"];
    let mut records: Vec<KeyRecord> = expected.iter().map(|name| at(name, NOW)).collect();
    for (name, time) in [("z", UnixMillis::new(9)), ("A", later), ("latest", late)] {
        records.retain(|record| record.id().as_str() != name);
        records.push(at(name, time));
    }
    records.reverse();
    bench.put(records).await?;
    bench.put([secret_of("other", "0")]).await?;
    let filter = KeyFilter::account("acme");
    same("the list", listed(&bench, &filter).await?.as_slice(), expected)?;
    for limit in [1, 2, 3, 5, 11, 12, 13, usize::MAX] {
        let (mut pages, mut last) = (Vec::new(), None);
        loop {
            let page = bench.store.list(&filter.clone().with_page(last.as_deref(), limit)).await?;
            let Some(end) = page.last() else { break };
            same("a page that is too long", page.len().max(limit), limit)?;
            last = Some(end.clone());
            pages.extend(page.iter().map(|record| record.id().to_string()));
            if pages.len() > expected.len() {
                break;
            }
        }
        same(&format!("pages of {limit}"), pages.as_slice(), expected)?;
    }
    let none = KeyFilter { limit: Some(0), ..filter.clone() };
    same("a page of nothing", listed(&bench, &none).await?, [""; 0])?;
    let ghost = KeyFilter { after: Some((NOW, id("a!"))), ..filter };
    let behind = listed(&bench, &ghost).await?;
    same("behind a key that is gone", behind.as_slice(), ["b", "é", "語", "A", "latest"])
}
