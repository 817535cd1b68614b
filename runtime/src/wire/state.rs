//! The JSON that clients of the original system read from Redis under `run:{run_id}:state`.

use serde_json::{Value, json};

use crate::model::context::{RunFacts, context};
use crate::model::decide::current_step_index;
use crate::model::definition::Definition;
use crate::model::id::{RunId, WorkflowId};
use crate::model::state::{Phase, RunState};
use crate::model::time::Timestamp;

/// The state of a run that nobody has looked at yet.
#[must_use]
pub fn queued(run: RunId, workflow: WorkflowId, now: Timestamp) -> Value {
    json!({
        "seq": 0, "run_id": run, "workflow_id": workflow, "status": "QUEUED", "current_step_index": 0, "context": {}, "steps": [],
        "last_updated_at": now,
    })
}

/// The state of a run that could not be executed: what is known of it is why.
#[must_use]
pub fn failed(run: RunId, workflow: WorkflowId, seq: u64, error: &str, now: Timestamp) -> Value {
    json!({
        "seq": seq, "run_id": run, "workflow_id": workflow, "status": "FAILED", "current_step_index": 0, "context": {},
        "steps": [], "last_updated_at": now, "error": error,
    })
}

/// The state of a run after `seq` appends. `seq` comes first: whoever writes compares it without reading the rest.
#[must_use]
pub fn state(run: &RunFacts, def: &Definition, state: &RunState, seq: u64, waits: bool, now: Timestamp) -> Value {
    let status = match state.outcome {
        Some(outcome) => outcome.as_str(),
        None if waits => "WAITING",
        None => "RUNNING",
    };
    let steps = def.steps.iter().filter_map(|step| {
        let known = state.steps.get(&step.path)?;
        let status = match known.phase {
            Phase::Running => "RUNNING",
            Phase::Retrying(_) | Phase::Asking => "WAITING",
            Phase::Completed => "SUCCEEDED",
            Phase::Skipped => "SKIPPED",
            Phase::Failed => "FAILED",
            Phase::Abandoned => "CANCELED",
        };
        let (started_at, finished_at) = (known.started_at, known.finished_at);
        Some(json!({
            "name": step.name, "type": step.kind.name(), "status": status, "attempts": known.attempts,
            "started_at": started_at, "finished_at": finished_at,
        }))
    });
    let mut shown = json!({
        "seq": seq, "run_id": run.id, "workflow_id": run.workflow_id, "status": status,
        "current_step_index": current_step_index(def, state), "context": context(def, state, def.steps.len(), None),
        "steps": steps.collect::<Vec<_>>(), "last_updated_at": now,
    });
    if let Some(error) = &state.error {
        shown["error"] = error.message.clone().into();
    }
    shown
}
