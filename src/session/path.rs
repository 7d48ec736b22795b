//! Names of settings, and dotted paths of them.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// A name as servers read it that do not mind case (Go's `encoding/json`, which also takes `ſ` for
/// `s`) or end it at a NUL.
pub(super) fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    let name = name.split('\0').next().unwrap_or_default();
    Cow::Owned(name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect())
}

/// Whether `path` lies inside of the object at `outer`.
pub(super) fn is_inside(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// The value at a dotted path, which is folded.
pub(super) fn at<'v>(settings: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    let get = |name| settings.iter().find(|(known, _)| fold(known) == name).map(|(_, value)| value);
    match path.split_once('.') {
        None => get(path),
        Some((group, inner)) => at(get(group)?.as_object()?, inner),
    }
}

/// The same, spelled as it is.
pub(super) fn exactly_at<'v>(object: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    match path.split_once('.') {
        None => object.get(path),
        Some((group, inner)) => exactly_at(object.get(group)?.as_object()?, inner),
    }
}

/// The last names of `spelled`, as many as `inner` has.
pub(super) fn ending<'p>(spelled: &'p str, inner: &str) -> &'p str {
    let dots = spelled.rmatch_indices('.').nth(inner.split('.').count() - 1);
    dots.and_then(|(dot, _)| spelled.get(dot + 1..)).unwrap_or(spelled)
}

pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// Puts `value` at a dotted path, through objects that are made where there are none.
pub(super) fn put(object: &mut Map<String, Value>, path: &str, value: &Value) {
    let Some((group, inner)) = path.split_once('.') else {
        object.insert(path.to_owned(), value.clone());
        return;
    };
    let group = object.entry(group).or_insert_with(|| Value::Object(Map::new()));
    if !group.is_object() {
        *group = Value::Object(Map::new());
    }
    if let Value::Object(group) = group {
        put(group, inner, value);
    }
}
