//! Conditions on entries.

use std::cmp::Ordering;

use weir_sdk::prelude::*;

/// One condition on an entry.
#[weir_sdk::input]
pub(crate) struct Condition {
    /// Where in the entry the value is.
    pub(crate) at: String,
    /// What it must be.
    is: Test,
    /// What it is compared with. `present` and `absent` need none.
    #[serde(default)]
    value: Value,
}

/// What a value must be. A value that is missing is only `absent`, or `unequal`.
#[weir_sdk::input]
#[serde(rename_all = "snake_case")]
enum Test {
    Present,
    Absent,
    Equal,
    Unequal,
    LessThan,
    MoreThan,
    Contains,
}

impl Condition {
    pub(crate) fn holds(&self, entry: &Value) -> bool {
        let found = entry.pointer(&self.at).filter(|value| !value.is_null());
        let ordered = |wanted| found.is_some_and(|found| comparable(found, &self.value) == Some(wanted));
        match self.is {
            Test::Present => found.is_some(),
            Test::Absent => found.is_none(),
            Test::Equal => found.is_some_and(|found| equal(found, &self.value)),
            Test::Unequal => !found.is_some_and(|found| equal(found, &self.value)),
            Test::LessThan => ordered(Ordering::Less),
            Test::MoreThan => ordered(Ordering::Greater),
            Test::Contains => match (found, &self.value) {
                (Some(Value::String(text)), Value::String(part)) => text.contains(part.as_str()),
                (Some(Value::Array(list)), value) => list.iter().any(|entry| equal(entry, value)),
                _ => false,
            },
        }
    }
}

/// Numbers are equal by their value: 1 is 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Numbers go with numbers and text with text; nothing else has an order.
fn comparable(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// A total order: numbers, then text, then all else.
pub(crate) fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        _ => 2,
    };
    comparable(a, b).unwrap_or_else(|| rank(a).cmp(&rank(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_holds_and_does_not() {
        let entry = json!({"n": 2, "text": "sharp", "list": [1, 2], "none": null});
        for (at, is, value, holds) in [
            ("/n", Test::Present, json!(null), true),
            ("/none", Test::Present, json!(null), false),
            ("/none", Test::Absent, json!(null), true),
            ("/n", Test::Equal, json!(2.0), true),
            ("/text", Test::Equal, json!("flat"), false),
            ("/missing", Test::Unequal, json!(1), true),
            ("/n", Test::LessThan, json!(3), true),
            ("/n", Test::MoreThan, json!("1"), false),
            ("/text", Test::Contains, json!("har"), true),
            ("/list", Test::Contains, json!(2), true),
            ("/n", Test::Contains, json!(2), false),
        ] {
            let condition = Condition { at: at.to_owned(), is, value };
            assert_eq!(condition.holds(&entry), holds, "{at}");
        }
    }
}
