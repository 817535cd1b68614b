//! What the records of the original system mean here: a definition in its words, and the history of a run that ended
//! there. It knows no database; `store/original.rs` reads the records.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::context::context_keys;
use super::decide::current_step_index;
use super::definition::{Definition, Step, VERSION};
use super::error::{Failure, FailureCode};
use super::id::{RunId, WorkflowId};
use super::journal::{Event, Outcome, Output, Then};
use super::reader::{depth_fits, join};
use super::state::{IllegalTransition, RunState};
use super::step::StepKind;
use super::time::Timestamp;

/// A definition of the original in the words that are used here, and what a person should know about it.
#[must_use]
pub fn translate(mut document: Value) -> (Value, Vec<String>) {
    let mut notes = Vec::new();
    if let Some(version) = document.get_mut("version")
        && *version != VERSION
    {
        notes.push(format!("/version was {version}, and is \"{VERSION}\" here"));
        *version = VERSION.into();
    }
    if let Some(steps) = document.get_mut("steps").and_then(Value::as_array_mut) {
        for (index, step) in steps.iter_mut().enumerate() {
            if let Some(members) = step.as_object_mut() {
                translate_step(members, &join("/steps", &index.to_string()), &mut notes);
            }
        }
    }
    find_braces(&document, "", &mut notes);
    (document, notes)
}

fn translate_step(members: &mut Map<String, Value>, pointer: &str, notes: &mut Vec<String>) {
    // The original writes every member that it knows; null is its word for one that was not given.
    members.retain(|_, value| !value.is_null());
    let http = members.get("type").is_some_and(|kind| kind == "http");
    if http
        && !members.contains_key("json")
        && let Some(body) = members.shift_remove("json_body")
    {
        members.insert("json".to_owned(), body);
        notes.push(format!("{pointer}/json is sent from now on: the original lost the bodies of its requests"));
    }
}

fn find_braces(value: &Value, pointer: &str, notes: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains("{{") => {
            notes.push(format!("{pointer} has `{{{{`, which begins an expression here; the original sent it as it is"));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                find_braces(item, &join(pointer, &index.to_string()), notes);
            }
        }
        Value::Object(members) => members.iter().for_each(|(key, item)| find_braces(item, &join(pointer, key), notes)),
        _ => {}
    }
}

/// A run as the original keeps it.
#[derive(Clone, Debug)]
pub struct OriginalRun {
    /// Its id.
    pub id: RunId,
    /// Its workflow.
    pub workflow_id: Option<WorkflowId>,
    /// Its status, in the original's words.
    pub status: String,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Index of the step that was begun last.
    pub step_index: i64,
    /// When it was triggered.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// When it was begun.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What its `persist_snapshot` steps kept, the earliest first.
    pub snapshots: Vec<OriginalSnapshot>,
}

/// What a `persist_snapshot` step of the original kept.
#[derive(Clone, Debug)]
pub struct OriginalSnapshot {
    /// Index of the step.
    pub step_index: i64,
    /// When.
    pub at: Timestamp,
    /// The context as JSON text: `{"step_0": {"type", "result"}, ...}`.
    pub content: String,
}

/// The history of a run that ended in the original.
#[derive(Clone, Debug)]
pub struct History {
    /// How it ended.
    pub outcome: Outcome,
    /// Its journal, which folds.
    pub events: Vec<Event>,
    /// Steps done.
    pub step_index: u32,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it did not succeed.
    pub error: Option<Failure>,
    /// Steps that were done and whose result the original did not keep: it is null here.
    pub results_lost: u64,
    /// Whether it succeeded with another number of steps than the definition has: that was changed since.
    pub is_of_older_definition: bool,
}

/// The history of `run`, which executed `def`.
///
/// # Errors
/// Why it cannot be taken: above all, it has not ended.
pub fn history(run: &OriginalRun, def: &Definition) -> Result<History, String> {
    let outcome = match run.status.as_str() {
        "SUCCEEDED" => Outcome::Succeeded,
        "FAILED" => Outcome::Failed,
        "CANCELED" => Outcome::Canceled,
        status @ ("QUEUED" | "RUNNING") => {
            return Err(format!("it is {status}: import again when it has ended, or trigger it again here"));
        }
        status => return Err(format!("its status `{status}` is not known here")),
    };
    Writer::new(run, def).write(outcome).map_err(|error| error.to_string())
}

/// Writes the journal of a run.
struct Writer<'r> {
    run: &'r OriginalRun,
    def: &'r Definition,
    /// The results that snapshots kept, by the index of their step.
    results: HashMap<usize, Value>,
    /// When the run was begun and when it ended.
    span: (Timestamp, Timestamp),
    state: RunState,
    events: Vec<Event>,
    /// The time of the last event.
    now: Timestamp,
    results_lost: u64,
}

impl<'r> Writer<'r> {
    fn new(run: &'r OriginalRun, def: &'r Definition) -> Self {
        let begun = run.started_at.unwrap_or(run.created_at);
        let span = (begun, run.finished_at.unwrap_or(run.updated_at).max(begun));
        let results = run.snapshots.iter().flat_map(|snapshot| results(&snapshot.content)).collect();
        let (state, events) = (RunState::default(), Vec::new());
        Self { run, def, results, span, state, events, now: begun, results_lost: 0 }
    }

    fn write(mut self, outcome: Outcome) -> Result<History, IllegalTransition> {
        let (started_at, finished_at) = self.span;
        self.add(Event::Started { at: started_at })?;
        let (begun, done) = self.steps(outcome);
        for index in 0..done {
            self.complete(index)?;
        }
        let mut error = self.error(outcome);
        if begun > done {
            let step = &self.def.steps[done];
            self.attempt(step)?;
            error = error.map(|error| error.at(&step.path));
            if let (Outcome::Failed, Some(error)) = (outcome, error.clone()) {
                let path = step.path.clone();
                self.add(Event::Failed { path, error, then: Then::GiveUp, used: None, at: finished_at })?;
            }
        }
        self.add(Event::Finished { outcome, error: error.clone(), at: finished_at })?;
        let fewer = outcome == Outcome::Succeeded && done != self.def.steps.len();
        let is_of_older_definition = fewer || begun < count(self.run.step_index);
        Ok(History {
            outcome,
            step_index: current_step_index(self.def, &self.state),
            events: self.events,
            started_at,
            finished_at,
            error,
            results_lost: self.results_lost,
            is_of_older_definition,
        })
    }

    /// How many steps were begun and how many were done, of those that the definition has.
    fn steps(&self, outcome: Outcome) -> (usize, usize) {
        let last = usize::try_from(self.run.step_index).unwrap_or(0);
        let snapshot = |snapshot: &OriginalSnapshot| usize::try_from(snapshot.step_index).ok();
        let kept = self.results.keys().copied().chain(self.run.snapshots.iter().filter_map(snapshot)).max();
        let kept = kept.map_or(0, |index| index.saturating_add(1));
        let (begun, done) = match outcome {
            Outcome::Succeeded => (last + 1, last + 1),
            Outcome::Failed | Outcome::Canceled if self.run.started_at.is_none() => (0, 0),
            Outcome::Failed | Outcome::Canceled => (last + 1, last),
        };
        let most = self.def.steps.len();
        (begun.max(kept).min(most), done.max(kept).min(most))
    }

    fn complete(&mut self, index: usize) -> Result<(), IllegalTransition> {
        let step = &self.def.steps[index];
        self.attempt(step)?;
        let result = match &step.kind {
            StepKind::PersistSnapshot(snapshot) => {
                json!({"keys": context_keys(self.def, &self.state, index, snapshot.include_keys.as_deref())})
            }
            StepKind::Http(_) | StepKind::McpTool(_) => self.results.remove(&index).unwrap_or_else(|| {
                self.results_lost += 1;
                Value::Null
            }),
        };
        let at = self.time_of(index);
        self.add(Event::Completed { path: step.path.clone(), output: Output::of(result), at })
    }

    /// A step with an outside effect was attempted once, when the one before it was done.
    fn attempt(&mut self, step: &Step) -> Result<(), IllegalTransition> {
        match step.kind {
            StepKind::PersistSnapshot(_) => Ok(()),
            StepKind::Http(_) | StepKind::McpTool(_) => {
                self.add(Event::Attempted { path: step.path.clone(), attempt: 1, at: self.now })
            }
        }
    }

    /// By when a step was done: the next snapshot, or the end. The original keeps no other times.
    fn time_of(&self, index: usize) -> Timestamp {
        let later = |snapshot: &&OriginalSnapshot| usize::try_from(snapshot.step_index).is_ok_and(|at| at >= index);
        let next = self.run.snapshots.iter().filter(later).map(|snapshot| snapshot.at).min();
        next.unwrap_or(self.span.1).min(self.span.1).max(self.now)
    }

    fn error(&self, outcome: Outcome) -> Option<Failure> {
        let message = match (outcome, &self.run.error_message) {
            (Outcome::Succeeded, _) | (Outcome::Canceled, None) => return None,
            (_, Some(message)) => message,
            (Outcome::Failed, None) => "the original system kept no reason",
        };
        Some(Failure::new(FailureCode::Imported, message))
    }

    fn add(&mut self, event: Event) -> Result<(), IllegalTransition> {
        self.state.apply(&event)?;
        match &event {
            Event::Started { at } | Event::Completed { at, .. } => self.now = *at,
            _ => {}
        }
        self.events.push(event);
        Ok(())
    }
}

/// The index of the step that was begun last as a number of steps; 0 is also the index of a run without steps.
fn count(index: i64) -> usize {
    usize::try_from(index).map_or(0, |index| if index == 0 { 0 } else { index + 1 })
}

/// The results in a snapshot, by the index of their step. One that cannot be read keeps none.
fn results(content: &str) -> Vec<(usize, Value)> {
    let entries: Map<String, Value> = serde_json::from_str(content).unwrap_or_default();
    let result = |(key, mut entry): (String, Value)| {
        let index = key.strip_prefix("step_")?.parse().ok()?;
        let result = entry.as_object_mut()?.shift_remove("result")?;
        // Deeper than what is stored here: its text, as for answers that are.
        Some((index, if depth_fits(&result) { result } else { result.to_string().into() }))
    };
    entries.into_iter().filter_map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::super::state::Phase;
    use super::*;

    #[test]
    fn a_definition_is_said_in_our_words() {
        let (document, notes) = translate(json!({"version": "3", "steps": [
            {"timeout_seconds": 30, "type": "http", "method": "POST", "url": "https://x/{{ a }}", "headers": {}, "json_body": {"a": null}},
            {"timeout_seconds": 30, "type": "http", "method": "GET", "url": "https://x/", "headers": {}, "json_body": null},
            {"timeout_seconds": 30, "type": "persist_snapshot", "include_keys": null},
            {"timeout_seconds": 30, "type": "mcp_tool", "tool_name": "t", "input": {"q": ["{{"]}},
        ]}));
        assert_eq!(
            document,
            json!({"version": "1.0", "steps": [
                {"timeout_seconds": 30, "type": "http", "method": "POST", "url": "https://x/{{ a }}", "headers": {}, "json": {"a": null}},
                {"timeout_seconds": 30, "type": "http", "method": "GET", "url": "https://x/", "headers": {}},
                {"timeout_seconds": 30, "type": "persist_snapshot"},
                {"timeout_seconds": 30, "type": "mcp_tool", "tool_name": "t", "input": {"q": ["{{"]}},
            ]})
        );
        let places: Vec<&str> = notes.iter().filter_map(|note| note.split(' ').next()).collect();
        assert_eq!(places, ["/version", "/steps/0/json", "/steps/0/url", "/steps/3/input/q/0"]);
        assert_eq!(translate(json!(17)), (json!(17), vec![]));
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn run(status: &str, step_index: i64, snapshots: &[(i64, &str)]) -> OriginalRun {
        let snapshots = snapshots.iter().map(|(step_index, content)| OriginalSnapshot {
            step_index: *step_index,
            at: at(20),
            content: (*content).to_owned(),
        });
        OriginalRun {
            id: RunId(uuid::Uuid::nil()),
            workflow_id: None,
            status: status.to_owned(),
            error_message: Some("broken".to_owned()),
            step_index,
            created_at: at(5),
            updated_at: at(40),
            started_at: Some(at(10)),
            finished_at: Some(at(30)),
            snapshots: snapshots.collect(),
        }
    }

    /// Where each step stands, its result where it has one, the steps done, and the results that were lost.
    fn told(run: &OriginalRun) -> (Vec<(Phase, Option<Value>)>, u32, u64) {
        let def = json!({"steps": [
            {"type": "http", "url": "http://x/"},
            {"type": "persist_snapshot"},
            {"type": "http", "url": "http://x/"},
        ]});
        let def = Definition::parse(&def, &Limits::default()).expect("sound");
        let history = history(run, &def).expect("ended");
        let state = RunState::fold(&history.events).expect("legal");
        assert_eq!((state.outcome, &state.error), (Some(history.outcome), &history.error));
        let steps = state.steps.values();
        let steps = steps.map(|step| (step.phase, step.output.as_ref().map(|output| output.result.clone())));
        (steps.collect(), history.step_index, history.results_lost)
    }

    #[test]
    fn the_history_of_a_run_says_what_the_original_knew() {
        let kept = [(1, r#"{"step_0": {"type": "http", "result": {"n": 1}}}"#)];
        let done = |result: Value| (Phase::Completed, Some(result));
        let snapshot = || done(json!({"keys": ["step_0"]}));
        let first = || done(json!({"n": 1}));
        for (run, steps, step_index, lost) in [
            (run("SUCCEEDED", 2, &kept), vec![first(), snapshot(), done(Value::Null)], 3, 1),
            (run("SUCCEEDED", 2, &[(1, "[broken")]), vec![done(Value::Null), snapshot(), done(Value::Null)], 3, 2),
            (run("FAILED", 2, &kept), vec![first(), snapshot(), (Phase::Failed, None)], 2, 0),
            (run("FAILED", 1, &[]), vec![done(Value::Null), (Phase::Failed, None)], 1, 1),
            (run("FAILED", 0, &[]), vec![(Phase::Failed, None)], 0, 0),
            (run("CANCELED", 2, &kept), vec![first(), snapshot(), (Phase::Abandoned, None)], 2, 0),
            (run("CANCELED", 1, &[]), vec![done(Value::Null)], 1, 1),
            (OriginalRun { started_at: None, ..run("CANCELED", 0, &[]) }, vec![], 0, 0),
            (run("FAILED", 9, &kept), vec![first(), snapshot(), done(Value::Null)], 3, 1),
        ] {
            assert_eq!(told(&run), (steps, step_index, lost), "{run:?}");
        }
    }

    #[test]
    fn a_run_that_has_not_ended_is_not_taken() {
        let def = Definition::parse(&json!({"steps": []}), &Limits::default()).expect("sound");
        for status in ["QUEUED", "RUNNING", "PAUSED"] {
            let why = history(&run(status, 0, &[]), &def).expect_err("not taken");
            assert!(why.contains(status), "{why}");
        }
        let empty = history(&run("SUCCEEDED", 0, &[]), &def).expect("ended");
        assert_eq!((empty.step_index, empty.is_of_older_definition), (0, false));
        assert!(history(&run("SUCCEEDED", 1, &[]), &def).expect("ended").is_of_older_definition);
    }
}
