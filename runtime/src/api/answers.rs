//! What tools ask, as clients see it; and answers: held against the question, and left for the run.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::extract::{Id, JsonBody, NoQuery, read_members};
use super::openapi::WriteProblems;
use super::problem::{Problem, ProblemCode};
use super::runs::{find, readable};
use super::views::RunView;
use crate::engine::Inspection;
use crate::model::ask::{Answer, AnswerAction, Question, QuestionBody, Round};
use crate::model::definition::Step;
use crate::model::id::RunId;
use crate::model::path::StepPath;
use crate::model::reader::Members;
use crate::model::state::{Phase, StepState};
use crate::model::time::Timestamp;
use crate::store::{RunRow, Sent, Status};
use crate::tools::answer_faults;

/// What a tool asks. `form` and `url` are the modes of elicitation of the Model Context Protocol.
#[derive(Serialize, ToSchema)]
#[schema(as = Question)]
pub(super) struct QuestionView {
    /// Its name, by which it is answered.
    key: String,
    /// What is asked, for people.
    message: String,
    /// `form`, `url` or `raw`.
    mode: &'static str,
    /// `form`: the JSON Schema of the content that an answer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// `url`: the page that takes the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// `raw`: another request of the protocol, with `method` and `params`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    request: Option<Value>,
    asked_at: Timestamp,
    /// Until when it may be answered; null: until the run's time ends.
    #[schema(required = true)]
    answer_by: Option<Timestamp>,
    /// Whether an answer has come.
    answered: bool,
}

impl QuestionView {
    /// What a step asks now.
    pub(super) fn all(step: &Step, known: &StepState) -> Vec<Self> {
        let Some(round) = known.round.as_ref().filter(|_| known.phase == Phase::Asking) else { return Vec::new() };
        let answer_by = round.resume_at.or_else(|| round.gives_up_at(step.kind.answer_timeout()));
        let view = |question: &Question| {
            let (mode, schema, url, request) = match question.body.clone() {
                QuestionBody::Form { schema } => ("form", Some(schema), None, None),
                QuestionBody::Url { url } => ("url", None, Some(url), None),
                QuestionBody::Raw { request } => ("raw", None, None, Some(request)),
            };
            let (key, message) = (question.key.clone(), question.message.clone());
            let answered = round.answer(&key).is_some();
            Self { key, message, mode, schema, url, request, asked_at: round.asked_at, answer_by, answered }
        };
        round.questions.iter().map(view).collect()
    }
}

/// What came to a question. `action` and `content` are those of the result of an elicitation of the Model Context
/// Protocol.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Answer)]
#[expect(dead_code, reason = "only its schema is used: `read` reads it")]
pub(super) struct GivenAnswer {
    /// Path of the step whose tool asks.
    step: String,
    /// Key of the question.
    key: String,
    #[schema(inline)]
    action: Action,
    /// For `accept`: what a form was filled in with, or the whole reply to a `raw` question. At most 64 KiB.
    #[schema(value_type = Option<Object>)]
    content: Option<Value>,
}

/// `accept` answers the question, `decline` says no, `cancel` goes away without an answer.
#[derive(Clone, Copy, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used: `read_action` reads it")]
enum Action {
    Accept,
    Decline,
    Cancel,
}

/// Answer what a tool asks
///
/// The run goes on when every question of the step has an answer. The first answer to a question counts; repeating it
/// changes nothing.
#[utoipa::path(post, operation_id = "answer_run", path = "/runs/{run_id}/answers", tag = "runs", params(("run_id" = Uuid, Path)),
    request_body = GivenAnswer, responses((status = 202, body = RunView), WriteProblems))]
pub(super) async fn give(
    State(api): State<Api>,
    Id(id): Id<RunId>,
    _: NoQuery,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (step, answer) = read_members(&body, |members, _| read(members))?;
    let run = find(&api, id).await?;
    let inspection = readable(api.engine.inspect(&run).await)?;
    let question = match asked(&run, &inspection, &step, &answer.key) {
        Ok(question) => question,
        // The question is over. Whoever repeats its answer, because he never heard of the first time, hears what he would
        // have heard.
        Err(problem) => {
            let before = readable(api.store.answer(id, inspection.state.redrives, &step, &answer.key).await)?;
            return match before {
                Some(before) if before == answer => Ok(accepted(&run)),
                Some(_) => Err(already_answered()),
                None => Err(problem),
            };
        }
    };
    let faults = answer_faults(question, &answer, "/content");
    if !faults.is_empty() {
        return Err(Problem::faulty(ProblemCode::InvalidRequest, faults));
    }
    match api.engine.answer(id, inspection.state.redrives, step, answer).await? {
        Sent::Delivered(run) => Ok(accepted(&run)),
        Sent::Refused => Err(Problem::new(ProblemCode::RunFinished, "the run ended meanwhile")),
        Sent::Answered => Err(already_answered()),
    }
}

fn already_answered() -> Problem {
    Problem::new(ProblemCode::AlreadyAnswered, "another answer came to this question before")
}

fn accepted(run: &RunRow) -> Response {
    (StatusCode::ACCEPTED, Json(RunView::of(run))).into_response()
}

fn read(members: &mut Members<'_>) -> Option<(StepPath, Answer)> {
    let text = |members: &mut Members<'_>, name| {
        let value = members.require(name)?;
        members.string(name, value).map(str::to_owned)
    };
    let (step, key) = (text(members, "step"), text(members, "key"));
    let action = members.require("action").and_then(|value| read_action(members, value));
    let content = members.take("content").cloned();
    Some((StepPath::top(&step?), Answer { key: key?, action: action?, content }))
}

fn read_action(members: &Members<'_>, value: &Value) -> Option<AnswerAction> {
    // Only a text is one: `{"accept": null}` would be read as one, too.
    let action = value.as_str().and_then(|_| AnswerAction::deserialize(value).ok());
    if action.is_none() {
        members.fault("action", "must be `accept`, `decline` or `cancel`");
    }
    action
}

/// The question that is to be answered.
fn asked<'i>(run: &RunRow, inspection: &'i Inspection, step: &StepPath, key: &str) -> Result<&'i Question, Problem> {
    if let Status::Ended(_) = run.status {
        return Err(Problem::new(ProblemCode::RunFinished, "a run that is over asks nothing"));
    }
    let nothing = |why: String| Problem::new(ProblemCode::NothingAsked, why);
    if inspection.definition().index_of(step).is_none() {
        return Err(nothing(format!("the run has no step `{step}`")));
    }
    let known = inspection.state.steps.get(step);
    let round: Option<&Round> = known.and_then(|known| known.round.as_ref());
    let Some(round) = round.filter(|_| known.is_some_and(|known| known.phase == Phase::Asking)) else {
        return Err(nothing(format!("the step `{step}` asks nothing now")));
    };
    round.question(key).ok_or_else(|| {
        let keys: Vec<&str> = round.questions.iter().map(|question| question.key.as_str()).collect();
        nothing(match keys.as_slice() {
            [] => format!("the step `{step}` waits, and asks nothing"),
            keys => format!("the step `{step}` does not ask `{key}` now; it asks {}", keys.join(", ")),
        })
    })
}
