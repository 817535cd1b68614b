//! The drivers of a process: each is a task that advances one run, under a permit that bounds how many there are.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::Engine;
use super::claims::Hold;
use super::persist::Drove;
use crate::meter::meter;
use crate::model::id::{RunId, WorkflowId};
use crate::model::time::Timestamp;
use crate::wire::News;

/// What a driver has the right to be with. None for a run that ends before anything is performed.
pub(super) type Permit = Option<OwnedSemaphorePermit>;

/// A claim whose driver ended without giving it back.
pub(super) struct Unreleased {
    pub(super) hold: Arc<Hold>,
    /// Whether the process is about to end: then the run is free at once, and rests otherwise.
    pub(super) at_once: bool,
    /// Whether the next claim counts an interruption.
    pub(super) counts: bool,
}

/// The drivers of this process.
pub(super) struct Drivers {
    permits: Arc<Semaphore>,
    permits_max: usize,
    tasks: TaskTracker,
    /// The claims in use.
    held: Mutex<HashMap<RunId, Arc<Hold>>>,
    unreleased: Mutex<Vec<Unreleased>>,
    /// Held as long as a suspect is driven.
    suspect: Arc<Semaphore>,
    /// A driver ended that leaves something to do.
    left: Notify,
    dropping: CancellationToken,
}

/// What a driver is told of its run.
pub(super) struct Driven {
    pub(super) hold: Arc<Hold>,
    pub(super) workflow_id: WorkflowId,
    pub(super) created_at: Timestamp,
    pub(super) permit: Permit,
    /// Held by the driver of a suspect.
    pub(super) alone: Permit,
}

impl Drivers {
    /// None yet, and never more than `most` with a permit.
    pub(super) fn new(most: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most)),
            permits_max: most,
            tasks: TaskTracker::new(),
            held: Mutex::default(),
            unreleased: Mutex::default(),
            suspect: Arc::new(Semaphore::new(1)),
            left: Notify::new(),
            dropping: CancellationToken::new(),
        }
    }

    /// How many more there may be.
    pub(super) fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// Waits until there may be one more.
    pub(super) async fn freed(&self) {
        // The permit goes back at once; nobody closes the semaphore.
        let _ = self.permits.acquire().await;
    }

    /// Up to so many permits.
    pub(super) fn take(&self, most: usize) -> Vec<OwnedSemaphorePermit> {
        std::iter::from_fn(|| Arc::clone(&self.permits).try_acquire_owned().ok()).take(most).collect()
    }

    /// A permit for a run that begins with its creation. The other half is for runs that wait in the queue.
    pub(super) fn take_early(&self) -> Option<OwnedSemaphorePermit> {
        let fits = self.free() * 2 > self.permits_max;
        fits.then(|| Arc::clone(&self.permits).try_acquire_owned().ok()).flatten()
    }

    /// The right to drive the one suspect of this process.
    pub(super) fn take_suspect(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.suspect).try_acquire_owned().ok()
    }

    /// The claims in use.
    pub(super) fn held(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Hold>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a driver has ended that leaves something to do.
    pub(super) async fn left(&self) {
        self.left.notified().await;
    }

    /// The claims that could not be given back yet.
    pub(super) fn take_unreleased(&self) -> Vec<Unreleased> {
        std::mem::take(&mut self.unreleased.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers a claim that is to be given back.
    pub(super) fn leave(&self, unreleased: Unreleased) {
        self.unreleased.lock().unwrap_or_else(PoisonError::into_inner).push(unreleased);
    }

    /// Waits for all drivers until `deadline`, and drops those that are left.
    pub(super) async fn end(&self, deadline: impl Future<Output = ()>) {
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = deadline => {}
        }
        self.dropping.cancel();
        self.tasks.wait().await;
    }
}

impl Engine {
    /// Runs `task` to its end, even when the engine is told to stop.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.inner.drivers.tasks.spawn(task)
    }

    /// Drives a run in a task of its own.
    pub(super) fn drive(&self, driven: Driven, driving: BoxFuture<'static, Drove>) {
        let (engine, hold) = (self.clone(), Arc::clone(&driven.hold));
        {
            let mut held = self.inner.drivers.held();
            held.insert(hold.run(), hold);
            meter().executing(held.len());
        }
        let span = tracing::info_span!("run", run.id = %driven.hold.run(), workflow.id = %driven.workflow_id);
        drop(self.spawn(async move { engine.see_through(driven, driving).await }.instrument(span)));
    }

    async fn see_through(self, driven: Driven, driving: BoxFuture<'static, Drove>) {
        let (drivers, run) = (&self.inner.drivers, driven.hold.run());
        let drove = tokio::select! {
            drove = AssertUnwindSafe(driving).catch_unwind() => Some(drove),
            () = drivers.dropping.cancelled() => None,
        };
        match &drove {
            Some(Ok(Drove::Finished(outcome))) => {
                tracing::info!(outcome = outcome.as_str(), "the run is over");
                meter().finished(outcome.as_str(), self.inner.bench.clock.now().since(driven.created_at));
                // Nobody may be waiting for it.
                let _ = self.inner.finished.send(run);
                self.inner.bench.wire.tell(News::Finished(run));
            }
            Some(Ok(Drove::Lost)) => {
                tracing::warn!("somebody else holds the run now");
                meter().lease_lost();
            }
            Some(Ok(Drove::Released | Drove::Unread | Drove::Stuck)) => {}
            Some(Err(_)) => tracing::error!("the driver of the run panicked: this is a defect"),
            None => tracing::info!("the run is released with an attempt under way"),
        }
        {
            // The run may have been claimed again already: then the entry is the next driver's.
            let mut held = drivers.held();
            if held.get(&run).is_some_and(|hold| Arc::ptr_eq(hold, &driven.hold)) {
                held.remove(&run);
            }
            meter().executing(held.len());
        }
        let at_once = drove.is_none();
        let counts = match drove {
            Some(Ok(Drove::Finished(_) | Drove::Released)) => None,
            // A claim that was lost may be nobody's: a crash of the database can take a note back and leave the claim.
            Some(Ok(Drove::Unread | Drove::Lost)) | None => Some(false),
            Some(Ok(Drove::Stuck) | Err(_)) => Some(true),
        };
        let suspect = driven.alone.is_some();
        if let Some(counts) = counts {
            drivers.leave(Unreleased { hold: driven.hold, at_once, counts });
        }
        drop((driven.permit, driven.alone));
        if suspect || counts.is_some() {
            drivers.left.notify_one();
        }
    }
}
