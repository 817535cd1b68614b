//! How runs look from outside.

use std::time::Duration;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answers::QuestionView;
use crate::model::ask::ToolState;
use crate::model::context::{context, context_size_bytes};
use crate::model::definition::{Definition, Step};
use crate::model::error::Failure;
use crate::model::journal::{Event, Outcome, Output};
use crate::model::plugin::{HostUse, Used};
use crate::model::state::{Phase, RunState};
use crate::model::step::StepKind;
use crate::model::time::Timestamp;
use crate::store::{Entry, RunRow, Status};

/// Where a run stands.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = RunStatus)]
pub(super) enum StatusView {
    Queued,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Canceled,
}

impl StatusView {
    pub(super) const NAMES: [&str; 6] = ["QUEUED", "RUNNING", "WAITING", "SUCCEEDED", "FAILED", "CANCELED"];

    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Queued, Self::Running, Self::Waiting, Self::Succeeded, Self::Failed, Self::Canceled];
        all.into_iter().zip(Self::NAMES).find_map(|(status, name)| (name == text).then_some(status))
    }
}

impl From<Status> for StatusView {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => Self::Queued,
            Status::Running => Self::Running,
            Status::Waiting => Self::Waiting,
            Status::Ended(Outcome::Succeeded) => Self::Succeeded,
            Status::Ended(Outcome::Failed) => Self::Failed,
            Status::Ended(Outcome::Canceled) => Self::Canceled,
        }
    }
}

impl From<StatusView> for Status {
    fn from(status: StatusView) -> Self {
        match status {
            StatusView::Queued => Self::Queued,
            StatusView::Running => Self::Running,
            StatusView::Waiting => Self::Waiting,
            StatusView::Succeeded => Self::Ended(Outcome::Succeeded),
            StatusView::Failed => Self::Ended(Outcome::Failed),
            StatusView::Canceled => Self::Ended(Outcome::Canceled),
        }
    }
}

/// Why a run or a step failed.
#[derive(Serialize, ToSchema)]
#[schema(as = Failure)]
pub(super) struct FailureView {
    /// A stable code; `/docs/errors/{code}` has its page.
    code: &'static str,
    message: String,
    /// Path of the step that failed; null when the run failed as a whole.
    #[schema(required = true)]
    step: Option<String>,
}

impl From<&Failure> for FailureView {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code.as_str(),
            message: failure.message.clone(),
            step: failure.step.as_ref().map(ToString::to_string),
        }
    }
}

/// One execution of a revision.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
pub(super) struct RunView {
    id: Uuid,
    workflow_id: Uuid,
    /// Number of the revision that it executes.
    revision: u32,
    status: StatusView,
    /// How many steps are done: the index of the step that is next, under way, or failed.
    current_step_index: u32,
    created_at: Timestamp,
    #[schema(required = true)]
    started_at: Option<Timestamp>,
    #[schema(required = true)]
    finished_at: Option<Timestamp>,
    #[schema(required = true)]
    error_message: Option<String>,
    #[schema(required = true)]
    error: Option<FailureView>,
}

impl RunView {
    pub(super) fn of(run: &RunRow) -> Self {
        Self {
            id: run.id.0,
            workflow_id: run.workflow_id.0,
            revision: run.revision,
            status: run.status.into(),
            current_step_index: run.step_index,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            error_message: run.error.as_ref().map(|error| error.message.clone()),
            error: run.error.as_ref().map(Into::into),
        }
    }
}

/// Where a step stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = StepStatus)]
enum StepStatusView {
    /// Not reached yet.
    Pending,
    /// An attempt is under way.
    Running,
    /// The next attempt has its time, or the step's tool asks.
    Waiting,
    Succeeded,
    /// Its `if` was false.
    Skipped,
    Failed,
    /// The run ended before the step did.
    Canceled,
}

/// One step of a run.
#[derive(Serialize, ToSchema)]
#[schema(as = StepRecord)]
pub(super) struct StepView {
    /// The address of the step.
    path: String,
    name: String,
    /// `http`, `persist_snapshot` or `mcp_tool`.
    r#type: &'static str,
    status: StepStatusView,
    /// Attempts begun.
    attempts: u32,
    #[schema(required = true)]
    started_at: Option<Timestamp>,
    #[schema(required = true)]
    finished_at: Option<Timestamp>,
    /// When the next attempt may begin, or a tool that asks goes on at the latest.
    #[schema(required = true)]
    next_attempt_at: Option<Timestamp>,
    /// `mcp_tool`: what the tool asks, while it waits for answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    questions: Vec<QuestionView>,
    /// What came out, as later steps see it.
    #[schema(required = true)]
    result: Option<Value>,
    /// `http`: the status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<u16>,
    /// `http`: the headers of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    response_headers: Option<IndexMap<String, String>>,
    /// `mcp_tool`: the tool's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerView>,
    /// `mcp_tool`: what the last attempt used.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<UsedView>,
    /// What went wrong last.
    #[schema(required = true)]
    error: Option<FailureView>,
}

/// The answer of a tool, beside the step's result.
#[derive(Serialize, ToSchema)]
#[schema(as = ToolAnswer)]
struct AnswerView {
    /// Digest of the plugin that answered.
    plugin: String,
    /// The content blocks, as the Model Context Protocol writes them.
    #[schema(value_type = Vec<Object>)]
    content: Vec<Value>,
    /// Whether the answer says what went wrong.
    is_error: bool,
    /// The answer's `_meta`.
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    meta: Option<Value>,
}

/// What a call of a tool really used.
#[derive(Serialize, ToSchema)]
#[schema(as = Used)]
struct UsedView {
    /// Units of fuel: about one for each instruction of the guest.
    fuel: u64,
    /// Most linear memory at any time, in bytes.
    peak_memory_bytes: u64,
    /// Wall time in milliseconds.
    time_ms: f64,
    /// Where its requests went, by origin.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, HostUseView>, required = false)]
    hosts: IndexMap<String, HostUseView>,
    /// Names of the secrets that left with them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    secrets: Vec<String>,
}

/// What a call of a tool sent to a host, and received from it.
#[derive(Serialize, ToSchema)]
#[schema(as = HostUse)]
struct HostUseView {
    requests: u32,
    /// Bytes of the bodies that were sent.
    sent_bytes: u64,
    /// Bytes of the bodies that came back.
    received_bytes: u64,
}

impl From<Used> for UsedView {
    fn from(used: Used) -> Self {
        // To the microsecond, without the digits that a binary fraction adds.
        let time_ms = (Duration::from_micros(used.time_us).as_secs_f64() * 1e6).round() / 1e3;
        let host = |(origin, used): (String, HostUse)| {
            let HostUse { requests, sent_bytes, received_bytes } = used;
            (origin, HostUseView { requests, sent_bytes, received_bytes })
        };
        let hosts = used.hosts.into_iter().map(host).collect();
        Self { fuel: used.fuel, peak_memory_bytes: used.peak_memory_bytes, time_ms, hosts, secrets: used.secrets }
    }
}

impl StepView {
    pub(super) fn of(step: &Step, state: &RunState) -> Self {
        let known = state.steps.get(&step.path);
        let (status, next_attempt_at) = match known.map(|known| known.phase) {
            None => (StepStatusView::Pending, None),
            Some(Phase::Running) => (StepStatusView::Running, None),
            Some(Phase::Retrying(at)) => (StepStatusView::Waiting, Some(at)),
            Some(Phase::Asking) => {
                let round = known.and_then(|known| known.round.as_ref());
                (StepStatusView::Waiting, round.and_then(|round| round.resume_at))
            }
            Some(Phase::Completed) => (StepStatusView::Succeeded, None),
            Some(Phase::Skipped) => (StepStatusView::Skipped, None),
            Some(Phase::Failed) => (StepStatusView::Failed, None),
            Some(Phase::Abandoned) => (StepStatusView::Canceled, None),
        };
        let output = known.and_then(|known| known.output.as_deref());
        Self {
            path: step.path.to_string(),
            name: step.name.clone(),
            r#type: step.kind.name(),
            status,
            attempts: known.map_or(0, |known| known.attempts),
            started_at: known.map(|known| known.started_at),
            finished_at: known.and_then(|known| known.finished_at),
            next_attempt_at,
            questions: known.map(|known| QuestionView::all(step, known)).unwrap_or_default(),
            result: output.map(|output| output.result.clone()),
            response_status: output.and_then(|output| output.status),
            response_headers: output.and_then(|output| output.headers.clone()),
            answer: output.and_then(AnswerView::of),
            used: known.and_then(|known| known.used.clone()).map(Into::into),
            error: known.and_then(|known| known.error.as_ref()).map(Into::into),
        }
    }
}

impl AnswerView {
    fn of(output: &Output) -> Option<Self> {
        let tool = output.tool.as_ref()?;
        Some(Self {
            plugin: tool.plugin.to_string(),
            content: tool.blocks(&output.result),
            is_error: tool.is_error,
            meta: tool.meta.clone(),
        })
    }
}

/// One append to the journal of a run.
#[derive(Serialize, ToSchema)]
#[schema(as = JournalEntry)]
pub(super) struct JournalEntryView {
    /// Its number, from 1.
    seq: u64,
    /// What happened, in order. Each has `event`, `at` and what belongs to the kind of event.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Event>,
}

impl From<Entry> for JournalEntryView {
    fn from(entry: Entry) -> Self {
        let mut events = entry.events;
        for event in &mut events {
            if let Event::Asked { state, .. } = event {
                // The tool's own (`wit/plugin.wit`, `questions`): no client is shown it.
                *state = ToolState::default();
            }
        }
        Self { seq: entry.seq, events }
    }
}

/// The context as a `persist_snapshot` step kept it.
#[derive(Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub(super) struct SnapshotView {
    /// Path of the step.
    path: String,
    name: String,
    created_at: Timestamp,
    /// An entry `{type, result, ...}` for each step that was kept.
    #[schema(value_type = Object)]
    content: Value,
}

impl SnapshotView {
    /// The positions of the steps that have made a snapshot.
    pub(super) fn made(definition: &Definition, state: &RunState) -> Vec<usize> {
        let made = |step: &Step| {
            let known = state.steps.get(&step.path);
            matches!(step.kind, StepKind::PersistSnapshot(_))
                && known.is_some_and(|known| known.phase == Phase::Completed)
        };
        definition.steps.iter().enumerate().filter_map(|(index, step)| made(step).then_some(index)).collect()
    }

    /// About how large the snapshot of the step at `index` is, in bytes.
    pub(super) fn size_bytes(definition: &Definition, state: &RunState, index: usize) -> usize {
        context_size_bytes(definition, state, index, include_keys(&definition.steps[index]))
    }

    /// The snapshot that the step at `index` has made.
    pub(super) fn of(definition: &Definition, state: &RunState, index: usize) -> Self {
        let step = &definition.steps[index];
        let keys = include_keys(step);
        let known = state.steps.get(&step.path);
        Self {
            path: step.path.to_string(),
            name: step.name.clone(),
            created_at: known.map_or(Timestamp::from_micros(0), |known| known.finished_at.unwrap_or(known.started_at)),
            content: context(definition, state, index, keys),
        }
    }
}

fn include_keys(step: &Step) -> Option<&[String]> {
    match &step.kind {
        StepKind::PersistSnapshot(snapshot) => snapshot.include_keys.as_deref(),
        StepKind::Http(_) | StepKind::McpTool(_) => None,
    }
}
