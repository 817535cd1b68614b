//! Writes what comes from another system, with its ids and its times. What is there already is never changed.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::sql::{Connection, places};
use super::workflows::{content_bytes, insert_revision};
use super::writer::Op;
use super::{NewRevision, Store, StoreError, json_bytes};
use crate::clock::new_token;
use crate::model::id::{RunId, WorkflowId};
use crate::model::original::History;
use crate::model::time::Timestamp;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It is on disk.
    New,
    /// It was there already.
    Known,
    /// Another endpoint has its path.
    PathTaken,
}

/// A workflow with its only revision.
pub struct ImportedWorkflow {
    /// Its id.
    pub id: WorkflowId,
    /// Whether it may be triggered.
    pub is_active: bool,
    /// What it executes.
    pub revision: NewRevision,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A webhook endpoint.
pub struct ImportedEndpoint {
    /// Its id.
    pub id: Uuid,
    /// Its workflow.
    pub workflow_id: WorkflowId,
    /// The last part of its URL.
    pub path: String,
    /// Whether it may be called.
    pub is_active: bool,
    /// The secret, sealed.
    pub secret: Vec<u8>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A run that has ended.
pub struct ImportedRun {
    /// Its id.
    pub id: RunId,
    /// Its workflow, of which it executed the first revision.
    pub workflow_id: WorkflowId,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// What happened.
    pub history: History,
}

struct ImportWorkflow {
    workflow: ImportedWorkflow,
    /// Its definition and its tool lock.
    content: (Vec<u8>, Option<Vec<u8>>),
}

impl Op for ImportWorkflow {
    type Output = Brought;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Brought, sqlx::Error> {
        let ImportedWorkflow { id, is_active, revision, created_at, updated_at } = &self.workflow;
        let inserted = db
            .query(
                "INSERT INTO workflows (id, name, is_active, revision, created_at, updated_at) \
                 VALUES ($1, $2, $3, 1, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(id.0)
            .bind(&revision.name)
            .bind(is_active)
            .bind(created_at.as_micros())
            .bind(updated_at.as_micros())
            .execute()
            .await?;
        if inserted == 0 {
            return Ok(Brought::Known);
        }
        let content = (self.content.0.as_slice(), self.content.1.as_deref());
        insert_revision(db, id.0, 1, &revision.name, content, created_at.as_micros()).await?;
        Ok(Brought::New)
    }
}

impl Op for ImportedEndpoint {
    type Output = Brought;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Brought, sqlx::Error> {
        let inserted = db
            .query(
                "INSERT INTO endpoints (id, workflow_id, path, is_active, secret, created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            )
            .bind(self.id)
            .bind(self.workflow_id.0)
            .bind(&self.path)
            .bind(self.is_active)
            .bind(&self.secret)
            .bind(self.created_at.as_micros())
            .bind(self.updated_at.as_micros())
            .execute()
            .await?;
        if inserted > 0 {
            return Ok(Brought::New);
        }
        let known = db.query("SELECT id FROM endpoints WHERE id = $1").bind(self.id).fetch_optional().await?;
        Ok(if known.is_some() { Brought::Known } else { Brought::PathTaken })
    }
}

/// A row of `runs` and one of `journal`.
struct RunRows {
    id: Uuid,
    workflow_id: Uuid,
    created_at: i64,
    started_at: i64,
    finished_at: i64,
    step_index: i64,
    outcome: &'static str,
    error: Option<Vec<u8>>,
    events: Vec<u8>,
}

struct ImportRuns {
    runs: Vec<RunRows>,
    /// What stands for the claim under which the journals were written.
    token: Uuid,
}

impl Op for ImportRuns {
    /// The runs that are new.
    type Output = Vec<RunId>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Vec<RunId>, sqlx::Error> {
        let sql = format!(
            "INSERT INTO runs (id, workflow_id, revision, input, created_at, started_at, seq, step_index, outcome, \
                               finished_at, error) VALUES {} ON CONFLICT DO NOTHING RETURNING id",
            places(self.runs.len(), 11)
        );
        let mut insert = db.query(AssertSqlSafe(sql));
        for run in &self.runs {
            insert = insert
                .bind(run.id)
                .bind(run.workflow_id)
                .bind(1_i64)
                .bind(b"null".as_slice())
                .bind(run.created_at)
                .bind(run.started_at)
                .bind(1_i64)
                .bind(run.step_index)
                .bind(run.outcome)
                .bind(run.finished_at)
                .bind(&run.error);
        }
        let rows = insert.fetch_all().await?;
        let new = rows.iter().map(|row| row.get("id")).collect::<Result<Vec<Uuid>, _>>()?;
        if !new.is_empty() {
            let sql = format!("INSERT INTO journal (run_id, seq, claim, events) VALUES {}", places(new.len(), 4));
            let mut insert = db.query(AssertSqlSafe(sql));
            for run in self.runs.iter().filter(|run| new.contains(&run.id)) {
                insert = insert.bind(run.id).bind(1_i64).bind(self.token).bind(&run.events);
            }
            insert.execute().await?;
        }
        Ok(new.into_iter().map(RunId).collect())
    }
}

impl Store {
    /// Takes a workflow with its only revision, unless it is there.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn import_workflow(&self, workflow: ImportedWorkflow) -> Result<Brought, StoreError> {
        let content = content_bytes(&workflow.revision.definition, &workflow.revision.tool_lock)?;
        self.db.write(ImportWorkflow { workflow, content }).await
    }

    /// Takes a webhook endpoint, unless it is there.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn import_endpoint(&self, endpoint: ImportedEndpoint) -> Result<Brought, StoreError> {
        self.db.write(endpoint).await
    }

    /// Takes those of these runs that are not there, all or none, and answers which they are.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn import_runs(&self, runs: &[ImportedRun]) -> Result<Vec<RunId>, StoreError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let rows = |run: &ImportedRun| {
            let history = &run.history;
            Ok(RunRows {
                id: run.id.0,
                workflow_id: run.workflow_id.0,
                created_at: run.created_at.as_micros(),
                started_at: history.started_at.as_micros(),
                finished_at: history.finished_at.as_micros(),
                step_index: history.step_index.into(),
                outcome: history.outcome.as_str(),
                error: history.error.as_ref().map(json_bytes).transpose()?,
                events: json_bytes(&history.events)?,
            })
        };
        let runs = runs.iter().map(rows).collect::<Result<Vec<_>, StoreError>>()?;
        self.db.write(ImportRuns { runs, token: new_token() }).await
    }
}
