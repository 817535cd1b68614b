//! The events of a run. The journal is append-only; the state of a run is nothing but the fold of its events.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ask::{Answer, Question, ToolState};
use super::error::Failure;
use super::path::StepPath;
use super::plugin::{PluginDigest, Used};
use super::time::Timestamp;

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run was looked at for the first time.
    Started {
        /// When.
        at: Timestamp,
    },
    /// An attempt of a step with outside effects is about to begin.
    Attempted {
        /// Which step.
        path: StepPath,
        /// Which attempt, counted from 1 over the whole life of the run.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// A step has its output; no later attempt will be made.
    Completed {
        /// Which step.
        path: StepPath,
        /// What came out.
        output: Output,
        /// When.
        at: Timestamp,
    },
    /// A call of a tool ended in questions: it is resumed when they are answered, or at its time.
    Asked {
        /// Which step.
        path: StepPath,
        /// The questions.
        questions: Vec<Question>,
        /// What the tool wants to know when it is resumed. Never shown to a client.
        #[serde(default, skip_serializing_if = "ToolState::is_empty")]
        state: ToolState,
        /// When it is resumed at the latest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume_at: Option<Timestamp>,
        /// What the call used.
        used: Used,
        /// When.
        at: Timestamp,
    },
    /// The step's `if` was false.
    Skipped {
        /// Which step.
        path: StepPath,
        /// When.
        at: Timestamp,
    },
    /// An attempt failed, or the step could not even be attempted.
    Failed {
        /// Which step.
        path: StepPath,
        /// What went wrong.
        error: Failure,
        /// What comes next.
        then: Then,
        /// `mcp_tool`: what the attempt used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        used: Option<Used>,
        /// When.
        at: Timestamp,
    },
    /// An attempt began under an earlier claim and nobody recorded its end.
    Interrupted {
        /// Which step.
        path: StepPath,
        /// What comes next.
        then: Then,
        /// When it was noticed.
        at: Timestamp,
    },
    /// A message was taken out of the inbox.
    Received {
        /// Its number; numbers of a run grow by one.
        n: u32,
        /// What it says.
        message: Message,
        /// When it was taken.
        at: Timestamp,
    },
    /// The run came to its end. Only messages can follow, and only a redrive opens it again.
    Finished {
        /// How it ended.
        outcome: Outcome,
        /// Why, where it did not succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
        /// When.
        at: Timestamp,
    },
}

/// What follows a failed or interrupted attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Then {
    /// Try again, not before `at`.
    Retry {
        /// The earliest time.
        at: Timestamp,
    },
    /// The step has failed for good.
    GiveUp,
}

/// The output of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The result as later steps see it.
    pub result: Value,
    /// `http`: the status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `http`: the headers of the answer, names in lower case, repeated ones joined by `, `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<IndexMap<String, String>>,
    /// `mcp_tool`: the answer of the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Box<ToolOutput>>,
}

impl Output {
    /// An output that is nothing but a result.
    #[must_use]
    pub fn of(result: Value) -> Self {
        Self { result, status: None, headers: None, tool: None }
    }
}

/// What a tool answered, beside the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// The plugin that answered.
    pub plugin: PluginDigest,
    /// The content blocks, as the Model Context Protocol writes them; `None` is one text block with the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<Value>>,
    /// Whether the answer says what went wrong.
    pub is_error: bool,
    /// The answer's `_meta`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Value>,
    /// What the call used.
    pub used: Used,
}

impl ToolOutput {
    /// The content blocks of an answer whose result is `result`.
    #[must_use]
    pub fn blocks(&self, result: &Value) -> Vec<Value> {
        self.content.clone().unwrap_or_else(|| vec![Self::text_block(result)])
    }

    /// `blocks` as they are stored beside `result`: a text that repeats it is not stored a second time.
    #[must_use]
    pub fn stored(blocks: Vec<Value>, result: &Value) -> Option<Vec<Value>> {
        let repeats = matches!(blocks.as_slice(), [only] if *only == Self::text_block(result));
        (!repeats).then_some(blocks)
    }

    fn text_block(result: &Value) -> Value {
        let text = result.as_str().map_or_else(|| result.to_string(), str::to_owned);
        json!({"type": "text", "text": text})
    }
}

/// What arrives for a run from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Stop the run.
    Cancel,
    /// Continue a failed run from its failed step.
    Redrive,
    /// What came to a question.
    Answer {
        /// The step whose tool asked.
        step: StepPath,
        /// What came.
        answer: Answer,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// Every step is done.
    Succeeded,
    /// A step failed for good, or the run as a whole did.
    Failed,
    /// Somebody asked for it.
    Canceled,
}

impl Outcome {
    /// The outcome as clients and the database spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
        }
    }
}

impl Event {
    /// Whether losing this event in a crash could be noticed by anyone: such an event is on disk before a later
    /// step with an outside effect starts. What is not durable is repeated, and repeating it gives the same result.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Started { .. } | Self::Attempted { .. } | Self::Skipped { .. } | Self::Interrupted { .. } => false,
            Self::Completed { .. }
            | Self::Asked { .. }
            | Self::Failed { .. }
            | Self::Received { .. }
            | Self::Finished { .. } => true,
        }
    }

    /// Whether the run got further by this: such an append clears the count of interruptions.
    #[must_use]
    pub fn is_progress(&self) -> bool {
        !matches!(self, Self::Started { .. } | Self::Attempted { .. } | Self::Interrupted { .. })
    }
}

/// Size of a value as JSON text, in bytes, without making the text.
#[must_use]
pub fn json_size_bytes<T: Serialize>(value: &T) -> usize {
    let mut count = Count { bytes: 0, most: usize::MAX };
    // A counter without a limit never fails, and our maps have string keys.
    let _ = serde_json::to_writer(&mut count, value);
    count.bytes
}

/// Whether a value is at most `most` bytes of JSON text; looks no further than that, and makes nothing.
#[must_use]
pub fn json_fits<T: Serialize>(value: &T, most: usize) -> bool {
    serde_json::to_writer(Count { bytes: 0, most }, value).is_ok()
}

/// Counts what is written, up to a limit.
struct Count {
    bytes: usize,
    most: usize,
}

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes += bytes.len();
        if self.bytes > self.most { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
