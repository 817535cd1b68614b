//! Runs: starting them, watching them, and telling them what to do.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::extract::{Id, JsonBody, Query, parse_uuid, read_members};
use super::known::{self, Runnable};
use super::openapi::{CommandProblems, InspectProblems, ListProblems, ReadProblems, WriteProblems};
use super::page::{List, ListParams, NumberedParams, number_request, page_request};
use super::problem::{Problem, ProblemCode};
use super::views::{JournalEntryView, RunView, SnapshotView, StatusView, StepView};
use crate::engine::{self, Inspection, Trigger};
use crate::model::id::{RunId, WorkflowId};
use crate::model::journal::Message;
use crate::store::{Idempotency, RunFilter, RunRow, Sent, StoreError};

// The macro that makes the document takes an alias for the type that it is.
type RunList = List<RunView>;
type StepList = List<StepView>;
type JournalEntryList = List<JournalEntryView>;
type SnapshotList = List<SnapshotView>;

const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// About how large a page of snapshots may become, unless a single one is larger.
const SNAPSHOTS_PAGE_MAX_BYTES: usize = 8 << 20;

/// What starts a run.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartRun {
    /// The run's input: any JSON value. Expressions see it as `trigger`.
    #[schema(required = false)]
    input: Value,
}

/// A run was accepted: it is on disk and will be executed.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {
    run_id: Uuid,
    status: StatusView,
}

/// How often a request is tried whose workflow or endpoint is changed each time.
pub(super) const CHANGES_MAX: usize = 5;

/// Accepts a run, or finds the one that the same request was answered with before. Nothing where the workflow or the
/// endpoint is not what the trigger says: then they are known anew, and the request is to be tried again.
pub(super) async fn accept(api: &Api, trigger: &Trigger) -> Result<Option<Accepted>, Problem> {
    match api.engine.start_run(trigger).await? {
        engine::Accepted::New(id) => Ok(Some(Accepted { run_id: id.0, status: StatusView::Queued })),
        engine::Accepted::Repeated(id) => {
            if !known::still_holds(api, trigger).await? {
                return Ok(None);
            }
            let run = find(api, id).await?;
            Ok(Some(Accepted { run_id: id.0, status: run.status.into() }))
        }
        engine::Accepted::Conflict => Err(Problem::new(
            ProblemCode::IdempotencyConflict,
            "the same key came before with another body; use a new key for a new run",
        )),
        engine::Accepted::Changed => known::read_again(api, trigger).await.map(|()| None),
    }
}

/// The answer for a request that was tried [`CHANGES_MAX`] times.
pub(super) fn restless() -> Problem {
    Problem::new(ProblemCode::Unavailable, "the workflow or its endpoint is being changed again and again")
}

pub(super) async fn find(api: &Api, id: RunId) -> Result<RunRow, Problem> {
    api.store.run(id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: RunId) -> Problem {
    Problem::new(ProblemCode::RunNotFound, format!("no run has the id {id}"))
}

/// Start a run
///
/// With an `Idempotency-Key` a repeat answers the same run; the key belongs to the workflow and lives as long as the
/// run.
#[utoipa::path(post, operation_id = "start_run", path = "/workflows/{workflow_id}/runs", tag = "runs",
    params(("workflow_id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1, max_length = 255)),
    request_body = Option<StartRun>,
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The run"))), WriteProblems))]
pub(super) async fn start(
    State(api): State<Api>,
    Id(workflow_id): Id<WorkflowId>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let input = if body.0.is_none() {
        Value::Null
    } else {
        read_members(&body, |members, _| {
            Some(StartRun { input: members.take_nullable("input").cloned().unwrap_or(Value::Null) })
        })?
        .input
    };
    let key = idempotency_key(&headers)?;
    let input = Bytes::from(input.to_string());
    let hash: [u8; 32] = Sha256::digest(&input).into();
    let idempotency = key.map(|key| Idempotency { key: format!("api:{key}"), hash: Some(hash) });
    for _ in 0..CHANGES_MAX {
        let Runnable { revision, priority } = known::workflow(&api, workflow_id).await?;
        let (input, idempotency) = (input.clone(), idempotency.clone());
        let trigger = Trigger { workflow_id, revision, input, caller: None, idempotency, priority };
        if let Some(accepted) = accept(&api, &trigger).await? {
            let location = [(header::LOCATION, format!("/runs/{}", accepted.run_id))];
            return Ok((StatusCode::ACCEPTED, location, Json(accepted)).into_response());
        }
    }
    Err(restless())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    static NAME: HeaderName = HeaderName::from_static("idempotency-key");
    let Some(value) = headers.get(&NAME) else { return Ok(None) };
    let visible = |text: &&str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let fits = |text: &&str| (1..=IDEMPOTENCY_KEY_MAX_BYTES).contains(&text.len());
    let text = value.to_str().ok().filter(fits).filter(visible);
    match text {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Problem::parameter(
            "Idempotency-Key",
            format!("must be 1 to {IDEMPOTENCY_KEY_MAX_BYTES} visible ASCII characters"),
        )),
    }
}

/// List runs, newest first
#[utoipa::path(get, operation_id = "list_runs", path = "/runs", tag = "runs",
    params(ListParams, ("workflow_id" = Option<Uuid>, Query), ("status" = Option<StatusView>, Query)),
    responses((status = 200, body = RunList), ListProblems))]
pub(super) async fn list(State(api): State<Api>, mut query: Query) -> Result<Response, Problem> {
    let request = page_request(&mut query);
    let workflow_id = query.take("workflow_id", |text| parse_uuid(text).map(WorkflowId));
    let status = query.take("status", |text| {
        StatusView::parse(text).ok_or_else(|| format!("must be one of {}", StatusView::NAMES.join(", ")))
    });
    query.finish()?;
    let page = api.store.runs(RunFilter { workflow_id, status: status.map(Into::into) }, request).await?;
    Ok(Json(List::of(page, |run| RunView::of(&run))).into_response())
}

/// Get a run
///
/// With `wait` the answer comes when the run is over or the time is up, whichever is first.
#[utoipa::path(get, operation_id = "get_run", path = "/runs/{run_id}", tag = "runs",
    params(("run_id" = Uuid, Path), ("wait" = Option<String>, Query, pattern = "^[0-9]{1,5}(ms|s|m)?$",
        description = "How long to wait for the end: `30s`, `500ms`, `1m`, or seconds", example = "30s")),
    responses((status = 200, body = RunView), ReadProblems))]
pub(super) async fn get(State(api): State<Api>, Id(id): Id<RunId>, mut query: Query) -> Result<Json<RunView>, Problem> {
    let longest = Duration::from_secs(api.config.wait_max_seconds.into());
    let wait = query.take("wait", |text| parse_wait(text, longest));
    query.finish()?;
    let run = match wait {
        Some(wait) => api.engine.run_when_finished(id, wait).await?.ok_or_else(|| not_found(id))?,
        None => find(&api, id).await?,
    };
    Ok(Json(RunView::of(&run)))
}

fn parse_wait(text: &str, longest: Duration) -> Result<Duration, String> {
    let rule = || format!("must be like `30s`, `500ms` or `1m`, and at most {} seconds", longest.as_secs());
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|_| digits <= 5).ok_or_else(rule)?;
    let wait = match unit {
        "" | "s" => Duration::from_secs(number),
        "ms" => Duration::from_millis(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(rule()),
    };
    if wait <= longest { Ok(wait) } else { Err(rule()) }
}

/// Get the steps of a run, with their results
#[utoipa::path(get, operation_id = "list_run_steps", path = "/runs/{run_id}/steps", tag = "runs", params(("run_id" = Uuid, Path)),
    responses((status = 200, body = StepList), InspectProblems))]
pub(super) async fn steps(State(api): State<Api>, Id(id): Id<RunId>) -> Result<Response, Problem> {
    let inspection = inspect(&api, id).await?;
    let steps = inspection.definition().steps.iter();
    Ok(Json(List::whole(steps.map(|step| StepView::of(step, &inspection.state)).collect())).into_response())
}

/// Get the journal of a run: everything that happened to it
#[utoipa::path(get, operation_id = "list_run_journal", path = "/runs/{run_id}/journal", tag = "runs", params(("run_id" = Uuid, Path), NumberedParams),
    responses((status = 200, body = JournalEntryList), InspectProblems))]
pub(super) async fn journal(State(api): State<Api>, Id(id): Id<RunId>, mut query: Query) -> Result<Response, Problem> {
    let (limit, after) = number_request(&mut query);
    query.finish()?;
    find(&api, id).await?;
    let rows = readable(api.store.journal(id, after.unwrap_or(0), limit + 1).await)?;
    Ok(Json(List::numbered(rows, limit, |row| row.seq, JournalEntryView::from)).into_response())
}

/// Get the snapshots of a run, with their contents
#[utoipa::path(get, operation_id = "list_run_snapshots", path = "/runs/{run_id}/snapshots", tag = "runs", params(("run_id" = Uuid, Path), NumberedParams),
    responses((status = 200, body = SnapshotList), InspectProblems))]
pub(super) async fn snapshots(
    State(api): State<Api>,
    Id(id): Id<RunId>,
    mut query: Query,
) -> Result<Response, Problem> {
    let (limit, after) = number_request(&mut query);
    query.finish()?;
    let inspection = inspect(&api, id).await?;
    let (definition, state) = (inspection.definition(), &inspection.state);
    // Only the contents of this page are made: together they grow with the square of the steps.
    let made = SnapshotView::made(definition, state);
    let rest: Vec<usize> = made.into_iter().filter(|index| after.is_none_or(|after| *index as u64 > after)).collect();
    // A page ends early where it would become too large to be made at once.
    let mut size = 0;
    let fits = |index: &&usize| {
        size += SnapshotView::size_bytes(definition, state, **index);
        size <= SNAPSHOTS_PAGE_MAX_BYTES
    };
    let fitting = rest.iter().take(limit as usize).take_while(fits).count().max(1);
    let limit = limit.min(u32::try_from(fitting).unwrap_or(limit));
    let view = |index: usize| SnapshotView::of(definition, state, index);
    Ok(Json(List::numbered(rest, limit, |index| *index as u64, view)).into_response())
}

async fn inspect(api: &Api, id: RunId) -> Result<Inspection, Problem> {
    readable(api.engine.inspect(&find(api, id).await?).await)
}

/// What is stored of a run may be unreadable for this version without a defect of it.
pub(super) fn readable<T>(read: Result<T, StoreError>) -> Result<T, Problem> {
    match read {
        Err(StoreError::Unreadable(why)) => Err(Problem::new(ProblemCode::RunUnreadable, why)),
        other => Ok(other?),
    }
}

async fn send(api: &Api, id: RunId, message: Message, refused: Problem) -> Result<Response, Problem> {
    find(api, id).await?;
    match api.engine.send(id, message).await? {
        Sent::Delivered(run) => Ok((StatusCode::ACCEPTED, Json(RunView::of(&run))).into_response()),
        Sent::Refused | Sent::Answered => Err(refused),
    }
}

/// Cancel a run
///
/// The attempt under way is given up; a waiting run ends at once.
#[utoipa::path(post, operation_id = "cancel_run", path = "/runs/{run_id}/cancel", tag = "runs", params(("run_id" = Uuid, Path)),
    responses((status = 202, body = RunView), CommandProblems))]
pub(super) async fn cancel(State(api): State<Api>, Id(id): Id<RunId>) -> Result<Response, Problem> {
    let refused = Problem::new(ProblemCode::RunFinished, "a run that is over cannot be canceled");
    send(&api, id, Message::Cancel, refused).await
}

/// Continue a failed run from its failed step
///
/// Steps that are done stay done. The failed one gets a new idempotency key.
#[utoipa::path(post, operation_id = "redrive_run", path = "/runs/{run_id}/redrive", tag = "runs", params(("run_id" = Uuid, Path)),
    responses((status = 202, body = RunView), CommandProblems))]
pub(super) async fn redrive(State(api): State<Api>, Id(id): Id<RunId>) -> Result<Response, Problem> {
    let refused = Problem::new(ProblemCode::RunNotFailed, "only a run that has FAILED can be redriven");
    send(&api, id, Message::Redrive, refused).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_units_and_a_limit() {
        let longest = Duration::from_secs(60);
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("1m", 60_000), ("0", 0), ("7", 7000)] {
            assert_eq!(parse_wait(text, longest), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["61s", "2m", "s", "", "-1", "1h", "1.5s", "99999999999999999999m"] {
            assert!(parse_wait(bad, longest).is_err(), "{bad}");
        }
    }
}
