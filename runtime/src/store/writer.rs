//! Group commit on SQLite: one task owns the writing connection and puts all requests that wait at the moment into one
//! transaction. While that is being written the next ones gather, so batching needs no timer.
//!
//! Nobody can cancel the task: a caller that goes away leaves its operation to be finished, and no transaction is
//! ever left open half-way.

use std::collections::VecDeque;

use futures::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::StoreError;
use super::failure::may_pass;
use super::sql::Connection;
use crate::meter::meter;

/// Most operations in one transaction.
pub(super) const BATCH_MAX: usize = 256;

/// Most operations that wait; beyond that the store is unavailable, so that a slow disk becomes a clear answer at
/// the door and not memory.
pub(super) const WAITING_MAX: usize = 4096;

/// One write, of one statement or several. It may be performed again after a rollback, and must then do the same.
pub(super) trait Op: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Whether the caller's answer promises that the write is on disk. What does not is as safe against the death of
    /// the process, and may be lost when the machine loses power; only one statement of it writes.
    fn durable(&self) -> bool {
        true
    }

    fn perform(&self, db: &mut Connection<'_>) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    task: std::sync::Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Writer {
    #[expect(clippy::disallowed_methods, reason = "the writer must outlive whoever waits for it")]
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(write_all(connection, waiting));
        Self { jobs, task: std::sync::Arc::new(std::sync::Mutex::new(Some(task))) }
    }

    /// Performs `op` in the next transaction and answers when it is committed.
    pub(super) async fn run<O: Op>(&self, op: O) -> Result<O::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending { op, output: None, reply });
        self.jobs.try_send(job).map_err(|error| {
            StoreError::Unavailable(match error {
                mpsc::error::TrySendError::Full(_) => format!("{WAITING_MAX} writes are waiting already"),
                mpsc::error::TrySendError::Closed(_) => "the store is closed".to_owned(),
            })
        })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store is closed".to_owned())))
    }

    /// Waits until everything that was handed in is written. Clones that still write afterwards are refused.
    pub(super) async fn close(self) {
        let task = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let (reply, answer) = oneshot::channel();
        // Last in the queue: everything before it is written when it is answered.
        if self.jobs.send(Box::new(Pending { op: Close, output: None, reply })).await.is_ok() {
            let _ = answer.await;
        }
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

/// Ends the writer.
struct Close;

impl Op for Close {
    type Output = ();

    async fn perform(&self, _: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

trait Job: Send {
    fn durable(&self) -> bool;
    fn is_close(&self) -> bool;
    fn perform<'a>(&'a mut self, db: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), sqlx::Error>>;
    fn settle(self: Box<Self>, failure: Option<StoreError>);
}

struct Pending<O: Op> {
    op: O,
    output: Option<O::Output>,
    reply: oneshot::Sender<Result<O::Output, StoreError>>,
}

impl<O: Op> Job for Pending<O> {
    fn durable(&self) -> bool {
        self.op.durable()
    }

    fn is_close(&self) -> bool {
        std::any::TypeId::of::<O>() == std::any::TypeId::of::<Close>()
    }

    fn perform<'a>(&'a mut self, db: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            self.output = Some(self.op.perform(&mut Connection::Sqlite(db)).await?);
            Ok(())
        })
    }

    fn settle(self: Box<Self>, failure: Option<StoreError>) {
        let result = match (failure, self.output) {
            (Some(failure), _) => Err(failure),
            (None, Some(output)) => Ok(output),
            (None, None) => Err(StoreError::Unavailable("the write was not performed".to_owned())),
        };
        // The caller may be gone; the write stands all the same.
        let _ = self.reply.send(result);
    }
}

async fn write_all(mut db: SqliteConnection, mut waiting: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut synced = true;
    let mut closing = false;
    while !closing && waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        closing = batch.iter().any(|job| job.is_close());
        let durable = batch.iter().any(|job| job.durable());
        if synced != durable {
            match set_synced(&mut db, durable).await {
                Ok(()) => synced = durable,
                Err(error) => {
                    settle_all(batch.drain(..), &error);
                    continue;
                }
            }
        }
        write_batch(&mut db, batch.drain(..).collect()).await;
    }
    waiting.close();
    if let Err(error) = db.close().await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

/// In WAL mode FULL flushes each commit to disk, together with all commits before it, and NORMAL leaves that to the
/// next one that does.
async fn set_synced(db: &mut SqliteConnection, synced: bool) -> Result<(), sqlx::Error> {
    let pragma = if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
    sqlx::query(pragma).execute(db).await.map(|_| ())
}

/// Writes a batch in one transaction. When an operation fails for a reason of its own, the batch is split until the
/// culprit stands alone; when the database as a whole cannot write, all of them fail.
async fn write_batch(db: &mut SqliteConnection, batch: VecDeque<Box<dyn Job>>) {
    let mut parts = VecDeque::from([batch]);
    while let Some(mut part) = parts.pop_front() {
        let began = Instant::now();
        match write_once(db, &mut part).await {
            Ok(()) => {
                meter().committed("write", part.len(), began.elapsed());
                part.into_iter().for_each(|job| job.settle(None));
            }
            Err(error) if part.len() > 1 && !may_pass(&error) => {
                let rest = part.split_off(part.len() / 2);
                parts.push_front(rest);
                parts.push_front(part);
            }
            Err(error) => settle_all(part, &error),
        }
    }
}

async fn write_once(db: &mut SqliteConnection, part: &mut VecDeque<Box<dyn Job>>) -> Result<(), sqlx::Error> {
    let written = async {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *db).await?;
        for job in part.iter_mut() {
            job.perform(db).await?;
        }
        sqlx::query("COMMIT").execute(&mut *db).await.map(|_| ())
    };
    let result = written.await;
    if result.is_err() {
        // SQLite may have rolled back by itself, which makes this an error that says nothing new.
        let _ = sqlx::query("ROLLBACK").execute(&mut *db).await;
    }
    result
}

fn settle_all(jobs: impl IntoIterator<Item = Box<dyn Job>>, error: &sqlx::Error) {
    for job in jobs {
        job.settle(Some(StoreError::of(error)));
    }
}
