//! A call of a tool as it is kept: what it was asked, what it asked of others, and how it ended. To try another version
//! with, without a network.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use weir_host::plugin::{Denial, Exchange, Reach, Tape};

use super::call::Caller;
use super::loaded::Loaded;
use crate::model::ask::Reply;
use crate::model::definition::STEP_TIMEOUT_DEFAULT;
use crate::model::error::AttemptFailure;
use crate::model::id::RunId;
use crate::model::journal::Output;
use crate::model::tool::{OnToolError, ToolCall};

/// A call, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
    /// Which attempt of its step it was.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub attempt: u32,
    /// Its requests, with what came back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<Exchange>,
    /// How it ended.
    pub outcome: Outcome,
    /// Units of fuel that it took.
    #[serde(default)]
    pub fuel: u64,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer: `result`, `content`, `is_error` and, where there is one, `_meta`.
    Answer(Value),
    /// The questions that the tool asks instead of answering.
    Questions(Value),
    /// The failure: `code` and `message`.
    Failure(Value),
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_first(attempt: &u32) -> bool {
    *attempt == 1
}

impl Recorded {
    /// What is kept of a call.
    #[must_use]
    pub fn of(call: &ToolCall, attempt: u32, tape: &Tape, result: &Result<Reply, AttemptFailure>) -> Self {
        let (outcome, used) = match result {
            Ok(Reply::Output(output)) => (Outcome::Answer(answer(output)), output.tool.as_ref().map(|tool| &tool.used)),
            Ok(Reply::Asked(asked)) => (Outcome::Questions(json!(asked.questions)), Some(&asked.used)),
            Err(failed) => {
                let failure = json!({"code": failed.failure.code.as_str(), "message": failed.failure.message});
                (Outcome::Failure(failure), failed.used.as_deref())
            }
        };
        Self {
            tool: call.tool.clone(),
            arguments: call.arguments.clone(),
            attempt,
            http: tape.exchanges(),
            outcome,
            fuel: used.map_or(0, |used| used.fuel),
        }
    }
}

/// An answer as people see it.
#[must_use]
pub fn answer(output: &Output) -> Value {
    let Some(tool) = &output.tool else { return json!({"result": output.result}) };
    let mut answer =
        json!({"result": output.result, "content": tool.blocks(&output.result), "is_error": tool.is_error});
    if let Some(meta) = &tool.meta {
        answer["_meta"] = meta.clone();
    }
    answer
}

/// How a call went that was made again.
#[derive(Debug)]
pub struct Replayed {
    /// How it ended this time.
    pub outcome: Outcome,
    /// Units of fuel that it took.
    pub fuel: u64,
    /// What it wanted and did not get: what is not granted, and what was not recorded.
    pub denied: Vec<Denial>,
    /// Recorded requests that it did not make.
    pub unasked: Vec<Exchange>,
}

impl Loaded {
    /// Makes a recorded call again, without a network: what was recorded answers its requests.
    pub async fn replay(&self, recorded: &Recorded, reach: Arc<Reach>) -> Replayed {
        let call = ToolCall {
            tool: recorded.tool.clone(),
            arguments: recorded.arguments.clone(),
            on_tool_error: OnToolError::Continue,
        };
        // The same for every replay, so that what a tool makes of it is the same too.
        let run = RunId(Uuid::nil());
        let by = Caller {
            run,
            step: "replay".to_owned(),
            attempt: recorded.attempt,
            idempotency_key: format!("{run}:replay"),
            resumed: None,
            timeout: STEP_TIMEOUT_DEFAULT,
        };
        let tape = Arc::new(Tape::playing(recorded.http.clone()));
        let (result, uses) = self.call(&call, by, reach, Some(Arc::clone(&tape))).await;
        let unasked = tape.exchanges();
        let Recorded { outcome, fuel, .. } = Recorded::of(&call, recorded.attempt, &Tape::recording(), &result);
        Replayed { outcome, fuel, denied: uses.denied, unasked }
    }
}
