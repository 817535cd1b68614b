//! The state of a run: the fold of its journal. A journal that breaks the rules is refused, never repaired.

use std::sync::Arc;

use indexmap::IndexMap;

use super::ask::{Question, Round, ToolState};
use super::error::{Failure, FailureCode};
use super::journal::{Event, Message, Outcome, Output, Then, json_size_bytes};
use super::path::StepPath;
use super::plugin::Used;
use super::time::Timestamp;

/// Where a step stands. A step the state does not know has not been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// An attempt is under way.
    Running,
    /// The next attempt may begin at this time.
    Retrying(Timestamp),
    /// Its tool has asked, and is resumed when the round is over.
    Asking,
    /// Done, with an output.
    Completed,
    /// Its `if` was false.
    Skipped,
    /// Failed for good.
    Failed,
    /// The run ended before the step did.
    Abandoned,
}

/// What is known about one step.
#[derive(Clone, Debug)]
pub struct StepState {
    /// Where it stands.
    pub phase: Phase,
    /// Attempts begun, over the whole life of the run.
    pub attempts: u32,
    /// Attempts that failed since the run started or was redriven.
    pub failures: u32,
    /// Whether an attempt ended without an answer (a crash, a timeout, a broken connection): its effect may have
    /// happened, and its request may still be in flight.
    pub unsettled: bool,
    /// When the first attempt began (or the step was done at once).
    pub started_at: Timestamp,
    /// When it came to its end.
    pub finished_at: Option<Timestamp>,
    /// What came out.
    pub output: Option<Arc<Output>>,
    /// What went wrong last.
    pub error: Option<Failure>,
    /// `mcp_tool`: what the last attempt used.
    pub used: Option<Used>,
    /// `mcp_tool`: the last round of questions of the call that is not over.
    pub round: Option<Round>,
}

/// The state of a run.
#[derive(Clone, Debug, Default)]
pub struct RunState {
    /// When it was first looked at.
    pub started_at: Option<Timestamp>,
    /// From when its time limit counts: the start, or the last redrive.
    pub clock_from: Option<Timestamp>,
    /// The steps that were reached, in the order in which they were.
    pub steps: IndexMap<StepPath, StepState>,
    /// Number of the last message taken from the inbox.
    pub received: u32,
    /// Whether somebody asked to cancel it.
    pub cancel: bool,
    /// How often a person continued it after a failure: a part of the steps' idempotency keys.
    pub redrives: u32,
    /// Sum of the outputs, and of what tools asked, in bytes of JSON text.
    pub output_bytes: usize,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    pub error: Option<Failure>,
    /// How many steps at the beginning of the definition are known to be done. There may be more.
    pub(super) lead: usize,
}

/// An event that cannot follow the events before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal breaks the rules: {0}")]
pub struct IllegalTransition(String);

fn illegal<T>(message: impl Into<String>) -> Result<T, IllegalTransition> {
    Err(IllegalTransition(message.into()))
}

impl RunState {
    /// Folds a whole journal.
    ///
    /// # Errors
    /// [`IllegalTransition`] at the first event that cannot follow those before it.
    pub fn fold<'e>(events: impl IntoIterator<Item = &'e Event>) -> Result<Self, IllegalTransition> {
        let mut state = Self::default();
        for event in events {
            state.apply(event)?;
        }
        Ok(state)
    }

    /// Adds one event.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event cannot come now; the state is then as before.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalTransition> {
        let message = matches!(event, Event::Received { .. });
        match (self.started_at, self.outcome, event) {
            (Some(_), _, Event::Started { .. }) => return illegal("a run starts once"),
            (None, _, Event::Started { .. }) | (Some(_), None, _) => {}
            (None, _, _) => return illegal("the first event must be `started`"),
            (Some(_), Some(_), _) if message => {}
            (Some(_), Some(_), _) => return illegal("nothing but a message follows the end of a run"),
        }
        match event {
            Event::Started { at } => {
                self.started_at = Some(*at);
                self.clock_from = Some(*at);
            }
            Event::Attempted { path, attempt, at } => self.attempted(path, *attempt, *at)?,
            Event::Completed { path, output, at } => self.completed(path, output, *at)?,
            Event::Asked { path, questions, state, resume_at, used, at } => {
                self.asked(path, (questions, state, *resume_at), used, *at)?;
            }
            Event::Skipped { path, at } => {
                self.open_step(path, *at)?;
                self.settle(path, Phase::Skipped, *at);
            }
            Event::Failed { path, error, then, used, at } => {
                let step = self.open_step(path, *at)?;
                step.failures += 1;
                step.unsettled |= matches!(error.code, FailureCode::StepTimeout | FailureCode::ConnectionFailed);
                step.error = Some(error.clone());
                step.used.clone_from(used);
                self.after(path, *then, *at);
            }
            Event::Interrupted { path, then, at } => {
                match self.steps.get_mut(path) {
                    Some(step) if step.phase == Phase::Running => step.unsettled = true,
                    _ => return illegal(format!("`{path}` was interrupted but not running")),
                }
                self.after(path, *then, *at);
            }
            Event::Received { n, message, at } => self.received(*n, message, *at)?,
            Event::Finished { outcome, error, at } => self.finished(*outcome, error.clone(), *at),
        }
        Ok(())
    }

    /// The steps of which an attempt is under way.
    pub fn running(&self) -> impl Iterator<Item = (&StepPath, &StepState)> {
        self.steps.iter().filter(|(_, step)| step.phase == Phase::Running)
    }

    fn attempted(&mut self, path: &StepPath, attempt: u32, at: Timestamp) -> Result<(), IllegalTransition> {
        if self.steps.get(path).is_some_and(|step| step.phase == Phase::Running) {
            return illegal(format!("`{path}` is attempted while an attempt is under way"));
        }
        let step = self.open_step(path, at)?;
        if attempt != step.attempts + 1 {
            return illegal(format!("attempt {attempt} of `{path}` follows attempt {}", step.attempts));
        }
        step.attempts = attempt;
        step.phase = Phase::Running;
        Ok(())
    }

    fn asked(
        &mut self,
        path: &StepPath,
        (questions, state, resume_at): (&[Question], &ToolState, Option<Timestamp>),
        used: &Used,
        at: Timestamp,
    ) -> Result<(), IllegalTransition> {
        let Some(step) = self.steps.get_mut(path).filter(|step| step.phase == Phase::Running) else {
            return illegal(format!("`{path}` asked but was not running"));
        };
        let (number, earlier) = match step.round.take() {
            Some(Round { number, questions, mut earlier, .. }) => {
                earlier.extend(questions.iter().map(|question| question.key.clone()));
                (number + 1, earlier)
            }
            None => (1, Vec::new()),
        };
        step.round = Some(Round {
            number,
            questions: Arc::new(questions.to_vec()),
            state: Arc::new(state.clone()),
            answers: Vec::new(),
            asked_at: at,
            resume_at,
            earlier,
        });
        step.phase = Phase::Asking;
        step.used = Some(used.clone());
        step.error = None;
        self.output_bytes += json_size_bytes(&questions) + json_size_bytes(state);
        Ok(())
    }

    fn completed(&mut self, path: &StepPath, output: &Output, at: Timestamp) -> Result<(), IllegalTransition> {
        let step = self.open_step(path, at)?;
        step.output = Some(Arc::new(output.clone()));
        step.used = output.tool.as_ref().map(|tool| tool.used.clone());
        step.error = None;
        self.output_bytes += json_size_bytes(output);
        self.settle(path, Phase::Completed, at);
        Ok(())
    }

    fn received(&mut self, n: u32, message: &Message, at: Timestamp) -> Result<(), IllegalTransition> {
        if n != self.received + 1 {
            return illegal(format!("message {n} follows message {}", self.received));
        }
        self.received = n;
        match message {
            // One that came too late says nothing about what a redrive begins.
            Message::Cancel if self.outcome.is_some() => {}
            Message::Cancel => self.cancel = true,
            Message::Answer { step, answer } => {
                let asking = self.steps.get_mut(step).filter(|step| step.phase == Phase::Asking);
                // One that came too late, or a second one, changes nothing.
                if let Some(round) = asking.and_then(|step| step.round.as_mut())
                    && round.question(&answer.key).is_some()
                    && round.answer(&answer.key).is_none()
                {
                    round.answers.push(answer.clone());
                }
            }
            Message::Redrive => {
                self.redrives += 1;
                self.clock_from = Some(at);
                self.outcome = None;
                self.error = None;
                // Only what did not end well is done again; a step that never ran stays unknown.
                let open = |step: &&mut StepState| !matches!(step.phase, Phase::Completed | Phase::Skipped);
                for step in self.steps.values_mut().filter(open) {
                    step.phase = Phase::Retrying(at);
                    step.failures = 0;
                    step.unsettled = false;
                    step.finished_at = None;
                    // The call begins anew.
                    step.round = None;
                }
            }
        }
        Ok(())
    }

    fn finished(&mut self, outcome: Outcome, error: Option<Failure>, at: Timestamp) {
        for step in self.steps.values_mut() {
            if matches!(step.phase, Phase::Running | Phase::Retrying(_) | Phase::Asking) {
                step.phase = Phase::Abandoned;
                step.finished_at = Some(at);
            }
        }
        self.outcome = Some(outcome);
        self.error = error;
    }

    /// The step at `path`, which must not have come to an end.
    fn open_step(&mut self, path: &StepPath, at: Timestamp) -> Result<&mut StepState, IllegalTransition> {
        let step = self.steps.entry(path.clone()).or_insert_with(|| StepState {
            phase: Phase::Retrying(at),
            attempts: 0,
            failures: 0,
            unsettled: false,
            started_at: at,
            finished_at: None,
            output: None,
            error: None,
            used: None,
            round: None,
        });
        match step.phase {
            Phase::Running | Phase::Retrying(_) | Phase::Asking => Ok(step),
            phase => illegal(format!("`{path}` has come to its end already ({phase:?})")),
        }
    }

    fn after(&mut self, path: &StepPath, then: Then, at: Timestamp) {
        match then {
            Then::Retry { at: next } => {
                if let Some(step) = self.steps.get_mut(path) {
                    step.phase = Phase::Retrying(next);
                }
            }
            Then::GiveUp => self.settle(path, Phase::Failed, at),
        }
    }

    fn settle(&mut self, path: &StepPath, phase: Phase, at: Timestamp) {
        if let Some(step) = self.steps.get_mut(path) {
            step.phase = phase;
            step.finished_at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn path() -> StepPath {
        StepPath::top("a")
    }

    fn output() -> Output {
        Output::of(1.into())
    }

    #[test]
    fn what_cannot_follow_is_refused() {
        let started = Event::Started { at: at(0) };
        let attempted = Event::Attempted { path: path(), attempt: 1, at: at(1) };
        let completed = Event::Completed { path: path(), output: output(), at: at(2) };
        let finished = Event::Finished { outcome: Outcome::Succeeded, error: None, at: at(3) };
        let second = Event::Attempted { path: path(), attempt: 3, at: at(1) };
        let message = Event::Received { n: 2, message: Message::Cancel, at: at(1) };
        let interrupted = Event::Interrupted { path: path(), then: Then::Retry { at: at(1) }, at: at(1) };
        for journal in [
            vec![&attempted],
            vec![&started, &started],
            vec![&started, &attempted, &attempted],
            vec![&started, &second],
            vec![&started, &completed, &completed],
            vec![&started, &message],
            vec![&started, &interrupted],
            vec![&started, &finished, &attempted],
        ] {
            assert!(RunState::fold(journal.clone()).is_err(), "{journal:?}");
        }
        RunState::fold([&started, &attempted, &completed, &finished]).expect("a whole run");
    }

    #[test]
    fn a_redrive_reopens_only_what_did_not_end_well() {
        let other = StepPath::top("b");
        let error = Failure::new(FailureCode::HttpStatus, "500");
        let events = [
            Event::Started { at: at(0) },
            Event::Completed { path: path(), output: output(), at: at(1) },
            Event::Attempted { path: other.clone(), attempt: 1, at: at(2) },
            Event::Failed { path: other.clone(), error: error.clone(), then: Then::GiveUp, used: None, at: at(3) },
            Event::Finished { outcome: Outcome::Failed, error: Some(error), at: at(3) },
            Event::Received { n: 1, message: Message::Redrive, at: at(9) },
        ];
        let state = RunState::fold(&events).expect("legal");
        assert_eq!((state.outcome, state.redrives, state.clock_from), (None, 1, Some(at(9))));
        assert_eq!(state.steps[&path()].phase, Phase::Completed);
        let reopened = &state.steps[&other];
        assert_eq!((reopened.phase, reopened.attempts, reopened.failures), (Phase::Retrying(at(9)), 1, 0));
    }
}
