//! Workflows and their revisions.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::page::{Page, PageRequest};
use super::sql::{Connection, Row};
use super::versions::HOLD_PLUGIN;
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
    /// A new revision with the same definition and other plugins, if `revision` is still the current one.
    Relock {
        /// The revision that the lock was made for.
        revision: u32,
        /// The plugins that the definition calls.
        tool_lock: ToolLock,
    },
}

/// What became of a workflow that was saved.
#[derive(Clone, Debug)]
pub enum Saved {
    /// It is now like this.
    Done(Box<Workflow>),
    /// There is no such workflow.
    Missing,
    /// A plugin that the tool lock names was deleted meanwhile. Nothing was changed.
    PluginGone,
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
    type Output = Result<Saved, StoreError>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        if !keeps(db, self.tool_lock.as_deref()).await? {
            return Ok(Ok(Saved::PluginGone));
        }
        db.query(
            "INSERT INTO workflows (id, name, is_active, revision, created_at, updated_at) VALUES ($1, $2, TRUE, 1, $3, $3)",
        )
        .bind(self.id)
        .bind(&self.name)
        .bind(self.now)
        .execute()
        .await?;
        let content = (self.definition.as_slice(), self.tool_lock.as_deref());
        insert_revision(db, self.id, 1, &self.name, content, self.now).await?;
        Ok(saved(&db.query(SELECT_ONE).bind(self.id).fetch_one().await?))
    }
}

/// Whether everything that a tool lock names is there, which nobody can delete then until this transaction is over: a
/// deletion begins with the same rows.
async fn keeps(db: &mut Connection<'_>, tool_lock: Option<&[u8]>) -> Result<bool, sqlx::Error> {
    let lock: Option<ToolLock> =
        tool_lock.map(serde_json::from_slice).transpose().map_err(|e| sqlx::Error::Decode(e.into()))?;
    // In one order, so that nobody waits for somebody who waits for him.
    for digest in lock.into_iter().flatten().map(|(_, digest)| digest).collect::<BTreeSet<_>>() {
        if db.query(HOLD_PLUGIN).bind(&digest.0[..]).execute().await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) async fn insert_revision(
    db: &mut Connection<'_>,
    workflow: Uuid,
    number: u32,
    name: &str,
    (definition, tool_lock): (&[u8], Option<&[u8]>),
    now: i64,
) -> Result<(), sqlx::Error> {
    db.query(
        "INSERT INTO revisions (workflow_id, number, name, definition, tool_lock, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(workflow)
    .bind(i64::from(number))
    .bind(name)
    .bind(definition)
    .bind(tool_lock)
    .bind(now)
    .execute()
    .await
    .map(|_| ())
}

struct Change {
    id: Uuid,
    name: Option<String>,
    /// A definition and its tool lock.
    content: Option<(Vec<u8>, Option<Vec<u8>>)>,
    active: Option<bool>,
    /// Another lock for the definition of this revision, if that is the current one.
    relock: Option<(u32, Option<Vec<u8>>)>,
    now: i64,
}

impl Op for Change {
    type Output = Result<Saved, StoreError>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        match self.active {
            Some(active) => {
                db.query("UPDATE workflows SET is_active = $2, updated_at = $3 WHERE id = $1")
                    .bind(self.id)
                    .bind(active)
                    .bind(self.now)
                    .execute()
                    .await?;
            }
            None => {
                let new = self.relock.as_ref().map(|(_, lock)| lock);
                let new = new.or_else(|| self.content.as_ref().map(|(_, lock)| lock)).and_then(Option::as_deref);
                if !keeps(db, new).await? {
                    return Ok(Ok(Saved::PluginGone));
                }
                self.revise(db).await?;
            }
        }
        let row = db.query(SELECT_ONE).bind(self.id).fetch_optional().await?;
        Ok(row.as_ref().map_or(Ok(Saved::Missing), saved))
    }
}

impl Change {
    async fn revise(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        // First, because it holds whoever revises the same workflow meanwhile.
        let raised = "UPDATE workflows SET revision = revision + 1, updated_at = $2 \
                      WHERE id = $1 AND ($3 IS NULL OR revision = $3) RETURNING revision";
        let expected = self.relock.as_ref().map(|(revision, _)| i64::from(*revision));
        let Some(row) = db.query(raised).bind(self.id).bind(self.now).bind(expected).fetch_optional().await? else {
            return Ok(());
        };
        let number = row.count("revision")?;
        let current = "SELECT name, definition, tool_lock FROM revisions WHERE workflow_id = $1 AND number = $2";
        let current = db.query(current).bind(self.id).bind(i64::from(number) - 1).fetch_one().await?;
        let name = self.name.as_deref().map_or_else(|| current.get("name"), Ok)?;
        let content = match (&self.content, &self.relock) {
            (_, Some((_, tool_lock))) => (current.get("definition")?, tool_lock.as_deref()),
            (Some((definition, tool_lock)), None) => (definition.as_slice(), tool_lock.as_deref()),
            (None, None) => (current.get("definition")?, current.get("tool_lock")?),
        };
        insert_revision(db, self.id, number, name, content, self.now).await?;
        db.query("UPDATE workflows SET name = $2 WHERE id = $1").bind(self.id).bind(name).execute().await.map(|_| ())
    }
}

impl Store {
    /// Creates a workflow with its first revision.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn create_workflow(&self, id: WorkflowId, revision: NewRevision) -> Result<Saved, StoreError> {
        let (definition, tool_lock) = content_bytes(&revision.definition, &revision.tool_lock)?;
        let now = self.clock.now().as_micros();
        self.db.write(Create { id: id.0, name: revision.name, definition, tool_lock, now }).await?
    }

    /// Changes a workflow, if it exists, and answers how it is now.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn change_workflow(&self, id: WorkflowId, change: WorkflowChange) -> Result<Saved, StoreError> {
        let now = self.clock.now().as_micros();
        let mut op = Change { id: id.0, name: None, content: None, active: None, relock: None, now };
        match change {
            WorkflowChange::Revise(name, content) => {
                op.name = name;
                op.content = content.map(|(definition, lock)| content_bytes(&definition, &lock)).transpose()?;
            }
            WorkflowChange::SetActive(active) => op.active = Some(active),
            WorkflowChange::Relock { revision, tool_lock } => {
                op.relock = Some((revision, (!tool_lock.is_empty()).then(|| json_bytes(&tool_lock)).transpose()?));
            }
        }
        self.db.write(op).await?
    }

    /// Reads a workflow.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn workflow(&self, id: WorkflowId) -> Result<Option<Workflow>, StoreError> {
        let row = self.db.query(SELECT_ONE).bind(id.0).fetch_optional().await?;
        row.as_ref().map(read_workflow).transpose()
    }

    /// Lists workflows, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn workflows(&self, request: PageRequest) -> Result<Page<Workflow>, StoreError> {
        let rows = self
            .db
            .query(
                "SELECT w.id, w.is_active, w.created_at AS w_created_at, w.updated_at, r.number, r.name, r.definition, \
                    r.tool_lock, r.created_at \
             FROM workflows w JOIN revisions r ON r.workflow_id = w.id AND r.number = w.revision \
             WHERE w.id < $1 ORDER BY w.id DESC LIMIT $2",
            )
            .bind(request.before_id())
            .bind(request.rows())
            .fetch_all()
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
        let row = self.db.query(sql).bind(workflow.0).bind(i64::from(number)).fetch_optional().await?;
        row.as_ref().map(read_revision).transpose()
    }

    /// Lists up to `most` revisions of a workflow with numbers below `before`, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn revisions(&self, workflow: WorkflowId, before: u32, most: u32) -> Result<Vec<Revision>, StoreError> {
        let rows = self
            .db
            .query(
                "SELECT number, name, definition, tool_lock, created_at FROM revisions \
             WHERE workflow_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
            )
            .bind(workflow.0)
            .bind(i64::from(before))
            .bind(i64::from(most))
            .fetch_all()
            .await?;
        rows.iter().map(read_revision).collect()
    }
}

fn saved(row: &Row) -> Result<Saved, StoreError> {
    read_workflow(row).map(|workflow| Saved::Done(Box::new(workflow)))
}

fn read_workflow(row: &Row) -> Result<Workflow, StoreError> {
    Ok(Workflow {
        id: WorkflowId(row.get("id")?),
        is_active: row.get("is_active")?,
        revision: read_revision(row)?,
        created_at: Timestamp::from_micros(row.get("w_created_at")?),
        updated_at: Timestamp::from_micros(row.get("updated_at")?),
    })
}

/// A definition and its tool lock as they are stored; most definitions call no tool.
pub(super) fn content_bytes(definition: &Value, lock: &ToolLock) -> Result<(Vec<u8>, Option<Vec<u8>>), StoreError> {
    let lock = (!lock.is_empty()).then(|| json_bytes(lock)).transpose()?;
    Ok((json_bytes(definition)?, lock))
}

fn read_revision(row: &Row) -> Result<Revision, StoreError> {
    let lock: Option<&[u8]> = row.get("tool_lock")?;
    Ok(Revision {
        number: row.count("number")?,
        name: row.get("name")?,
        definition: from_json(row.get("definition")?)?,
        tool_lock: lock.map(from_json).transpose()?.unwrap_or_default(),
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}
