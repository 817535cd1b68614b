//! The slow lane: threads of the lowest priority for guests that compute for long.
//!
//! A call starts where it is awaited, which costs nothing. One that still computes after some ticks of the epoch goes
//! on here, so that a tool without an end takes the processor's idle time and not the time of other runs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Ticks of the epoch that a guest may compute on the caller's thread.
const TICKS_ON_CALLER: u64 = 3;

/// A shorter slice says nothing about who wants the processor.
const SLICE_MIN: Duration = Duration::from_millis(1);

/// The part of a slice that a thread has the processor for, when nobody else wants it.
const ALONE: f64 = 0.8;

/// How many times as long as a slice the rest after it takes, and the longest rest.
const REST_SLICES: u32 = 10;
const REST_MAX: Duration = Duration::from_millis(200);

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
            None => AbortOnDropHandle::new(self.runtime.as_ref()?.spawn(paced(call))).await.ok(),
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

/// Rests after every slice in which others wanted the processor.
///
/// The lowest priority is not enough: a processor that is never idle answers to everybody else more slowly. Where nobody
/// else wants it, a call goes on at full speed.
async fn paced<T>(mut call: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    poll_fn(move |context| {
        let (began, computed) = (Instant::now(), thread_time());
        let polled = call.as_mut().poll(context);
        let slice = began.elapsed();
        if polled.is_pending() && slice >= SLICE_MIN && thread_time().saturating_sub(computed) < slice.mul_f64(ALONE) {
            // This thread has nothing else to do than such calls.
            std::thread::sleep((slice * REST_SLICES).min(REST_MAX));
        }
        polled
    })
    .await
}

/// Processor time of this thread so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// On Linux a nice value belongs to a thread; elsewhere it is the process's, and is left alone.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "guests that compute for long run at the priority of everything else");
    }
}
