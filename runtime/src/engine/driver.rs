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
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Workbench;
use super::revisions::Parsed;
use crate::clock::jitter;
use crate::model::context::RunFacts;
use crate::model::decide::{self, Call, Decision, Effect, current_step_index};
use crate::model::error::{AttemptFailure, Failure, FailureCode};
use crate::model::id::RunId;
use crate::model::journal::{Event, Outcome, Output, Then};
use crate::model::path::StepPath;
use crate::model::state::RunState;
use crate::model::time::Timestamp;
use crate::store::{Append, Appended, Claim, Claimed, INTERRUPTS_SUSPECT, Next, Store, StoreError};

/// A suspect that was interrupted so often more, while no other suspect ran beside it, is quarantined.
const INTERRUPTS_ALONE_MAX: u32 = 5;

/// Waits up to this long are slept in the driver; longer ones give the claim back.
const SHORT_WAIT: Duration = Duration::from_secs(3);

/// How long the driver waits before it repeats a write that the database could not take: the first time, and at most.
const REWRITE_FIRST: Duration = Duration::from_millis(50);
const REWRITE_MAX: Duration = Duration::from_secs(2);

/// Journal entries read at once.
const JOURNAL_PAGE: u32 = 500;

/// How a driver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drove {
    /// The run is over.
    Finished(Outcome),
    /// The claim was given back: the run waits, or the process stops.
    Released,
    /// Somebody else holds the run now; nothing more was written.
    Lost,
    /// The run could not be read now: the claim is to be given back for a while.
    Unread,
    /// The database refuses for good; the claim is to be abandoned.
    Stuck,
}

/// Advances the claimed run until it ends, waits for long, or is lost. `poke` says that a message may have come;
/// `stopping` asks for the claim back as soon as no attempt is under way.
pub async fn drive(bench: &Workbench, claimed: Claimed, poke: &Notify, stopping: &CancellationToken) -> Drove {
    match Driver::load(bench, claimed).await {
        Ok(mut driver) => match driver.advance(poke, stopping).await {
            Ok(drove) | Err(Ended(drove)) => drove,
        },
        Err(Ended(drove)) => drove,
    }
}

/// Leaves the driver from wherever it is.
struct Ended(Drove);

type Attempt<'b> = BoxFuture<'b, (StepPath, Result<Output, AttemptFailure>)>;

struct Driver<'b> {
    bench: &'b Workbench,
    claim: Claim,
    run: RunFacts,
    revision: Arc<Parsed>,
    state: RunState,
    /// Applied to the state and not yet appended.
    pending: Vec<Event>,
    in_flight: FuturesUnordered<Attempt<'b>>,
}

impl<'b> Driver<'b> {
    async fn load(bench: &'b Workbench, claimed: Claimed) -> Result<Self, Ended> {
        let Claimed { mut claim, workflow_id, revision, input, created_at, inbox, interrupts } = claimed;
        let unreadable = |error: &dyn std::fmt::Display| Failure::new(FailureCode::Unreadable, error.to_string());
        let state = match read_state(&bench.store, claim.run, Some(claim.seq)).await {
            Ok(state) => state,
            Err(error @ StoreError::Unavailable(_)) => return Err(store_gone(&error)),
            Err(error) => return Err(end(bench, &mut claim, None, unreadable(&error)).await),
        };
        if interrupts >= INTERRUPTS_SUSPECT + INTERRUPTS_ALONE_MAX {
            let message = format!("the process died {interrupts} times in a row while it performed this run");
            let failure = Failure::new(FailureCode::Quarantined, message);
            return Err(end(bench, &mut claim, Some(state), failure).await);
        }
        let parsed = bench.revisions.get(&bench.store, &bench.limits, workflow_id, revision).await;
        let parsed = match parsed.map_err(|error| store_gone(&error))? {
            Ok(parsed) => parsed,
            Err(failure) => return Err(end(bench, &mut claim, Some(state), failure).await),
        };
        let input: Value = match serde_json::from_slice(&input) {
            Ok(input) => input,
            Err(error) => return Err(end(bench, &mut claim, Some(state), unreadable(&error)).await),
        };
        let run = RunFacts {
            id: claim.run,
            workflow_id,
            workflow_name: parsed.name.clone(),
            revision,
            input: Arc::new(input),
            created_at,
        };
        let mut driver = Self {
            bench,
            claim,
            run,
            revision: parsed,
            state,
            pending: Vec::new(),
            in_flight: FuturesUnordered::new(),
        };
        if driver.state.started_at.is_none() {
            driver.record(vec![Event::Started { at: driver.now() }])?;
        }
        driver.record(decide::interrupted(&driver.revision.definition, &driver.state, driver.now()))?;
        if inbox > driver.state.received {
            driver.take_messages().await?;
        }
        Ok(driver)
    }

    async fn advance(&mut self, poke: &Notify, stopping: &CancellationToken) -> Result<Drove, Ended> {
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
                    self.wait(until, poke, stopping).await?;
                }
            }
        }
    }

    /// Begins attempts, after the note that they begin and everything they can see is written.
    async fn perform(&mut self, effects: Vec<Effect>) -> Result<(), Ended> {
        let at = self.now();
        let attempted = |effect: &Effect| Event::Attempted { path: effect.path.clone(), attempt: effect.attempt, at };
        self.record(effects.iter().map(attempted).collect())?;
        let durable = effects.iter().any(|effect| effect.durable_note);
        self.flush(Next::Continue, durable).await?;
        if self.state.cancel {
            return Ok(());
        }
        for effect in effects {
            self.in_flight.push(attempt(self.bench, self.run.id, Arc::clone(&self.revision), effect));
        }
        Ok(())
    }

    /// Waits until something happens: an attempt ends, a message comes, or the time has come.
    async fn wait(&mut self, until: Timestamp, poke: &Notify, stopping: &CancellationToken) -> Result<(), Ended> {
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
            () = poke.notified() => self.take_messages().await,
            () = self.bench.clock.sleep_until(until) => Ok(()),
            () = stopping.cancelled(), if idle => Ok(()),
        }
    }

    fn attempt_ended(&mut self, path: &StepPath, result: Result<Output, AttemptFailure>) -> Result<(), Ended> {
        let now = self.now();
        let event = match result {
            Ok(output) => decide::completed(path, output, &self.state, &self.bench.limits, now),
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
                Event::Failed { path: path.clone(), error: failed.failure.at(path), then, used: failed.used, at: now }
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
        let kept = matches!(next, Next::Continue);
        let step_index = Some(current_step_index(&self.revision.definition, &self.state));
        let append = Append { events, received: self.state.received, step_index, next, durable };
        let inbox = write(self.bench, &mut self.claim, &append).await?;
        if kept && inbox > self.state.received {
            self.take_messages().await?;
        }
        Ok(())
    }

    async fn release(&mut self, until: Timestamp) -> Result<Drove, Ended> {
        if self.pending.is_empty() {
            let (run, token) = (self.claim.run, self.claim.token);
            let mut pause = REWRITE_FIRST;
            return loop {
                match self.bench.store.release(run, token, until, self.state.received).await {
                    Ok(()) => break Ok(Drove::Released),
                    Err(StoreError::Unavailable(_)) => pause = pause_before_repeat(self.bench, pause).await,
                    Err(error) => break Err(stuck(&error)),
                }
            };
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
fn attempt(bench: &Workbench, run: RunId, revision: Arc<Parsed>, effect: Effect) -> Attempt<'_> {
    Box::pin(async move {
        let performed = bench.performer.perform(run, &effect, &revision.tool_lock);
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

/// Folds the journal of a run: `appends` of them, or as many as there are.
pub(super) async fn read_state(store: &Store, run: RunId, appends: Option<u64>) -> Result<RunState, StoreError> {
    let mut state = RunState::default();
    let mut seq = 0;
    while appends.is_none_or(|appends| seq < appends) {
        let entries = store.journal(run, seq, JOURNAL_PAGE).await?;
        let Some(last) = entries.last() else {
            match appends {
                None => break,
                Some(appends) => return Err(StoreError::Unreadable(format!("the journal ends at {seq} of {appends}"))),
            }
        };
        seq = last.seq;
        for event in entries.iter().flat_map(|entry| &entry.events) {
            state.apply(event).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        }
    }
    Ok(state)
}

/// Appends, and repeats the append for as long as the database cannot take it: the outcome of a step is kept in
/// memory until it can be written, so that a full disk makes runs wait and repeats nothing.
async fn write(bench: &Workbench, claim: &mut Claim, append: &Append) -> Result<u32, Ended> {
    let mut pause = REWRITE_FIRST;
    loop {
        match bench.store.append(claim, append).await {
            Ok(Appended::Written { inbox }) => return Ok(inbox),
            Ok(Appended::Lost) => return Err(Ended(Drove::Lost)),
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::warn!(%error, "the append has to wait");
                pause = pause_before_repeat(bench, pause).await;
            }
            Err(error) => return Err(stuck(&error)),
        }
    }
}

async fn pause_before_repeat(bench: &Workbench, pause: Duration) -> Duration {
    bench.clock.sleep_until(bench.clock.now().plus(pause)).await;
    (pause * 2).min(REWRITE_MAX)
}

/// The messages after number `received`, as events.
async fn new_messages(bench: &Workbench, run: RunId, received: u32) -> Result<Vec<Event>, Ended> {
    let mut pause = REWRITE_FIRST;
    loop {
        match bench.store.messages(run, received).await {
            Ok(messages) => {
                let at = bench.clock.now();
                return Ok(messages.into_iter().map(|(n, message)| Event::Received { n, message, at }).collect());
            }
            Err(StoreError::Unavailable(_)) => pause = pause_before_repeat(bench, pause).await,
            Err(error) => return Err(stuck(&error)),
        }
    }
}

/// Ends a run that cannot be advanced. Its journal stays one that can be folded, unless it was none before: then
/// there is no state.
async fn end(bench: &Workbench, claim: &mut Claim, state: Option<RunState>, failure: Failure) -> Ended {
    let at = bench.clock.now();
    let (mut events, mut received) = (Vec::new(), 0);
    if let Some(state) = state {
        if state.started_at.is_none() {
            events.push(Event::Started { at });
        }
        match new_messages(bench, claim.run, state.received).await {
            Ok(messages) => {
                received = state.received + u32::try_from(messages.len()).unwrap_or(u32::MAX);
                events.extend(messages);
            }
            Err(ended) => return ended,
        }
    }
    events.push(Event::Finished { outcome: Outcome::Failed, error: Some(failure.clone()), at });
    let next = Next::Finish(Outcome::Failed, Some(failure), at);
    match write(bench, claim, &Append { events, received, step_index: None, next, durable: true }).await {
        Ok(_) => Ended(Drove::Finished(Outcome::Failed)),
        Err(ended) => ended,
    }
}

fn stuck(error: &StoreError) -> Ended {
    tracing::error!(%error, "the database refuses what this run needs");
    Ended(Drove::Stuck)
}

/// The run could not even be read: somebody tries again later.
fn store_gone(error: &StoreError) -> Ended {
    tracing::warn!(%error, "the run cannot be read now");
    Ended(Drove::Unread)
}
