//! How one JSON document differs from another, for a person: where, what was wanted, and what was got.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::printable;
use crate::model::reader::join;

/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 160;

/// Characters before the first that differs, where two long texts begin alike.
const BEFORE_CHARS: usize = 30;

/// Differences that are told one by one.
const TOLD_MAX: usize = 8;

/// One place where two documents differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Difference {
    /// Where: an RFC 6901 JSON pointer. It goes on into texts that are JSON themselves.
    pub(super) pointer: String,
    /// What was wanted there; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<Value>,
    /// What was there; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) got: Option<Value>,
}

/// All places below `pointer` where the documents differ; none where they are equal.
pub(super) fn differences(pointer: &str, wanted: &Value, got: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(pointer, Some(wanted), Some(got), &mut found);
    found
}

fn compare(pointer: &str, wanted: Option<&Value>, got: Option<&Value>, found: &mut Vec<Difference>) {
    if wanted == got {
        return;
    }
    match (wanted, got) {
        (Some(Value::Object(wanted)), Some(Value::Object(got))) => {
            let more = got.keys().filter(|name| !wanted.contains_key(*name));
            for name in wanted.keys().chain(more) {
                compare(&join(pointer, name), wanted.get(name), got.get(name), found);
            }
        }
        (Some(Value::Array(wanted)), Some(Value::Array(got))) => {
            for n in 0..wanted.len().max(got.len()) {
                compare(&join(pointer, &n.to_string()), wanted.get(n), got.get(n), found);
            }
        }
        (Some(Value::String(one)), Some(Value::String(other))) => match (document(one), document(other)) {
            (Some(one), Some(other)) if one != other => compare(pointer, Some(&one), Some(&other), found),
            _ => found.push(Difference { pointer: pointer.to_owned(), wanted: wanted.cloned(), got: got.cloned() }),
        },
        _ => found.push(Difference { pointer: pointer.to_owned(), wanted: wanted.cloned(), got: got.cloned() }),
    }
}

/// The object or array that a text is.
fn document(text: &str) -> Option<Value> {
    text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok())?
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        let (wanted, got) = (text(&self.wanted), text(&self.got));
        let alike = wanted.chars().zip(got.chars()).take_while(|(one, other)| one == other).count();
        let long = wanted.chars().count().max(got.chars().count()) > SHOWN_CHARS;
        let skipped = if long { alike.saturating_sub(BEFORE_CHARS) } else { 0 };
        let pointer = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{pointer}: wanted {}, got {}", shown(&wanted, skipped), shown(&got, skipped))
    }
}

fn shown(text: &str, skipped: usize) -> String {
    let part: String = text.chars().skip(skipped).take(SHOWN_CHARS).collect();
    let before = if skipped > 0 { "..." } else { "" };
    let after = if text.chars().count() > skipped + SHOWN_CHARS { "..." } else { "" };
    format!("{before}{}{after}", printable(&part))
}

/// A line for each difference, as far as a person reads on.
pub(super) fn told(differences: &[Difference]) -> String {
    let lines = differences.iter().take(TOLD_MAX).map(|one| format!("  {one}\n"));
    let mut text: String = lines.collect();
    if differences.len() > TOLD_MAX {
        text += &format!("  and {} more\n", differences.len() - TOLD_MAX);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told_of(wanted: &Value, got: &Value) -> Vec<String> {
        differences("/x", wanted, got).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differences_have_a_place_and_both_values() {
        let wanted = json!({"a": [1, {"b/c": "x"}], "gone": null, "same": 1, "body": "{\"n\": 1, \"m\": 2}"});
        let got = json!({"a": [1, {"b/c": "y"}, 3], "new": true, "same": 1, "body": "{\"n\": 1, \"m\": 3}"});
        assert_eq!(
            told_of(&wanted, &got),
            [
                "/x/a/1/b~1c: wanted \"x\", got \"y\"",
                "/x/a/2: wanted nothing, got 3",
                "/x/gone: wanted null, got nothing",
                "/x/body/m: wanted 2, got 3",
                "/x/new: wanted nothing, got true",
            ]
        );
        assert_eq!(told_of(&wanted, &wanted), [""; 0]);
        // The same JSON, written in another way, is another text.
        assert_eq!(told_of(&json!("[1]"), &json!("[ 1]")), ["/x: wanted \"[1]\", got \"[ 1]\""]);
        let root = Difference { pointer: String::new(), wanted: Some(json!(1)), got: None };
        assert_eq!(root.to_string(), "/: wanted 1, got nothing");
    }

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        let text = |end: &str| json!(format!("{}{end}", "a".repeat(1_000)));
        let told = told_of(&text("b\n"), &text(&"c".repeat(1_000))).concat();
        assert!(told.starts_with("/x: wanted ...aaa") && told.contains("aaab\\n\", got ...aaa"), "{told}");
        assert!(told.ends_with("ccc...") && told.len() < 300, "{told}");
        let many: Vec<Difference> = differences("", &json!(vec![0; 10]), &json!(vec![1; 10]));
        assert!(super::told(&many).ends_with("  /7: wanted 0, got 1\n  and 2 more\n"), "{many:?}");
    }
}
