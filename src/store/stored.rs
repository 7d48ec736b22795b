//! Grants as stores keep them: JSON with a version.
//!
//! What this version does not know is an error and never left out: it may be a restriction.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::StoreError;
use crate::{
    Grants, Plan,
    session::{Lock, Settings, parse},
};

/// Goes up with every field that an older version must not overlook: it refuses what it does not
/// know.
const VERSION: u64 = 1;
/// Of the whole, whose settings may be nested 32 deep.
const MAX_DEPTH: usize = 34;

/// The text to store.
pub(super) fn grants_to_text(grants: &Grants) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("version", Some(VERSION.into()));
    put("models", grants.models().map(texts));
    put("origins", grants.origins().map(texts));
    put("uses", grants.uses().map(Value::from));
    put("max_session", grants.max_session().map(|max| json!([max.as_secs(), max.subsec_nanos()])));
    put(
        "metadata",
        grants.metadata().map(|metadata| {
            metadata.iter().map(|(name, value)| (name.to_string(), Value::from(&**value))).collect()
        }),
    );
    put("plan", (*grants.plan() != Plan::default()).then(|| plan_to_json(grants.plan())));
    put("session", grants.session().map(|session| Value::Object(session.as_map().clone())));
    put(
        "lock",
        grants.lock().map(|lock| {
            let (extent, paths) = lock.to_parts();
            json!({ "extent": extent, "paths": texts(paths) })
        }),
    );
    Value::Object(fields).to_string()
}

/// The grants of a stored text.
pub(super) fn grants_from_text(text: &str) -> Result<Grants, StoreError> {
    read(text).map_err(|field| {
        StoreError::new(format!(
            "a key's grants cannot be read (at {field}): are they of a newer version?"
        ))
    })
}

/// The text to store of a plan on its own.
pub(super) fn plan_to_text(plan: &Plan) -> String {
    plan_to_json(plan).to_string()
}

/// The plan of a stored text.
pub(super) fn plan_from_text(text: &str) -> Result<Plan, StoreError> {
    let value = parse(text.as_bytes(), MAX_DEPTH).ok();
    value
        .as_ref()
        .and_then(plan_from_json)
        .ok_or_else(|| StoreError::new("a plan cannot be read: is it of a newer version?"))
}

/// Answers what is wrong: the name of a field, and nothing of what it holds.
fn read(text: &str) -> Result<Grants, String> {
    let mut fields = match parse(text.as_bytes(), MAX_DEPTH) {
        Ok(Value::Object(fields)) => fields,
        _ => return Err("the whole".to_owned()),
    };
    if fields.remove("version").and_then(|version| version.as_u64()) != Some(VERSION) {
        return Err("version".to_owned());
    }
    let mut grants = Grants::default();
    for (name, value) in fields {
        grants = with_field(grants, &name, &value).ok_or(name)?;
    }
    Ok(grants)
}

fn with_field(grants: Grants, name: &str, value: &Value) -> Option<Grants> {
    Some(match name {
        "models" => grants.with_models(to_texts(value)?),
        "origins" => grants.with_origins(to_texts(value)?),
        "uses" => grants.with_uses(to_u32(value)?),
        "max_session" => match value.as_array()?.as_slice() {
            // More nanoseconds than a second has would be carried over, and might overflow.
            [secs, nanos] if nanos.as_u64()? < 1_000_000_000 => {
                grants.with_max_session(Duration::new(secs.as_u64()?, to_u32(nanos)?))
            }
            _ => return None,
        },
        "metadata" => {
            let metadata = value.as_object()?.iter();
            let metadata = metadata.map(|(name, value)| Some((name.as_str(), value.as_str()?)));
            grants.with_metadata(metadata.collect::<Option<Vec<_>>>()?)
        }
        "plan" => grants.with_plan(plan_from_json(value)?),
        "session" => grants.with_session(Settings::parse(&value.to_string()).ok()?),
        "lock" => grants.with_lock(lock_from_json(value)?),
        _ => return None,
    })
}

fn plan_to_json(plan: &Plan) -> Value {
    let amounts = [
        ("requests_per_minute", plan.requests_per_minute().map(u64::from)),
        ("usage_per_month", plan.usage_per_month()),
        ("sessions_per_minute", plan.sessions_per_minute().map(u64::from)),
        ("max_sessions", plan.max_sessions().map(u64::from)),
    ];
    let amounts = amounts.into_iter().filter_map(|(name, amount)| Some((name, amount?)));
    amounts.map(|(name, amount)| (name.to_owned(), Value::from(amount))).collect()
}

fn plan_from_json(value: &Value) -> Option<Plan> {
    value.as_object()?.iter().try_fold(Plan::default(), |plan, (name, amount)| {
        Some(match name.as_str() {
            "requests_per_minute" => plan.with_requests_per_minute(to_u32(amount)?),
            "usage_per_month" => plan.with_usage_per_month(amount.as_u64()?),
            "sessions_per_minute" => plan.with_sessions_per_minute(to_u32(amount)?),
            "max_sessions" => plan.with_max_sessions(to_u32(amount)?),
            _ => return None,
        })
    })
}

fn lock_from_json(value: &Value) -> Option<Lock> {
    let fields = value.as_object()?;
    if fields.len() != 2 {
        return None;
    }
    Lock::from_parts(fields.get("extent")?.as_str()?, to_texts(fields.get("paths")?)?)
}

fn texts<T: AsRef<str>>(texts: &[T]) -> Value {
    texts.iter().map(|text| Value::from(text.as_ref())).collect()
}

fn to_texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn to_u32(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option::of, prelude::*};

    use super::*;

    fn settings() -> impl Strategy<Value = Settings> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec((".{0,6}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        });
        vec((".{0,6}", value), 0..4).prop_map(|fields| {
            let object: Value = fields.into_iter().collect();
            Settings::parse(&object.to_string()).unwrap()
        })
    }

    fn lock() -> impl Strategy<Value = Lock> {
        let extent = prop_oneof![Just(Lock::set()), Just(Lock::all()), Just(Lock::nothing())];
        (extent, vec("[a-z]{1,4}(\\.[a-z]{1,4}){0,3}", 0..4))
            .prop_map(|(lock, paths)| lock.and(paths.iter().map(String::as_str)).unwrap())
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let small = of(any::<u32>());
        (small.clone(), of(any::<u64>()), small.clone(), small).prop_map(|(a, b, c, d)| {
            let plan = a.map_or(Plan::default(), |a| Plan::default().with_requests_per_minute(a));
            let plan = b.map_or(plan, |b| plan.with_usage_per_month(b));
            let plan = c.map_or(plan, |c| plan.with_sessions_per_minute(c));
            d.map_or(plan, |d| plan.with_max_sessions(d))
        })
    }

    fn grants() -> impl Strategy<Value = Grants> {
        let texts = || of(vec(".{0,12}", 0..4));
        let max_session = of((any::<u64>(), 0..1_000_000_000_u32));
        let metadata = of(vec((".{0,8}", ".{0,8}"), 0..4));
        let rest = (metadata, plan(), of(settings()), of(lock()));
        (texts(), texts(), of(any::<u32>()), max_session, rest).prop_map(
            |(models, origins, uses, max_session, (metadata, plan, session, lock))| {
                let mut grants = Grants::default().with_plan(plan);
                if let Some(models) = models {
                    grants = grants.with_models(models);
                }
                if let Some(origins) = origins {
                    grants = grants.with_origins(origins);
                }
                if let Some(uses) = uses {
                    grants = grants.with_uses(uses);
                }
                if let Some((secs, nanos)) = max_session {
                    grants = grants.with_max_session(Duration::new(secs, nanos));
                }
                if let Some(metadata) = metadata {
                    grants = grants.with_metadata(metadata);
                }
                if let Some(session) = session {
                    grants = grants.with_session(session);
                }
                if let Some(lock) = lock {
                    grants = grants.with_lock(lock);
                }
                grants
            },
        )
    }

    proptest! {
        #[test]
        fn grants_are_read_as_they_were_written(grants in grants()) {
            let text = grants_to_text(&grants);
            let read = grants_from_text(&text).unwrap();
            // Settings show no values there, so that they are compared on their own.
            prop_assert_eq!(format!("{read:?}"), format!("{grants:?}"));
            prop_assert_eq!(read.session(), grants.session());
            prop_assert_eq!(grants_to_text(&read), text);
        }

        /// Of a text with one field more, whatever it is named, nothing is granted.
        #[test]
        fn an_unknown_field_is_refused(grants in grants(), name in "[a-z_]{1,12}") {
            let Ok(Value::Object(mut fields)) = serde_json::from_str(&grants_to_text(&grants))
            else { panic!("no object") };
            let known = ["version", "models", "origins", "uses", "max_session", "metadata", "plan",
                "session", "lock"];
            prop_assume!(!known.contains(&name.as_str()));
            fields.insert(name, Value::Null);
            prop_assert!(grants_from_text(&Value::Object(fields).to_string()).is_err());
        }
    }

    #[test]
    fn the_form_does_not_change_unnoticed() {
        let grants = Grants::default()
            .with_models(["m"])
            .with_origins(["https://app.example"])
            .with_uses(3)
            .with_max_session(Duration::from_millis(1_500))
            .with_metadata([("user", "u1")])
            .with_plan(Plan::default().with_requests_per_minute(60).with_max_sessions(2))
            .with_session(Settings::parse(r#"{"voice":"marin"}"#).unwrap())
            .with_lock(Lock::all().and(["tools"]).unwrap());
        assert_eq!(
            grants_to_text(&grants),
            r#"{"lock":{"extent":"all","paths":["tools"]},"max_session":[1,500000000],"metadata":{"user":"u1"},"models":["m"],"origins":["https://app.example"],"plan":{"max_sessions":2,"requests_per_minute":60},"session":{"voice":"marin"},"uses":3,"version":1}"#
        );
        assert_eq!(grants_to_text(&Grants::default()), r#"{"version":1}"#);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            "{\"version\":1} ",
            r#"{"version":1,"version":1}"#,
            r#"{"version":0}"#,
            r#"{"version":2}"#,
            r#"{"version":"1"}"#,
            r#"{"version":1,"models":null}"#,
            r#"{"version":1,"models":"m"}"#,
            r#"{"version":1,"models":["m",1]}"#,
            r#"{"version":1,"uses":-1}"#,
            r#"{"version":1,"uses":4294967296}"#,
            r#"{"version":1,"uses":1.5}"#,
            r#"{"version":1,"max_session":5}"#,
            r#"{"version":1,"max_session":[5]}"#,
            r#"{"version":1,"max_session":[5,1000000000]}"#,
            r#"{"version":1,"metadata":{"a":1}}"#,
            r#"{"version":1,"plan":{"requests_per_minute":null}}"#,
            r#"{"version":1,"plan":{"tokens_per_day":1}}"#,
            r#"{"version":1,"session":[]}"#,
            r#"{"version":1,"session":{"a":{"b":1,"b":2}}}"#,
            r#"{"version":1,"lock":{"extent":"some","paths":[]}}"#,
            r#"{"version":1,"lock":{"extent":"set"}}"#,
            r#"{"version":1,"lock":{"extent":"set","paths":["a..b"]}}"#,
            r#"{"version":1,"lock":{"extent":"set","paths":[],"until":1}}"#,
        ] {
            // A space at the end is no fault.
            assert_eq!(grants_from_text(text).is_ok(), text.ends_with(' '), "{text}");
        }
    }
}
