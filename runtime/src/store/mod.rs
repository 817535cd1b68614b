//! The database is the truth. The only user of sqlx.
//!
//! Everything that was acknowledged is in here and on disk; nothing outside needs to survive a crash. A run advances
//! only through [`Store::append`], which is fenced by the claim's random token together with the journal's sequence
//! number. Writes that come often are committed together: on SQLite by the one task that may write ([`writer`]), on
//! Postgres by a task for each kind of write ([`lane`]). `tests/it/contract/` holds what every database must do.

mod batch;
mod claims;
mod cluster;
mod creations;
mod db;
mod endpoints;
mod facts;
mod failure;
mod grants;
mod import;
mod inbox;
mod journal;
mod keys;
mod lane;
mod original;
mod page;
mod plugins;
mod postgres;
pub mod probe;
mod pulse;
mod reseal;
mod retention;
mod runs;
mod secrets;
mod sql;
mod sqlite;
mod tables;
mod transfer;
mod versions;
mod workflows;
mod writer;

use std::sync::Arc;

pub use claims::{Claim, Claimed, INTERRUPTS_SUSPECT};
pub use creations::{Begun, Caller, Created, Idempotency, NewRun};
pub use db::{Location, OpenError, backup, migrate};
pub use endpoints::{Endpoint, EndpointChange, NewEndpoint, PathTaken};
pub use facts::MASTER_KEY;
pub use grants::{PluginUse, StoredGrant};
pub use import::{Brought, ImportedEndpoint, ImportedRun, ImportedWorkflow};
pub use inbox::Sent;
pub use journal::{Append, Appended, Entry, Next};
pub use keys::{ApiKey, KeyHash};
pub use original::{Original, OriginalEndpoint, OriginalError, OriginalRuns, OriginalWorkflow};
pub use page::{Page, PageRequest};
pub use plugins::{Added, NewPlugin, PluginVersion, StoredSignature, VersionStatus};
pub use reseal::SealedAt;
pub use retention::Swept;
pub use runs::{RunFilter, RunRow, Status};
pub use secrets::SealedSecret;
pub use transfer::{TransferError, copy};
pub use versions::Deleted;
pub use workflows::{NewRevision, Revision, Saved, Workflow, WorkflowChange};

use crate::clock::Clock;
use crate::model::time::Timestamp;

/// A database, open for one process.
#[derive(Clone)]
pub struct Store {
    db: db::Db,
    clock: Arc<dyn Clock>,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, the database is away, or too much is waiting. Trying again later may help, and nothing is
    /// half-written. Whether a write that had begun happened is to be read back.
    #[error("the database cannot do this now: {0}")]
    Unavailable(String),
    /// Trying again will not help.
    #[error("the database refused: {0}")]
    Refused(String),
    /// A stored value cannot be read by this version.
    #[error("a stored value cannot be read: {0}")]
    Unreadable(String),
}

impl StoreError {
    fn of(error: &sqlx::Error) -> Self {
        if failure::may_pass(error) { Self::Unavailable(error.to_string()) } else { Self::Refused(error.to_string()) }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::of(&error)
    }
}

impl Store {
    /// Opens (and, where it is new or older, migrates) the database at `location`.
    ///
    /// An embedded database is opened for this process alone: claims of an earlier process are void from here on, since
    /// nobody else can hold one.
    ///
    /// # Errors
    /// [`OpenError`], in particular when another process has an embedded database open.
    pub async fn open(location: &Location, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = Self { db: db::Db::open(location, false).await?, clock };
        if let Location::Embedded { .. } = location {
            store.void_claims().await?;
        }
        Ok(store)
    }

    /// Opens the database for a few words beside whatever process has it open; as [`Store::open`] where there is none, but
    /// claims stay as they are.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_beside(location: &Location, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Ok(Self { db: db::Db::open(location, true).await?, clock })
    }

    /// Waits until everything handed to the store is written, then closes it.
    pub async fn close(self) {
        self.db.close().await;
    }

    /// What time it is for a database that several processes share. An embedded one goes by the clock of its process.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn time(&self) -> Result<Option<Timestamp>, StoreError> {
        if let db::Db::Sqlite { .. } = self.db {
            return Ok(None);
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now";
        let row = self.db.query(sql).fetch_one().await?;
        Ok(Some(Timestamp::from_micros(row.get("now")?)))
    }

    /// The clock that leases and due times are measured by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

fn json_bytes<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Unreadable(error.to_string()))
}
