//! The SDK as an author's crate uses it: what the macros make of functions and types, and what a fake context keeps.

use weir_sdk::prelude::*;
use weir_sdk::{Level, ToolError};

/// How to count.
#[weir_sdk::input]
struct Count {
    /// What is counted.
    text: String,
    /// Characters that are left out.
    #[serde(default)]
    without: Vec<char>,
    unit: Option<Unit>,
}

#[weir_sdk::input]
#[serde(rename_all = "snake_case")]
enum Unit {
    Characters,
    Words,
}

#[weir_sdk::output]
struct Counted {
    count: usize,
}

#[weir_sdk::input]
struct Wrapped {
    #[serde(flatten)]
    count: Count,
}

#[weir_sdk::input]
struct Nothing {}

#[weir_sdk::input]
struct Whole {
    n: i32,
}

weir_sdk::plugin! {
    /// Counts.
    ///
    /// Words are separated by white space.
    #[tool(title = "Count", read_only, destructive = false)]
    fn count(input: Count, cx: &Context) -> Result<Json<Counted>, ToolError> {
        if input.text.is_empty() {
            return Err(ToolError::answer("there is nothing to count"));
        }
        let text: String = input.text.chars().filter(|c| !input.without.contains(c)).collect();
        cx.log_with(Level::Info, "counted", json!({"bytes": text.len()}));
        let count = match input.unit {
            Some(Unit::Words) => text.split_whitespace().count(),
            Some(Unit::Characters) | None => text.chars().count(),
        };
        Ok(Json(Counted { count }))
    }

    fn wrapped(input: Wrapped, _cx: &Context) -> Result<Text, ToolError> {
        Ok(Text(input.count.text))
    }

    fn r#match(input: Whole, _cx: &Context) -> Result<Text, ToolError> {
        Ok(Text(input.n.to_string()))
    }

    fn parse(_input: Nothing, cx: &Context) -> Result<Answer, ToolError> {
        let number: u8 = cx.setting("number").unwrap_or_default().parse()?;
        Ok(Answer { structured: Some(json!(number)), ..Answer::default() })
    }
}

#[test]
fn a_tool_is_described_by_its_function_and_its_types() {
    let tool = &WEIR_TOOLS[0];
    assert_eq!((tool.name, tool.title), ("count", Some("Count")));
    assert_eq!(tool.description, "Counts.\n\nWords are separated by white space.");
    let hints = tool.hints;
    assert_eq!(
        (hints.read_only, hints.destructive, hints.idempotent, hints.open_world),
        (Some(true), Some(false), None, None)
    );
    let schema = (tool.input_schema)();
    assert_eq!(
        (&schema["type"], &schema["required"], &schema["additionalProperties"]),
        (&json!("object"), &json!(["text"]), &json!(false))
    );
    assert_eq!(schema["properties"]["text"]["description"], "What is counted.");
    assert_eq!((tool.output_schema)().expect("a schema")["properties"]["count"]["type"], "integer");
    let plain = &WEIR_TOOLS[1];
    assert!(plain.description.is_empty() && plain.hints.are_empty() && (plain.output_schema)().is_none());
    assert!((plain.input_schema)().get("additionalProperties").is_none(), "a flattened type takes what it is given");
}

#[test]
fn answers_are_structured_and_text() {
    let answer = testing::call("count", json!({"text": "a bc", "without": ["a"], "unit": "characters"})).unwrap();
    assert_eq!((answer.structured.clone(), answer.text().as_str()), (Some(json!({"count": 3})), "{\"count\":3}"));
    let answer = testing::call("count", json!({"text": "a bc", "unit": "words"})).unwrap();
    assert_eq!(answer.structured, Some(json!({"count": 2})));
    assert_eq!(testing::call("wrapped", json!({"text": "kept"})).unwrap().text(), "kept");
}

#[test]
fn whole_numbers_are_integers_and_names_are_plain() {
    for (n, text) in [
        (json!(2), Some("2")),
        (json!(2.0), Some("2")),
        (json!(-3e3), Some("-3000")),
        (json!(2.5), None),
        (json!(1e300), None),
    ] {
        let answered = testing::call("match", json!({"n": n}));
        assert_eq!(answered.ok().map(|answer| answer.text()).as_deref(), text, "{n}");
    }
}

#[test]
fn errors_go_where_they_belong() {
    let answer = testing::call("count", json!({"text": ""})).unwrap();
    assert!(answer.is_error && answer.text() == "there is nothing to count");
    let error = testing::call("count", json!({"text": "a", "unknown": 1})).unwrap_err();
    assert!(error.message().contains("unknown field `unknown`") && !error.is_retryable(), "{error:?}");
    let error = testing::call("nope", json!({})).unwrap_err();
    assert!(error.message().contains("no tool named \"nope\""), "{error:?}");
    let error = testing::call("parse", json!({})).unwrap_err();
    assert!(error.message().contains("cannot parse integer from empty string"), "{error:?}");
    assert!(ToolError::retryable("later").with_code("busy").is_retryable());
}

#[test]
fn a_fake_context_has_settings_and_keeps_lines() {
    let context = Context::fake().with_setting("number", "17");
    // Not by `call_with`: this crate has no `plugin.toml` that asks for the setting.
    assert_eq!(parse(Nothing {}, &context).unwrap().structured, Some(json!(17)));
    let context = Context::fake();
    testing::call_with(&context, "count", json!({"text": "abc"})).unwrap();
    let lines = context.lines();
    assert_eq!((lines.len(), lines[0].level, lines[0].message.as_str()), (1, Level::Info, "counted"));
    assert_eq!(lines[0].fields, Some(json!({"bytes": 3})));
    assert_eq!((context.attempt(), context.step(), context.deadline()), (1, "step_0", None));
}
