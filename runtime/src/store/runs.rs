//! Runs: creating them and reading them.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use uuid::Uuid;

use super::page::{Page, PageRequest};
use super::writer::Op;
use super::{Store, StoreError, from_json};
use crate::model::error::Failure;
use crate::model::id::{EndpointId, RunId, WorkflowId};
use crate::model::journal::Outcome;
use crate::model::time::Timestamp;

/// A run to create.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The revision it will execute.
    pub revision: u32,
    /// Its input, as JSON text.
    pub input: Vec<u8>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When someone must look at it, should the hint to do so get lost.
    pub due_at: Timestamp,
    /// The webhook endpoint that it comes from.
    pub endpoint: Option<EndpointId>,
    /// What makes a repeat of the request answer the same run.
    pub idempotency: Option<Idempotency>,
}

/// The key under which a request may be repeated.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Unique for the workflow.
    pub key: String,
    /// SHA-256 of the request; `None` where a repeat may differ.
    pub hash: Option<[u8; 32]>,
}

/// What became of a run to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is on disk.
    New,
    /// The same request came before.
    Repeated(RunId),
    /// The key came before with another request.
    Conflict,
    /// The workflow, or the endpoint that was called, is switched off or gone.
    Inactive,
}

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

impl Op for NewRun {
    type Output = Created;

    async fn perform(&self, db: &mut SqliteConnection) -> Result<Created, sqlx::Error> {
        // A repeat is not an error: the conflict is on the idempotency key, since ids are fresh. Whether it may run is
        // asked here, so that switching off holds from its answer on for requests that are under way.
        let inserted = sqlx::query(
            "INSERT INTO runs (id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8 \
             WHERE EXISTS (SELECT 1 FROM workflows WHERE id = $2 AND is_active) \
               AND ($9 IS NULL OR EXISTS (SELECT 1 FROM endpoints WHERE id = $9 AND is_active)) \
             ON CONFLICT DO NOTHING",
        )
        .bind(self.id.0)
        .bind(self.workflow_id.0)
        .bind(self.revision)
        .bind(&self.input)
        .bind(self.idempotency.as_ref().map(|idempotency| &idempotency.key))
        .bind(self.idempotency.as_ref().and_then(|idempotency| idempotency.hash.map(|hash| hash.to_vec())))
        .bind(self.created_at.as_micros())
        .bind(self.due_at.as_micros())
        .bind(self.endpoint.map(|endpoint| endpoint.0))
        .execute(&mut *db)
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(Created::New);
        }
        let Some(idempotency) = &self.idempotency else {
            return Ok(Created::Inactive);
        };
        let row = sqlx::query("SELECT id, idem_hash FROM runs WHERE workflow_id = $1 AND idem_key = $2")
            .bind(self.workflow_id.0)
            .bind(&idempotency.key)
            .fetch_optional(db)
            .await?;
        let Some(row) = row else {
            return Ok(Created::Inactive);
        };
        let hash: Option<Vec<u8>> = row.try_get("idem_hash")?;
        let same = hash.as_deref() == idempotency.hash.as_ref().map(<[u8; 32]>::as_slice);
        Ok(if same { Created::Repeated(RunId(row.try_get("id")?)) } else { Created::Conflict })
    }
}

impl Store {
    /// Creates a run. When this answers, the run is on disk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the run was not created, unless the database died in the moment of the commit.
    pub async fn create_run(&self, run: NewRun) -> Result<Created, StoreError> {
        self.writer.run(run).await
    }

    /// Reads a run.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn run(&self, id: RunId) -> Result<Option<RunRow>, StoreError> {
        let row = sqlx::query(select_run()).bind(id.0).fetch_optional(&self.readers).await?;
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
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(request.before_id()).bind(request.rows());
        if let Some(workflow) = filter.workflow_id {
            query = query.bind(workflow.0);
        }
        let rows = query.fetch_all(&self.readers).await?;
        let items = rows.iter().map(read_run).collect::<Result<Vec<_>, _>>()?;
        Ok(request.page(items, |run| run.id.0))
    }
}

/// Reads one run; `$1` stands for its id.
pub(super) fn select_run() -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("SELECT {COLUMNS} FROM runs WHERE id = $1"))
}

pub(super) fn read_run(row: &SqliteRow) -> Result<RunRow, StoreError> {
    let outcome: Option<&str> = row.try_get("outcome")?;
    let (claimed, seq): (bool, i64) = (row.try_get("claimed")?, row.try_get("seq")?);
    let status = match (outcome, claimed, seq) {
        (Some("SUCCEEDED"), ..) => Status::Ended(Outcome::Succeeded),
        (Some("FAILED"), ..) => Status::Ended(Outcome::Failed),
        (Some("CANCELED"), ..) => Status::Ended(Outcome::Canceled),
        (Some(other), ..) => return Err(StoreError::Unreadable(format!("outcome `{other}`"))),
        (None, true, _) => Status::Running,
        (None, false, 0) => Status::Queued,
        (None, false, _) => Status::Waiting,
    };
    let time = |name: &str| row.try_get::<Option<i64>, _>(name).map(|micros| micros.map(Timestamp::from_micros));
    let error: Option<Vec<u8>> = row.try_get("error")?;
    Ok(RunRow {
        id: RunId(row.try_get::<Uuid, _>("id")?),
        workflow_id: WorkflowId(row.try_get::<Uuid, _>("workflow_id")?),
        revision: row.try_get("revision")?,
        status,
        step_index: row.try_get("step_index")?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        started_at: time("started_at")?,
        finished_at: time("finished_at")?,
        error: error.as_deref().map(from_json).transpose()?,
    })
}
