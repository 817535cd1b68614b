//! Webhook endpoints. Their secrets are sealed before they come here.

use uuid::Uuid;

use super::page::{Page, PageRequest};
use super::sql::{Connection, Row};
use super::writer::Op;
use super::{Store, StoreError};
use crate::model::id::{EndpointId, WorkflowId};
use crate::model::time::Timestamp;

/// A webhook endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The workflow it triggers.
    pub workflow_id: WorkflowId,
    /// The last part of its URL.
    pub path: String,
    /// Whether it may be called.
    pub is_active: bool,
    /// The secret, sealed.
    pub secret: Vec<u8>,
    /// The secret before the last rotation, sealed, and until when it is valid.
    pub previous_secret: Option<(Vec<u8>, Timestamp)>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// An endpoint to create.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// The workflow it triggers.
    pub workflow_id: WorkflowId,
    /// The last part of its URL.
    pub path: String,
    /// The secret, sealed.
    pub secret: Vec<u8>,
}

/// Another endpoint has the path already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathTaken;

/// A change of an endpoint.
#[derive(Clone, Debug)]
pub enum EndpointChange {
    /// A new secret, sealed; the current one stays valid until the given time.
    Rotate(Vec<u8>, Timestamp),
    /// Whether it may be called.
    SetActive(bool),
}

const COLUMNS_FROM: &str = "SELECT id, workflow_id, path, is_active, secret, previous_secret, previous_until, \
                            created_at, updated_at FROM endpoints ";

/// [`COLUMNS_FROM`] with a condition.
fn select(condition: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{COLUMNS_FROM}{condition}"))
}

struct Create(NewEndpoint, i64);

impl Op for Create {
    type Output = Result<Result<Endpoint, StoreError>, PathTaken>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        let Self(new, now) = self;
        let inserted = db
            .query(
                "INSERT INTO endpoints (id, workflow_id, path, is_active, secret, created_at, updated_at) \
             VALUES ($1, $2, $3, TRUE, $4, $5, $5) ON CONFLICT (path) DO NOTHING",
            )
            .bind(new.id.0)
            .bind(new.workflow_id.0)
            .bind(&new.path)
            .bind(&new.secret)
            .bind(now)
            .execute()
            .await?;
        if inserted == 0 {
            return Ok(Err(PathTaken));
        }
        let row = db.query(select("WHERE id = $1")).bind(new.id.0).fetch_one().await?;
        Ok(Ok(read(&row)))
    }
}

struct Change(Uuid, EndpointChange, i64);

impl Op for Change {
    /// Nothing where the endpoint does not exist.
    type Output = Option<Result<Endpoint, StoreError>>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        let Self(id, change, now) = self;
        let query = match change {
            EndpointChange::SetActive(active) => db
                .query("UPDATE endpoints SET is_active = $3, updated_at = $2 WHERE id = $1")
                .bind(id)
                .bind(now)
                .bind(active),
            EndpointChange::Rotate(secret, previous_until) => db
                .query(
                    "UPDATE endpoints SET previous_secret = secret, previous_until = $4, secret = $3, updated_at = $2 \
                 WHERE id = $1",
                )
                .bind(id)
                .bind(now)
                .bind(secret)
                .bind(previous_until.as_micros()),
        };
        query.execute().await?;
        let row = db.query(select("WHERE id = $1")).bind(id).fetch_optional().await?;
        Ok(row.as_ref().map(read))
    }
}

struct Delete(Uuid);

impl Op for Delete {
    /// Whether the endpoint existed.
    type Output = bool;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<bool, sqlx::Error> {
        Ok(db.query("DELETE FROM endpoints WHERE id = $1").bind(self.0).execute().await? > 0)
    }
}

impl Store {
    /// Creates an endpoint.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn create_endpoint(&self, endpoint: NewEndpoint) -> Result<Result<Endpoint, PathTaken>, StoreError> {
        match self.db.write(Create(endpoint, self.clock.now().as_micros())).await? {
            Ok(endpoint) => endpoint.map(Ok),
            Err(taken) => Ok(Err(taken)),
        }
    }

    /// Deletes an endpoint; answers whether it existed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn delete_endpoint(&self, id: EndpointId) -> Result<bool, StoreError> {
        self.db.write(Delete(id.0)).await
    }

    /// Changes an endpoint, if it exists, and answers how it is now.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn change_endpoint(
        &self,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Option<Endpoint>, StoreError> {
        self.db.write(Change(id.0, change, self.clock.now().as_micros())).await?.transpose()
    }

    /// Reads an endpoint.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let row = self.db.query(select("WHERE id = $1")).bind(id.0).fetch_optional().await?;
        row.as_ref().map(read).transpose()
    }

    /// Reads the endpoint with this path.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn endpoint_by_path(&self, path: &str) -> Result<Option<Endpoint>, StoreError> {
        let row = self.db.query(select("WHERE path = $1")).bind(path).fetch_optional().await?;
        row.as_ref().map(read).transpose()
    }

    /// Lists the endpoints of a workflow, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn endpoints(&self, workflow: WorkflowId, request: PageRequest) -> Result<Page<Endpoint>, StoreError> {
        let rows = self
            .db
            .query(select("WHERE workflow_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"))
            .bind(workflow.0)
            .bind(request.before_id())
            .bind(request.rows())
            .fetch_all()
            .await?;
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(request.page(items, |endpoint| endpoint.id.0))
    }
}

fn read(row: &Row) -> Result<Endpoint, StoreError> {
    let previous: Option<Vec<u8>> = row.get("previous_secret")?;
    let until: Option<i64> = row.get("previous_until")?;
    Ok(Endpoint {
        id: EndpointId(row.get("id")?),
        workflow_id: WorkflowId(row.get("workflow_id")?),
        path: row.get("path")?,
        is_active: row.get("is_active")?,
        secret: row.get("secret")?,
        previous_secret: previous.zip(until.map(Timestamp::from_micros)),
        created_at: Timestamp::from_micros(row.get("created_at")?),
        updated_at: Timestamp::from_micros(row.get("updated_at")?),
    })
}
