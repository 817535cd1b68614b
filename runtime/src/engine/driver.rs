//! The driver: advances one run while it holds the run's claim.
//!
//! It folds the journal, asks the model what to do, does it, appends, and asks again. It is one future: dropping it
//! at any point drops every attempt in flight with it, and the next claim goes on from the journal alone
//! (`tests/it/crash.rs` drops it at every poll).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Workbench;
use super::begin::Beginning;
use super::claims::Hold;
use super::persist::{Drove, Ended, end, give_back, new_messages, read_state, store_gone, write};
use super::revisions::Parsed;
use crate::clock::jitter;
use crate::model::ask::{self, Reply};
use crate::model::context::RunFacts;
use crate::model::decide::{self, Call, Decision, Effect, current_step_index};
use crate::model::error::{AttemptFailure, Failure, FailureCode};
use crate::model::journal::{Event, Then};
use crate::model::path::StepPath;
use crate::model::state::RunState;
use crate::model::time::Timestamp;
use crate::store::{Append, Claim, Claimed, INTERRUPTS_SUSPECT, Next, StoreError};
use crate::wire::{self, HotCopy};

/// A suspect that was interrupted so often more, while no other suspect ran beside it, is quarantined.
const INTERRUPTS_ALONE_MAX: u32 = 5;

/// Waits up to this long are slept in the driver; longer ones give the claim back.
const SHORT_WAIT: Duration = Duration::from_secs(3);

/// A run with more appends or larger outputs is shown once in [`SHOW_PAUSE`] at most, until it waits or ends.
const SHOWN_AT_ONCE_MAX: u64 = 32;
const SHOWN_AT_ONCE_MAX_BYTES: usize = 256 << 10;
const SHOW_PAUSE: Duration = Duration::from_secs(1);

/// Advances the claimed run until it ends, waits for long, or is lost. `hold` is what is known of the claim meanwhile;
/// `stopping` asks for it back as soon as no attempt is under way.
pub async fn drive(bench: &Workbench, claimed: Claimed, hold: &Hold, stopping: &CancellationToken) -> Drove {
    match Driver::load(bench, claimed, hold).await {
        Ok(mut driver) => match driver.advance(stopping).await {
            Ok(drove) | Err(Ended(drove)) => drove,
        },
        Err(Ended(drove)) => drove,
    }
}

/// The same for a run that began with its creation.
pub(super) async fn drive_beginning(
    bench: &Workbench,
    beginning: Beginning,
    claim: Claim,
    hold: &Hold,
    stopping: &CancellationToken,
) -> Drove {
    let Beginning { run, revision, state, effects } = beginning;
    let mut driver = Driver::new(bench, hold, claim, run, revision, state);
    driver.show(false);
    driver.start(effects);
    match driver.advance(stopping).await {
        Ok(drove) | Err(Ended(drove)) => drove,
    }
}

type Attempt<'b> = BoxFuture<'b, (StepPath, Result<Reply, AttemptFailure>)>;

struct Driver<'b> {
    bench: &'b Workbench,
    hold: &'b Hold,
    claim: Claim,
    run: RunFacts,
    revision: Arc<Parsed>,
    state: RunState,
    /// Applied to the state and not yet appended.
    pending: Vec<Event>,
    in_flight: FuturesUnordered<Attempt<'b>>,
    /// When the run was shown last, and whether something is new since.
    shown_at: Timestamp,
    unshown: bool,
}

impl<'b> Driver<'b> {
    fn new(
        bench: &'b Workbench,
        hold: &'b Hold,
        claim: Claim,
        run: RunFacts,
        revision: Arc<Parsed>,
        state: RunState,
    ) -> Self {
        let (pending, in_flight, shown_at) = (Vec::new(), FuturesUnordered::new(), run.created_at);
        Self { bench, hold, claim, run, revision, state, pending, in_flight, shown_at, unshown: false }
    }

    async fn load(bench: &'b Workbench, claimed: Claimed, hold: &'b Hold) -> Result<Self, Ended> {
        let Claimed { mut claim, workflow_id, revision, input, created_at, inbox, interrupts, .. } = claimed;
        let unreadable = |error: &dyn std::fmt::Display| Failure::new(FailureCode::Unreadable, error.to_string());
        let state = match read_state(&bench.store, claim.run, Some(claim.seq)).await {
            Ok(state) => state,
            Err(error @ StoreError::Unavailable(_)) => return Err(store_gone(&error)),
            Err(error) => return Err(end(bench, &mut claim, workflow_id, None, unreadable(&error)).await),
        };
        if interrupts >= INTERRUPTS_SUSPECT + INTERRUPTS_ALONE_MAX {
            let message = format!("the process died {interrupts} times in a row while it performed this run");
            let failure = Failure::new(FailureCode::Quarantined, message);
            return Err(end(bench, &mut claim, workflow_id, Some(state), failure).await);
        }
        let parsed = bench.revisions.get(&bench.store, &bench.limits, workflow_id, revision).await;
        let parsed = match parsed.map_err(|error| store_gone(&error))? {
            Ok(parsed) => parsed,
            Err(failure) => return Err(end(bench, &mut claim, workflow_id, Some(state), failure).await),
        };
        let input: Value = match serde_json::from_slice(&input) {
            Ok(input) => input,
            Err(error) => return Err(end(bench, &mut claim, workflow_id, Some(state), unreadable(&error)).await),
        };
        let run = RunFacts {
            id: claim.run,
            workflow_id,
            workflow_name: parsed.name.clone(),
            revision,
            input: Arc::new(input),
            created_at,
        };
        let mut driver = Self::new(bench, hold, claim, run, parsed, state);
        if driver.state.started_at.is_none() {
            driver.record(vec![Event::Started { at: driver.now() }])?;
        }
        driver.record(decide::interrupted(&driver.revision.definition, &driver.state, driver.now()))?;
        if inbox > driver.state.received {
            driver.take_messages().await?;
        }
        Ok(driver)
    }

    async fn advance(&mut self, stopping: &CancellationToken) -> Result<Drove, Ended> {
        loop {
            let decision =
                decide::decide(&self.run, &self.revision.definition, &self.bench.limits, &self.state, self.now());
            match decision {
                Decision::Record(events) => self.record(events)?,
                Decision::Finished => return self.finish().await,
                Decision::Perform(_) if stopping.is_cancelled() => return self.release(self.now()).await,
                Decision::Perform(effects) => self.perform(effects).await?,
                Decision::Wait(until) => {
                    let far = until.since(self.now()) > SHORT_WAIT;
                    if self.in_flight.is_empty() && (far || stopping.is_cancelled()) {
                        return self.release(until).await;
                    }
                    self.wait(until, stopping).await?;
                }
            }
        }
    }

    /// Begins attempts, after the note that they begin and everything they can see is written.
    async fn perform(&mut self, effects: Vec<Effect>) -> Result<(), Ended> {
        let at = self.now();
        self.record(effects.iter().map(|effect| effect.attempted(at)).collect())?;
        let durable = effects.iter().any(|effect| effect.durable_note);
        self.flush(Next::Continue, durable).await?;
        if self.state.cancel {
            return Ok(());
        }
        if self.hold.is_over(self.now()) {
            return Err(Ended(Drove::Lost));
        }
        self.start(effects);
        Ok(())
    }

    fn start(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.in_flight.push(attempt(self.bench, self.hold, Arc::clone(&self.revision), effect));
        }
    }

    /// Waits until something happens: an attempt ends, a message comes, or the time has come.
    async fn wait(&mut self, until: Timestamp, stopping: &CancellationToken) -> Result<(), Ended> {
        if !self.pending.is_empty() {
            self.flush(Next::Continue, false).await?;
            if self.state.cancel {
                return Ok(());
            }
        }
        let idle = self.in_flight.is_empty();
        tokio::select! {
            biased;
            Some((path, result)) = self.in_flight.next() => self.attempt_ended(&path, result),
            () = self.hold.lost() => Err(Ended(Drove::Lost)),
            () = self.hold.poked() => self.take_messages().await,
            () = self.bench.clock.sleep_until(until) => Ok(()),
            () = async { self.bench.clock.sleep_until(self.shown_at.plus(SHOW_PAUSE)).await }, if self.unshown => {
                self.show(false);
                Ok(())
            }
            () = stopping.cancelled(), if idle => Ok(()),
        }
    }

    fn attempt_ended(&mut self, path: &StepPath, result: Result<Reply, AttemptFailure>) -> Result<(), Ended> {
        let now = self.now();
        let event = match result {
            Ok(Reply::Output(output)) => decide::completed(path, output, &self.state, &self.bench.limits, now),
            Ok(Reply::Asked(asked)) => ask::asked(path, asked, &self.state, &self.bench.limits, now),
            Err(failed) => {
                let failures = self.state.steps.get(path).map_or(1, |step| step.failures + 1);
                let step = self.revision.definition.index_of(path).map(|index| &self.revision.definition.steps[index]);
                let delay = step.filter(|_| failed.retryable).and_then(|step| {
                    let attempts_max = self.bench.limits.attempts_max;
                    step.retry.delay(failures, attempts_max, failed.retry_after, jitter())
                });
                let then = delay.map_or(Then::GiveUp, |delay| Then::Retry { at: now.plus(delay) });
                tracing::info!(step.path = %path, code = failed.failure.code.as_str(), retry = delay.is_some(),
                    "the attempt failed: {}", failed.failure.message);
                Event::Failed {
                    path: path.clone(),
                    error: failed.failure.at(path),
                    then,
                    used: failed.used.map(|used| *used),
                    at: now,
                }
            }
        };
        self.record(vec![event])
    }

    fn record(&mut self, events: Vec<Event>) -> Result<(), Ended> {
        for event in events {
            if let Err(error) = self.state.apply(&event) {
                tracing::error!(%error, "the engine recorded an event that cannot follow: this is a defect");
                return Err(Ended(Drove::Stuck));
            }
            self.pending.push(event);
        }
        decide::remember_lead(&self.revision.definition, &mut self.state);
        Ok(())
    }

    /// Takes what is new in the inbox. Nothing is lost when this future is dropped: messages are taken by an append.
    async fn take_messages(&mut self) -> Result<(), Ended> {
        let events = new_messages(self.bench, self.claim.run, self.state.received).await?;
        self.record(events)
    }

    /// Appends what is pending, and takes messages that have come meanwhile.
    async fn flush(&mut self, next: Next, durable: bool) -> Result<(), Ended> {
        let events = std::mem::take(&mut self.pending);
        let (kept, waits) = (matches!(next, Next::Continue), matches!(next, Next::Wait(_)));
        let step_index = Some(current_step_index(&self.revision.definition, &self.state));
        let append = Append { events, received: self.state.received, step_index, next, durable };
        let inbox = write(self.bench, &mut self.claim, &append).await?;
        self.hold.lasts(self.claim.lease_until);
        self.show(waits);
        if kept && inbox > self.state.received {
            self.take_messages().await?;
        }
        Ok(())
    }

    /// Shows the run as it is now, or soon: a copy costs as much as the run is long. Of what it shows only notes may get lost,
    /// with a crash of the database.
    fn show(&mut self, waits: bool) {
        if !self.bench.wire.shows() {
            return;
        }
        let (seq, now) = (self.claim.seq, self.now());
        let last = self.state.outcome.is_some();
        let heavy = seq > SHOWN_AT_ONCE_MAX || self.state.output_bytes > SHOWN_AT_ONCE_MAX_BYTES;
        self.unshown = heavy && !last && !waits && now < self.shown_at.plus(SHOW_PAUSE);
        if self.unshown {
            return;
        }
        self.shown_at = now;
        let (run, revision, state) = (self.run.clone(), Arc::clone(&self.revision), self.state.clone());
        let body = move || wire::state(&run, &revision.definition, &state, seq, waits, now);
        let size_bytes = self.state.output_bytes;
        self.bench.wire.show(HotCopy { run: self.run.id, seq, last, size_bytes, body: Box::new(body) });
    }

    async fn release(&mut self, until: Timestamp) -> Result<Drove, Ended> {
        if self.pending.is_empty() {
            give_back(self.bench, &self.claim, until, self.state.received).await?;
            self.show(true);
            return Ok(Drove::Released);
        }
        self.flush(Next::Wait(until), false).await?;
        Ok(Drove::Released)
    }

    async fn finish(&mut self) -> Result<Drove, Ended> {
        // Attempts of a canceled or timed out run are given up, and their connections closed, before it is over.
        self.in_flight.clear();
        let Some(outcome) = self.state.outcome else {
            return Ok(Drove::Stuck);
        };
        let at = self.pending.iter().rev().find_map(|event| match event {
            Event::Finished { at, .. } => Some(*at),
            _ => None,
        });
        let (error, at) = (self.state.error.clone(), at.unwrap_or_else(|| self.now()));
        self.flush(Next::Finish(outcome, error, at), true).await?;
        Ok(Drove::Finished(outcome))
    }

    fn now(&self) -> Timestamp {
        self.bench.clock.now()
    }
}

/// One attempt with its timeout. The time of a tool begins when the tool does: that it waits for its turn in the
/// sandbox is not its fault.
fn attempt<'b>(bench: &'b Workbench, hold: &'b Hold, revision: Arc<Parsed>, effect: Effect) -> Attempt<'b> {
    Box::pin(async move {
        let _turn = bench.performer.turn(&effect.call).await;
        // The turn may have come late. When the claim is lost for good, the driver drops this.
        hold.held(&*bench.clock).await;
        let performed = bench.performer.perform(hold.run(), &effect, &revision.tool_lock);
        if matches!(effect.call, Call::Tool(_)) {
            let result = performed.await;
            return (effect.path, result);
        }
        let deadline = bench.clock.now().plus(effect.timeout);
        let result = tokio::select! {
            result = performed => result,
            () = bench.clock.sleep_until(deadline) => Err(AttemptFailure::retryable(
                FailureCode::StepTimeout,
                format!("the attempt took longer than {} seconds", effect.timeout.as_secs_f64()),
            )),
        };
        (effect.path, result)
    })
}
