//! The load generator: so many connections, each with its next request as soon as it has the answer to the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// No part of a measurement goes on for longer.
pub(super) const LONGEST: Duration = Duration::from_secs(180);

/// Most requests of an open load under way at once. Those that wait are late, and are counted so.
const OPEN_MAX: usize = 512;

/// What was measured: how many, in how long, and how long each took.
pub(super) struct Sample {
    pub(super) count: u64,
    pub(super) time: Duration,
    /// In microseconds; empty where only the whole was measured.
    latency: Histogram<u64>,
}

impl Sample {
    pub(super) fn new() -> anyhow::Result<Self> {
        // From 1 us to 10 minutes, to three digits.
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3)?;
        Ok(Self { count: 0, time: Duration::ZERO, latency })
    }

    /// Something that was done so many times in all that time.
    pub(super) fn whole(count: u64, time: Duration) -> anyhow::Result<Self> {
        Ok(Self { count, time, ..Self::new()? })
    }

    pub(super) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(micros.max(1));
    }

    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.count += other.count;
        self.time += other.time;
        self.latency.add(&other.latency)?;
        Ok(())
    }

    pub(super) fn per_second(&self) -> f64 {
        per_second(self.count, self.time)
    }

    /// Whether it is known how long each took.
    pub(super) fn has_latency(&self) -> bool {
        !self.latency.is_empty()
    }

    /// The time that so many percent stayed below, in milliseconds.
    pub(super) fn percentile_ms(&self, percent: f64) -> f64 {
        Duration::from_micros(self.latency.value_at_percentile(percent)).as_secs_f64() * 1e3
    }
}

/// Counts are far below what a float can hold.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

/// Does `work` `total` times over `connections` tasks, or for as long as the longest measurement may take.
pub(super) async fn closed_loop<F>(
    connections: usize,
    total: u64,
    bar: &ProgressBar,
    work: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> anyhow::Result<Sample>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (left, began) = (Arc::new(AtomicU64::new(total)), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (left, bar, work) = (Arc::clone(&left), bar.clone(), work.clone());
        tasks.spawn(async move {
            let mut sample = Sample::new()?;
            let take = |left: u64| left.checked_sub(1);
            while began.elapsed() < LONGEST && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let start = Instant::now();
                work().await?;
                sample.record(start.elapsed());
                sample.count += 1;
                bar.inc(1);
            }
            anyhow::Ok(sample)
        });
    }
    let mut all = Sample::new()?;
    while let Some(sample) = tasks.join_next().await {
        all.add(&sample??)?;
    }
    all.time = began.elapsed();
    Ok(all)
}

/// Does `work` at fixed times, `rate` times a second for so long, however long it takes. Each is counted from the moment
/// at which it should have begun: whatever holds it up, here or there, is a part of its latency.
pub(super) async fn open_loop<F>(
    rate: f64,
    time: Duration,
    work: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> anyhow::Result<Sample>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let room = Arc::new(Semaphore::new(OPEN_MAX));
    let mut tasks: JoinSet<anyhow::Result<Duration>> = JoinSet::new();
    // What the timer was late for comes at once, and is late.
    let mut arrivals = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let began = Instant::now();
    loop {
        let arrival = arrivals.tick().await;
        if arrival >= began + time {
            break;
        }
        let (room, work) = (Arc::clone(&room), work.clone());
        tasks.spawn(async move {
            let _place = room.acquire().await?;
            work().await?;
            Ok(arrival.elapsed())
        });
    }
    let mut all = Sample::new()?;
    while let Some(took) = tasks.join_next().await {
        all.record(took??);
        all.count += 1;
    }
    all.time = began.elapsed();
    Ok(all)
}
