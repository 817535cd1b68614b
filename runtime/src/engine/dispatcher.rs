//! The dispatcher: claims runs, as many as may run at once, and gives each a driver.
//!
//! It follows the hints of the queue and, without any hint, claims what is due: waits that ended, leases that
//! expired, hints that were lost. What it cannot claim is someone else's business. Suspects (runs that were
//! interrupted again and again) run in a lane of their own, one at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use super::claims::{self, Hold};
use super::driver::drive;
use super::drivers::{Driven, Permit, Unreleased};
use crate::clock::jitter;
use crate::meter::meter;
use crate::model::definition::Priority;
use crate::model::id::RunId;
use crate::model::time::Timestamp;
use crate::store::{Claimed, StoreError};

/// Longest time between two looks at what is due.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How long a run rests whose driver broke.
const REST: Duration = Duration::from_secs(1);

struct Dispatcher {
    engine: Engine,
    next_look: Timestamp,
}

/// Claims and drives runs until the engine stops; then waits for the drivers, and releases what is left.
pub(super) async fn dispatch(engine: Engine) {
    let next_look = engine.inner.bench.clock.now();
    let mut dispatcher = Dispatcher { engine, next_look };
    let keeping = claims::keep(dispatcher.engine.clone());
    let dispatching = async {
        dispatcher.claim_until_stopped().await;
        dispatcher.wind_down().await;
    };
    // Claims are renewed until the last driver has ended.
    tokio::select! {
        () = dispatching => {}
        () = keeping => {}
    }
}

impl Dispatcher {
    async fn claim_until_stopped(&mut self) {
        let inner = Arc::clone(&self.engine.inner);
        while !inner.stopping.is_cancelled() {
            let free = inner.drivers.free();
            tokio::select! {
                biased;
                () = inner.stopping.cancelled() => {}
                () = inner.drivers.left() => {
                    self.release_ended().await;
                    // Whatever ended may have been the suspect that others wait for.
                    self.next_look = inner.bench.clock.now();
                }
                Some(run) = async { inner.canceled.1.lock().await.recv().await } => {
                    // It ends before anything is performed, so it needs no permit and no lane.
                    let claimed = inner.bench.store.claim_any(run, inner.settings.lease).await;
                    self.drive_all("message", claimed.map(|claimed| claimed.into_iter().collect()), [None]);
                }
                () = inner.drivers.freed(), if free == 0 => {}
                () = inner.bench.clock.sleep_until(self.next_look), if free > 0 => self.look().await,
                hints = inner.bench.wire.pop(free), if free > 0 => self.follow(hints).await,
            }
        }
    }

    /// Claims the runs that others pointed at.
    async fn follow(&mut self, mut hints: Vec<RunId>) {
        let inner = Arc::clone(&self.engine.inner);
        let permits = inner.drivers.take(hints.len());
        // Runs that began with their creation may have taken the room meanwhile.
        for run in hints.drain(permits.len()..) {
            inner.bench.wire.push(run, Priority::High);
        }
        if !hints.is_empty() {
            let claimed = inner.bench.store.claim(hints, inner.settings.lease).await;
            self.drive_all("hint", claimed, permits.into_iter().map(Some));
        }
    }

    /// Claims what is due, and decides when to look again.
    async fn look(&mut self) {
        let inner = Arc::clone(&self.engine.inner);
        let (store, lease) = (&inner.bench.store, inner.settings.lease);
        self.release_ended().await;
        let now = inner.bench.clock.now();
        let latest = now.plus(LOOK_MAX.mul_f64(0.5 + jitter() / 2.0));
        self.next_look = latest;
        let permits = inner.drivers.take(inner.drivers.free());
        let most = permits.len();
        let due = store.claim_due(u32::try_from(most).unwrap_or(u32::MAX), lease).await;
        if due.is_ok() {
            inner.looked_at.store(now.as_micros(), Ordering::Relaxed);
        }
        let all_taken = due.as_ref().is_ok_and(|due| due.len() == most);
        self.drive_all("due", due, permits.into_iter().map(Some));
        if let (Some(alone), Some(permit)) = (inner.drivers.take_suspect(), inner.drivers.take(1).pop()) {
            match store.claim_suspect(lease).await {
                Ok(Some(suspect)) => {
                    meter().claimed("suspect", 1);
                    self.drive_one(suspect, Some(permit), Some(alone));
                }
                Ok(None) => {}
                Err(error) => cannot_claim(&error),
            }
        }
        if all_taken {
            self.next_look = now;
        } else if let Ok(Some(due_at)) = store.next_due().await {
            // What is due already and could not be claimed is a suspect that waits for its turn.
            if due_at > now {
                self.next_look = latest.min(due_at);
            }
        }
    }

    fn drive_all(
        &mut self,
        by: &'static str,
        claimed: Result<Vec<Claimed>, StoreError>,
        permits: impl IntoIterator<Item = Permit>,
    ) {
        match claimed {
            Ok(claimed) => {
                meter().claimed(by, claimed.len());
                for (claimed, permit) in claimed.into_iter().zip(permits) {
                    self.drive_one(claimed, permit, None);
                }
            }
            Err(error) => cannot_claim(&error),
        }
    }

    fn drive_one(&mut self, claimed: Claimed, permit: Permit, alone: Permit) {
        let (workflow_id, created_at) = (claimed.workflow_id, claimed.created_at);
        let (inner, hold) = (Arc::clone(&self.engine.inner), Hold::of(&claimed));
        let driven = Driven { hold: Arc::clone(&hold), workflow_id, created_at, permit, alone };
        let driving = async move { drive(&inner.bench, claimed, &hold, &inner.stopping).await };
        self.engine.drive(driven, Box::pin(driving));
    }

    /// Gives back the claims of drivers that ended without doing so; what fails is tried again at the next look.
    async fn release_ended(&mut self) {
        let (store, drivers) = (&self.engine.inner.bench.store, &self.engine.inner.drivers);
        for unreleased in drivers.take_unreleased() {
            let (run, token) = (unreleased.hold.run(), unreleased.hold.token());
            let now = store.clock().now();
            let released = match &unreleased {
                Unreleased { at_once: true, .. } => store.release(run, token, now, 0).await,
                Unreleased { counts: true, .. } => store.abandon(run, token, now.plus(REST)).await,
                Unreleased { .. } => store.release(run, token, now.plus(REST), u32::MAX).await,
            };
            if let Err(error) = released {
                tracing::warn!(%error, run.id = %run, "the claim cannot be given back now");
                drivers.leave(unreleased);
            }
        }
    }

    /// Waits for attempts under way until the deadline; then drops them and gives every claim back.
    async fn wind_down(&mut self) {
        let inner = Arc::clone(&self.engine.inner);
        inner.drivers.end(tokio::time::sleep(inner.settings.shutdown_timeout)).await;
        self.release_ended().await;
    }
}

fn cannot_claim(error: &StoreError) {
    tracing::warn!(%error, "no run can be claimed now");
}
