//! What a tool answers.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::ToolError;

/// One piece of an answer, as the Model Context Protocol knows them.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text.
    Text(String),
    /// A picture.
    Image {
        /// Its bytes, as they are.
        data: Vec<u8>,
        /// Such as `image/png`.
        mime_type: String,
    },
    /// A sound.
    Audio {
        /// Its bytes, as they are.
        data: Vec<u8>,
        /// Such as `audio/wav`.
        mime_type: String,
    },
}

/// An answer in full. Most tools return [`Text`] or [`Json`] instead.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// For people and models.
    pub content: Vec<Content>,
    /// For the steps that follow: any JSON value.
    pub structured: Option<Value>,
    /// The answer says what went wrong.
    pub is_error: bool,
}

impl Answer {
    /// An answer of one text.
    #[must_use]
    pub fn of_text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], ..Self::default() }
    }

    /// All text of the answer, each piece on a line of its own.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|content| match content {
            Content::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// An answer that is text.
#[derive(Clone, Debug, PartialEq)]
pub struct Text(pub String);

/// An answer that is a value: structured content with a schema, and its JSON as text for who reads only that.
#[derive(Clone, Debug, PartialEq)]
pub struct Json<T>(pub T);

/// What a tool's function may return.
pub trait Output {
    /// JSON Schema of the structured content, if there is one.
    fn schema() -> Option<Value>;

    /// The answer.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    fn into_answer(self) -> Result<Answer, ToolError>;
}

impl Output for Answer {
    fn schema() -> Option<Value> {
        None
    }

    fn into_answer(self) -> Result<Answer, ToolError> {
        Ok(self)
    }
}

impl Output for Text {
    fn schema() -> Option<Value> {
        None
    }

    fn into_answer(self) -> Result<Answer, ToolError> {
        Ok(Answer::of_text(self.0))
    }
}

impl<T: Serialize + JsonSchema> Output for Json<T> {
    fn schema() -> Option<Value> {
        Some(schemars::schema_for!(T).to_value())
    }

    fn into_answer(self) -> Result<Answer, ToolError> {
        let value = serde_json::to_value(self.0)
            .map_err(|error| ToolError::permanent(format!("the result cannot be written as JSON: {error}")))?;
        let text = value.to_string();
        Ok(Answer { structured: Some(value), ..Answer::of_text(text) })
    }
}
