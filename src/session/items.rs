//! Items of the conversation that would instruct the model in the place of locked settings.

use serde_json::{Map, Value};

use super::Held;

/// Whose messages are no instructions.
const SPEAKERS: [&str; 3] = ["user", "assistant", "tool"];

/// Whether clients may add instructions of their own.
pub(super) fn may_instruct(held: &Held<'_>) -> bool {
    !held.locks("instructions") && !held.locks("prompt")
}

/// Whether `item` may stand in the conversation.
///
/// OpenAI's items with the role `system` or `developer` instruct the model, and the item
/// `mcp_list_tools` gives it tools. A role that is not known may be either.
pub(super) fn passes(held: &Held<'_>, item: &Value) -> bool {
    let gives_tools = || item.get("type").is_some_and(|kind| kind == "mcp_list_tools");
    if gives_tools() && held.locks("tools") {
        return false;
    }
    may_instruct(held)
        || item.as_object().is_some_and(|item| {
            item.get("role").is_none_or(|role| SPEAKERS.iter().any(|speaker| role == speaker))
        })
}

/// Takes out of the settings' `input` what may not stand in the conversation.
pub(super) fn filter_input(held: &Held<'_>, settings: &mut Map<String, Value>) -> Vec<String> {
    let Some(Value::Array(items)) = settings.get_mut("input") else {
        let is_text = settings.get("input").is_none_or(Value::is_string);
        if is_text || may_instruct(held) {
            return Vec::new();
        }
        settings.remove("input");
        return vec!["input".to_owned()];
    };
    let mut kept = Vec::new();
    let mut index = 0;
    items.retain(|item| {
        let passes = passes(held, item);
        if !passes {
            kept.push(format!("input[{index}]"));
        }
        index += 1;
        passes
    });
    kept
}
