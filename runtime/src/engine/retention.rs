//! Retention: deletes what ended long ago, in small parts with pauses, so that nobody else waits for it. Every process
//! that executes runs does it, at moments of its own; two at once delete each run once.

use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::clock::jitter;
use crate::store::StoreError;

/// From one walk through the old runs to the next.
const EVERY: Duration = Duration::from_secs(3600);

/// Longest wait for the first walk after a start.
const FIRST: Duration = Duration::from_secs(5);

/// Runs that are looked at in one transaction.
const PART: u32 = 200;

/// Least pause after a part; it is as long as the part took, so that the database is idle half of the time.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Walks until the engine stops.
pub(super) async fn keep(engine: Engine) {
    let Some(kept) = engine.inner.settings.retention else { return };
    let mut pause = FIRST.mul_f64(jitter());
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = engine.inner.stopping.cancelled() => return,
        }
        match walk(&engine, kept).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "runs that ended long ago are deleted"),
            Err(error) => tracing::warn!(%error, "runs that ended long ago cannot be deleted now"),
        }
        pause = EVERY.mul_f64(0.5 + jitter() / 2.0);
    }
}

async fn walk(engine: &Engine, kept: Duration) -> Result<u64, StoreError> {
    let store = &engine.inner.bench.store;
    let ended_before = store.clock().now().minus(kept);
    let (mut after, mut deleted) = (None, 0);
    while !engine.inner.stopping.is_cancelled() {
        let began = Instant::now();
        let swept = store.sweep(after, ended_before, PART).await?;
        deleted += u64::from(swept.deleted);
        let Some(last) = swept.last else { break };
        after = Some(last);
        tokio::time::sleep(began.elapsed().max(PAUSE_MIN)).await;
    }
    Ok(deleted)
}
