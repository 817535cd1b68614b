//! The wire: says "look at run X" to whoever executes runs. Everything on it may be lost at any moment, which costs
//! latency and never a run: due runs are claimed from the database directly.

mod local;

use futures::future::BoxFuture;

pub use local::LocalQueue;

use crate::model::id::RunId;

/// Hints that a run wants to be looked at. At most once: what is popped is gone.
pub trait Queue: Send + Sync + 'static {
    /// Leaves a hint. Never fails and never waits for long: a hint that cannot be left is dropped.
    fn push(&self, run: RunId) -> BoxFuture<'_, ()>;

    /// Waits for hints and takes up to `most` of them, at least one. Dropping the future loses no hint.
    fn pop(&self, most: usize) -> BoxFuture<'_, Vec<RunId>>;
}
