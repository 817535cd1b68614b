//! Reads the Postgres database of the original system. Never writes to it: its session is read only.

use std::collections::HashSet;

use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use uuid::Uuid;

use super::postgres;
use crate::model::id::{RunId, WorkflowId};
use crate::model::original::{OriginalRun, OriginalSnapshot};
use crate::model::time::Timestamp;

/// What is read of each table.
const TABLES: [(&str, &[&str]); 4] = [
    ("workflows", &["id", "name", "is_active", "definition_json", "created_at", "updated_at"]),
    ("webhook_endpoints", &["id", "workflow_id", "path", "is_active", "secret", "created_at", "updated_at"]),
    (
        "runs",
        &[
            "id",
            "workflow_id",
            "status",
            "started_at",
            "finished_at",
            "error_message",
            "current_step_index",
            "created_at",
            "updated_at",
        ],
    ),
    ("run_snapshots", &["run_id", "step_index", "snapshot_json", "created_at"]),
];

/// Snapshots that are held at once beside those of one run, in bytes of JSON text.
const SNAPSHOTS_MAX_BYTES: usize = 16 << 20;

/// The database of the original, open for reading.
pub struct Original {
    connection: PgConnection,
}

/// Why the original cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OriginalError {
    /// It is no URL of Postgres.
    #[error("the original system is on Postgres: its URL begins with `postgres://` or `postgresql://`")]
    NotPostgres,
    /// Tables or columns are missing.
    #[error("this is not a database of the original system: {0}")]
    NotOriginal(String),
    /// The database refused, or does not answer.
    #[error("the original's database cannot be read")]
    Database(#[from] sqlx::Error),
}

/// A workflow of the original.
pub struct OriginalWorkflow {
    /// Its id.
    pub id: WorkflowId,
    /// Its name.
    pub name: String,
    /// Whether it may be triggered.
    pub is_active: bool,
    /// Its definition, as JSON text.
    pub definition: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A webhook endpoint of the original. It has its secret in clear, and is therefore not to be printed.
pub struct OriginalEndpoint {
    /// Its id.
    pub id: Uuid,
    /// Its workflow.
    pub workflow_id: Option<WorkflowId>,
    /// The last part of its URL.
    pub path: String,
    /// Whether it may be called.
    pub is_active: bool,
    /// The secret.
    pub secret: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A time of the original as microseconds: one without a time zone is in UTC, and is taken as such. Times before 1970 and
/// after 9999, endless ones among them, become these.
macro_rules! micros {
    ($column:literal) => {
        concat!(
            "CASE WHEN ",
            $column,
            " IS NOT NULL THEN \
                 (extract(epoch FROM least(greatest(",
            $column,
            ", '1970-01-01'), '9999-12-31')) * 1000000)::bigint END"
        )
    };
}

const WORKFLOWS: &str = concat!(
    "SELECT id::uuid, name::text, is_active::boolean, definition_json::text AS definition, ",
    micros!("created_at"),
    " AS created, ",
    micros!("updated_at"),
    " AS updated FROM workflows ORDER BY workflows.created_at, workflows.id"
);

const ENDPOINTS: &str = concat!(
    "SELECT id::uuid, workflow_id::uuid, path::text, is_active::boolean, secret::text, ",
    micros!("created_at"),
    " AS created, ",
    micros!("updated_at"),
    " AS updated FROM webhook_endpoints ORDER BY webhook_endpoints.created_at, webhook_endpoints.id"
);

/// One pass over runs with their snapshots, sorted by the server: `run_snapshots` has no index that would serve a look for
/// the snapshots of each run. `OFFSET 0` keeps the text of the snapshots out of what is sorted.
const RUNS: &str = concat!(
    "SELECT id::uuid, workflow_id::uuid, status::text, error_message::text, step::bigint, ",
    micros!("created_at"),
    " AS created, ",
    micros!("updated_at"),
    " AS updated, ",
    micros!("started_at"),
    " AS started, ",
    micros!("finished_at"),
    " AS finished, snapshot_step::bigint, ",
    micros!("snapshot_at"),
    " AS snapshot_at, snapshot::text \
     FROM (SELECT r.id, r.workflow_id, r.status, r.error_message, r.current_step_index AS step, r.created_at, r.updated_at, \
                  r.started_at, r.finished_at, s.step_index AS snapshot_step, s.created_at AS snapshot_at, \
                  s.snapshot_json AS snapshot \
           FROM runs r LEFT JOIN run_snapshots s \
                ON s.run_id = r.id AND r.status::text IN ('SUCCEEDED', 'FAILED', 'CANCELED') \
           ORDER BY r.id, s.step_index, s.created_at OFFSET 0) AS joined \
     ORDER BY joined.id, joined.snapshot_step, joined.snapshot_at"
);

impl Original {
    /// Opens the database at `url`, which may name a driver as in `postgresql+asyncpg://`.
    ///
    /// # Errors
    /// [`OriginalError`], in particular where a table or a column is missing.
    pub async fn open(url: &str) -> Result<Self, OriginalError> {
        let (scheme, rest) = url.split_once("://").ok_or(OriginalError::NotPostgres)?;
        if !["postgres", "postgresql"].contains(&scheme.split('+').next().unwrap_or_default()) {
            return Err(OriginalError::NotPostgres);
        }
        let mut connection = postgres::open_to_read(&format!("postgres://{rest}")).await?;
        let rows = sqlx::query(
            "SELECT table_name::text, column_name::text FROM information_schema.columns \
             WHERE table_schema = current_schema()",
        );
        let mut found = HashSet::new();
        for row in rows.fetch_all(&mut connection).await? {
            found.insert((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
        }
        match missing(&found) {
            missing if missing.is_empty() => Ok(Self { connection }),
            missing => Err(OriginalError::NotOriginal(missing.join("; "))),
        }
    }

    /// Every workflow, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn workflows(&mut self) -> Result<Vec<OriginalWorkflow>, OriginalError> {
        let rows = sqlx::query(WORKFLOWS).fetch_all(&mut self.connection).await?;
        let read = |row: &PgRow| {
            Ok(OriginalWorkflow {
                id: WorkflowId(row.try_get("id")?),
                name: row.try_get("name")?,
                is_active: row.try_get("is_active")?,
                definition: row.try_get("definition")?,
                created_at: time(row, "created")?,
                updated_at: time(row, "updated")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Every webhook endpoint, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn endpoints(&mut self) -> Result<Vec<OriginalEndpoint>, OriginalError> {
        let rows = sqlx::query(ENDPOINTS).fetch_all(&mut self.connection).await?;
        let read = |row: &PgRow| {
            Ok(OriginalEndpoint {
                id: row.try_get("id")?,
                workflow_id: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId),
                path: row.try_get("path")?,
                is_active: row.try_get("is_active")?,
                secret: row.try_get("secret")?,
                created_at: time(row, "created")?,
                updated_at: time(row, "updated")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Every run, with the snapshots of those that have ended.
    pub fn runs(&mut self) -> OriginalRuns<'_> {
        OriginalRuns { rows: sqlx::query(RUNS).fetch(&mut self.connection), ahead: None }
    }

    /// Closes the connection.
    pub async fn close(self) {
        // The server notices by itself.
        let _ = self.connection.close().await;
    }
}

/// What is missing, for a person.
fn missing(found: &HashSet<(String, String)>) -> Vec<String> {
    let mut missing = Vec::new();
    for (table, columns) in TABLES {
        if !found.iter().any(|(name, _)| name == table) {
            missing.push(format!("there is no table `{table}`"));
            continue;
        }
        let absent = columns.iter().filter(|column| !found.contains(&(table.to_owned(), (**column).to_owned())));
        missing.extend(absent.map(|column| format!("the table `{table}` has no column `{column}`")));
    }
    missing
}

/// The runs of the original, as they come.
pub struct OriginalRuns<'c> {
    rows: BoxStream<'c, Result<PgRow, sqlx::Error>>,
    /// The run whose snapshots are being read.
    ahead: Option<OriginalRun>,
}

impl OriginalRuns<'_> {
    /// Up to `most` of the next runs, fewer where their snapshots are large; none when all have been read.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next(&mut self, most: usize) -> Result<Vec<OriginalRun>, OriginalError> {
        let (mut batch, mut bytes) = (Vec::with_capacity(most), 0);
        while let Some(row) = self.rows.try_next().await? {
            let id = RunId(row.try_get("id")?);
            let mut done = None;
            if self.ahead.as_ref().is_none_or(|ahead| ahead.id != id) {
                done = self.ahead.replace(read_run(&row)?);
            }
            let content: Option<String> = row.try_get("snapshot")?;
            if let (Some(content), Some(run)) = (content, &mut self.ahead) {
                bytes += content.len();
                let (step_index, at) = (row.try_get("snapshot_step")?, time(&row, "snapshot_at")?);
                run.snapshots.push(OriginalSnapshot { step_index, at, content });
            }
            batch.extend(done);
            if batch.len() >= most || bytes > SNAPSHOTS_MAX_BYTES && !batch.is_empty() {
                return Ok(batch);
            }
        }
        batch.extend(self.ahead.take());
        Ok(batch)
    }
}

fn read_run(row: &PgRow) -> Result<OriginalRun, sqlx::Error> {
    let at = |column: &str| row.try_get::<Option<i64>, _>(column).map(|time| time.map(Timestamp::from_micros));
    Ok(OriginalRun {
        id: RunId(row.try_get("id")?),
        workflow_id: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId),
        status: row.try_get("status")?,
        error_message: row.try_get("error_message")?,
        step_index: row.try_get("step")?,
        created_at: time(row, "created")?,
        updated_at: time(row, "updated")?,
        started_at: at("started")?,
        finished_at: at("finished")?,
        snapshots: Vec::new(),
    })
}

fn time(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(Timestamp::from_micros)
}
