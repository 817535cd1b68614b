//! Runs that begin with their creation: a process that has room for one more claims it in the very statement that creates
//! it, and writes the first append with it. Whoever has no room leaves the run to whoever follows the hint.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::claims::Hold;
use super::driver::drive_beginning;
use super::drivers::Driven;
use super::revisions::Parsed;
use super::{Engine, Workbench};
use crate::clock::new_token;
use crate::meter::meter;
use crate::model::context::RunFacts;
use crate::model::decide::{self, Decision, Effect, current_step_index};
use crate::model::definition::Priority;
use crate::model::id::{ClaimToken, RunId, WorkflowId};
use crate::model::journal::Event;
use crate::model::state::RunState;
use crate::model::time::Timestamp;
use crate::store::{Begun, Claim, Created, NewRun, StoreError};
use crate::wire::{self, HotCopy};

/// A run before its creation, taken as far as its first step.
pub(super) struct Beginning {
    pub(super) run: RunFacts,
    pub(super) revision: Arc<Parsed>,
    pub(super) state: RunState,
    /// The attempts that begin when the run is created.
    pub(super) effects: Vec<Effect>,
}

impl Beginning {
    /// With the events of its first append. Nothing where the input or an event cannot be read: whoever claims the run ends
    /// it with the reason.
    fn of(bench: &Workbench, new: &NewRun, revision: Arc<Parsed>) -> Option<(Self, Vec<Event>)> {
        let at = new.created_at;
        let run = RunFacts {
            id: new.id,
            workflow_id: new.workflow_id,
            workflow_name: revision.name.clone(),
            revision: new.revision,
            input: Arc::new(serde_json::from_slice(&new.input).ok()?),
            created_at: at,
        };
        let mut state = RunState::default();
        let mut events = vec![Event::Started { at }];
        state.apply(&events[0]).ok()?;
        let mut effects = Vec::new();
        let more = match decide::decide(&run, &revision.definition, &bench.limits, &state, at) {
            Decision::Perform(begun) => {
                effects = begun;
                effects.iter().map(|effect| effect.attempted(at)).collect()
            }
            // The end is its driver's to write.
            Decision::Record(more) if !more.iter().any(|event| matches!(event, Event::Finished { .. })) => more,
            Decision::Record(_) | Decision::Wait(_) | Decision::Finished => Vec::new(),
        };
        for event in more {
            state.apply(&event).ok()?;
            events.push(event);
        }
        Some((Self { run, revision, state, effects }, events))
    }
}

impl Engine {
    /// Creates a run; then it has its driver where there is room for it in this process, and its hint where there is none.
    ///
    /// # Errors
    /// As [`crate::store::Store::create_run`].
    pub(super) async fn create(&self, mut new: NewRun, priority: Priority) -> Result<Created, StoreError> {
        let (inner, bench) = (&self.inner, &self.inner.bench);
        let mut beginning = None;
        let executes = inner.settings.executes && !inner.stopping.is_cancelled();
        if let Some(permit) = if executes { inner.drivers.take_early() } else { None } {
            let parsed = bench.revisions.get(&bench.store, &bench.limits, new.workflow_id, new.revision).await?;
            if let Some((begun, events)) = parsed.ok().and_then(|parsed| Beginning::of(bench, &new, parsed)) {
                let step_index = current_step_index(&begun.revision.definition, &begun.state);
                let token = ClaimToken(new_token());
                new.begun = Some(Begun { token, lease: inner.settings.lease, events, step_index });
                beginning = Some((begun, permit));
            }
        }
        let engine = self.clone();
        // What is created needs its driver or its hint, even when whoever asked for it goes away.
        let created = self.spawn(async move {
            let (id, workflow_id, created_at, claim) = (new.id, new.workflow_id, new.created_at, new.claim());
            let created = engine.inner.bench.store.create_run(new).await?;
            if created == Created::New {
                meter().accepted();
                match claim.zip(beginning) {
                    Some((claim, (beginning, permit))) => engine.drive_from_beginning(beginning, claim, permit),
                    None => engine.hint(id, workflow_id, created_at, priority),
                }
            }
            Ok::<_, StoreError>(created)
        });
        created.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    fn drive_from_beginning(&self, beginning: Beginning, claim: Claim, permit: OwnedSemaphorePermit) {
        meter().claimed("creation", 1);
        let (workflow_id, created_at) = (beginning.run.workflow_id, beginning.run.created_at);
        let (inner, hold) = (Arc::clone(&self.inner), Hold::new(&claim, 0));
        let driven = Driven { hold: Arc::clone(&hold), workflow_id, created_at, permit: Some(permit), alone: None };
        let driving = async move { drive_beginning(&inner.bench, beginning, claim, &hold, &inner.stopping).await };
        self.drive(driven, Box::pin(driving));
    }

    /// Shows a new run and points at it.
    fn hint(&self, run: RunId, workflow: WorkflowId, created_at: Timestamp, priority: Priority) {
        let wire = &self.inner.bench.wire;
        if wire.shows() {
            let body = Box::new(move || wire::queued(run, workflow, created_at));
            wire.show(HotCopy { run, seq: 0, last: false, size_bytes: 0, body });
        }
        wire.push(run, priority);
    }
}
