//! Digests with a pepper, and replacing it while keys go on working (T11).

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use support::Body;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    DigestAlgorithm, KeyAdmin, KeyDigest, KeyFilter, KeyHasher, KeyStore, Keys, Lookup,
    MemoryStore, NewKey, Pepper, RealtimeAuthLayer,
    http::{Request, Response, StatusCode},
};

fn pepper(version: u32) -> KeyHasher {
    KeyHasher::peppered(Pepper::new(version, &[version as u8; 32]).unwrap())
}

/// Counts the questions that a store is asked.
struct Counted(Arc<MemoryStore>, Arc<AtomicUsize>);

impl KeyStore for Counted {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.lookup(digest)
    }

    fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.lookup_either(current, previous)
    }
}

/// The default way of asking for either digest, which any store has.
struct Simple(Arc<MemoryStore>);

impl KeyStore for Simple {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        self.0.lookup(digest)
    }
}

async fn status<S: KeyStore>(store: S, hasher: KeyHasher, key: &str) -> StatusCode {
    let keys = Keys::new(store).with_hasher(hasher);
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::default())));
    let request = Request::builder().header("x-api-key", key).body(()).unwrap();
    RealtimeAuthLayer::new(keys).layer(inner).oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn a_pepper_is_replaced_without_a_key_lost() {
    let store = Arc::new(MemoryStore::new());
    let issue = async |hasher: KeyHasher| {
        let keys = Keys::new(Arc::clone(&store)).with_hasher(hasher);
        keys.issue(NewKey::secret("acme")).await.unwrap()
    };
    let makers = [KeyHasher::plain(), pepper(1), pepper(2)];
    let mut made = Vec::new();
    for maker in &makers {
        made.push(issue(maker.clone()).await);
    }
    // By which algorithms are known now, which of the three keys are let through.
    for (hasher, expected) in [
        (KeyHasher::plain(), [true, false, false]),
        (pepper(1), [false, true, false]),
        (pepper(1).with_previous(KeyHasher::plain()), [true, true, false]),
        (pepper(2).with_previous(pepper(1)), [false, true, true]),
        (pepper(2), [false, false, true]),
        (pepper(3).with_previous(pepper(2)), [false, false, true]),
    ] {
        for (issued, expected) in made.iter().zip(expected) {
            let expected = if expected { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            let key = issued.key().expose();
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = Counted(Arc::clone(&store), Arc::clone(&asked));
            assert_eq!(status(counted, hasher.clone(), key).await, expected, "{hasher:?}");
            assert_eq!(asked.load(Ordering::SeqCst), 1, "one question for both digests");
            let simple = Simple(Arc::clone(&store));
            assert_eq!(status(simple, hasher.clone(), key).await, expected, "{hasher:?}");
        }
    }
}

#[tokio::test]
async fn what_depends_on_an_old_pepper_is_listed() {
    let store = Arc::new(MemoryStore::new());
    for (hasher, count) in [(pepper(1), 2), (pepper(2), 3)] {
        let keys = Keys::new(Arc::clone(&store)).with_hasher(hasher);
        for _ in 0..count {
            keys.issue(NewKey::secret("acme")).await.unwrap();
        }
    }
    for (pepper, count) in [(1, 2), (2, 3), (3, 0)] {
        let algorithm = DigestAlgorithm::HmacSha256 { pepper };
        let listed = store.list(&KeyFilter::made_by(algorithm)).await.unwrap();
        assert_eq!(listed.len(), count);
        assert!(listed.iter().all(|record| record.algorithm() == algorithm));
    }
    assert!(store.list(&KeyFilter::made_by(DigestAlgorithm::Sha256)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_peppered_digest_is_not_that_of_the_key_alone() {
    let [plain, peppered] = [KeyHasher::plain(), pepper(1)]
        .map(|hasher| Keys::new(MemoryStore::new()).with_hasher(hasher));
    for _ in 0..1_000 {
        let issued = plain.issue(NewKey::secret("acme")).await.unwrap();
        let taken_in = peppered.import(issued.key(), NewKey::secret("acme")).await.unwrap();
        assert_ne!(issued.record().digest(), taken_in.digest());
    }
}
