//! The queue of a single process: a bounded channel.

use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc};

use super::Queue;
use crate::model::id::RunId;

/// Most hints that wait. Beyond that they are dropped: due-claims find those runs.
const HINTS_MAX: usize = 16_384;

/// Hints within one process.
pub struct LocalQueue {
    sender: mpsc::Sender<RunId>,
    receiver: Mutex<mpsc::Receiver<RunId>>,
}

impl Default for LocalQueue {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(HINTS_MAX);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl Queue for LocalQueue {
    fn push(&self, run: RunId) -> BoxFuture<'_, ()> {
        if self.sender.try_send(run).is_err() {
            tracing::debug!(run.id = %run, "the queue of hints is full: the run waits for a due-claim");
        }
        Box::pin(std::future::ready(()))
    }

    fn pop(&self, most: usize) -> BoxFuture<'_, Vec<RunId>> {
        Box::pin(async move {
            let mut runs = Vec::new();
            self.receiver.lock().await.recv_many(&mut runs, most.max(1)).await;
            runs
        })
    }
}
