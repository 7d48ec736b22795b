//! What would instruct the model, or give it tools, in the place of locked settings.

use serde_json::{Map, Value};

use super::{Held, path::fold, tables::NO_ITEMS};

/// Whose messages are no instructions. What a function said has no role.
const SPEAKERS: [&str; 2] = ["user", "assistant"];

/// Whether clients may add instructions of their own. A locked prompt locks them too.
pub(super) fn may_instruct(held: &Held<'_>) -> bool {
    !held.locks("instructions")
}

/// Whether `item` may stand in the conversation.
pub(super) fn passes(held: &Held<'_>, item: &Value) -> bool {
    (may_instruct(held) || !instructs(item)) && (!held.locks("tools") || !gives_tools(item))
}

/// Takes out of `settings` what may not stand in the conversation: of `input`, whose elements are
/// items, and of whatever else has room for items.
pub(super) fn filter(held: &Held<'_>, settings: &mut Map<String, Value>) -> Vec<String> {
    let mut kept = Vec::new();
    settings.retain(|name, value| {
        let folded = fold(name);
        if NO_ITEMS.contains(&&*folded)
            || passes(held, value)
            || held.beyond_set(&folded, value).is_none_or(|rest| passes(held, &rest))
        {
            return true;
        }
        let Value::Array(items) = value else {
            kept.push(name.clone());
            return false;
        };
        let mut index = 0;
        items.retain(|item| {
            let passes = passes(held, item);
            if !passes {
                kept.push(format!("{name}[{index}]"));
            }
            index += 1;
            passes
        });
        true
    });
    kept
}

/// Whether there is a message of the system or a developer in `value`. A role that is not known
/// may be theirs.
fn instructs(value: &Value) -> bool {
    has(value, &|name, value| name == "role" && !SPEAKERS.iter().any(|speaker| value == speaker))
}

/// Whether there is an item in `value` that lists the tools of a server.
fn gives_tools(value: &Value) -> bool {
    has(value, &|name, value| {
        name == "type" && value.as_str().is_some_and(|kind| fold(kind) == "mcp_list_tools")
    })
}

/// Whether a member like that is anywhere in `value`.
fn has(value: &Value, member: &dyn Fn(&str, &Value) -> bool) -> bool {
    match value {
        Value::Object(object) => {
            object.iter().any(|(name, value)| member(&fold(name), value) || has(value, member))
        }
        Value::Array(items) => items.iter().any(|item| has(item, member)),
        _ => false,
    }
}
