//! The wire: says "look at run X" to whoever executes runs, and shows what runs are like to whoever reads along.
//! Everything on it may be lost at any moment, which costs latency and never a run: due runs are claimed from the
//! database directly.

mod link;
mod local;
mod popper;
mod redis;
mod sender;
mod state;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::broadcast;

pub use link::{RedisSettings, WireError};
pub use local::LocalWire;
pub use redis::RedisWire;
pub use state::{failed, queued, state};

use crate::model::definition::Priority;
use crate::model::id::RunId;

/// Something that happened to a run, for the other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is over.
    Finished(RunId),
    /// A message is in its inbox.
    Message(RunId),
    /// The same, and the message cancels it: whoever executes runs may end it at once.
    Canceled(RunId),
}

/// The state of a run for whoever reads along. It is made only when it is written: of the copies that come while one is
/// being written, the newest is enough.
pub struct HotCopy {
    /// The run.
    pub run: RunId,
    /// Appends so far. A copy never replaces one of more appends.
    pub seq: u64,
    /// Whether the run is over.
    pub last: bool,
    /// About how many bytes of results it holds.
    pub size_bytes: usize,
    /// Makes the JSON.
    pub body: Box<dyn FnOnce() -> Value + Send>,
}

/// Hints, copies and news. Nothing here fails or waits for long: what cannot be delivered is dropped.
pub trait Wire: Send + Sync + 'static {
    /// Leaves a hint that a run wants to be looked at.
    fn push(&self, run: RunId, priority: Priority);

    /// Waits for hints and takes up to `most` of them, at least one, those of high priority first. At most once: what is
    /// taken is gone. Dropping the future loses no hint.
    fn pop(&self, most: usize) -> BoxFuture<'_, Vec<RunId>>;

    /// Whether copies are shown to anybody.
    fn shows(&self) -> bool;

    /// Shows the state of a run.
    fn show(&self, copy: HotCopy);

    /// Tells the other processes.
    fn tell(&self, news: News);

    /// What other processes tell.
    fn news(&self) -> broadcast::Receiver<News>;

    /// Whether hints reach other processes at the moment.
    fn is_up(&self) -> bool;

    /// Delivers what was handed over, as far as that is possible now, and ends.
    fn close(&self) -> BoxFuture<'_, ()>;
}
