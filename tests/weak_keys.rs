//! T12: keys cannot be guessed, fit every place, and a mistyped one never reaches the store.
//!
//! `ISSUED_KEYS` says how many are made; each is mistyped in ten ways.

#[path = "model/dice.rs"]
mod dice;
mod support;

use std::{
    collections::HashSet,
    env,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt as _;
use tower::{Layer as _, Service as _};
use tower_realtime_auth::{
    Answer, AuditEntry, AuditFilter, CredentialSource, Environment, Inserted, KeyAdmin, KeyDigest,
    KeyFilter, KeyId, KeyRecord, KeyStore, Keys, Lookup, NewKey, NewToken, Plan, Principal,
    RealtimeAuthLayer, RefusalMode, Rejection, RejectionKind, Revocation, Rotated, Stamp,
    StoreError, UnixMillis, Write,
    http::{Request, StatusCode},
};

use self::{dice::Dice, support::Inner};

/// `PREFIX` + 33 random characters + 6 of CRC-32.
const RANDOM_LEN: usize = 33;
const CHECKSUM_LEN: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How many keys are made; `ISSUED_KEYS` sets another number, no less than the statistics need.
fn keys_to_issue() -> usize {
    env::var("ISSUED_KEYS").map_or(10_000, |number| {
        let number = number.parse().expect("a number of keys");
        assert!(number >= 10_000, "too few to tell chance from bias");
        number
    })
}

/// A store that keeps the first key and takes in any other, and counts what it is asked for.
#[derive(Default)]
struct Forgetful {
    first: OnceLock<Arc<KeyRecord>>,
    lookups: AtomicUsize,
}

impl KeyStore for Forgetful {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let first = self.first.get().filter(|first| first.digest() == digest);
        Answer::ready(Ok(first.cloned()))
    }
}

impl KeyAdmin for Forgetful {
    fn insert(&self, record: KeyRecord, _: Option<u32>, _: &Stamp) -> Write<'_, Inserted> {
        self.first.get_or_init(|| record.into());
        Answer::ready(Ok(Inserted::Yes))
    }

    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
        Answer::ready(Ok(self.first.get().filter(|first| first.id() == id).cloned()))
    }

    fn rotate(&self, _: &KeyId, _: KeyRecord, _: UnixMillis, _: &Stamp) -> Write<'_, Rotated> {
        Answer::ready(Err(StoreError::new("nothing is rotated here")))
    }

    fn revoke(&self, _: &Revocation, _: &Stamp) -> Write<'_, u64> {
        Answer::ready(Err(StoreError::new("nothing is revoked here")))
    }

    fn remove(&self, _: &KeyId, _: &Stamp) -> Write<'_, bool> {
        Answer::ready(Err(StoreError::new("nothing is removed here")))
    }

    fn set_plan(&self, _: &KeyId, _: Plan, _: &Stamp) -> Write<'_, bool> {
        Answer::ready(Err(StoreError::new("no plan is changed here")))
    }

    fn audit(&self, _: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
        Answer::ready(Err(StoreError::new("nothing is told here")))
    }

    fn list(&self, _: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        Answer::ready(Err(StoreError::new("nothing is listed here")))
    }
}

/// Keys of every kind, one after the other.
struct Maker {
    keys: Keys<Forgetful>,
    parent: Principal,
    /// Of the parent, which the store knows.
    secret: String,
}

impl Maker {
    fn new() -> Self {
        let keys = Keys::new(Forgetful::default());
        let parent = keys.issue(NewKey::secret("acme")).now_or_never().unwrap().unwrap();
        let secret = parent.key().expose().to_owned();
        let parent =
            Principal::new(Arc::clone(parent.record()), CredentialSource::Header, keys.now());
        Self { keys, parent, secret }
    }

    /// The text of a new key, its prefix and its public id.
    fn make(&self, number: usize) -> (Vec<u8>, &'static str, KeyId) {
        let secret = |environment| {
            let new = NewKey::secret("acme").with_environment(environment);
            self.keys.issue(new).now_or_never().unwrap().unwrap()
        };
        let (issued, prefix) = match number % 4 {
            0 => (secret(Environment::Live), "sk_live_"),
            1 => (secret(Environment::Test), "sk_test_"),
            _ => {
                let token = NewToken::lasting(std::time::Duration::from_secs(60));
                let minted = self.keys.mint(&self.parent, token).now_or_never();
                (minted.unwrap().unwrap(), "ek_")
            }
        };
        (issued.key().expose().into(), prefix, issued.record().id().clone())
    }
}

// ---- Made ----

#[test]
fn keys_are_random_and_legal_everywhere() {
    let issued = keys_to_issue();
    let maker = Maker::new();
    let mut used = [[0_u64; 62]; RANDOM_LEN];
    // Of each key both halves of what is random, and of each id: none may come twice. Two of a
    // million halves meet with a probability of 2^-56, and ids with one of 2^-80.
    let (mut halves, mut ids) = (Vec::new(), Vec::new());
    for number in 0..issued {
        let (key, prefix, id) = maker.make(number);
        assert!(key.iter().all(|byte| is_legal_everywhere(*byte)), "an illegal character");
        let random = key.strip_prefix(prefix.as_bytes()).expect("its prefix");
        assert_eq!(random.len(), RANDOM_LEN + CHECKSUM_LEN);
        for (byte, used) in random.iter().zip(&mut used) {
            used[BASE62.iter().position(|letter| letter == byte).expect("base62")] += 1;
        }
        halves.push(<[u8; 16]>::try_from(&random[..16]).unwrap());
        halves.push(<[u8; 16]>::try_from(&random[RANDOM_LEN - 16..RANDOM_LEN]).unwrap());
        ids.push(<[u8; 20]>::try_from(&id.as_str().as_bytes()[4..]).unwrap());
    }
    halves.sort_unstable();
    ids.sort_unstable();
    assert!(halves.windows(2).all(|two| two[0] != two[1]), "two keys have a half in common");
    assert!(ids.windows(2).all(|two| two[0] != two[1]), "two keys have one id");

    for (place, used) in used.iter().enumerate() {
        assert!(used.iter().all(|times| *times > 0), "place {place} does not use all: {used:?}");
        assert!(is_fair(used), "place {place} prefers some: {used:?}");
    }
    // All places together show a bias that they share, such as that of `byte % 62`.
    let all: Vec<u64> = (0..62).map(|letter| used.iter().map(|used| used[letter]).sum()).collect();
    assert!(is_fair(&all), "some are preferred: {all:?}");
}

/// Whether a byte may stand unescaped in a header value (RFC 9110 §5.5), in a query (RFC 3986
/// §2.3) and in a token, as which a subprotocol is written (RFC 9110 §5.6.2).
fn is_legal_everywhere(byte: u8) -> bool {
    let in_value = (0x21..=0x7e).contains(&byte);
    let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let in_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    in_value && is_unreserved && in_token
}

/// Pearson's chi-square test. A fair generator fails it less than once in 10^13 times: with k
/// degrees of freedom, P(X ≥ k + 2√(kx) + 2x) ≤ e^-x (Laurent and Massart 2000, lemma 1).
fn is_fair(used: &[u64]) -> bool {
    let expected = used.iter().sum::<u64>() as f64 / used.len() as f64;
    let chi_square: f64 =
        used.iter().map(|times| (*times as f64 - expected).powi(2) / expected).sum();
    let (freedom, x) = (used.len() as f64 - 1.0, 30.0_f64);
    chi_square < freedom + 2.0 * (freedom * x).sqrt() + 2.0 * x
}

// ---- Mistyped ----

/// A key that is mistyped, and the place where its random part begins.
struct Typed<'a> {
    text: Vec<u8>,
    begin: usize,
    /// Another key with the same prefix.
    other: &'a [u8],
}

impl Typed<'_> {
    fn checksum(&self) -> usize {
        self.text.len() - CHECKSUM_LEN
    }

    /// A place of the random part or, less often, of the checksum.
    fn place(&self, dice: &mut Dice) -> usize {
        self.begin + dice.below(self.text.len() - self.begin)
    }

    fn replace(&mut self, place: usize, dice: &mut Dice) {
        let was = self.text[place];
        while self.text[place] == was {
            self.text[place] = dice.pick(BASE62);
        }
    }
}

/// How a key is mistyped, whether that is seen for certain, and the doing of it.
///
/// A CRC is linear: whether a change of what it covers is seen depends on the change alone.
/// [`two_changes_never_cancel`] shows that one and two changed bytes always are; and a checksum
/// changed alone is wrong, because no two texts of it mean the same number. If both change, and if
/// more does, a wrong key is taken for a right one with a probability of about 2^-32.
type Mistyping = (&'static str, bool, fn(&mut Typed<'_>, &mut Dice));

const MISTYPINGS: [Mistyping; 10] = [
    ("one character", true, |key, dice| {
        let place = key.place(dice);
        key.replace(place, dice);
    }),
    ("two random characters", true, |key, dice| {
        for _ in 0..2 {
            let place = key.begin + dice.below(RANDOM_LEN);
            key.replace(place, dice);
        }
    }),
    ("two neighbours swapped", true, |key, dice| {
        let first = match dice.below(RANDOM_LEN + CHECKSUM_LEN - 2) {
            // Not across the border.
            place if place >= RANDOM_LEN - 1 => place + 1,
            place => place,
        };
        key.text.swap(key.begin + first, key.begin + first + 1);
    }),
    ("one letter's case", true, |key, dice| {
        let place = key.place(dice);
        if key.text[place].is_ascii_alphabetic() {
            key.text[place] ^= 0x20;
        }
    }),
    ("another checksum", true, |key, dice| {
        let checksum = key.checksum();
        key.text[checksum..].fill_with(|| dice.pick(BASE62));
    }),
    ("a random character and one of the checksum", false, |key, dice| {
        let place = key.begin + dice.below(RANDOM_LEN);
        key.replace(place, dice);
        let place = key.checksum() + dice.below(CHECKSUM_LEN);
        key.replace(place, dice);
    }),
    ("three to eight characters", false, |key, dice| {
        for _ in 0..3 + dice.below(6) {
            let place = key.place(dice);
            key.replace(place, dice);
        }
    }),
    ("every letter's case", false, |key, dice| {
        let text = &mut key.text[key.begin..];
        match dice.below(3) {
            0 => text.make_ascii_lowercase(),
            1 => text.make_ascii_uppercase(),
            _ => text.iter_mut().filter(|b| b.is_ascii_alphabetic()).for_each(|b| *b ^= 0x20),
        }
    }),
    ("half of another", false, |key, dice| {
        let cut = key.begin + 1 + dice.below(RANDOM_LEN - 1);
        key.text[cut..].copy_from_slice(&key.other[cut..]);
        // Whose checksum is that of neither.
        let checksum = key.checksum();
        key.replace(checksum + CHECKSUM_LEN - 1, dice);
    }),
    ("all of it made up", false, |key, dice| {
        let begin = key.begin;
        key.text[begin..].fill_with(|| dice.pick(BASE62));
    }),
];

/// How many of those that are seen with a probability of 1 - 2^-32 each may be overlooked: of five
/// million three or more are with a probability of 3 · 10^-10.
const OVERLOOKED_BY_CHANCE: usize = 2;

#[test]
fn a_mistyped_key_is_refused_without_asking_the_store() {
    let maker = Maker::new();
    let inner = Inner::default();
    let layer = RealtimeAuthLayer::new(maker.keys.clone()).with_refusal(RefusalMode::Never);
    let mut service = layer.layer(inner.clone());
    let mut present = |text: &[u8]| {
        let bearer = [b"Bearer ", text].concat();
        let request = Request::builder().header("authorization", bearer).body(()).unwrap();
        let response = service.call(request).now_or_never().unwrap().unwrap();
        (response.status(), response.extensions().get::<Rejection>().map(Rejection::kind))
    };
    let lookups = || maker.keys.store().lookups.load(Ordering::Relaxed);

    // One that is right is looked up, and let through.
    assert_eq!(present(maker.secret.as_bytes()), (StatusCode::OK, None));
    assert_eq!((lookups(), inner.calls()), (1, 1));

    let mut dice = Dice::new(12);
    let mut overlooked = 0;
    // Each is mixed up with the one before of its kind.
    let mut before: [Vec<u8>; 4] = [0, 1, 2, 3].map(|number| maker.make(number).0);
    for number in 0..keys_to_issue() {
        let (key, prefix, _) = maker.make(number);
        for (how, is_certain, mistype) in MISTYPINGS {
            let mut typed =
                Typed { text: key.clone(), begin: prefix.len(), other: &before[number % 4] };
            // Two that are swapped may be the same, and a digit has no case.
            while typed.text == key {
                mistype(&mut typed, &mut dice);
            }
            let asked = lookups();
            let refused = (StatusCode::UNAUTHORIZED, Some(RejectionKind::Unknown));
            assert_eq!(present(&typed.text), refused, "{how}");
            assert!(lookups() == asked || !is_certain, "{how}: asked for {:?}", typed.text);
            overlooked += lookups() - asked;
        }
        before[number % 4] = key;
    }
    assert!(overlooked <= OVERLOOKED_BY_CHANCE, "{overlooked} have met a checksum by chance");
    assert_eq!(inner.calls(), 1);
}

/// One changed byte changes the checksum in a way that depends on its place and on which bits of
/// it are changed; two do in the two ways combined by XOR. As no two ways are the same, two changes
/// never cancel. For texts as long as the longest prefix allows.
#[test]
fn two_changes_never_cancel() {
    const LONGEST: usize = 13 + RANDOM_LEN;
    let mut ways = HashSet::new();
    for place in 0..LONGEST {
        let zeros = [0; LONGEST];
        for bits in 1..=u8::MAX {
            let mut changed = zeros;
            changed[place] = bits;
            let way = crc32fast::hash(&changed) ^ crc32fast::hash(&zeros);
            assert!(way != 0 && ways.insert(way), "place {place}, bits {bits}");
        }
    }
}

/// What has lost or won a character, or has another prefix, may be a key of another make: the store
/// is asked, once.
#[test]
fn another_length_or_prefix_is_another_make() {
    let maker = Maker::new();
    let mut service = RealtimeAuthLayer::new(maker.keys.clone()).layer(Inner::default());
    let key = &maker.secret;
    let cut = (1..key.len()).map(|len| key[..len].to_owned());
    let others = [format!("{key}0"), key.replace("live", "Live"), key.replace("live", "liev")];
    for (number, other) in cut.chain(others).enumerate() {
        let request = support::plain_with(CredentialSource::Header, &other);
        let response = service.call(request).now_or_never().unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{other}");
        assert_eq!(maker.keys.store().lookups.load(Ordering::Relaxed), number + 1, "{other}");
    }
}
