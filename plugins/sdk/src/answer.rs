//! What a tool answers.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::ToolError;

/// One piece of an answer, as the Model Context Protocol knows them.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// What it is.
    pub block: Block,
    /// For whom, and how to use it.
    pub notes: Option<Notes>,
    /// `_meta` of the block: an object.
    pub meta: Option<Value>,
}

/// What a piece of an answer is.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
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
    /// A resource that the caller may read for itself.
    Link(Link),
    /// A resource in full.
    Resource(Resource),
    /// Another kind of block: an object with its `type`.
    Other(Value),
}

/// A resource that the caller may read for itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Where it is.
    pub uri: String,
    /// What it is called.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Its kind.
    pub mime_type: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

/// A resource in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Where it is from.
    pub uri: String,
    /// Its kind.
    pub mime_type: Option<String>,
    /// What it holds.
    pub data: ResourceData,
    /// `_meta` of the resource: an object.
    pub meta: Option<Value>,
}

/// What a resource holds.
#[derive(Clone, Debug, PartialEq)]
pub enum ResourceData {
    /// Text.
    Text(String),
    /// Anything else, as it is.
    Bytes(Vec<u8>),
}

/// For whom a piece is, and how to use it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// For users.
    pub for_user: bool,
    /// For models.
    pub for_assistant: bool,
    /// From 0 (entirely optional) to 1 (effectively required).
    pub priority: Option<f64>,
    /// ISO 8601.
    pub last_modified: Option<String>,
}

impl From<Block> for Content {
    fn from(block: Block) -> Self {
        Self { block, notes: None, meta: None }
    }
}

impl Content {
    /// Text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Block::Text(text.into()).into()
    }

    /// A picture.
    #[must_use]
    pub fn image(data: impl Into<Vec<u8>>, mime_type: &str) -> Self {
        Block::Image { data: data.into(), mime_type: mime_type.to_owned() }.into()
    }

    /// A sound.
    #[must_use]
    pub fn audio(data: impl Into<Vec<u8>>, mime_type: &str) -> Self {
        Block::Audio { data: data.into(), mime_type: mime_type.to_owned() }.into()
    }

    /// A resource that the caller may read for itself.
    #[must_use]
    pub fn link(uri: &str, name: &str) -> Self {
        Block::Link(Link { uri: uri.to_owned(), name: name.to_owned(), ..Link::default() }).into()
    }

    /// A resource that is text, in full.
    #[must_use]
    pub fn resource(uri: &str, mime_type: &str, text: impl Into<String>) -> Self {
        let (uri, mime_type, data) = (uri.to_owned(), Some(mime_type.to_owned()), ResourceData::Text(text.into()));
        Block::Resource(Resource { uri, mime_type, data, meta: None }).into()
    }

    /// With notes on its use.
    #[must_use]
    pub fn with_notes(mut self, notes: Notes) -> Self {
        self.notes = Some(notes);
        self
    }

    /// With `_meta`: an object.
    #[must_use]
    pub fn with_meta(mut self, meta: Value) -> Self {
        self.meta = Some(meta);
        self
    }
}

/// An answer in full. Most tools return [`Text`] or [`Json`] instead.
///
/// ```
/// use weir_sdk::prelude::*;
/// use weir_sdk::Notes;
///
/// let chart = Content::image([0x89, b'P'], "image/png")
///     .with_notes(Notes { for_user: true, priority: Some(1.0), ..Notes::default() });
/// let answer = Answer { content: vec![Content::text("sales"), chart], ..Answer::default() };
/// assert_eq!(answer.text(), "sales");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// For people and models.
    pub content: Vec<Content>,
    /// For the steps that follow: any JSON value.
    pub structured: Option<Value>,
    /// The answer says what went wrong.
    pub is_error: bool,
    /// `_meta` of the answer: an object.
    pub meta: Option<Value>,
}

impl Answer {
    /// An answer of one text.
    #[must_use]
    pub fn of_text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::text(text)], ..Self::default() }
    }

    /// All text of the answer, each piece on a line of its own.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|content| match &content.block {
            Block::Text(text) => Some(text.as_str()),
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
