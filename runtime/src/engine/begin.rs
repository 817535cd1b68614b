//! Runs that begin with their creation: a process that has room for one more claims it in the very statement that creates
//! it, and writes the first append with it. Whoever has no room leaves the run to whoever follows the hint.

use std::sync::Arc;

use super::claims::Hold;
use super::driver::drive_beginning;
use super::drivers::Driven;
use super::revisions::Parsed;
use super::{Engine, Workbench};
use crate::clock::new_token;
use crate::meter::meter;
use crate::model::context::RunFacts;
use crate::model::decide::{self, Decision, Effect, current_step_index};
use crate::model::id::ClaimToken;
use crate::model::journal::Event;
use crate::model::state::RunState;
use crate::store::{Begun, Created, NewRun, StoreError};

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
    /// Creates a run and, where there is room for it in this process, drives it from there. Answers whether it does so.
    ///
    /// # Errors
    /// As [`crate::store::Store::create_run`].
    pub(super) async fn create(&self, mut new: NewRun) -> Result<(Created, bool), StoreError> {
        let inner = &self.inner;
        let executes = inner.settings.executes && !inner.stopping.is_cancelled();
        let permit = if executes { inner.drivers.take_early() } else { None };
        let Some(permit) = permit else {
            return Ok((inner.bench.store.create_run(new).await?, false));
        };
        let bench = &inner.bench;
        let parsed = bench.revisions.get(&bench.store, &bench.limits, new.workflow_id, new.revision).await?;
        let beginning = parsed.ok().and_then(|parsed| Beginning::of(bench, &new, parsed));
        let Some((beginning, events)) = beginning else {
            return Ok((inner.bench.store.create_run(new).await?, false));
        };
        let step_index = current_step_index(&beginning.revision.definition, &beginning.state);
        let token = ClaimToken(new_token());
        new.begun = Some(Begun { token, lease: inner.settings.lease, events, step_index });
        let engine = self.clone();
        // A run that is created under a claim needs its driver, even when whoever asked for it goes away.
        let created = self.spawn(async move {
            let (workflow_id, created_at) = (new.workflow_id, new.created_at);
            let claim = new.claim();
            let created = engine.inner.bench.store.create_run(new).await?;
            if let (Created::New, Some(claim)) = (&created, claim) {
                meter().accepted();
                meter().claimed("creation", 1);
                let hold = Hold::new(&claim, 0);
                let driven =
                    Driven { hold: Arc::clone(&hold), workflow_id, created_at, permit: Some(permit), alone: None };
                let inner = Arc::clone(&engine.inner);
                let driving =
                    async move { drive_beginning(&inner.bench, beginning, claim, &hold, &inner.stopping).await };
                engine.drive(driven, Box::pin(driving));
            }
            Ok::<_, StoreError>(created)
        });
        let created = created.await.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        Ok((created, true))
    }
}
