//! Group commit on SQLite: one task owns the writing connection and puts all requests that wait at the moment into one
//! transaction. While that is being written the next ones gather, so batching needs no timer. Writes of a kind that comes
//! often share statements too: each statement is a way to another thread and back.
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
use super::batch::{Batch, Waiting};
use super::creations::CreateOp;
use super::failure::may_pass;
use super::journal::AppendOp;
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

/// What waits for the writer.
pub(super) enum Write {
    Create(Waiting<CreateOp>),
    Append(Waiting<AppendOp>),
    Other(Box<dyn Job>),
    /// Nothing comes after it.
    Close(oneshot::Sender<()>),
}

impl Write {
    fn durable(&self) -> bool {
        match self {
            Self::Create(waiting) => waiting.item.durable(),
            Self::Append(waiting) => waiting.item.durable(),
            Self::Other(job) => job.durable(),
            Self::Close(_) => true,
        }
    }

    fn fail(self, error: &sqlx::Error) {
        match self {
            Self::Create(waiting) => waiting.settle(Err(StoreError::of(error))),
            Self::Append(waiting) => waiting.settle(Err(StoreError::of(error))),
            Self::Other(job) => job.settle(Some(StoreError::of(error))),
            Self::Close(_) => {}
        }
    }
}

#[derive(Clone)]
pub(super) struct Writer {
    writes: mpsc::Sender<Write>,
    task: std::sync::Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Writer {
    #[expect(clippy::disallowed_methods, reason = "the writer must outlive whoever waits for it")]
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (writes, waiting) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(write_all(connection, waiting));
        Self { writes, task: std::sync::Arc::new(std::sync::Mutex::new(Some(task))) }
    }

    /// Performs `op` in the next transaction and answers when it is committed.
    pub(super) async fn run<O: Op>(&self, op: O) -> Result<O::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.add(Write::Other(Box::new(Pending { op, output: None, reply })))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// The same for what shares its statements with others of its kind.
    pub(super) async fn run_batched<B: Batch>(&self, item: B) -> Result<B::Output, StoreError> {
        let (waiting, answer) = Waiting::new(item);
        self.add(B::queued(waiting))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn add(&self, write: Write) -> Result<(), StoreError> {
        self.writes.try_send(write).map_err(|error| refused(&error))
    }

    /// Waits until everything that was handed in is written. Clones that still write afterwards are refused.
    pub(super) async fn close(self) {
        let task = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let (reply, answer) = oneshot::channel();
        // Last in the queue: everything before it is written when it is answered.
        if self.writes.send(Write::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

/// Why nothing more can be handed in.
pub(super) fn refused<T>(error: &mpsc::error::TrySendError<T>) -> StoreError {
    match error {
        mpsc::error::TrySendError::Full(_) => {
            StoreError::Unavailable(format!("{WAITING_MAX} writes are waiting already"))
        }
        mpsc::error::TrySendError::Closed(_) => closed(),
    }
}

/// Nothing is written any more.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

/// An [`Op`] of any kind.
pub(super) trait Job: Send {
    fn durable(&self) -> bool;
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

async fn write_all(mut db: SqliteConnection, mut waiting: mpsc::Receiver<Write>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut synced = true;
    let mut closing = false;
    while !closing && waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        closing = batch.iter().any(|write| matches!(write, Write::Close(_)));
        let durable = batch.iter().any(Write::durable);
        if synced != durable {
            match set_synced(&mut db, durable).await {
                Ok(()) => synced = durable,
                Err(error) => {
                    batch.drain(..).for_each(|write| write.fail(&error));
                    continue;
                }
            }
        }
        write_batch(&mut db, std::mem::take(&mut batch)).await;
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
async fn write_batch(db: &mut SqliteConnection, batch: Vec<Write>) {
    let mut parts = VecDeque::from([batch]);
    while let Some(mut part) = parts.pop_front() {
        let began = Instant::now();
        match write_once(db, &mut part).await {
            Ok((created, appended)) => {
                meter().committed("write", part.len(), began.elapsed());
                settle(part, created, appended);
            }
            Err(error) if part.len() > 1 && !may_pass(&error) => {
                let rest = part.split_off(part.len() / 2);
                parts.push_front(rest);
                parts.push_front(part);
            }
            Err(error) => part.into_iter().for_each(|write| write.fail(&error)),
        }
    }
}

type Outputs = (Vec<<CreateOp as Batch>::Output>, Vec<<AppendOp as Batch>::Output>);

async fn write_once(db: &mut SqliteConnection, part: &mut [Write]) -> Result<Outputs, sqlx::Error> {
    let written = async {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *db).await?;
        let (mut creations, mut appends) = (Vec::new(), Vec::new());
        for write in part.iter() {
            match write {
                Write::Create(waiting) => creations.push(&waiting.item),
                Write::Append(waiting) => appends.push(&waiting.item),
                Write::Other(_) | Write::Close(_) => {}
            }
        }
        let created = CreateOp::on_sqlite(&creations, db).await?;
        let appended = AppendOp::on_sqlite(&appends, db).await?;
        for write in part.iter_mut() {
            if let Write::Other(job) = write {
                job.perform(db).await?;
            }
        }
        sqlx::query("COMMIT").execute(&mut *db).await?;
        Ok((created, appended))
    };
    let result = written.await;
    if result.is_err() {
        // SQLite may have rolled back by itself, which makes this an error that says nothing new.
        let _ = sqlx::query("ROLLBACK").execute(&mut *db).await;
    }
    result
}

/// Answers everybody whose write is committed.
fn settle(part: Vec<Write>, created: Vec<<CreateOp as Batch>::Output>, appended: Vec<<AppendOp as Batch>::Output>) {
    let (mut created, mut appended) = (created.into_iter(), appended.into_iter());
    for write in part {
        match write {
            Write::Create(waiting) => {
                let output = created.next().ok_or_else(closed);
                waiting.settle(output);
            }
            Write::Append(waiting) => {
                let output = appended.next().ok_or_else(closed);
                waiting.settle(output);
            }
            Write::Other(job) => job.settle(None),
            Write::Close(reply) => {
                let _ = reply.send(());
            }
        }
    }
}
