//! Reshapes JSON between two steps of a workflow: pick out a list, keep some entries, rename and order what is in them.
//!
//! A place in a value is a JSON Pointer (RFC 6901), such as `/user/name`; the empty pointer is the whole value. What has
//! no single place is found by a JSONPath query (RFC 9535), such as `$..price`.

mod condition;

use std::cmp::Ordering;

use condition::Condition;
use serde_json_path::JsonPath;
use weir_sdk::prelude::*;
use weir_sdk::serde_json::Map;

/// How to reshape a value.
#[weir_sdk::input]
struct Reshape {
    /// The value to reshape.
    data: Value,
    /// Where the list is whose entries are reshaped, each for itself. Without it, `data` is reshaped as one entry.
    each: Option<String>,
    /// Entries are kept when all of these hold. Needs `each`.
    #[serde(default)]
    #[schemars(rename = "where")]
    #[serde(rename = "where")]
    conditions: Vec<Condition>,
    /// The members of the result: a name, and where in the entry its value is. Without it, entries stay as they are.
    select: Option<Map<String, Value>>,
    /// Where in an entry the value is that orders them: numbers before text, and what is missing last. Needs `each`.
    sort_by: Option<String>,
    /// The largest first.
    #[serde(default)]
    descending: bool,
    /// Most entries in the result. Needs `each`.
    limit: Option<usize>,
}

/// What to look for.
#[weir_sdk::input]
struct Query {
    /// The value to look into.
    data: Value,
    /// A JSONPath query (RFC 9535), such as `$.orders[?@.total > 20].id`; without the functions `match` and `search`.
    path: String,
}

weir_sdk::plugin! {
    /// Reshapes JSON: picks a list out of a value, keeps the entries that fulfil conditions, orders them, and renames
    /// and selects their members.
    #[tool(title = "Reshape JSON", read_only, idempotent, open_world = false)]
    fn reshape(input: Reshape, cx: &Context) -> Result<Json<Value>, ToolError> {
        let select = input.select.map(selection).transpose()?;
        let shaped = |entry: &Value| match &select {
            Some(select) => select.iter().map(|(name, at)| (name.clone(), find(entry, at))).collect(),
            None => entry.clone(),
        };
        let Some(each) = &input.each else {
            if !input.conditions.is_empty() || input.sort_by.is_some() || input.limit.is_some() {
                let message = "`where`, `sort_by` and `limit` are about the entries of a list: say where it is with `each`";
                return Err(ToolError::invalid_arguments(message));
            }
            return Ok(Json(shaped(&input.data)));
        };
        let Some(Value::Array(list)) = input.data.pointer(pointer("/each", each)?) else {
            return Err(ToolError::invalid_arguments(format!("there is no list at {each:?} in `data`")));
        };
        for (n, condition) in input.conditions.iter().enumerate() {
            pointer(&format!("/where/{n}/at"), &condition.at)?;
        }
        let mut kept: Vec<&Value> =
            list.iter().filter(|entry| input.conditions.iter().all(|condition| condition.holds(entry))).collect();
        if let Some(by) = &input.sort_by {
            let by = pointer("/sort_by", by)?;
            kept.sort_by(|a, b| order(a.pointer(by), b.pointer(by), input.descending));
        }
        kept.truncate(input.limit.unwrap_or(usize::MAX));
        cx.log_with(weir_sdk::Level::Debug, "reshaped", json!({"entries": list.len(), "kept": kept.len()}));
        Ok(Json(kept.into_iter().map(shaped).collect()))
    }

    /// Finds all values that a JSONPath query selects, in the order in which it does.
    #[tool(title = "Query JSON", read_only, idempotent, open_world = false)]
    fn query(input: Query, _cx: &Context) -> Result<Json<Vec<Value>>, ToolError> {
        let path = JsonPath::parse(&input.path)
            .map_err(|error| ToolError::invalid_arguments(format!("/path: {} at character {}", error.message(), error.position())))?;
        Ok(Json(path.query(&input.data).into_iter().cloned().collect()))
    }
}

fn find(entry: &Value, at: &str) -> Value {
    entry.pointer(at).cloned().unwrap_or_default()
}

fn pointer<'p>(place: &str, text: &'p str) -> Result<&'p str, ToolError> {
    if text.is_empty() || text.starts_with('/') {
        return Ok(text);
    }
    Err(ToolError::invalid_arguments(format!(
        "{place}: {text:?} is no JSON Pointer: it begins with a slash, or is empty"
    )))
}

fn selection(select: Map<String, Value>) -> Result<Vec<(String, String)>, ToolError> {
    let read = |(name, at): (String, Value)| match at {
        Value::String(at) => {
            pointer(&format!("/select/{name}"), &at)?;
            Ok((name, at))
        }
        _ => Err(ToolError::invalid_arguments(format!("/select/{name}: a JSON Pointer is a string"))),
    };
    select.into_iter().map(read).collect()
}

/// Orders two values; what is missing or null comes last, whichever way the others go.
fn order(a: Option<&Value>, b: Option<&Value>, descending: bool) -> Ordering {
    let (a, b) = (a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null));
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if descending => condition::compare(b, a),
        (false, false) => condition::compare(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Value {
        json!({"orders": [
            {"id": 7, "total": 30.5, "customer": {"name": "Ada"}},
            {"id": 8, "total": 12, "customer": {"name": "Grace"}},
            {"id": 9, "customer": {"name": "Alan"}},
            {"id": 10, "total": 99, "customer": {"name": "Edsger"}},
        ]})
    }

    #[test]
    fn a_list_is_filtered_ordered_and_renamed() {
        let answer = testing::call(
            "reshape",
            json!({
                "data": orders(),
                "each": "/orders",
                "where": [{"at": "/total", "is": "more_than", "value": 20}],
                "sort_by": "/total",
                "descending": true,
                "select": {"order": "/id", "who": "/customer/name"},
                "limit": 5,
            }),
        );
        let expected = json!([{"order": 10, "who": "Edsger"}, {"order": 7, "who": "Ada"}]);
        assert_eq!(answer.unwrap().structured, Some(expected));
    }

    #[test]
    fn what_is_missing_comes_last_both_ways() {
        for (descending, ids) in [(false, json!([8, 7, 10, 9])), (true, json!([10, 7, 8, 9]))] {
            let answer = testing::call(
                "reshape",
                json!({"data": orders(), "each": "/orders", "sort_by": "/total", "descending": descending}),
            );
            let answer = answer.unwrap().structured.unwrap();
            let got: Value = answer.as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect();
            assert_eq!(got, ids);
        }
    }

    #[test]
    fn one_value_is_reshaped_as_one_entry() {
        let answer = testing::call("reshape", json!({"data": orders(), "select": {"first": "/orders/0/id"}}));
        assert_eq!(answer.unwrap().structured, Some(json!({"first": 7})));
    }

    #[test]
    fn a_query_finds_what_has_no_single_place() {
        for (path, expected) in [
            ("$.orders[?@.total > 20].id", json!([7, 10])),
            ("$..name", json!(["Ada", "Grace", "Alan", "Edsger"])),
            ("$.orders[?length(@.customer.name) == 3]['id']", json!([7])),
            ("$.nothing", json!([])),
        ] {
            let answer = testing::call("query", json!({"data": orders(), "path": path}));
            assert_eq!(answer.unwrap().structured, Some(expected), "{path}");
        }
        let error = testing::call("query", json!({"data": {}, "path": "$.orders["})).unwrap_err();
        assert!(error.message().starts_with("/path: ") && error.message().contains("at character"), "{error:?}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (arguments, part) in [
            (json!({"data": [], "each": "orders"}), "/each"),
            (json!({"data": {}, "each": "/orders"}), "no list at \"/orders\""),
            (json!({"data": [], "limit": 1}), "`each`"),
            (json!({"data": [], "each": "", "select": {"a": 1}}), "/select/a"),
            (json!({"data": [], "each": "", "where": [{"at": "a", "is": "present"}]}), "/where/0/at"),
        ] {
            let error = testing::call("reshape", arguments.clone()).unwrap_err();
            assert!(error.message().contains(part), "{arguments}: {}", error.message());
        }
    }
}
