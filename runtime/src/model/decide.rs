//! What a run does next: a pure function of its definition, its state and the time.

use std::time::Duration;

use serde_json::json;

use super::ask::Resumption;
use super::context::{RunFacts, StepScope, context_keys};
use super::definition::{Definition, OnInterrupt, Step};
use super::error::{Failure, FailureCode};
use super::journal::{Event, Outcome, Output, Then, json_size_bytes};
use super::limits::Limits;
use super::path::StepPath;
use super::state::{Phase, RunState, StepState};
use super::step::{HttpCall, StepKind};
use super::time::Timestamp;
use super::tool::ToolCall;

/// What to do now.
#[derive(Debug)]
pub enum Decision {
    /// Add these events, then ask again. Nothing outside happens.
    Record(Vec<Event>),
    /// Begin these attempts.
    Perform(Vec<Effect>),
    /// Nothing to begin: an attempt is under way, or somebody is asked, or a retry is due at this time, or the run's time
    /// ends then.
    Wait(Timestamp),
    /// The run is over.
    Finished,
}

/// What an attempt calls.
#[derive(Debug)]
pub enum Call {
    /// A URL.
    Http(HttpCall),
    /// A tool of the plugin that the revision pins for the step.
    Tool(ToolCall),
}

/// One attempt of a step with an outside effect.
#[derive(Debug)]
pub struct Effect {
    /// Which step.
    pub path: StepPath,
    /// Which attempt.
    pub attempt: u32,
    /// What to call.
    pub call: Call,
    /// Longest time of the attempt.
    pub timeout: Duration,
    /// The same over all attempts, until a person redrives the run.
    pub idempotency_key: String,
    /// After questions: how the call goes on.
    pub resumed: Option<Box<Resumption>>,
    /// Whether an attempt before ended without an answer, so that its request may still be in flight.
    pub after_unsettled: bool,
    /// Whether the note that the attempt begins must be on disk first.
    pub durable_note: bool,
}

impl Effect {
    /// The event that notes its beginning.
    #[must_use]
    pub fn attempted(&self, at: Timestamp) -> Event {
        Event::Attempted { path: self.path.clone(), attempt: self.attempt, at }
    }
}

/// Decides what the run does next at the time `now`.
#[must_use]
pub fn decide(run: &RunFacts, def: &Definition, limits: &Limits, state: &RunState, now: Timestamp) -> Decision {
    if state.outcome.is_some() {
        return Decision::Finished;
    }
    let Some(clock_from) = state.clock_from else {
        return Decision::Record(vec![Event::Started { at: now }]);
    };
    if state.cancel {
        return finish(Outcome::Canceled, None, now);
    }
    let timeout = def.timeout.unwrap_or(limits.run_timeout_max).min(limits.run_timeout_max);
    let deadline = clock_from.plus(timeout);
    if now >= deadline {
        let message = format!("the run took longer than {} seconds", timeout.as_secs_f64());
        return finish(Outcome::Failed, Some(Failure::new(FailureCode::RunTimeout, message)), now);
    }
    for (index, step) in def.steps.iter().enumerate().skip(state.lead) {
        let known = state.steps.get(&step.path);
        match known.map(|step| step.phase) {
            Some(Phase::Completed | Phase::Skipped) => {}
            Some(Phase::Failed | Phase::Abandoned) => {
                return finish(Outcome::Failed, known.and_then(|step| step.error.clone()), now);
            }
            Some(Phase::Running) => return Decision::Wait(deadline),
            Some(Phase::Retrying(at)) if at > now => return Decision::Wait(at.min(deadline)),
            Some(Phase::Retrying(_) | Phase::Asking) | None => {
                let waits = known.and_then(|known| asking(step, known, deadline, now));
                return waits.unwrap_or_else(|| begin(&StepScope::new(run, def, state, index), step, limits, now));
            }
        }
    }
    finish(Outcome::Succeeded, None, now)
}

/// The events that a new claim records for attempts which an earlier one left without an end.
#[must_use]
pub fn interrupted(def: &Definition, state: &RunState, now: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    for (path, _) in state.running() {
        let step = def.index_of(path).map(|index| &def.steps[index]);
        if step.is_some_and(|step| step.on_interrupt == OnInterrupt::Fail) {
            let message = "the process ended during the attempt, and the step says `on_interrupt: fail`";
            let error = Failure::new(FailureCode::Interrupted, message).at(path);
            events.push(Event::Failed { path: path.clone(), error, then: Then::GiveUp, used: None, at: now });
        } else {
            events.push(Event::Interrupted { path: path.clone(), then: Then::Retry { at: now }, at: now });
        }
    }
    events
}

/// How many steps at the top level are done: the index of the step that is next or under way.
#[must_use]
pub fn current_step_index(def: &Definition, state: &RunState) -> u32 {
    u32::try_from(lead(def, state)).unwrap_or(u32::MAX)
}

/// Remembers how many steps at the beginning are done. What is done stays so, so nobody need look at it again: without this
/// each decision would cost as much as the run is long.
pub fn remember_lead(def: &Definition, state: &mut RunState) {
    state.lead = lead(def, state);
}

fn lead(def: &Definition, state: &RunState) -> usize {
    let done = def.steps.iter().skip(state.lead).take_while(|step| {
        state.steps.get(&step.path).is_some_and(|step| matches!(step.phase, Phase::Completed | Phase::Skipped))
    });
    state.lead + done.count()
}

/// The event for an output that a step produced, or for the limit that the output breaks.
#[must_use]
pub fn completed(path: &StepPath, output: Output, state: &RunState, limits: &Limits, now: Timestamp) -> Event {
    let size = json_size_bytes(&output);
    let (code, message) = if size > limits.step_output_max_bytes {
        let limit = limits.step_output_max_bytes;
        (FailureCode::StepOutputTooLarge, format!("the output is {size} bytes long; the limit is {limit} bytes"))
    } else if state.output_bytes + size > limits.context_max_bytes {
        let (sum, limit) = (state.output_bytes + size, limits.context_max_bytes);
        (
            FailureCode::ContextTooLarge,
            format!("the outputs of the run are {sum} bytes long; the limit is {limit} bytes"),
        )
    } else {
        return Event::Completed { path: path.clone(), output, at: now };
    };
    let (error, used) = (Failure::new(code, message).at(path), output.tool.map(|tool| tool.used));
    Event::Failed { path: path.clone(), error, then: Then::GiveUp, used, at: now }
}

/// What a step does whose tool asks; nothing when it does not, or its call can go on.
fn asking(step: &Step, known: &StepState, deadline: Timestamp, now: Timestamp) -> Option<Decision> {
    let asks = known.phase == Phase::Asking;
    let round = known.round.as_ref().filter(|round| asks && !round.is_over(now))?;
    let gives_up_at = round.gives_up_at(step.kind.answer_timeout());
    match gives_up_at {
        Some(at) if at <= now => {
            let seconds = at.since(round.asked_at).as_secs_f64();
            let message = format!("what the tool asks was not answered for {seconds} seconds");
            let error = Failure::new(FailureCode::AnswerTimeout, message).at(&step.path);
            let failed = Event::Failed { path: step.path.clone(), error, then: Then::GiveUp, used: None, at: now };
            Some(Decision::Record(vec![failed]))
        }
        _ => Some(Decision::Wait(round.resume_at.or(gives_up_at).map_or(deadline, |at| at.min(deadline)))),
    }
}

fn finish(outcome: Outcome, error: Option<Failure>, at: Timestamp) -> Decision {
    Decision::Record(vec![Event::Finished { outcome, error, at }])
}

fn begin(scope: &StepScope<'_>, step: &Step, limits: &Limits, now: Timestamp) -> Decision {
    let failed = |error: Failure| {
        Decision::Record(vec![Event::Failed {
            path: step.path.clone(),
            error: error.at(&step.path),
            then: Then::GiveUp,
            used: None,
            at: now,
        }])
    };
    match step.condition.as_ref().map(|condition| condition.eval_condition(scope)) {
        None | Some(Ok(true)) => {}
        Some(Ok(false)) => return Decision::Record(vec![Event::Skipped { path: step.path.clone(), at: now }]),
        Some(Err(message)) => return failed(Failure::new(FailureCode::ExpressionFailed, format!("`if`: {message}"))),
    }
    match &step.kind {
        StepKind::PersistSnapshot(snapshot) => {
            let keys = context_keys(scope.def, scope.state, scope.index, snapshot.include_keys.as_deref());
            let output = Output::of(json!({ "keys": keys }));
            Decision::Record(vec![completed(&step.path, output, scope.state, limits, now)])
        }
        StepKind::Http(http) => match http.render(scope) {
            Ok(call) => Decision::Perform(vec![effect(scope, step, Call::Http(call), limits)]),
            Err(error) => failed(error),
        },
        StepKind::McpTool(tool) => match tool.render(scope) {
            Ok(call) => Decision::Perform(vec![effect(scope, step, Call::Tool(call), limits)]),
            Err(error) => failed(error),
        },
    }
}

fn effect(scope: &StepScope<'_>, step: &Step, call: Call, limits: &Limits) -> Effect {
    let known = scope.state.steps.get(&step.path);
    let redrive = match scope.state.redrives {
        0 => String::new(),
        n => format!(":redrive-{n}"),
    };
    Effect {
        path: step.path.clone(),
        attempt: known.map_or(1, |known| known.attempts + 1),
        call,
        timeout: step.timeout.min(limits.step_timeout_max),
        idempotency_key: format!("{}:{}{redrive}", scope.run.id, step.path),
        resumed: known.and_then(|known| known.round.as_ref()).map(|round| Box::new(round.resumption())),
        after_unsettled: known.is_some_and(|known| known.unsettled),
        durable_note: step.on_interrupt == OnInterrupt::Fail,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::super::id::{RunId, WorkflowId};
    use super::super::journal::Message;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn definition(steps: &Value) -> Definition {
        Definition::parse(&json!({"timeout_seconds": 100, "steps": steps}), &Limits::default()).expect("sound")
    }

    fn run() -> RunFacts {
        RunFacts {
            id: RunId(Uuid::nil()),
            workflow_id: WorkflowId(Uuid::nil()),
            workflow_name: "w".to_owned(),
            revision: 1,
            input: Arc::new(json!({"n": 1})),
            created_at: at(0),
        }
    }

    /// What is decided at `now` after a journal.
    fn after(steps: &Value, journal: &[Event], now: i64) -> String {
        let state = RunState::fold(journal).expect("a legal journal");
        match decide(&run(), &definition(steps), &Limits::default(), &state, at(now)) {
            Decision::Record(events) => {
                let name = |event: &Event| match event {
                    Event::Started { .. } => "start".to_owned(),
                    Event::Skipped { path, .. } => format!("skip {path}"),
                    Event::Completed { path, output, .. } => format!("complete {path} {}", output.result),
                    Event::Failed { path, error, then: Then::GiveUp, .. } => {
                        format!("fail {path} {}", error.code.as_str())
                    }
                    Event::Finished { outcome, error, .. } => {
                        let code = error.as_ref().map(|error| error.code.as_str()).unwrap_or_default();
                        format!("finish {} {code}", outcome.as_str()).trim_end().to_owned()
                    }
                    other => format!("{other:?}"),
                };
                events.iter().map(name).collect::<Vec<_>>().join(", ")
            }
            Decision::Perform(effects) => {
                let name = |effect: &Effect| {
                    let unsettled = if effect.after_unsettled { " unsettled" } else { "" };
                    format!("perform {} {}{unsettled}", effect.idempotency_key, effect.attempt)
                };
                effects.iter().map(name).collect::<Vec<_>>().join(", ")
            }
            Decision::Wait(until) => format!("wait until {}", until.as_micros() / 1_000_000),
            Decision::Finished => "nothing".to_owned(),
        }
    }

    #[test]
    fn every_state_has_one_answer() {
        let key = "00000000-0000-0000-0000-000000000000";
        let steps = json!([
            {"name": "a", "type": "http", "url": "http://x/"},
            {"name": "b", "type": "persist_snapshot", "if": "trigger.n == 1"},
            {"name": "c", "type": "http", "url": "http://x/{{ steps.a.result.id }}"},
        ]);
        let path = StepPath::top;
        let output = Output::of;
        let failed = |then| {
            let error = Failure::new(FailureCode::HttpStatus, "500").at(&path("a"));
            Event::Failed { path: path("a"), error, then, used: None, at: at(2) }
        };
        let started = Event::Started { at: at(0) };
        let attempted = Event::Attempted { path: path("a"), attempt: 1, at: at(1) };
        let interrupted = Event::Interrupted { path: path("a"), then: Then::Retry { at: at(2) }, at: at(2) };
        let a_done = Event::Completed { path: path("a"), output: output(json!({"id": 7})), at: at(2) };
        let a_odd = Event::Completed { path: path("a"), output: output(json!({})), at: at(2) };
        let b_done = Event::Completed { path: path("b"), output: output(json!({"keys": ["a"]})), at: at(3) };
        let c_done = Event::Completed { path: path("c"), output: output(json!(1)), at: at(4) };
        let ended = Event::Finished { outcome: Outcome::Failed, error: None, at: at(3) };
        let message = |message: Message| Event::Received { n: 1, message, at: at(3) };
        let cases: Vec<(&str, i64, Vec<Event>)> = vec![
            ("start", 0, vec![]),
            ("perform {key}:a 1", 1, vec![started.clone()]),
            ("wait until 100", 2, vec![started.clone(), attempted.clone()]),
            ("finish FAILED run_timeout", 100, vec![started.clone(), attempted.clone()]),
            ("finish CANCELED", 3, vec![started.clone(), attempted.clone(), message(Message::Cancel)]),
            ("perform {key}:a 2 unsettled", 2, vec![started.clone(), attempted.clone(), interrupted]),
            ("wait until 9", 3, vec![started.clone(), attempted.clone(), failed(Then::Retry { at: at(9) })]),
            ("wait until 100", 3, vec![started.clone(), attempted.clone(), failed(Then::Retry { at: at(999) })]),
            ("perform {key}:a 2", 9, vec![started.clone(), attempted.clone(), failed(Then::Retry { at: at(9) })]),
            ("finish FAILED http_status", 3, vec![started.clone(), attempted.clone(), failed(Then::GiveUp)]),
            ("nothing", 9, vec![started.clone(), attempted.clone(), failed(Then::GiveUp), ended.clone()]),
            (
                "perform {key}:a:redrive-1 2",
                9,
                vec![started.clone(), attempted.clone(), failed(Then::GiveUp), ended, message(Message::Redrive)],
            ),
            (r#"complete b {"keys":["a"]}"#, 3, vec![started.clone(), attempted.clone(), a_done.clone()]),
            ("perform {key}:c 1", 3, vec![started.clone(), attempted.clone(), a_done.clone(), b_done.clone()]),
            ("fail c expression_failed", 3, vec![started.clone(), attempted.clone(), a_odd, b_done.clone()]),
            ("finish SUCCEEDED", 5, vec![started, attempted, a_done, b_done, c_done]),
        ];
        for (expected, now, journal) in cases {
            assert_eq!(after(&steps, &journal, now), expected.replace("{key}", key), "{journal:?}");
        }
        let skipping = json!([{"name": "b", "type": "persist_snapshot", "if": "trigger.n == 2"}]);
        assert_eq!(after(&skipping, &[Event::Started { at: at(0) }], 1), "skip b");
    }
}
