//! The engine: takes runs in, and drives every run to its end.
//!
//! A run is accepted when its row is on disk. From then on the dispatcher claims it, one driver advances it, and
//! whatever dies in between, a due-claim finds it again. The durability invariant is kept by the driver: no effect
//! starts until every effect whose outcome it can see is on disk.

mod begin;
mod claims;
mod dispatcher;
mod driver;
mod drivers;
mod persist;
mod retention;
mod revisions;
pub mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use claims::Hold;
pub use driver::drive;
pub use persist::Drove;

use crate::clock::{Clock, new_id};
use crate::model::ask::Answer;
use crate::model::definition::{Definition, Priority};
use crate::model::id::{RunId, WorkflowId};
use crate::model::journal::Message;
use crate::model::limits::Limits;
use crate::model::path::StepPath;
use crate::model::state::RunState;
use crate::model::time::Timestamp;
use crate::store::{Caller, Created, Idempotency, NewRun, RunRow, Sent, Status, Store, StoreError};
use crate::wire::{News, Wire};

/// How long after its creation a run is claimed from the database, should its hint get lost.
const HINT_GRACE: Duration = Duration::from_secs(2);

/// Most canceled runs that wait for their end outside the queue; beyond that they wait in it.
const CANCELS_MAX: usize = 4096;

/// A dispatcher that could not ask for so long what is due makes its process not ready.
const CLAIM_SILENCE_MAX: Duration = Duration::from_secs(30);

/// How often somebody who waits for the end of a run looks by himself.
const WAIT_POLL: Duration = Duration::from_secs(1);

/// What the engine is held to.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Whether this process executes runs.
    pub executes: bool,
    /// Most runs that this process executes at once.
    pub concurrent_runs_max: usize,
    /// How long a claim lasts without a renewal. An embedded process owns its database: its claims last as long as it.
    pub lease: Duration,
    /// How long runs are kept after their end; none: for ever.
    pub retention: Option<Duration>,
    /// How long a shutdown waits for attempts that are under way.
    pub shutdown_timeout: Duration,
}

/// Everything a driver works with.
pub struct Workbench {
    /// The truth.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Performs attempts.
    pub performer: steps::Performer,
    /// Limits of definitions and runs.
    pub limits: Limits,
    /// Hints, copies and news.
    pub wire: Arc<dyn Wire>,
    revisions: revisions::Revisions,
}

impl Workbench {
    /// A workbench on `store`.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        performer: steps::Performer,
        limits: Limits,
        wire: Arc<dyn Wire>,
    ) -> Self {
        Self { store, clock, performer, limits, wire, revisions: revisions::Revisions::default() }
    }
}

/// The handle that the API has on the engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    bench: Arc<Workbench>,
    settings: EngineSettings,
    drivers: drivers::Drivers,
    /// Runs that somebody canceled and nobody drives: they end at once, however many runs are executed.
    canceled: (mpsc::Sender<RunId>, tokio::sync::Mutex<mpsc::Receiver<RunId>>),
    /// Runs that this process finished.
    finished: broadcast::Sender<RunId>,
    stopping: CancellationToken,
    /// When the dispatcher last could ask the database what is due, in microseconds.
    looked_at: AtomicI64,
}

/// What triggers a run.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The revision to execute.
    pub revision: u32,
    /// The input, as JSON text.
    pub input: Bytes,
    /// The webhook endpoint that it comes from.
    pub caller: Option<Caller>,
    /// What makes a repeat answer the same run.
    pub idempotency: Option<Idempotency>,
    /// Whether it is begun before others that wait.
    pub priority: Priority,
}

/// A run that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk.
    New(RunId),
    /// The same request came before and this run is its answer.
    Repeated(RunId),
    /// The idempotency key came before with another request.
    Conflict,
    /// The workflow, or the endpoint that was called, is switched off, gone, or not what the trigger says.
    Changed,
}

/// The inside of a run.
pub struct Inspection {
    parsed: Arc<revisions::Parsed>,
    /// The fold of its journal.
    pub state: RunState,
}

impl Inspection {
    /// What the run executes.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.parsed.definition
    }
}

impl Engine {
    /// An engine that executes nothing yet.
    #[must_use]
    pub fn new(bench: Arc<Workbench>, settings: EngineSettings) -> Self {
        let (finished, _) = broadcast::channel(4096);
        let started_at = bench.clock.now();
        let (canceled, cancels) = mpsc::channel(CANCELS_MAX);
        let inner = Inner {
            bench,
            drivers: drivers::Drivers::new(settings.concurrent_runs_max),
            settings,
            canceled: (canceled, tokio::sync::Mutex::new(cancels)),
            finished,
            stopping: CancellationToken::new(),
            looked_at: AtomicI64::new(started_at.as_micros()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins to hear what other processes tell and, where the settings say so, to execute runs; until
    /// [`Engine::stop`].
    #[expect(clippy::disallowed_methods, reason = "the dispatcher outlives whoever starts it; `stop` joins it")]
    #[must_use]
    pub fn start(&self) -> JoinHandle<()> {
        let (engine, executes) = (self.clone(), self.inner.settings.executes);
        tokio::spawn(async move {
            let listening = engine.clone().listen();
            if executes {
                let sweeping = retention::keep(engine.clone());
                tokio::join!(listening, sweeping, dispatcher::dispatch(engine));
            } else {
                listening.await;
            }
        })
    }

    /// Stops claiming runs; drivers finish the attempts that are under way, or release their claims.
    pub fn stop(&self) {
        self.inner.stopping.cancel();
    }

    /// Why this process cannot do its part now, if it cannot: it stops, or its dispatcher has not been able to claim for a
    /// while. A process that only answers has no dispatcher.
    ///
    /// # Errors
    /// What is wrong.
    pub fn ready(&self) -> Result<(), String> {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return Err("the process is stopping".to_owned());
        }
        let looked_at = Timestamp::from_micros(inner.looked_at.load(Ordering::Relaxed));
        let since = inner.bench.clock.now().since(looked_at);
        // One that executes as many runs as it may has nothing to ask for.
        let free = inner.drivers.free() > 0;
        if inner.settings.executes && free && since > CLAIM_SILENCE_MAX {
            return Err(format!("no run could be claimed for {} seconds", since.as_secs()));
        }
        Ok(())
    }

    /// Whether hints reach other processes at the moment. Without them runs are begun later, and all the same.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.bench.wire.is_up()
    }

    /// The limits of definitions and runs.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.bench.limits
    }

    /// Accepts a run. When this answers, the run is on disk; a hint that gets lost only costs time.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn start_run(&self, trigger: &Trigger) -> Result<Accepted, StoreError> {
        let (id, now) = (RunId(new_id()), self.inner.bench.store.clock().now());
        let run = NewRun {
            id,
            workflow_id: trigger.workflow_id,
            revision: trigger.revision,
            input: trigger.input.clone(),
            created_at: now,
            due_at: now.plus(HINT_GRACE),
            caller: trigger.caller.clone(),
            idempotency: trigger.idempotency.clone(),
            begun: None,
        };
        Ok(match self.create(run, trigger.priority).await? {
            Created::New => Accepted::New(id),
            Created::Repeated(earlier) => Accepted::Repeated(earlier),
            Created::Conflict => Accepted::Conflict,
            Created::Changed => Accepted::Changed,
        })
    }

    /// Leaves a message for a run and wakes whoever can act on it.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn send(&self, run: RunId, message: Message) -> Result<Sent, StoreError> {
        let canceled = message == Message::Cancel;
        let sent = self.inner.bench.store.send(run, message).await?;
        if let Sent::Delivered(_) = sent {
            self.wake(run, canceled);
        }
        Ok(sent)
    }

    /// Leaves an answer for a run whose `redrives`-th life asks, and wakes whoever can act on it.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn answer(&self, run: RunId, redrives: u32, step: StepPath, answer: Answer) -> Result<Sent, StoreError> {
        let sent = self.inner.bench.store.send_answer(run, redrives, step, answer).await?;
        if let Sent::Delivered(_) = sent {
            self.wake(run, false);
        }
        Ok(sent)
    }

    /// Wakes whoever can act on a message, which may be another process.
    fn wake(&self, run: RunId, canceled: bool) {
        let driver = self.inner.drivers.held().get(&run).cloned();
        match driver {
            Some(driver) => driver.poke(),
            None => {
                self.inner.bench.wire.tell(if canceled { News::Canceled(run) } else { News::Message(run) });
                if !canceled || !self.ends_here(run) {
                    self.inner.bench.wire.push(run, Priority::High);
                }
            }
        }
    }

    /// Reads a run, waiting up to `longest` for its end.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn run_when_finished(&self, run: RunId, longest: Duration) -> Result<Option<RunRow>, StoreError> {
        let deadline = tokio::time::Instant::now() + longest;
        let mut finished = self.inner.finished.subscribe();
        loop {
            let row = self.inner.bench.store.run(run).await?;
            let ended = row.as_ref().is_none_or(|row| matches!(row.status, Status::Ended(_)));
            let now = tokio::time::Instant::now();
            if ended || now >= deadline || self.inner.stopping.is_cancelled() {
                return Ok(row);
            }
            // Another process may finish the run, and a slow receiver misses some: hence the poll.
            let poll = deadline.min(now + WAIT_POLL);
            let this_run = async {
                while let Ok(other) = finished.recv().await {
                    if other == run {
                        return;
                    }
                }
            };
            tokio::select! {
                () = this_run => {}
                () = tokio::time::sleep_until(poll) => {}
                () = self.inner.stopping.cancelled() => {}
            }
        }
    }

    /// What is known of a run beyond its row: its definition, and the fold of its journal so far.
    ///
    /// # Errors
    /// When the database cannot be read, or what it holds not by this version.
    pub async fn inspect(&self, run: &RunRow) -> Result<Inspection, StoreError> {
        let bench = &self.inner.bench;
        let parsed = bench.revisions.get(&bench.store, &bench.limits, run.workflow_id, run.revision).await?;
        let parsed = parsed.map_err(|failure| StoreError::Unreadable(failure.message))?;
        Ok(Inspection { parsed, state: persist::read_state(&bench.store, run.id, None).await? })
    }

    /// Whether this process tries to end a run at once that somebody canceled and nobody drives here.
    fn ends_here(&self, run: RunId) -> bool {
        self.inner.settings.executes && self.inner.canceled.0.try_send(run).is_ok()
    }

    /// Hears what other processes tell, until the engine stops.
    async fn listen(self) {
        let mut news = self.inner.bench.wire.news();
        loop {
            let heard = tokio::select! {
                heard = news.recv() => heard,
                () = self.inner.stopping.cancelled() => return,
            };
            match heard {
                Ok(News::Finished(run)) => {
                    // Nobody may be waiting for it.
                    let _ = self.inner.finished.send(run);
                }
                Ok(news @ (News::Message(run) | News::Canceled(run))) => {
                    let driver = self.inner.drivers.held().get(&run).cloned();
                    match driver {
                        Some(driver) => driver.poke(),
                        None if news == News::Canceled(run) => {
                            self.ends_here(run);
                        }
                        None => {}
                    }
                }
                // What was missed is found by polls and renewals.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}
