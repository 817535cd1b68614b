//! A clock that stands still until a test moves it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use weir::clock::Clock;
use weir::model::time::Timestamp;

/// Time in the hands of a test. Clones share it.
#[derive(Clone)]
pub struct ManualClock {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    now: Timestamp,
    next_id: u64,
    sleepers: BTreeMap<u64, (Timestamp, Option<Waker>)>,
}

impl Default for ManualClock {
    fn default() -> Self {
        let inner = Inner { now: Timestamp::from_micros(1_800_000_000_000_000), next_id: 0, sleepers: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }
}

impl ManualClock {
    /// Moves the time and wakes whoever slept until then.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.inner.lock().unwrap();
        inner.now = inner.now.plus(by);
        let now = inner.now;
        for (at, waker) in inner.sleepers.values_mut() {
            if *at <= now
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Moves the time to the earliest sleeper, if it sleeps no longer than `longest`.
    pub fn advance_to_sleeper(&self, longest: Duration) {
        let (now, earliest) = {
            let inner = self.inner.lock().unwrap();
            (inner.now, inner.sleepers.values().map(|(at, _)| *at).min())
        };
        if let Some(by) = earliest.map(|at| at.since(now)).filter(|by| *by <= longest) {
            self.advance(by);
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.inner.lock().unwrap().now
    }

    fn sleep_until(&self, at: Timestamp) -> futures::future::BoxFuture<'static, ()> {
        let id = {
            let mut inner = self.inner.lock().unwrap();
            inner.next_id += 1;
            let id = inner.next_id;
            inner.sleepers.insert(id, (at, None));
            id
        };
        let sleeper = Sleeper { clock: self.clone(), id };
        Box::pin(std::future::poll_fn(move |cx| {
            let mut inner = sleeper.clock.inner.lock().unwrap();
            if at <= inner.now {
                return Poll::Ready(());
            }
            inner.sleepers.insert(sleeper.id, (at, Some(cx.waker().clone())));
            Poll::Pending
        }))
    }
}

/// Leaves the list when its future is dropped.
struct Sleeper {
    clock: ManualClock,
    id: u64,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.clock.inner.lock().unwrap().sleepers.remove(&self.id);
    }
}
