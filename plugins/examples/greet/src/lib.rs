//! The smallest plugin: one tool, and its test.

use weir_sdk::prelude::*;

#[weir_sdk::input]
struct Greet {
    name: String,
}

weir_sdk::plugin! {
    /// Greets a person by name.
    fn greet(input: Greet, _cx: &Context) -> Result<Text, ToolError> {
        Ok(Text(format!("Hello, {}!", input.name)))
    }
}

#[test]
fn greets_by_name() {
    assert_eq!(testing::call("greet", json!({"name": "Ada"})).unwrap().text(), "Hello, Ada!");
}
