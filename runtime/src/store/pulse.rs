//! How the database does: whether requests can be accepted, and what `/metrics` tells of it.

use std::time::Duration;

use super::db::Db;
use super::{Store, StoreError, postgres, sqlite};
use crate::model::time::Timestamp;

impl Store {
    /// Whether the database answers and has the schema that this version needs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with what is wrong.
    pub async fn ready(&self) -> Result<(), StoreError> {
        let row =
            self.db.query("SELECT max(version) AS version FROM _sqlx_migrations WHERE success").fetch_one().await?;
        let known = match self.db {
            Db::Sqlite { .. } => sqlite::migrations(),
            Db::Postgres(_) => postgres::migrations(),
        };
        let (found, needed): (Option<i64>, _) = (row.get("version")?, known.iter().map(|step| step.version).max());
        if found >= needed {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!("the schema is at step {found:?}; this version needs {needed:?}")))
    }

    /// How long the run that is due longest waits for somebody to claim it; zero when none does.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn oldest_claimable(&self) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        let sql = "SELECT due_at FROM runs WHERE due_at <= $1 AND (claim IS NULL OR lease_until <= $1) \
                   ORDER BY due_at LIMIT 1";
        let row = self.db.query(sql).bind(now.as_micros()).fetch_optional().await?;
        let oldest = row.map(|row| row.get("due_at")).transpose()?.map(Timestamp::from_micros);
        Ok(oldest.map_or(Duration::ZERO, |due_at| now.since(due_at)))
    }

    /// Connections for requests: how many are in use, and how many idle.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let (size, idle) = match &self.db {
            Db::Sqlite { readers, .. } => (readers.size(), readers.num_idle()),
            Db::Postgres(cluster) => (cluster.pool.size(), cluster.pool.num_idle()),
        };
        (usize::try_from(size).unwrap_or(idle).saturating_sub(idle), idle)
    }
}
