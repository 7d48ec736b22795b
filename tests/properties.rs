//! Generated requests: whatever comes, the layer does not panic and decides as the model does.
//!
//! `PROPERTY_CASES` says how many. A failure names its seed: `PROPERTY_SEED=… PROPERTY_CASES=1`
//! brings the same request back.

#[path = "model/dice.rs"]
mod dice;
#[path = "model/generate.rs"]
mod generate;
mod model;

use std::{
    collections::BTreeMap,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
};

use dice::Dice;
use generate::Case;
use model::{Answer, Request, judge, subject::Subject};

#[test]
fn the_layer_decides_as_the_model_does() {
    let cases = number("PROPERTY_CASES").unwrap_or(20_000);
    let first_seed = number("PROPERTY_SEED").unwrap_or(0);
    let subject = Subject::new();
    let mut outcomes = Outcomes::default();
    for seed in first_seed..first_seed + cases {
        let case = generate::case(&mut Dice::new(seed), &subject);
        match compare(&subject, &case) {
            Ok(answer) => outcomes.count(answer),
            Err(_) => fail(&subject, seed, case),
        }
    }
    // Under that, chance alone would fail it.
    if cases >= 10_000 {
        outcomes.assert_all_occurred(cases);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// The answer on which both agree, or what is wrong. `None`: no server could pass the request on.
fn compare(subject: &Subject, case: &Case) -> Result<Option<Answer>, String> {
    let Case { request, inner, setting } = case;
    // The model first: what panics below is then the layer.
    let expected = judge(request, *inner, subject.setting(*setting));
    let answer = catch_unwind(AssertUnwindSafe(|| subject.answer(request, *inner, *setting)));
    match answer.map_err(|_| "the layer panicked")? {
        Some(answer) if answer != expected => {
            Err(format!("the layer: {answer:?}\nthe model: {expected:?}"))
        }
        agreed => Ok(agreed),
    }
}

fn fail(subject: &Subject, seed: u64, mut case: Case) -> ! {
    let smaller = |case: &Case| {
        let mut requests = smaller_requests(&case.request);
        requests.find_map(|request| {
            let smaller = Case { request, ..case.clone() };
            compare(subject, &smaller).is_err().then_some(smaller)
        })
    };
    while let Some(next) = smaller(&case) {
        case = next;
    }
    let wrong = compare(subject, &case).expect_err("it still fails");
    let setting = subject.setting(case.setting);
    panic!(
        "seed {seed}, made smaller:\n{:?}\ninner service: {:?}\n{:?}, live keys only: {}, {:?}\n{wrong}",
        case.request, case.inner, setting.conflicts, setting.live_only, setting.profile,
    );
}

/// The request with one part less: a header, some bytes of a value, some of the query.
fn smaller_requests(request: &Request) -> impl Iterator<Item = Request> {
    let without_header = (0..request.headers.len()).map(|index| {
        let mut smaller = request.clone();
        smaller.headers.remove(index);
        smaller
    });
    let without_query = request.query.iter().map(|_| Request { query: None, ..request.clone() });
    let shorter_query = request.query.iter().flat_map(|query| {
        shorter(query.as_bytes()).filter_map(|query| {
            let query = Some(String::from_utf8(query).ok()?);
            Some(Request { query, ..request.clone() })
        })
    });
    let shorter_values = request.headers.iter().enumerate().flat_map(move |(index, (_, value))| {
        shorter(&value.0).map(move |value| {
            let mut smaller = request.clone();
            smaller.headers[index].1.0 = value;
            smaller
        })
    });
    without_query.chain(without_header).chain(shorter_query).chain(shorter_values)
}

/// The bytes without a piece, large pieces first.
fn shorter(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let sizes = std::iter::successors(Some(bytes.len()), |size| Some(size / 2));
    sizes.take_while(|size| *size > 0).flat_map(move |size| {
        let starts = (0..=bytes.len() - size).step_by(size);
        starts.map(move |start| [&bytes[..start], &bytes[start + size..]].concat())
    })
}

/// How often each outcome occurred, so that the generator cannot silently go stale.
#[derive(Default)]
struct Outcomes(BTreeMap<String, u64>);

impl Outcomes {
    /// Whatever the place, a credential there can be refused as one of these.
    const ANYWHERE: [&str; 9] = [
        "malformed",
        "unknown",
        "revoked",
        "expired",
        "environment",
        "origin",
        "model",
        "spent",
        "store_unavailable",
    ];

    /// The last place holds nothing outside of a handshake, and conflicts are laid to the first.
    const OTHERS: [&str; 11] = [
        "accepted by header",
        "accepted by query",
        "accepted by subprotocol",
        "accepted, bound to a model",
        "accepted, the credential echoed",
        "accepted, a protocol echoed",
        "accepted, nothing echoed",
        "refused: missing",
        "refused: conflict by header",
        "refused: conflict by query",
        "refused: handshake by header",
    ];

    fn count(&mut self, answer: Option<Answer>) {
        let mut add = |outcome: String| *self.0.entry(outcome).or_default() += 1;
        match answer {
            None => add("no request".into()),
            Some(Answer::Refused { kind, source: None }) => add(format!("refused: {kind}")),
            Some(Answer::Refused { kind, source: Some(source) }) => {
                add(format!("refused: {kind} by {source}"));
            }
            Some(Answer::Accepted(accepted)) => {
                add(format!("accepted by {}", accepted.source));
                if accepted.model.is_some() {
                    add("accepted, bound to a model".into());
                }
                add(match accepted.echo.first() {
                    Some((_, true)) => "accepted, the credential echoed".into(),
                    Some((_, false)) => "accepted, a protocol echoed".into(),
                    None => "accepted, nothing echoed".into(),
                });
            }
        }
    }

    fn assert_all_occurred(&self, cases: u64) {
        let least = cases / 2_000;
        let occurred = |outcome: &str| self.0.get(outcome).copied().unwrap_or_default();
        let anywhere = Self::ANYWHERE.iter().flat_map(|kind| {
            ["header", "query", "subprotocol"].map(|source| format!("refused: {kind} by {source}"))
        });
        for outcome in anywhere.chain(Self::OTHERS.map(String::from)) {
            assert!(occurred(&outcome) >= least, "{outcome:?} is too rare: {:#?}", self.0);
        }
        assert!(occurred("no request") < cases / 10, "too many are no requests: {:#?}", self.0);
        // Shown with `--nocapture`.
        println!("{:#?}", self.0);
    }
}
