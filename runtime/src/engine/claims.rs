//! The claims that this process holds: renewed while their drivers work, and what the outside has to tell a driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::clock::Clock;
use crate::model::id::{ClaimToken, RunId};
use crate::model::time::Timestamp;
use crate::store::{Claim, Claimed};

/// How long a renewal that failed waits for its next try.
const RETRY: Duration = Duration::from_millis(500);

/// One claim in use, as its driver sees it.
pub struct Hold {
    run: RunId,
    token: ClaimToken,
    /// When the claim ends unless it is renewed, in microseconds.
    until: AtomicI64,
    /// Messages in the inbox, as far as renewals have seen.
    inbox: AtomicU32,
    poke: Notify,
    renewal: Notify,
    lost: CancellationToken,
}

impl Hold {
    /// The claim as it was given.
    #[must_use]
    pub fn of(claimed: &Claimed) -> Arc<Self> {
        Self::new(&claimed.claim, claimed.inbox)
    }

    /// A claim on a run to which `inbox` messages have come.
    pub(super) fn new(claim: &Claim, inbox: u32) -> Arc<Self> {
        Arc::new(Self {
            run: claim.run,
            token: claim.token,
            until: AtomicI64::new(claim.lease_until.as_micros()),
            inbox: AtomicU32::new(inbox),
            poke: Notify::new(),
            renewal: Notify::new(),
            lost: CancellationToken::new(),
        })
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The fence.
    #[must_use]
    pub fn token(&self) -> ClaimToken {
        self.token
    }

    /// Says that a message may have come.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// Waits until a message may have come.
    pub(super) async fn poked(&self) {
        self.poke.notified().await;
    }

    /// Whether somebody else may hold the run at `now`: then no effect may begin.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.lost.is_cancelled() || now.as_micros() >= self.until.load(Ordering::Relaxed)
    }

    /// Waits until the claim lasts, when its lease is over and nobody has taken it: a renewal may only be late.
    pub(super) async fn held(&self, clock: &dyn Clock) {
        loop {
            let renewal = self.renewal.notified();
            tokio::pin!(renewal);
            renewal.as_mut().enable();
            if !self.is_over(clock.now()) {
                return;
            }
            renewal.await;
        }
    }

    /// Waits until it is known that somebody else holds the run.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Says that the claim lasts until then, at least.
    pub(super) fn lasts(&self, until: Timestamp) {
        self.until.fetch_max(until.as_micros(), Ordering::Relaxed);
        self.renewal.notify_waiters();
    }

    fn renewed(&self, until: Timestamp, inbox: u32) {
        self.lasts(until);
        if self.inbox.swap(inbox, Ordering::Relaxed) < inbox {
            self.poke();
        }
    }
}

/// Renews every claim of this process, three times as often as it must. Never ends.
pub(super) async fn keep(engine: Engine) {
    let (bench, lease) = (&engine.inner.bench, engine.inner.settings.lease);
    if lease == Duration::MAX {
        // An embedded process owns its database: its claims last as long as it.
        return std::future::pending().await;
    }
    let mut pause = lease / 3;
    loop {
        bench.clock.sleep_until(bench.clock.now().plus(pause)).await;
        let holds: Vec<_> = engine.inner.drivers.held().values().cloned().collect();
        pause = if holds.is_empty() || renew(&engine, &holds, lease).await { lease / 3 } else { RETRY.min(lease / 3) };
    }
}

/// Whether the database could be asked.
async fn renew(engine: &Engine, holds: &[Arc<Hold>], lease: Duration) -> bool {
    let claims: Vec<_> = holds.iter().map(|hold| (hold.run, hold.token)).collect();
    let renewed = match engine.inner.bench.store.renew(&claims, lease).await {
        Ok(renewed) => renewed,
        Err(error) => {
            tracing::warn!(%error, claims = claims.len(), "the claims cannot be renewed now");
            return false;
        }
    };
    let by_run: std::collections::HashMap<_, _> = holds.iter().map(|hold| (hold.run, hold)).collect();
    for (run, inbox) in &renewed.held {
        if let (Some(hold), Some(until)) = (by_run.get(run), renewed.lease_until) {
            hold.renewed(until, *inbox);
        }
    }
    for hold in renewed.lost.iter().filter_map(|run| by_run.get(run)) {
        hold.lost.cancel();
    }
    true
}
