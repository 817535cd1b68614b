//! What the disk can do: rows of the width of a run, committed durably, with nothing of Weir in between. `weir bench`
//! shows it beside what Weir does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::db::may_pass;
use super::{OpenError, StoreError, sqlite};
use crate::clock::new_id;

/// Bytes of a row beside its keys: what the creation of a run by a webhook writes.
const ROW_BYTES: usize = 320;

/// Rows committed, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Committed {
    /// Rows.
    pub rows: u64,
    /// From the first statement to the last commit.
    pub time: Duration,
}

/// Commits rows into a scratch database in `dir` for about `time`: `writers` connections, each with `batch` rows in a
/// transaction. Durable, with the settings of the real database, and prepared.
///
/// # Errors
/// When there is no room for the database.
pub async fn commit_rows(dir: &Path, writers: usize, batch: usize, time: Duration) -> Result<Committed, OpenError> {
    let path = dir.join(format!("probe-{}.db", new_id()));
    let mut first = sqlite::scratch(&path).await?;
    let table = "CREATE TABLE rows (id BLOB NOT NULL PRIMARY KEY, workflow_id BLOB NOT NULL, content BLOB NOT NULL) WITHOUT ROWID";
    sqlx::query(table).execute(&mut first).await.map_err(StoreError::from)?;
    let mut connections = vec![first];
    for _ in 1..writers {
        connections.push(sqlite::scratch(&path).await?);
    }
    let rows = Arc::new(AtomicU64::new(0));
    let (began, mut writing) = (Instant::now(), JoinSet::new());
    for connection in connections {
        writing.spawn(write(connection, batch, began + time, Arc::clone(&rows)));
    }
    while let Some(written) = writing.join_next().await {
        written.unwrap_or(Ok(())).map_err(StoreError::from)?;
    }
    Ok(Committed { rows: rows.load(Ordering::Relaxed), time: began.elapsed() })
}

async fn write(
    mut db: SqliteConnection,
    batch: usize,
    until: Instant,
    rows: Arc<AtomicU64>,
) -> Result<(), sqlx::Error> {
    let (workflow, content) = (new_id(), vec![b'x'; ROW_BYTES]);
    while Instant::now() < until {
        let mut transaction = match db.begin_with("BEGIN IMMEDIATE").await {
            Ok(transaction) => transaction,
            // Others were always quicker to take the lock: that is what so many writers come to.
            Err(error) if may_pass(&error) => continue,
            Err(error) => return Err(error),
        };
        for _ in 0..batch {
            sqlx::query("INSERT INTO rows (id, workflow_id, content) VALUES ($1, $2, $3)")
                .bind(new_id())
                .bind(workflow)
                .bind(&content)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        rows.fetch_add(batch as u64, Ordering::Relaxed);
    }
    db.close().await
}
