//! The ambient: time, randomness and fresh ids. What decides anything takes the time from a [`Clock`], which a test
//! can hold; only measurements and timeouts of requests read the machine's time elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use uuid::Uuid;

use crate::model::time::Timestamp;

/// Time, as the store and the engine see it.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Completes at `at`, or at once when that has passed.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(0).plus(since_epoch)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // The wall clock may be set while this sleeps: a look a day is enough for waits that long.
            while SystemClock.now() < at {
                tokio::time::sleep(at.since(SystemClock.now()).min(Duration::from_secs(86_400))).await;
            }
        })
    }
}

/// The clock of a database that several processes share, as this process knows it: what the database said last, and the
/// time that has passed since. All processes then agree on when a lease ends, whatever their machines' clocks say.
#[derive(Clone, Debug)]
pub struct SharedClock {
    began: std::time::Instant,
    /// The time of the database at `began`, in microseconds.
    origin: Arc<AtomicI64>,
}

impl Default for SharedClock {
    #[expect(clippy::disallowed_methods, reason = "time that passes is measured from here")]
    fn default() -> Self {
        Self { began: std::time::Instant::now(), origin: Arc::new(AtomicI64::new(SystemClock.now().as_micros())) }
    }
}

impl SharedClock {
    /// Takes over what the database says that it is now.
    pub fn set(&self, now: Timestamp) {
        let passed = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.origin.store(now.as_micros().saturating_sub(passed), Ordering::Relaxed);
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.origin.load(Ordering::Relaxed)).plus(self.began.elapsed())
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            while clock.now() < at {
                tokio::time::sleep(at.since(clock.now()).min(Duration::from_secs(60))).await;
            }
        })
    }
}

/// A fresh id: a UUID of version 7, so that ids sort by creation.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// A fresh random token: a UUID of version 4.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that makes tokens")]
pub fn new_token() -> Uuid {
    Uuid::new_v4()
}

/// A random number in `0.0..1.0`, for jitter.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that rolls dice")]
pub fn jitter() -> f64 {
    rand::random()
}

/// Random bytes from the operating system's generator, for keys and nonces.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that makes keys")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes[..]);
    bytes
}
