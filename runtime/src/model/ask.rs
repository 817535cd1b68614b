//! Questions that tools ask: what a run waits for, and what comes back.
//!
//! A call that asks ends there. Its step waits, for as long as it takes and without taking anything meanwhile, until
//! every question has an answer, or the tool's own patience ends; then the call is resumed with what came.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::error::{Failure, FailureCode};
use super::journal::{Event, Output, Then, json_size_bytes};
use super::limits::Limits;
use super::path::StepPath;
use super::plugin::Used;
use super::state::RunState;
use super::time::Timestamp;

/// Most rounds of questions of one call.
pub const ROUNDS_MAX: u32 = 10_000;

/// Largest content of one answer, in bytes of JSON text.
pub const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// A question, as it is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Its name, unique in the call.
    pub key: String,
    /// What is asked, for people.
    pub message: String,
    /// How it is answered.
    #[serde(flatten)]
    pub body: QuestionBody,
}

/// How a question is answered. `form` and `url` are the modes of elicitation of the Model Context Protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum QuestionBody {
    /// By a form.
    Form {
        /// A JSON Schema: a flat object of texts, numbers and booleans.
        schema: Value,
    },
    /// By a visit to a page.
    Url {
        /// The page.
        url: String,
    },
    /// In another way of the Model Context Protocol.
    Raw {
        /// `method` and `params`.
        request: Value,
    },
}

/// What somebody did with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerAction {
    /// Answered it.
    Accept,
    /// Said no.
    Decline,
    /// Went away without an answer.
    Cancel,
}

/// What came to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question's key.
    pub key: String,
    /// What was done with it.
    pub action: AnswerAction,
    /// An object, where it was accepted with content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
}

/// What a tool remembers over its questions. Nobody else is shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolState(pub Vec<u8>);

impl Serialize for ToolState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for ToolState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl ToolState {
    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a call asks instead of answering.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The questions. May be none: then there is a time.
    pub questions: Vec<Question>,
    /// What the tool wants to know when it is resumed.
    pub state: ToolState,
    /// Resume at the latest after so long.
    pub resume_after: Option<Duration>,
    /// What the call used so far.
    pub used: Used,
}

/// What an attempt came to.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The step's output.
    Output(Output),
    /// Questions.
    Asked(Asked),
}

/// How a call goes on after questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumption {
    /// As the tool left it.
    pub state: ToolState,
    /// What came to the questions of the last round.
    pub answers: Vec<Answer>,
    /// 1 for the first resumption.
    pub round: u32,
}

/// One round of questions, and what came to them so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// 1 for the first.
    pub number: u32,
    /// The questions.
    pub questions: Arc<Vec<Question>>,
    /// What the tool wants to know when it is resumed.
    pub state: Arc<ToolState>,
    /// What came, in order.
    pub answers: Vec<Answer>,
    /// When the questions were asked.
    pub asked_at: Timestamp,
    /// When the call is resumed at the latest, with what came until then.
    pub resume_at: Option<Timestamp>,
    /// Keys of the rounds before.
    pub(super) earlier: Vec<String>,
}

impl Round {
    /// The question with this key.
    #[must_use]
    pub fn question(&self, key: &str) -> Option<&Question> {
        self.questions.iter().find(|question| question.key == key)
    }

    /// What came to the question with this key.
    #[must_use]
    pub fn answer(&self, key: &str) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.key == key)
    }

    /// Whether `key` was asked in this round or one before.
    #[must_use]
    pub fn knows(&self, key: &str) -> bool {
        self.question(key).is_some() || self.earlier.iter().any(|earlier| earlier == key)
    }

    /// Whether the call can go on at the time `now`.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        let answered = !self.questions.is_empty() && self.answers.len() == self.questions.len();
        answered || self.resume_at.is_some_and(|at| at <= now)
    }

    /// How the call goes on.
    #[must_use]
    pub fn resumption(&self) -> Resumption {
        Resumption { state: (*self.state).clone(), answers: self.answers.clone(), round: self.number }
    }

    /// When nobody waits for answers any longer, given the patience of the step. A tool that says itself when it goes
    /// on has none.
    #[must_use]
    pub fn gives_up_at(&self, patience: Option<Duration>) -> Option<Timestamp> {
        patience.filter(|_| self.resume_at.is_none()).map(|patience| self.asked_at.plus(patience))
    }
}

/// The event for what a call asks, or for the rule that the questions break.
#[must_use]
pub fn asked(path: &StepPath, asked: Asked, state: &RunState, limits: &Limits, now: Timestamp) -> Event {
    let round = state.steps.get(path).and_then(|step| step.round.as_ref());
    let number = round.map_or(1, |round| round.number + 1);
    let known = |round: &Round| asked.questions.iter().find(|question| round.knows(&question.key));
    let size = state.output_bytes + json_size_bytes(&asked.questions) + json_size_bytes(&asked.state);
    let (code, message) = if number > ROUNDS_MAX {
        (FailureCode::ToolContractBroken, format!("the tool asks for the {number}th time; the limit is {ROUNDS_MAX}"))
    } else if let Some(again) = round.and_then(known) {
        (FailureCode::ToolContractBroken, format!("the tool asks `{}` a second time in the same call", again.key))
    } else if size > limits.context_max_bytes {
        let limit = limits.context_max_bytes;
        let message =
            format!("what the run's tools ask, and its outputs, are {size} bytes long; the limit is {limit} bytes");
        (FailureCode::ContextTooLarge, message)
    } else {
        let Asked { questions, state, resume_after, used } = asked;
        let resume_at = resume_after.map(|after| now.plus(after));
        return Event::Asked { path: path.clone(), questions, state, resume_at, used, at: now };
    };
    let (error, used) = (Failure::new(code, message).at(path), Some(asked.used));
    Event::Failed { path: path.clone(), error, then: Then::GiveUp, used, at: now }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::super::context::RunFacts;
    use super::super::decide::{Decision, decide};
    use super::super::definition::Definition;
    use super::super::id::{RunId, WorkflowId};
    use super::super::journal::Message;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn used() -> Used {
        let hosts = indexmap::IndexMap::new();
        Used { fuel: 1, peak_memory_bytes: 1, time_us: 1, hosts, secrets: Vec::new() }
    }

    fn question(key: &str) -> Question {
        let body = QuestionBody::Url { url: "https://example.com/".to_owned() };
        Question { key: key.to_owned(), message: String::new(), body }
    }

    /// The journal of a step whose tool asked `a` and `b` at 2.
    fn asking(resume_at: Option<i64>) -> Vec<Event> {
        let path = StepPath::top("t");
        let (questions, state) = (vec![question("a"), question("b")], ToolState(vec![7]));
        vec![
            Event::Started { at: at(0) },
            Event::Attempted { path: path.clone(), attempt: 1, at: at(1) },
            Event::Asked { path, questions, state, resume_at: resume_at.map(at), used: used(), at: at(2) },
        ]
    }

    fn answered(n: u32, key: &str) -> Event {
        let answer = Answer { key: key.to_owned(), action: AnswerAction::Accept, content: None };
        Event::Received { n, message: Message::Answer { step: StepPath::top("t"), answer }, at: at(3) }
    }

    /// What is decided at `now` of a run with one step, which has these members too.
    fn decided(more: &Value, journal: &[Event], now: i64) -> Decision {
        let mut step = json!({"name": "t", "type": "mcp_tool", "tool_name": "t"});
        step.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let definition = json!({"timeout_seconds": 100, "steps": [step]});
        let definition = Definition::parse(&definition, &Limits::default()).expect("sound");
        let run = RunFacts {
            id: RunId(Uuid::nil()),
            workflow_id: WorkflowId(Uuid::nil()),
            workflow_name: "w".to_owned(),
            revision: 1,
            input: Arc::new(Value::Null),
            created_at: at(0),
        };
        let state = RunState::fold(journal).expect("a legal journal");
        decide(&run, &definition, &Limits::default(), &state, at(now))
    }

    #[test]
    fn a_call_goes_on_when_all_is_answered_or_its_time_has_come() {
        let (patient, hasty) = (json!({}), json!({"answer_timeout_seconds": 5}));
        let with = |resume_at, more: &[Event]| [asking(resume_at).as_slice(), more].concat();
        let all = [answered(1, "a"), answered(2, "b")];
        let odd = [answered(1, "a"), answered(2, "a"), answered(3, "c")];
        for (step, journal, now, expected) in [
            (&patient, with(None, &[]), 3, "waits until 100"),
            (&patient, with(None, &all[..1]), 3, "waits until 100"),
            (&patient, with(None, &odd), 3, "waits until 100"),
            (&patient, with(None, &all), 3, "goes on with 2 answers"),
            (&patient, with(Some(9), &[]), 3, "waits until 9"),
            (&patient, with(Some(999), &[]), 3, "waits until 100"),
            (&patient, with(Some(9), &all[..1]), 9, "goes on with 1 answers"),
            (&hasty, with(None, &[]), 3, "waits until 7"),
            (&hasty, with(None, &[]), 7, "fails by answer_timeout"),
            (&hasty, with(Some(9), &[]), 7, "waits until 9"),
        ] {
            let decided = match decided(step, &journal, now) {
                Decision::Wait(until) => format!("waits until {}", until.as_micros() / 1_000_000),
                Decision::Perform(effects) => {
                    let resumed = effects[0].resumed.as_deref().expect("a resumption");
                    assert_eq!((effects[0].attempt, resumed.round, &resumed.state), (2, 1, &ToolState(vec![7])));
                    format!("goes on with {} answers", resumed.answers.len())
                }
                Decision::Record(events) => match events.as_slice() {
                    [Event::Failed { error, .. }] => format!("fails by {}", error.code.as_str()),
                    other => format!("{other:?}"),
                },
                Decision::Finished => "nothing".to_owned(),
            };
            assert_eq!(decided, expected, "{journal:?}");
        }
    }

    #[test]
    fn what_is_asked_has_limits() {
        let path = StepPath::top("t");
        let mut journal = asking(None);
        journal.extend([answered(1, "a"), answered(2, "b")]);
        journal.push(Event::Attempted { path: path.clone(), attempt: 2, at: at(4) });
        let state = RunState::fold(&journal).expect("a legal journal");
        let ask = |key: &str, limits: &Limits| {
            let (questions, state_of_tool) = (vec![question(key)], ToolState::default());
            let asks = Asked { questions, state: state_of_tool, resume_after: None, used: used() };
            match asked(&path, asks, &state, limits, at(5)) {
                Event::Asked { questions, .. } => format!("asks {}", questions[0].key),
                Event::Failed { error, .. } => error.code.as_str().to_owned(),
                other => panic!("{other:?}"),
            }
        };
        let limits = Limits::default();
        assert_eq!(ask("c", &limits), "asks c");
        assert_eq!(ask("a", &limits), "tool_contract_broken");
        assert_eq!(ask("c", &Limits { context_max_bytes: 100, ..limits }), "context_too_large");
    }
}
