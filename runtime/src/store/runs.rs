//! Runs as they are read.

use sqlx::AssertSqlSafe;

use super::page::{Page, PageRequest};
use super::sql::Row;
use super::{Store, StoreError, from_json};
use crate::model::error::Failure;
use crate::model::id::{RunId, WorkflowId};
use crate::model::journal::Outcome;
use crate::model::time::Timestamp;

/// Where a run stands, as clients see it. Derived, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody has looked at it yet.
    Queued,
    /// Somebody holds its claim.
    Running,
    /// It waits for a time or a message.
    Waiting,
    /// It is over.
    Ended(Outcome),
}

/// One run, as it is stored.
#[derive(Clone, Debug)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The revision it executes.
    pub revision: u32,
    /// Where it stands.
    pub status: Status,
    /// Top-level steps done.
    pub step_index: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was first looked at.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it did not succeed.
    pub error: Option<Failure>,
}

/// Which runs to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunFilter {
    /// Only of this workflow.
    pub workflow_id: Option<WorkflowId>,
    /// Only with this status.
    pub status: Option<Status>,
}

const COLUMNS: &str = "id, workflow_id, revision, outcome, claim IS NOT NULL AS claimed, seq, step_index, \
                       created_at, started_at, finished_at, error";

impl Store {
    /// Reads a run.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn run(&self, id: RunId) -> Result<Option<RunRow>, StoreError> {
        let row = self.db.query(select_run()).bind(id.0).fetch_optional().await?;
        row.as_ref().map(read_run).transpose()
    }

    /// Lists runs, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn runs(&self, filter: RunFilter, request: PageRequest) -> Result<Page<RunRow>, StoreError> {
        // Each condition stands in the text by itself, so that the planner sees which index serves it.
        let by_workflow = if filter.workflow_id.is_some() { "AND workflow_id = $3" } else { "" };
        let by_status = match filter.status {
            None => "",
            Some(Status::Queued) => "AND due_at IS NOT NULL AND claim IS NULL AND seq = 0",
            Some(Status::Running) => "AND due_at IS NOT NULL AND claim IS NOT NULL",
            Some(Status::Waiting) => "AND due_at IS NOT NULL AND claim IS NULL AND seq > 0",
            Some(Status::Ended(Outcome::Succeeded)) => "AND outcome = 'SUCCEEDED'",
            Some(Status::Ended(Outcome::Failed)) => "AND outcome = 'FAILED'",
            Some(Status::Ended(Outcome::Canceled)) => "AND outcome = 'CANCELED'",
        };
        let sql =
            format!("SELECT {COLUMNS} FROM runs WHERE id < $1 {by_workflow} {by_status} ORDER BY id DESC LIMIT $2");
        let mut query = self.db.query(AssertSqlSafe(sql)).bind(request.before_id()).bind(request.rows());
        if let Some(workflow) = filter.workflow_id {
            query = query.bind(workflow.0);
        }
        let rows = query.fetch_all().await?;
        let items = rows.iter().map(read_run).collect::<Result<Vec<_>, _>>()?;
        Ok(request.page(items, |run| run.id.0))
    }
}

/// Reads one run; `$1` stands for its id.
pub(super) fn select_run() -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("SELECT {COLUMNS} FROM runs WHERE id = $1"))
}

pub(super) fn read_run(row: &Row) -> Result<RunRow, StoreError> {
    let outcome: Option<&str> = row.get("outcome")?;
    let (claimed, seq): (bool, i64) = (row.get("claimed")?, row.get("seq")?);
    let status = match (outcome, claimed, seq) {
        (Some("SUCCEEDED"), ..) => Status::Ended(Outcome::Succeeded),
        (Some("FAILED"), ..) => Status::Ended(Outcome::Failed),
        (Some("CANCELED"), ..) => Status::Ended(Outcome::Canceled),
        (Some(other), ..) => return Err(StoreError::Unreadable(format!("outcome `{other}`"))),
        (None, true, _) => Status::Running,
        (None, false, 0) => Status::Queued,
        (None, false, _) => Status::Waiting,
    };
    let time = |name: &str| row.get::<Option<i64>>(name).map(|micros| micros.map(Timestamp::from_micros));
    let error: Option<Vec<u8>> = row.get("error")?;
    Ok(RunRow {
        id: RunId(row.get("id")?),
        workflow_id: WorkflowId(row.get("workflow_id")?),
        revision: row.count("revision")?,
        status,
        step_index: row.count("step_index")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
        started_at: time("started_at")?,
        finished_at: time("finished_at")?,
        error: error.as_deref().map(from_json).transpose()?,
    })
}
