//! The wire of a single process: bounded queues in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::{Notify, broadcast};

use super::{HotCopy, News, Wire};
use crate::model::definition::Priority;
use crate::model::id::RunId;

/// Most hints of one priority that wait. Beyond that they are dropped: due-claims find those runs.
const HINTS_MAX: usize = 16_384;

/// Hints by priority, the highest first.
#[derive(Default)]
pub(super) struct Hints {
    waiting: Mutex<[VecDeque<RunId>; Priority::ALL.len()]>,
    came: Notify,
}

impl Hints {
    /// Adds hints, as far as there is room.
    pub(super) fn add(&self, runs: impl IntoIterator<Item = RunId>, priority: Priority) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = &mut waiting[priority as usize];
        for run in runs {
            if queue.len() == HINTS_MAX {
                tracing::debug!(run.id = %run, "the queue of hints is full: the run waits for a due-claim");
                break;
            }
            queue.push_back(run);
        }
        self.came.notify_one();
    }

    /// Takes up to `most`, at least one; waits for it.
    pub(super) async fn take(&self, most: usize) -> Vec<RunId> {
        loop {
            let taken = self.take_now(most.max(1));
            if !taken.is_empty() {
                return taken;
            }
            self.came.notified().await;
        }
    }

    fn take_now(&self, most: usize) -> Vec<RunId> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        for queue in waiting.iter_mut() {
            let fits = queue.len().min(most - taken.len());
            taken.extend(queue.drain(..fits));
        }
        taken
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().map(VecDeque::len).sum()
    }
}

/// Hints within one process. Nobody else is there to be told anything.
pub struct LocalWire {
    hints: Hints,
    news: broadcast::Sender<News>,
}

impl Default for LocalWire {
    fn default() -> Self {
        Self { hints: Hints::default(), news: broadcast::channel(1).0 }
    }
}

impl Wire for LocalWire {
    fn push(&self, run: RunId, priority: Priority) {
        self.hints.add([run], priority);
    }

    fn pop(&self, most: usize) -> BoxFuture<'_, Vec<RunId>> {
        Box::pin(self.hints.take(most))
    }

    fn shows(&self) -> bool {
        false
    }

    fn show(&self, _: HotCopy) {}

    fn tell(&self, _: News) {}

    fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    fn is_up(&self) -> bool {
        true
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn hints_of_high_priority_come_first_and_each_once() {
        let (wire, run) = (LocalWire::default(), |n| RunId(Uuid::from_u128(n)));
        for (n, priority) in [(1, Priority::Low), (2, Priority::Normal), (3, Priority::High), (4, Priority::Normal)] {
            wire.push(run(n), priority);
        }
        assert_eq!(wire.pop(3).await, [run(3), run(2), run(4)]);
        assert_eq!(wire.pop(0).await, [run(1)]);
        assert_eq!(wire.hints.len(), 0);
    }
}
