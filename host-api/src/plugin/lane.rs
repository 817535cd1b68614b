//! The slow lane: threads of the lowest priority for guests that compute for long.
//!
//! A call starts where it is awaited, which costs nothing. One that still computes after some ticks of the epoch goes
//! on here, so that a tool without an end takes the processor's idle time and not the time of other runs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// Ticks of the epoch that a guest may compute on the caller's thread.
const TICKS_ON_CALLER: u64 = 3;

pub(super) struct SlowLane {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl SlowLane {
    pub(super) fn new() -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("weir-slow-guest")
            .on_thread_start(lower_priority)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs `call` to its end: on the caller's thread, or here as soon as `ticks` says that it computes for long.
    /// Dropping the future gives the call up.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        mut call: Pin<Box<dyn Future<Output = T> + Send>>,
        ticks: impl Fn() -> u64,
    ) -> Option<T> {
        let ended = poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(report) => Poll::Ready(Some(report)),
            Poll::Pending if ticks() >= TICKS_ON_CALLER => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match ended.await {
            Some(report) => Some(report),
            None => AbortOnDropHandle::new(self.runtime.as_ref()?.spawn(call)).await.ok(),
        }
    }

    /// Runs something that blocks, such as a compilation.
    pub(super) async fn run_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.runtime.as_ref()?.spawn_blocking(work).await.ok()
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        // A runtime must not wait for its threads where somebody else's future runs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// On Linux a nice value belongs to a thread; elsewhere it is the process's, and is left alone.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "guests that compute for long run at the priority of everything else");
    }
}
