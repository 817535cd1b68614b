//! A plugin for Weir: one tool to begin with, and its test.

use weir_sdk::prelude::*;

/// What the tool takes.
#[weir_sdk::input]
struct Greet {
    /// Who is greeted.
    name: String,
}

weir_sdk::plugin! {
    /// Greets a person by name.
    #[tool(read_only)]
    fn greet(input: Greet, _cx: &Context) -> Result<Text, ToolError> {
        if input.name.is_empty() {
            return Err(ToolError::answer("there is nobody to greet"));
        }
        Ok(Text(format!("Hello, {}!", input.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        assert_eq!(testing::call("greet", json!({"name": "Ada"})).unwrap().text(), "Hello, Ada!");
    }

    #[test]
    fn nobody_is_an_answer() {
        let answer = testing::call("greet", json!({"name": ""})).unwrap();
        assert!(answer.is_error);
        assert_eq!(answer.text(), "there is nobody to greet");
    }
}
