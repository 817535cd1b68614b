//! A call of a tool as it is kept: what it was asked, what it asked of others, and how it ended. To try another version
//! with, without a network.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use weir_host::plugin::{Astray, Denial, Exchange, Reach, Tape, Uses, without_placeholders};

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
    /// The run that the tool was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// The step that the tool was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The key that is the same for all attempts of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Its requests, with what came back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<Exchange>,
    /// Requests that nothing came back to, or too much to be kept: the call cannot be made again without them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unanswered: u64,
    /// What it wanted and was denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Units of fuel that it took; 0: that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fuel: u64,
}

/// What a tool is told of who calls it.
#[derive(Clone, Debug)]
pub struct Told {
    run_id: Uuid,
    step: String,
    attempt: u32,
    idempotency_key: String,
}

impl Told {
    /// What `by` tells.
    #[must_use]
    pub fn of(by: &Caller) -> Self {
        let (step, idempotency_key) = (by.step.clone(), by.idempotency_key.clone());
        Self { run_id: by.run.0, step, attempt: by.attempt, idempotency_key }
    }
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Recorded {
    /// What is kept of a call. What stood for a secret in its outcome is left out, since it is another text in each call.
    #[must_use]
    pub fn of(
        call: &ToolCall,
        told: Told,
        (tape, uses): (&Tape, &Uses),
        result: &Result<Reply, AttemptFailure>,
    ) -> Self {
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
            attempt: told.attempt,
            run_id: Some(told.run_id),
            step: Some(told.step),
            idempotency_key: Some(told.idempotency_key),
            http: tape.exchanges(),
            unanswered: tape.unanswered() as u64,
            denied: uses.denied.iter().map(|denial| without_placeholders(&denial.wanted)).collect(),
            outcome: outcome.without_placeholders(),
            fuel: used.map_or(0, |used| used.fuel),
        }
    }
}

impl Outcome {
    fn without_placeholders(self) -> Self {
        match self {
            Self::Answer(value) => Self::Answer(masked(value)),
            Self::Questions(value) => Self::Questions(masked(value)),
            Self::Failure(value) => Self::Failure(masked(value)),
        }
    }
}

fn masked(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_placeholders(&text)),
        Value::Array(items) => items.into_iter().map(masked).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, masked(value))).collect(),
        other => other,
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
    /// Units of fuel that it took; 0: that is not known.
    pub fuel: u64,
    /// What it wanted and did not get: what is not granted, and what was not recorded.
    pub denied: Vec<Denial>,
    /// Recorded requests that it did not make.
    pub unasked: Vec<Exchange>,
    /// The first request that was not the recorded one, where it was replayed exactly.
    pub astray: Option<Astray>,
}

impl Loaded {
    /// Makes a recorded call again, without a network: what was recorded answers its requests, in any order.
    pub async fn replay(&self, recorded: &Recorded, reach: Arc<Reach>) -> Replayed {
        self.replay_on(Tape::playing(recorded.http.clone()), recorded, reach).await
    }

    /// The same; but each request must be the one that was recorded in its place, with its headers where they were
    /// recorded, or it is denied.
    pub async fn replay_exactly(&self, recorded: &Recorded, reach: Arc<Reach>) -> Replayed {
        self.replay_on(Tape::playing_exactly(recorded.http.clone()), recorded, reach).await
    }

    async fn replay_on(&self, tape: Tape, recorded: &Recorded, reach: Arc<Reach>) -> Replayed {
        let call = ToolCall {
            tool: recorded.tool.clone(),
            arguments: recorded.arguments.clone(),
            on_tool_error: OnToolError::Continue,
        };
        // The tool is told what it was told before, so that what it makes of that is the same too.
        let run = RunId(recorded.run_id.unwrap_or_default());
        let step = recorded.step.clone().unwrap_or_else(|| "replay".to_owned());
        let key = recorded.idempotency_key.clone();
        let by = Caller {
            idempotency_key: key.unwrap_or_else(|| format!("{run}:{step}")),
            run,
            step,
            attempt: recorded.attempt,
            resumed: None,
            timeout: STEP_TIMEOUT_DEFAULT,
        };
        let (told, tape) = (Told::of(&by), Arc::new(tape));
        let (result, uses) = self.call(&call, by, reach, Some(Arc::clone(&tape))).await;
        let again = Recorded::of(&call, told, (&tape, &uses), &result);
        let denied = uses.denied.into_iter();
        let denied = denied.map(|Denial { wanted, why }| Denial { wanted: without_placeholders(&wanted), why });
        Replayed {
            outcome: again.outcome,
            fuel: again.fuel,
            denied: denied.collect(),
            unasked: again.http,
            astray: tape.astray(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_for_a_secret_is_in_no_outcome() {
        let stood = format!("Bearer weir-secret-{:032x}", 7_u128);
        let outcome = Outcome::Answer(json!({"result": [stood], "is_error": false}));
        let expected = Outcome::Answer(json!({"result": ["Bearer [secret]"], "is_error": false}));
        assert_eq!(outcome.without_placeholders(), expected);
    }

    #[test]
    fn a_call_of_an_older_version_can_be_read() {
        let kept = json!({"tool": "t", "arguments": {}, "outcome": {"answer": {"result": 1}}, "fuel": 0});
        let read: Recorded = serde_json::from_value(kept.clone()).expect("a call");
        assert_eq!((read.attempt, read.run_id, read.unanswered), (1, None, 0));
        assert_eq!(serde_json::to_value(&read).expect("JSON")["outcome"], kept["outcome"]);
    }
}
