//! What a driver reads and writes, repeated for as long as the database cannot answer, and how it ends. A database that is
//! away makes runs wait, and repeats nothing that was done.

use std::time::Duration;

use super::Workbench;
use crate::model::error::Failure;
use crate::model::id::{RunId, WorkflowId};
use crate::model::journal::{Event, Outcome};
use crate::model::state::RunState;
use crate::model::time::Timestamp;
use crate::store::{Append, Appended, Claim, Next, Store, StoreError};
use crate::wire::{self, HotCopy};

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

/// Leaves the driver from wherever it is.
pub(super) struct Ended(pub(super) Drove);

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
pub(super) async fn write(bench: &Workbench, claim: &mut Claim, append: &Append) -> Result<u32, Ended> {
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
pub(super) async fn new_messages(bench: &Workbench, run: RunId, received: u32) -> Result<Vec<Event>, Ended> {
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
pub(super) async fn end(
    bench: &Workbench,
    claim: &mut Claim,
    workflow: WorkflowId,
    state: Option<RunState>,
    failure: Failure,
) -> Ended {
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
    let message = failure.message.clone();
    let next = Next::Finish(Outcome::Failed, Some(failure), at);
    match write(bench, claim, &Append { events, received, step_index: None, next, durable: true }).await {
        Ok(_) => {
            if bench.wire.shows() {
                let (run, seq) = (claim.run, claim.seq);
                let body = move || wire::failed(run, workflow, seq, &message, at);
                bench.wire.show(HotCopy { run, seq, last: true, size_bytes: 0, body: Box::new(body) });
            }
            Ended(Drove::Finished(Outcome::Failed))
        }
        Err(ended) => ended,
    }
}

pub(super) fn stuck(error: &StoreError) -> Ended {
    tracing::error!(%error, "the database refuses what this run needs");
    Ended(Drove::Stuck)
}

/// The run could not even be read: somebody tries again later.
pub(super) fn store_gone(error: &StoreError) -> Ended {
    tracing::warn!(%error, "the run cannot be read now");
    Ended(Drove::Unread)
}

/// Gives the claim back until `until`, or at once when more than `received` messages have come.
pub(super) async fn give_back(bench: &Workbench, claim: &Claim, until: Timestamp, received: u32) -> Result<(), Ended> {
    let mut pause = REWRITE_FIRST;
    loop {
        match bench.store.release(claim.run, claim.token, until, received).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Unavailable(_)) => pause = pause_before_repeat(bench, pause).await,
            Err(error) => return Err(stuck(&error)),
        }
    }
}
