//! Runs: creating them and reading them.

use std::collections::{HashMap, HashSet};

use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::journal::column;
use super::lane::{Batch, Waiting};
use super::page::{Page, PageRequest};
use super::sql::Row;
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

/// A repeat is not an error: the conflict is on the idempotency key, since ids are fresh. Whether it may run is asked
/// here, so that switching off holds from its answer on for requests that are under way.
const CREATE_SQLITE: &str = "INSERT INTO runs (id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at) \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8 \
     WHERE EXISTS (SELECT 1 FROM workflows WHERE id = $2 AND is_active) \
       AND ($9 IS NULL OR EXISTS (SELECT 1 FROM endpoints WHERE id = $9 AND is_active)) \
     ON CONFLICT DO NOTHING";

/// The same for many at once; answers the ids of those that were created. Somebody who switches off waits for creations under
/// way, and creations wait for him.
const CREATE_POSTGRES: &str = "WITH given AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[], $5::text[], $6::bytea[], \
            $7::bigint[], $8::bigint[], $9::uuid[]) \
         AS given (id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at, endpoint)), \
     active AS MATERIALIZED (SELECT id FROM workflows WHERE id IN (SELECT workflow_id FROM given) AND is_active \
         ORDER BY id FOR SHARE), \
     open AS MATERIALIZED (SELECT id FROM endpoints WHERE id IN (SELECT endpoint FROM given) AND is_active \
         ORDER BY id FOR SHARE) \
     INSERT INTO runs (id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at) \
     SELECT id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at FROM given \
     WHERE workflow_id IN (SELECT id FROM active) AND (endpoint IS NULL OR endpoint IN (SELECT id FROM open)) \
     ON CONFLICT DO NOTHING RETURNING id";

/// What was created earlier: under the same key, or by this very request whose answer got lost.
const EARLIER_SQLITE: &str = "SELECT id, idem_hash FROM runs WHERE workflow_id = $1 AND idem_key = $2";
const EARLIER_POSTGRES: &str = "SELECT given.id AS new_id, runs.id, runs.idem_hash \
     FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS given (id, workflow_id, idem_key) \
     JOIN runs ON runs.id = given.id OR (runs.workflow_id = given.workflow_id AND runs.idem_key = given.idem_key)";

impl Batch for NewRun {
    type Output = Created;

    fn durable(&self) -> bool {
        true
    }

    fn size_bytes(&self) -> usize {
        self.input.len()
    }

    fn sort(batch: &mut [Waiting<Self>]) {
        // Keys are what one creation may have to wait for another one for; without one, ids keep the pages together.
        batch.sort_unstable_by(|a, b| (a.item.key(), a.item.id.0).cmp(&(b.item.key(), b.item.id.0)));
    }

    async fn on_sqlite(&self, db: &mut SqliteConnection) -> Result<Created, sqlx::Error> {
        let inserted = sqlx::query(CREATE_SQLITE)
            .bind(self.id.0)
            .bind(self.workflow_id.0)
            .bind(self.revision)
            .bind(&self.input)
            .bind(self.key())
            .bind(self.hash())
            .bind(self.created_at.as_micros())
            .bind(self.due_at.as_micros())
            .bind(self.endpoint.map(|endpoint| endpoint.0))
            .execute(&mut *db)
            .await?;
        if inserted.rows_affected() > 0 {
            return Ok(Created::New);
        }
        let Some(key) = self.key() else {
            return Ok(Created::Inactive);
        };
        let row = sqlx::query(EARLIER_SQLITE).bind(self.workflow_id.0).bind(key).fetch_optional(db).await?;
        row.map_or(Ok(Created::Inactive), |row| Ok(self.repeats(row.try_get("id")?, row.try_get("idem_hash")?)))
    }

    async fn on_postgres(batch: &[Waiting<Self>], db: &mut PgConnection) -> Result<Vec<Created>, sqlx::Error> {
        let created = sqlx::query(CREATE_POSTGRES)
            .bind(column(batch, |run| run.id.0))
            .bind(column(batch, |run| run.workflow_id.0))
            .bind(column(batch, |run| i64::from(run.revision)))
            .bind(column(batch, |run| run.input.as_slice()))
            .bind(column(batch, Self::key))
            .bind(column(batch, Self::hash))
            .bind(column(batch, |run| run.created_at.as_micros()))
            .bind(column(batch, |run| run.due_at.as_micros()))
            .bind(column(batch, |run| run.endpoint.map(|endpoint| endpoint.0)))
            .fetch_all(&mut *db)
            .await?;
        let created = created.iter().map(|row| row.try_get("id")).collect::<Result<HashSet<Uuid>, _>>()?;
        let rest: Vec<&Self> =
            batch.iter().map(|waiting| &waiting.item).filter(|run| !created.contains(&run.id.0)).collect();
        let earlier = if rest.is_empty() { HashMap::new() } else { earlier(&rest, db).await? };
        let what = |run: &Self| match earlier.get(&run.id.0) {
            _ if created.contains(&run.id.0) => Created::New,
            Some((id, hash)) => run.repeats(*id, hash.as_deref()),
            None => Created::Inactive,
        };
        Ok(batch.iter().map(|waiting| what(&waiting.item)).collect())
    }
}

/// The runs that stand in the way of these, each with the hash of its request, by the ids of these.
async fn earlier(
    rest: &[&NewRun],
    db: &mut PgConnection,
) -> Result<HashMap<Uuid, (Uuid, Option<Vec<u8>>)>, sqlx::Error> {
    let rows = sqlx::query(EARLIER_POSTGRES)
        .bind(rest.iter().map(|run| run.id.0).collect::<Vec<_>>())
        .bind(rest.iter().map(|run| run.workflow_id.0).collect::<Vec<_>>())
        .bind(rest.iter().map(|run| run.key()).collect::<Vec<_>>())
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("new_id")?, (row.try_get("id")?, row.try_get("idem_hash")?)))).collect()
}

impl NewRun {
    fn key(&self) -> Option<&str> {
        self.idempotency.as_ref().map(|idempotency| idempotency.key.as_str())
    }

    fn hash(&self) -> Option<&[u8]> {
        self.idempotency.as_ref().and_then(|idempotency| idempotency.hash.as_ref()).map(<[u8; 32]>::as_slice)
    }

    /// What this is, given the run that stands in its way.
    fn repeats(&self, id: Uuid, hash: Option<&[u8]>) -> Created {
        if id == self.id.0 {
            Created::New
        } else if hash == self.hash() {
            Created::Repeated(RunId(id))
        } else {
            Created::Conflict
        }
    }
}

impl Store {
    /// Creates a run. When this answers, the run is on disk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the run was not created, unless the database died in the moment of the commit.
    pub async fn create_run(&self, run: NewRun) -> Result<Created, StoreError> {
        self.db.write_batched(run, |cluster| &cluster.creations).await
    }

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
