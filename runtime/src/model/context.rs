//! What a run knows so far: the context that clients read, snapshots keep and expressions see.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use minijinja::value::Serde;
use serde_json::{Map, Value, json};

use super::definition::{Definition, Step};
use super::expression::Scope;
use super::id::{RunId, WorkflowId};
use super::journal::{Output, json_size_bytes};
use super::limits::STEP_VALUES_MAX_BYTES;
use super::state::RunState;
use super::time::Timestamp;

/// What is true of a run from its beginning to its end.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// The run.
    pub id: RunId,
    /// The workflow it belongs to.
    pub workflow_id: WorkflowId,
    /// The workflow's name in the run's revision.
    pub workflow_name: String,
    /// The revision it executes.
    pub revision: u32,
    /// What triggered it.
    pub input: Arc<Value>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// One entry of the context: `{"type", "result"}`, for an `http` step with status and headers beside them, for an
/// `mcp_tool` step with the content blocks and `is_error`.
#[must_use]
pub fn entry(step: &Step, output: &Output) -> Value {
    let mut entry = Map::new();
    entry.insert("type".to_owned(), step.kind.name().into());
    entry.insert("result".to_owned(), output.result.clone());
    if let Some(status) = output.status {
        entry.insert("status".to_owned(), status.into());
    }
    if let Some(headers) = &output.headers {
        entry.insert("headers".to_owned(), json!(headers));
    }
    if let Some(tool) = &output.tool {
        entry.insert("content".to_owned(), tool.blocks(&output.result).into());
        entry.insert("is_error".to_owned(), tool.is_error.into());
    }
    Value::Object(entry)
}

/// The steps before position `before` that have an output, limited to the names in `include_keys` where given.
fn done<'a>(
    def: &'a Definition,
    state: &'a RunState,
    before: usize,
    include_keys: Option<&'a [String]>,
) -> impl Iterator<Item = (&'a Step, &'a Output)> {
    let wanted = move |step: &&Step| include_keys.is_none_or(|keys| keys.contains(&step.name));
    let steps = def.steps[..before.min(def.steps.len())].iter().filter(wanted);
    steps.filter_map(|step| Some((step, state.steps.get(&step.path)?.output.as_deref()?)))
}

/// The names in [`context`].
#[must_use]
pub fn context_keys(def: &Definition, state: &RunState, before: usize, include_keys: Option<&[String]>) -> Vec<String> {
    done(def, state, before, include_keys).map(|(step, _)| step.name.clone()).collect()
}

/// About how large [`context`] is as JSON text, in bytes.
#[must_use]
pub fn context_size_bytes(def: &Definition, state: &RunState, before: usize, include_keys: Option<&[String]>) -> usize {
    done(def, state, before, include_keys).map(|(_, output)| json_size_bytes(output)).sum()
}

/// The context after `before` steps of the definition, limited to the names in `include_keys` where given.
///
/// A snapshot's content is this function at the snapshot's place: contents are never stored a second time.
#[must_use]
pub fn context(def: &Definition, state: &RunState, before: usize, include_keys: Option<&[String]>) -> Value {
    let entries = done(def, state, before, include_keys);
    Value::Object(entries.map(|(step, output)| (step.name.clone(), entry(step, output))).collect())
}

/// What the expressions of one step see. What they ask for is made once.
pub struct StepScope<'a> {
    /// The run.
    pub run: &'a RunFacts,
    /// Its definition.
    pub def: &'a Definition,
    /// What happened so far.
    pub state: &'a RunState,
    /// Position of the step in the definition.
    pub index: usize,
    trigger: OnceCell<minijinja::Value>,
    steps: OnceCell<minijinja::Value>,
    /// Bytes that the expressions have made so far.
    made_bytes: Cell<usize>,
}

impl<'a> StepScope<'a> {
    /// The scope of the step at `index`.
    #[must_use]
    pub fn new(run: &'a RunFacts, def: &'a Definition, state: &'a RunState, index: usize) -> Self {
        let (trigger, steps) = (OnceCell::new(), OnceCell::new());
        Self { run, def, state, index, trigger, steps, made_bytes: Cell::new(0) }
    }
}

impl Scope for StepScope<'_> {
    fn root(&self, name: &str) -> minijinja::Value {
        let value = match name {
            "trigger" => {
                return self.trigger.get_or_init(|| minijinja::Value::from(Serde(&*self.run.input))).clone();
            }
            "steps" => {
                let steps = || minijinja::Value::from(Serde(&context(self.def, self.state, self.index, None)));
                return self.steps.get_or_init(steps).clone();
            }
            "run" => json!({
                // Not when it was started: that note may be lost, and another time would change a request.
                "id": self.run.id, "created_at": self.run.created_at,
            }),
            "workflow" => json!({
                "id": self.run.workflow_id, "name": self.run.workflow_name, "revision": self.run.revision,
            }),
            _ => return minijinja::Value::UNDEFINED,
        };
        minijinja::Value::from(Serde(&value))
    }

    fn secret(&self, name: &str) -> String {
        let name: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        // Only letters and digits, so that it stays the same in a query; and none is the beginning of another.
        format!("weirsecret{}x{name}x", self.run.id.0.simple())
    }

    fn charge(&self, bytes: usize) -> Result<(), String> {
        let made = self.made_bytes.get().saturating_add(bytes);
        self.made_bytes.set(made);
        if made > STEP_VALUES_MAX_BYTES {
            return Err(format!("the values of the step are larger than {STEP_VALUES_MAX_BYTES} bytes"));
        }
        Ok(())
    }
}
