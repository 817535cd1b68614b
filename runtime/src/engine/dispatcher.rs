//! The dispatcher: claims runs, as many as may run at once, and gives each a driver.
//!
//! It follows the hints of the queue and, without any hint, claims what is due: waits that ended, leases that
//! expired, hints that were lost. What it cannot claim is someone else's business. Suspects (runs that were
//! interrupted again and again) run in a lane of their own, one at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument as _;

use super::Engine;
use super::claims::{self, Hold};
use super::driver::drive;
use super::persist::Drove;
use crate::clock::jitter;
use crate::meter::meter;
use crate::model::time::Timestamp;
use crate::store::{Claimed, StoreError};
use crate::wire::News;

/// Longest time between two looks at what is due.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How long a run rests whose driver broke.
const REST: Duration = Duration::from_secs(1);

/// What is known of a driver while it runs.
struct Held {
    hold: Arc<Hold>,
    suspect: bool,
}

struct Dispatcher {
    engine: Engine,
    drivers: JoinSet<Drove>,
    held: HashMap<Id, Held>,
    /// Claims that could not be given back yet, and whether giving them back counts as an interruption.
    unreleased: Vec<(Held, bool)>,
    next_look: Timestamp,
}

/// Claims and drives runs until the engine stops; then waits for the drivers, and releases what is left.
pub(super) async fn dispatch(engine: Engine) {
    let next_look = engine.inner.bench.clock.now();
    let mut dispatcher =
        Dispatcher { engine, drivers: JoinSet::new(), held: HashMap::new(), unreleased: Vec::new(), next_look };
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
            let free = inner.settings.concurrent_runs_max.saturating_sub(self.drivers.len());
            tokio::select! {
                biased;
                () = inner.stopping.cancelled() => {}
                Some(joined) = self.drivers.join_next_with_id() => self.driver_ended(joined).await,
                Some(run) = async { inner.canceled.1.lock().await.recv().await } => {
                    // It ends before anything is performed, so it needs no permit and no lane.
                    let claimed = inner.bench.store.claim_any(run, inner.settings.lease).await;
                    self.drive_all("message", claimed.map(|claimed| claimed.into_iter().collect()));
                }
                () = inner.bench.clock.sleep_until(self.next_look), if free > 0 => self.look(free).await,
                hints = inner.bench.wire.pop(free), if free > 0 => {
                    let claimed = inner.bench.store.claim(hints, inner.settings.lease).await;
                    self.drive_all("hint", claimed);
                }
            }
        }
    }

    /// Claims what is due, and decides when to look again.
    async fn look(&mut self, free: usize) {
        let inner = Arc::clone(&self.engine.inner);
        let (store, lease) = (&inner.bench.store, inner.settings.lease);
        self.release_ended().await;
        let now = inner.bench.clock.now();
        let latest = now.plus(LOOK_MAX.mul_f64(0.5 + jitter() / 2.0));
        self.next_look = latest;
        let most = u32::try_from(free).unwrap_or(u32::MAX);
        let due = store.claim_due(most, lease).await;
        if due.is_ok() {
            inner.looked_at.store(now.as_micros(), Ordering::Relaxed);
        }
        let all_taken = due.as_ref().is_ok_and(|due| due.len() == free);
        self.drive_all("due", due);
        let room = self.drivers.len() < inner.settings.concurrent_runs_max;
        if room && !self.held.values().any(|held| held.suspect) {
            let suspect = store.claim_suspect(lease).await;
            self.drive_all("suspect", suspect.map(|suspect| suspect.into_iter().collect()));
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

    fn drive_all(&mut self, by: &'static str, claimed: Result<Vec<Claimed>, StoreError>) {
        match claimed {
            Ok(claimed) => {
                meter().claimed(by, claimed.len());
                claimed.into_iter().for_each(|claimed| self.drive_one(claimed));
                meter().executing(self.drivers.len());
            }
            Err(error) => tracing::warn!(%error, "no run can be claimed now"),
        }
    }

    fn drive_one(&mut self, claimed: Claimed) {
        let (run, created_at) = (claimed.claim.run, claimed.created_at);
        let suspect = claimed.interrupts >= crate::store::INTERRUPTS_SUSPECT;
        let hold = Hold::of(&claimed);
        self.engine.driven().insert(run, Arc::clone(&hold));
        let held = Held { hold: Arc::clone(&hold), suspect };
        let span = tracing::info_span!("run", run.id = %run, workflow.id = %claimed.workflow_id);
        let inner = Arc::clone(&self.engine.inner);
        let driving = async move {
            let drove = drive(&inner.bench, claimed, &hold, &inner.stopping).await;
            match drove {
                Drove::Finished(outcome) => {
                    tracing::info!(outcome = outcome.as_str(), "the run is over");
                    meter().finished(outcome.as_str(), inner.bench.clock.now().since(created_at));
                    // Nobody may be waiting for it.
                    let _ = inner.finished.send(run);
                    inner.bench.wire.tell(News::Finished(run));
                }
                Drove::Lost => {
                    tracing::warn!("somebody else holds the run now");
                    meter().lease_lost();
                }
                Drove::Released | Drove::Unread | Drove::Stuck => {}
            }
            drove
        };
        let task = self.drivers.spawn(driving.instrument(span));
        self.held.insert(task.id(), held);
    }

    async fn driver_ended(&mut self, joined: Result<(Id, Drove), JoinError>) {
        let (id, drove) = match joined {
            Ok((id, drove)) => (id, Some(drove)),
            Err(error) => (error.id(), None),
        };
        let Some(held) = self.held.remove(&id) else { return };
        meter().executing(self.drivers.len());
        {
            // The run may have been claimed again already: then the entry is the next driver's.
            let mut driven = self.engine.driven();
            if driven.get(&held.hold.run()).is_some_and(|hold| Arc::ptr_eq(hold, &held.hold)) {
                driven.remove(&held.hold.run());
            }
        }
        if drove.is_none() {
            tracing::error!(run.id = %held.hold.run(), "the driver of the run panicked: this is a defect");
        }
        if held.suspect {
            self.next_look = self.engine.inner.bench.clock.now();
        }
        // A claim that was lost may be nobody's: a crash of the database can take a note back and leave the claim.
        if let None | Some(Drove::Stuck | Drove::Unread | Drove::Lost) = drove {
            self.unreleased.push((held, !matches!(drove, Some(Drove::Unread | Drove::Lost))));
            self.release_ended().await;
        }
    }

    /// Gives back the claims of drivers that ended without doing so; what fails is tried again at the next look.
    async fn release_ended(&mut self) {
        let store = &self.engine.inner.bench.store;
        for (held, counts) in std::mem::take(&mut self.unreleased) {
            let due_at = store.clock().now().plus(REST);
            let released = if counts {
                store.abandon(held.hold.run(), held.hold.token(), due_at).await
            } else {
                store.release(held.hold.run(), held.hold.token(), due_at, u32::MAX).await
            };
            if let Err(error) = released {
                tracing::warn!(%error, run.id = %held.hold.run(), "the claim cannot be given back now");
                self.unreleased.push((held, counts));
            }
        }
    }

    /// Waits for attempts under way until the deadline; then drops them and gives every claim back.
    async fn wind_down(&mut self) {
        let deadline = tokio::time::sleep(self.engine.inner.settings.shutdown_timeout);
        tokio::pin!(deadline);
        while !self.drivers.is_empty() {
            tokio::select! {
                Some(joined) = self.drivers.join_next_with_id() => self.driver_ended(joined).await,
                () = &mut deadline => break,
            }
        }
        self.drivers.shutdown().await;
        self.release_ended().await;
        for (_, held) in self.held.drain() {
            tracing::info!(run.id = %held.hold.run(), "the run is released with an attempt under way");
            let now = self.engine.inner.bench.clock.now();
            let released = self.engine.inner.bench.store.release(held.hold.run(), held.hold.token(), now, 0).await;
            if let Err(error) = released {
                tracing::warn!(%error, run.id = %held.hold.run(), "the claim could not be given back");
            }
        }
    }
}
