//! JSON, read strictly (what two parsers could read differently is refused) and compared by what it
//! means.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text is not taken as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not JSON.
    Syntax,
    /// Something in it is nested deeper than allowed.
    TooDeep,
    /// A name stands twice in one object: which one counts, parsers disagree on. Its dotted path.
    Duplicate(String),
}

/// Reads one value nested at most `max_depth` deep, with no name twice in an object.
pub(crate) fn parse(text: &[u8], max_depth: usize) -> Result<Value, Fault> {
    let fault = RefCell::new(None);
    let seed = Strict { depth_left: max_depth, fault: &fault };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = seed.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    read.map_err(|_| fault.into_inner().unwrap_or(Fault::Syntax))
}

struct Strict<'f> {
    depth_left: usize,
    fault: &'f RefCell<Option<Fault>>,
}

impl<'f> Strict<'f> {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, fault: self.fault }),
            None => Err(self.fail(Fault::TooDeep)),
        }
    }

    /// Names the object in which something deeper failed.
    fn name_outer(&self, name: &str) {
        if let Some(Fault::Duplicate(path)) = &mut *self.fault.borrow_mut() {
            *path = format!("{name}.{path}");
        }
    }

    fn fail<E: serde::de::Error>(&self, fault: Fault) -> E {
        self.fault.replace(Some(fault));
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper::<A::Error>()?)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inside = self.deeper::<A::Error>()?;
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(inside.fail(Fault::Duplicate(name)));
            }
            let value = entries
                .next_value_seed(Strict { ..inside })
                .inspect_err(|_| inside.name_outer(&name))?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Whether two values mean the same: `1` and `1.0` do, which one client writes for the other.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || (one.is_f64() != other.is_f64() && whole(one) == whole(other))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

/// The whole number that a number is. A float is not what an integer is nearest to.
fn whole(number: &Number) -> Option<i128> {
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    let float = || number.as_f64().filter(|float| float.fract() == 0.0).map(|float| float as i128);
    integer.or_else(float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        for text in [
            "null",
            "true",
            "-1",
            "18446744073709551615",
            "1.5",
            r#""a\u00e9\ud83d\ude00""#,
            "[]",
            r#"[1,{"a":[]}]"#,
            r#" {"a":{"a":null},"b":""} "#,
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes(), 8), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_parsers_disagree_on() {
        let twice = |path: &str| Err(Fault::Duplicate(path.to_owned()));
        assert_eq!(parse(br#"{"a":1,"a":1}"#, 8), twice("a"));
        assert_eq!(parse(br#"{"c":{"b":[{"a":1,"\u0061":2}]}}"#, 8), twice("c.b.a"));
        for text in
            ["", "nul", "{", r#"{"a":1,}"#, "1 2", r#"{"a":1} x"#, r#""\ud800""#, "1e309", "NaN"]
        {
            assert_eq!(parse(text.as_bytes(), 8), Err(Fault::Syntax), "{text}");
        }
        assert_eq!(parse(b"\"\xff\"", 8), Err(Fault::Syntax));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(nested(8).as_bytes(), 8).is_ok());
        assert_eq!(parse(nested(9).as_bytes(), 8), Err(Fault::TooDeep));
        assert_eq!(parse(nested(100_000).as_bytes(), 8), Err(Fault::TooDeep));
    }
}
