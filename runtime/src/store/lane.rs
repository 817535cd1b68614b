//! Group commit on Postgres: what waits at the moment is written by one statement, and what comes meanwhile gathers for
//! the next. A lane is one kind of write with a connection and a task of its own, so nobody can cancel it half-way.
//!
//! Every kind of write in a lane may be repeated: whether a statement whose connection broke was performed is found out
//! by performing it again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::batch::{Batch, Waiting};
use super::failure::{COLLISIONS_MAX, collided, is_held_up, may_pass};
use super::postgres;
use super::sql::in_time;
use super::writer::{BATCH_MAX, WAITING_MAX, closed, refused};
use crate::meter::meter;

/// How often a batch is tried again on a new connection, when its connection broke.
const RECONNECTS_MAX: u32 = 2;

/// After so many writes of a batch that a locked row held up, what is held up besides is not looked for any more.
const HELD_UP_MAX: usize = 8;

/// How long a statement of a lane waits for a locked row. Whoever waits for its own row shall not stop all others for long.
const LOCK_TIMEOUT: &str = "500ms";

/// Most bytes of one statement, unless a single write has more.
const PART_MAX_BYTES: usize = 8 << 20;

/// Where writes of one kind wait for their batch.
pub(super) struct Lane<B: Batch> {
    waiting: mpsc::Sender<Waiting<B>>,
    closing: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<B: Batch> Lane<B> {
    /// A lane for one `kind` of write, as the metrics call it.
    #[expect(clippy::disallowed_methods, reason = "the lane must outlive whoever waits for it")]
    pub(super) fn start(kind: &'static str, options: PgConnectOptions) -> Self {
        let (waiting, gathered) = mpsc::channel(WAITING_MAX);
        let closing = CancellationToken::new();
        let options = options.options([("lock_timeout", LOCK_TIMEOUT)]);
        let worker = Worker { kind, options, connection: None };
        let task = Mutex::new(Some(tokio::spawn(worker.write_all(gathered, closing.clone()))));
        Self { waiting, closing, task }
    }

    /// Writes with the next batch.
    pub(super) async fn run(&self, item: B) -> Result<B::Output, StoreError> {
        let (waiting, answer) = Waiting::new(item);
        self.waiting.try_send(waiting).map_err(|error| refused(&error))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Waits until everything that was handed in is written. What comes later is refused.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

/// A batch in parts of not much more than [`PART_MAX_BYTES`].
fn fitting<B: Batch>(batch: Vec<Waiting<B>>) -> VecDeque<Vec<Waiting<B>>> {
    let (mut parts, mut size) = (VecDeque::from([Vec::with_capacity(batch.len())]), 0);
    for waiting in batch {
        size += waiting.item.size_bytes();
        match parts.back_mut() {
            Some(part) if size <= PART_MAX_BYTES || part.is_empty() => part.push(waiting),
            _ => {
                size = waiting.item.size_bytes();
                parts.push_back(vec![waiting]);
            }
        }
    }
    parts
}

struct Worker {
    kind: &'static str,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Worker {
    async fn write_all<B: Batch>(mut self, mut gathered: mpsc::Receiver<Waiting<B>>, closing: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased;
                taken = gathered.recv_many(&mut batch, BATCH_MAX) => if taken == 0 { break },
                () = closing.cancelled(), if !gathered.is_closed() => {
                    gathered.close();
                    continue;
                }
            }
            // Whoever does not wait any more was told that it failed, or is gone: then it had better not happen.
            batch.retain(|waiting: &Waiting<B>| !waiting.is_given_up());
            self.write(std::mem::take(&mut batch)).await;
        }
        if let Some(connection) = self.connection {
            // The server notices by itself.
            let _ = in_time(connection.close()).await;
        }
    }

    /// Writes a batch. When it fails for a reason of its own, or is held up by a locked row, it is split until the culprit
    /// stands alone; when the database as a whole cannot write, all of it fails.
    async fn write<B: Batch>(&mut self, mut batch: Vec<Waiting<B>>) {
        B::sort(&mut batch);
        let (mut parts, mut held_up) = (fitting(batch), 0);
        while let Some(mut part) = parts.pop_front() {
            if part.is_empty() {
                continue;
            }
            let began = Instant::now();
            match self.write_stubbornly(&part).await {
                Ok(outputs) => {
                    meter().committed(self.kind, part.len(), began.elapsed());
                    for (waiting, output) in part.into_iter().zip(outputs) {
                        waiting.settle(Ok(output));
                    }
                }
                Err(error)
                    if part.len() > 1 && (!may_pass(&error) || (is_held_up(&error) && held_up < HELD_UP_MAX)) =>
                {
                    let rest = part.split_off(part.len() / 2);
                    parts.push_front(rest);
                    parts.push_front(part);
                }
                Err(error) => {
                    held_up += usize::from(is_held_up(&error));
                    for waiting in part {
                        waiting.settle(Err(StoreError::of(&error)));
                    }
                }
            }
        }
    }

    /// Writes once more after a collision, and on a new connection after the old one broke.
    async fn write_stubbornly<B: Batch>(&mut self, part: &[Waiting<B>]) -> Result<Vec<B::Output>, sqlx::Error> {
        let (mut collisions, mut reconnects) = (0, 0);
        loop {
            let error = match self.write_once(part).await {
                Ok(outputs) => return Ok(outputs),
                Err(error) => error,
            };
            if collided(&error) && collisions < COLLISIONS_MAX {
                collisions += 1;
                continue;
            }
            if !may_pass(&error) || is_held_up(&error) {
                return Err(error);
            }
            // The connection may be broken, or be in the middle of an answer.
            self.connection = None;
            let timed_out = matches!(&error, sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut);
            if timed_out || reconnects == RECONNECTS_MAX {
                return Err(error);
            }
            reconnects += 1;
        }
    }

    async fn write_once<B: Batch>(&mut self, part: &[Waiting<B>]) -> Result<Vec<B::Output>, sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(postgres::connect(&self.options).await?),
        };
        let items: Vec<&B> = part.iter().map(|waiting| &waiting.item).collect();
        in_time(B::on_postgres(&items, connection)).await
    }
}
