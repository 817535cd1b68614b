//! Workflows and their revisions.

use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::page::{Page, PageRequest};
use super::writer::Op;
use super::{Store, StoreError, from_json, json_bytes};
use crate::model::id::WorkflowId;
use crate::model::plugin::ToolLock;
use crate::model::time::Timestamp;

/// A workflow with its current revision.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// Its id.
    pub id: WorkflowId,
    /// Whether it may be triggered.
    pub is_active: bool,
    /// What it executes now.
    pub revision: Revision,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// One version of a workflow. Never changes.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its number in the workflow, from 1.
    pub number: u32,
    /// The workflow's name as of this revision.
    pub name: String,
    /// The definition, as it was sent.
    pub definition: Value,
    /// The plugins that it calls, as they were when it was made.
    pub tool_lock: ToolLock,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a new revision says.
#[derive(Clone, Debug)]
pub struct NewRevision {
    /// The workflow's name.
    pub name: String,
    /// A valid definition.
    pub definition: Value,
    /// The plugins that the definition calls.
    pub tool_lock: ToolLock,
}

/// A change of a workflow.
#[derive(Clone, Debug)]
pub enum WorkflowChange {
    /// Parts that are `None` are taken from the current revision.
    Revise(Option<String>, Option<(Value, ToolLock)>),
    /// Whether it may be triggered.
    SetActive(bool),
}

/// The one text that reads a workflow; `$1` stands for its id.
const SELECT_ONE: &str = "SELECT w.id, w.is_active, w.created_at AS w_created_at, w.updated_at, r.number, r.name, \
                                 r.definition, r.tool_lock, r.created_at \
                          FROM workflows w JOIN revisions r ON r.workflow_id = w.id AND r.number = w.revision \
                          WHERE w.id = $1";

struct Create {
    id: Uuid,
    name: String,
    definition: Vec<u8>,
    tool_lock: Option<Vec<u8>>,
    now: i64,
}

impl Op for Create {
    type Output = Result<Workflow, StoreError>;

    async fn perform(&self, db: &mut SqliteConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query(
            "INSERT INTO workflows (id, name, is_active, revision, created_at, updated_at) VALUES ($1, $2, 1, 1, $3, $3)",
        )
        .bind(self.id)
        .bind(&self.name)
        .bind(self.now)
        .execute(&mut *db)
        .await?;
        let content = (self.definition.as_slice(), self.tool_lock.as_deref());
        insert_revision(db, self.id, 1, &self.name, content, self.now).await?;
        Ok(read_workflow(&sqlx::query(SELECT_ONE).bind(self.id).fetch_one(db).await?))
    }
}

async fn insert_revision(
    db: &mut SqliteConnection,
    workflow: Uuid,
    number: u32,
    name: &str,
    (definition, tool_lock): (&[u8], Option<&[u8]>),
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO revisions (workflow_id, number, name, definition, tool_lock, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(workflow)
    .bind(number)
    .bind(name)
    .bind(definition)
    .bind(tool_lock)
    .bind(now)
    .execute(db)
    .await
    .map(|_| ())
}

struct Change {
    id: Uuid,
    name: Option<String>,
    /// A definition and its tool lock.
    content: Option<(Vec<u8>, Option<Vec<u8>>)>,
    active: Option<bool>,
    now: i64,
}

impl Op for Change {
    /// Nothing where the workflow does not exist.
    type Output = Option<Result<Workflow, StoreError>>;

    async fn perform(&self, db: &mut SqliteConnection) -> Result<Self::Output, sqlx::Error> {
        match self.active {
            Some(active) => {
                sqlx::query("UPDATE workflows SET is_active = $2, updated_at = $3 WHERE id = $1")
                    .bind(self.id)
                    .bind(active)
                    .bind(self.now)
                    .execute(&mut *db)
                    .await?;
            }
            None => self.revise(db).await?,
        }
        let row = sqlx::query(SELECT_ONE).bind(self.id).fetch_optional(db).await?;
        Ok(row.as_ref().map(read_workflow))
    }
}

impl Change {
    async fn revise(&self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let Some(current) = sqlx::query(SELECT_ONE).bind(self.id).fetch_optional(&mut *db).await? else {
            return Ok(());
        };
        let number: u32 = current.try_get("number")?;
        let name = self.name.as_deref().map_or_else(|| current.try_get("name"), Ok)?;
        let content = match &self.content {
            Some((definition, tool_lock)) => (definition.as_slice(), tool_lock.as_deref()),
            None => (current.try_get("definition")?, current.try_get("tool_lock")?),
        };
        insert_revision(db, self.id, number + 1, name, content, self.now).await?;
        sqlx::query("UPDATE workflows SET revision = $2, name = $3, updated_at = $4 WHERE id = $1")
            .bind(self.id)
            .bind(number + 1)
            .bind(name)
            .bind(self.now)
            .execute(db)
            .await
            .map(|_| ())
    }
}

impl Store {
    /// Creates a workflow with its first revision.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn create_workflow(&self, id: WorkflowId, revision: NewRevision) -> Result<Workflow, StoreError> {
        let (definition, tool_lock) = content_bytes(&revision.definition, &revision.tool_lock)?;
        let now = self.clock.now().as_micros();
        self.writer.run(Create { id: id.0, name: revision.name, definition, tool_lock, now }).await?
    }

    /// Changes a workflow, if it exists, and answers how it is now.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn change_workflow(
        &self,
        id: WorkflowId,
        change: WorkflowChange,
    ) -> Result<Option<Workflow>, StoreError> {
        let now = self.clock.now().as_micros();
        let (name, content, active) = match change {
            WorkflowChange::Revise(name, content) => (name, content, None),
            WorkflowChange::SetActive(active) => (None, None, Some(active)),
        };
        let content = content.map(|(definition, lock)| content_bytes(&definition, &lock)).transpose()?;
        self.writer.run(Change { id: id.0, name, content, active, now }).await?.transpose()
    }

    /// Reads a workflow.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn workflow(&self, id: WorkflowId) -> Result<Option<Workflow>, StoreError> {
        let row = sqlx::query(SELECT_ONE).bind(id.0).fetch_optional(&self.readers).await?;
        row.as_ref().map(read_workflow).transpose()
    }

    /// Lists workflows, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn workflows(&self, request: PageRequest) -> Result<Page<Workflow>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.id, w.is_active, w.created_at AS w_created_at, w.updated_at, r.number, r.name, r.definition, \
                    r.tool_lock, r.created_at \
             FROM workflows w JOIN revisions r ON r.workflow_id = w.id AND r.number = w.revision \
             WHERE w.id < $1 ORDER BY w.id DESC LIMIT $2",
        )
        .bind(request.before_id())
        .bind(request.rows())
        .fetch_all(&self.readers)
        .await?;
        let items = rows.iter().map(read_workflow).collect::<Result<Vec<_>, _>>()?;
        Ok(request.page(items, |workflow| workflow.id.0))
    }

    /// Reads one revision.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn revision(&self, workflow: WorkflowId, number: u32) -> Result<Option<Revision>, StoreError> {
        let sql = "SELECT number, name, definition, tool_lock, created_at FROM revisions \
                   WHERE workflow_id = $1 AND number = $2";
        let row = sqlx::query(sql).bind(workflow.0).bind(number).fetch_optional(&self.readers).await?;
        row.as_ref().map(read_revision).transpose()
    }

    /// Lists up to `most` revisions of a workflow with numbers below `before`, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn revisions(&self, workflow: WorkflowId, before: u32, most: u32) -> Result<Vec<Revision>, StoreError> {
        let rows = sqlx::query(
            "SELECT number, name, definition, tool_lock, created_at FROM revisions \
             WHERE workflow_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        )
        .bind(workflow.0)
        .bind(before)
        .bind(most)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_revision).collect()
    }
}

fn read_workflow(row: &SqliteRow) -> Result<Workflow, StoreError> {
    Ok(Workflow {
        id: WorkflowId(row.try_get("id")?),
        is_active: row.try_get("is_active")?,
        revision: read_revision(row)?,
        created_at: Timestamp::from_micros(row.try_get("w_created_at")?),
        updated_at: Timestamp::from_micros(row.try_get("updated_at")?),
    })
}

/// A definition and its tool lock as they are stored; most definitions call no tool.
fn content_bytes(definition: &Value, lock: &ToolLock) -> Result<(Vec<u8>, Option<Vec<u8>>), StoreError> {
    let lock = (!lock.is_empty()).then(|| json_bytes(lock)).transpose()?;
    Ok((json_bytes(definition)?, lock))
}

fn read_revision(row: &SqliteRow) -> Result<Revision, StoreError> {
    let lock: Option<&[u8]> = row.try_get("tool_lock")?;
    Ok(Revision {
        number: row.try_get("number")?,
        name: row.try_get("name")?,
        definition: from_json(row.try_get("definition")?)?,
        tool_lock: lock.map(from_json).transpose()?.unwrap_or_default(),
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
    })
}
