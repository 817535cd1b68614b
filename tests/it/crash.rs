//! Survives anything, part one: the driver's future is dropped at its Nth poll, for every N until it completes, under
//! a clock that the test moves. Whatever it was doing, the next claim goes on from the journal alone and ends in the
//! same state.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir::clock::Clock as _;
use weir::engine::steps::Performer;
use weir::engine::{Drove, Hold, Workbench, drive};
use weir::model::definition::Definition;
use weir::model::id::{RunId, WorkflowId};
use weir::model::journal::{Event, Message};
use weir::model::limits::Limits;
use weir::model::state::{Phase, RunState};
use weir::store::{Claimed, Location, NewRevision, NewRun, Store};
use weir::tools::{Tools, Upload};
use weir::vault::Vault;
use weir::wire::LocalWire;
use weir_host::plugin::{PluginHost, Trust};
use weir_tests::clock::ManualClock;
use weir_tests::postgres::Postgres;
use weir_tests::target::Target;

/// Setting up a sandbox takes address space and threads: one is enough for all scenes.
static HOST: LazyLock<PluginHost> = LazyLock::new(weir_tests::plugin::host);

pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// Sleeps up to this long are skipped as soon as the driver waits: retries and waits, never a step's timeout.
const SKIPPED: Duration = Duration::from_secs(5);

/// Where the database of a scene is: a fresh file for each, or one database for all. A Postgres server without fsync: these
/// tests crash the driver, and not the server.
pub(crate) enum Stage {
    Sqlite,
    Postgres { _server: Box<Postgres>, location: Location, next: AtomicU32 },
}

impl Stage {
    pub(crate) async fn postgres() -> Self {
        let server = Postgres::start_with(&["fsync=off"]).await;
        let location = Location::Cluster { url: server.database().await, connections_max: 3 };
        Self::Postgres { _server: Box::new(server), location, next: AtomicU32::new(0) }
    }

    /// A location, and a number for what a scene makes there.
    fn place(&self, dir: &TempDir) -> (Location, u128) {
        match self {
            Self::Sqlite => (Location::Embedded { path: dir.path().join("weir.db") }, 0),
            Self::Postgres { location, next, .. } => {
                (location.clone(), 10 * u128::from(next.fetch_add(1, Ordering::SeqCst)))
            }
        }
    }
}

/// One run in a database.
pub(crate) struct Scene {
    pub(crate) bench: Workbench,
    pub(crate) clock: ManualClock,
    target: Target,
    pub(crate) run: RunId,
    _dir: TempDir,
}

/// A script: the steps of a run for a target, and how the target answers.
pub(crate) struct Script {
    pub(crate) steps: fn(&Target) -> Value,
    pub(crate) answers: fn(&Target),
    pub(crate) cancel: bool,
}

fn limits() -> Limits {
    Limits {
        definition_max_bytes: 1 << 18,
        steps_max: 100,
        attempts_max: 100,
        step_timeout_max: Duration::from_secs(3600),
        run_timeout_max: Duration::from_secs(86_400),
        step_output_max_bytes: 1 << 20,
        context_max_bytes: 1 << 23,
    }
}

impl Scene {
    pub(crate) async fn new(stage: &Stage, script: &Script) -> Self {
        let (clock, target) = (ManualClock::default(), Target::start().await);
        (script.answers)(&target);
        let dir = TempDir::new().expect("a directory");
        let (location, number) = stage.place(&dir);
        let store = Store::open(&location, Arc::new(clock.clone())).await.expect("opens");
        let vault = Vault::new("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "a test").expect("a key");
        let tools = Tools::new(store.clone(), HOST.clone(), Arc::new(vault), Trust::default());
        // Connections belong to the runtime of a test: each scene has its own.
        let performer = Performer::new(weir_tests::plugin::egress(), 16, tools.clone());
        let bench =
            Workbench::new(store.clone(), Arc::new(clock.clone()), performer, limits(), Arc::new(LocalWire::default()));
        let workflow = WorkflowId(Uuid::from_u128(number + 1));
        let definition = weir_tests::definition(&(script.steps)(&target));
        if definition.to_string().contains("mcp_tool") {
            let asks = definition.to_string().contains("frozen");
            let module = || weir::bench::module().expect("a small plugin");
            let bytes = if asks { crate::frozen::modest() } else { module() };
            let upload = Upload { bytes, name: None, version: None, activate: true, signature: None };
            tools.upload(upload).await.expect("a plugin");
        }
        let parsed = Definition::parse(&definition, &limits()).expect("sound");
        let tool_lock = tools.lock(&parsed).await.expect("read").expect("found");
        let revision = NewRevision { name: "crash".to_owned(), definition, tool_lock };
        store.create_workflow(workflow, revision).await.expect("created");
        let run = RunId(Uuid::from_u128(number + 2));
        let new = NewRun {
            id: run,
            workflow_id: workflow,
            revision: 1,
            input: "{\"who\": \"Ada\"}".into(),
            created_at: clock.now(),
            due_at: clock.now(),
            caller: None,
            idempotency: None,
            begun: None,
        };
        store.create_run(new).await.expect("created");
        if script.cancel {
            store.send(run, Message::Cancel).await.expect("sent");
        }
        Self { bench, clock, target, run, _dir: dir }
    }

    pub(crate) async fn claim(&self) -> Option<Claimed> {
        let store = &self.bench.store;
        match store.claim_due(1, LEASE).await.expect("claims").pop() {
            Some(claimed) => Some(claimed),
            None => store.claim_suspect(LEASE).await.expect("claims"),
        }
    }

    /// Polls a driver `polls` times; drops it then unless it has completed.
    pub(crate) async fn drive(&self, claimed: Claimed, polls: usize) -> Option<Drove> {
        let (hold, stopping) = (Hold::of(&claimed), CancellationToken::new());
        let driving = drive(&self.bench, claimed, &hold, &stopping);
        tokio::pin!(driving);
        let mut polled = 0;
        weir_tests::within(
            "a driver",
            std::future::poll_fn(|cx| {
                if polled == polls {
                    return Poll::Ready(None);
                }
                polled += 1;
                let poll = driving.as_mut().poll(cx).map(Some);
                if poll.is_pending() {
                    self.clock.advance_to_sleeper(SKIPPED);
                }
                poll
            }),
        )
        .await
    }

    /// Drives the run to its end, however often that takes.
    pub(crate) async fn finish(&self) {
        let mut drove = Vec::new();
        for _ in 0..20 {
            // Its end may have been on its way to the disk when the driver was dropped.
            if self.state().await.outcome.is_some() {
                return;
            }
            self.clock.advance(LEASE);
            let Some(claimed) = self.claim().await else { continue };
            drove.push(self.drive(claimed, usize::MAX).await);
        }
        panic!("the run does not end: {drove:?} {:#?}", self.events().await);
    }

    async fn events(&self) -> Vec<Event> {
        let entries = self.bench.store.journal(self.run, 0, u32::MAX).await.expect("a journal");
        entries.into_iter().flat_map(|entry| entry.events).collect()
    }

    pub(crate) async fn state(&self) -> RunState {
        RunState::fold(&self.events().await).expect("a legal journal")
    }

    /// The state without what may differ: attempts, claims, times, and headers that hold the time.
    pub(crate) async fn outcome(&self) -> Value {
        let state = self.state().await;
        let steps: Vec<Value> = state
            .steps
            .iter()
            .map(|(path, step)| {
                let phase = match step.phase {
                    Phase::Retrying(_) => "Retrying".to_owned(),
                    phase => format!("{phase:?}"),
                };
                let output =
                    step.output.as_ref().map(|output| json!({"result": output.result, "status": output.status}));
                json!({"path": path, "phase": phase, "output": output, "error": step.error})
            })
            .collect();
        json!({"outcome": state.outcome, "error": state.error, "steps": steps, "received": state.received})
    }
}

/// Drops the driver at every poll and compares how it ends, on each kind of database: the same script has the same end on
/// both.
async fn survives(script: Script) {
    let undisturbed = Scene::new(&Stage::Sqlite, &script).await;
    undisturbed.finish().await;
    let expected = (undisturbed.outcome().await, undisturbed.target.port());
    survives_on(&Stage::Sqlite, &script, &expected).await;
    survives_on(&Stage::postgres().await, &script, &expected).await;
}

async fn survives_on(stage: &Stage, script: &Script, (expected, port): &(Value, u16)) {
    for polls in 0.. {
        let scene = Scene::new(stage, script).await;
        let claimed = scene.claim().await.expect("a due run");
        let ended = scene.drive(claimed, polls).await;
        // What was handed to the store before the drop is written before this claim is answered.
        assert!(scene.bench.store.claim(Vec::new(), LEASE).await.expect("claims").is_empty());
        let state = scene.state().await;
        let done: Vec<_> = state.steps.iter().filter(|(_, step)| step.phase == Phase::Completed).collect();
        let count = |path: &str| scene.target.received(&format!("/{path}")).len();
        let before: Vec<_> = done.iter().map(|(path, _)| (path.as_str(), count(path.as_str()))).collect();
        if ended.is_none() {
            scene.finish().await;
        }
        let text = scene.outcome().await.to_string().replace(&scene.target.port().to_string(), &port.to_string());
        assert_eq!(text, expected.to_string(), "dropped after {polls} polls");
        for (path, requests) in before {
            assert_eq!(count(path), requests, "{path} was performed again, dropped after {polls} polls");
        }
        if ended.is_some() {
            assert!(polls > 5, "a driver that never waits cannot be interrupted: {polls} polls");
            return;
        }
    }
}

#[tokio::test]
async fn a_run_that_succeeds() {
    survives(Script {
        steps: |target| {
            json!([
                {"type": "http", "name": "first", "method": "POST", "url": target.url("/first"), "json": "{{ trigger }}"},
                {"type": "persist_snapshot", "name": "kept"},
                {"type": "http", "name": "skipped", "url": target.url("/skipped"), "if": "steps.first.result.n > 99"},
                {"type": "http", "name": "second", "url": target.url("/second"), "query": {"who": "{{ trigger.who }}"}},
                {"type": "persist_snapshot", "name": "all"},
            ])
        },
        // The same answer for every attempt, as a service gives that honours idempotency keys.
        answers: |target| {
            target.answer_with("/first", |_| async { axum::Json(json!({"n": 17})) });
            target.answer_with("/second", |_| async { "done" });
        },
        cancel: false,
    })
    .await;
}

#[tokio::test]
async fn a_run_that_retries() {
    survives(Script {
        steps: |target| {
            json!([
                {"type": "http", "name": "flaky", "url": target.url("/flaky")},
                {"type": "http", "name": "after", "url": target.url("/after")},
            ])
        },
        answers: |target| {
            target.answer("/flaky", StatusCode::SERVICE_UNAVAILABLE);
            target.answer_with("/flaky", |_| async { "up again" });
            target.answer_with("/after", |_| async { "done" });
        },
        cancel: false,
    })
    .await;
}

#[tokio::test]
async fn a_run_that_calls_a_tool() {
    survives(Script {
        steps: |target| {
            json!([
                {"type": "mcp_tool", "name": "call", "tool_name": "echo", "input": {"name": "{{ trigger.who }}"}},
                {"type": "http", "name": "after", "url": target.url("/after"), "query": {"said": "{{ steps.call.result.name }}"}},
            ])
        },
        answers: |target| target.answer_with("/after", |_| async { "done" }),
        cancel: false,
    })
    .await;
}

#[tokio::test]
async fn a_run_that_fails() {
    survives(Script {
        steps: |target| {
            json!([
                {"type": "http", "name": "first", "url": target.url("/first")},
                {"type": "http", "name": "gone", "url": target.url("/gone")},
                {"type": "http", "name": "never", "url": target.url("/never")},
            ])
        },
        answers: |target| {
            target.answer_with("/first", |_| async { "done" });
            target.answer_with("/gone", |_| async { StatusCode::GONE });
        },
        cancel: false,
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_canceled() {
    let script = Script {
        steps: |target| json!([{"type": "http", "name": "first", "url": target.url("/first")}]),
        answers: |_| {},
        cancel: true,
    };
    let scene = Scene::new(&Stage::Sqlite, &script).await;
    scene.finish().await;
    assert_eq!(scene.outcome().await["outcome"], "CANCELED");
    assert_eq!(scene.target.all().len(), 0);
}

#[tokio::test]
async fn a_step_that_must_not_be_repeated_fails_when_it_is_interrupted() {
    let script = Script {
        steps: |target| json!([{"type": "http", "name": "once", "url": target.url("/once"), "on_interrupt": "fail"}]),
        answers: |target| target.hold("/once"),
        cancel: false,
    };
    let scene = Scene::new(&Stage::Sqlite, &script).await;
    let claimed = scene.claim().await.expect("a due run");
    {
        let driving = scene.drive(claimed, usize::MAX);
        tokio::pin!(driving);
        tokio::select! {
            _ = &mut driving => panic!("the target holds the request"),
            () = scene.target.received_at("/once", 1) => {}
        }
    }
    scene.target.release("/once");
    scene.finish().await;
    let outcome = scene.outcome().await;
    assert_eq!(outcome["outcome"], "FAILED");
    crate::errors::failure("interrupted", &outcome["error"]);
    assert_eq!(scene.target.received("/once").len(), 1);
}

#[tokio::test]
async fn a_driver_whose_claim_is_lost_writes_nothing_more() {
    let script = Script {
        steps: |target| json!([{"type": "http", "name": "slow", "url": target.url("/slow"), "timeout_seconds": 600}]),
        answers: |target| {
            target.hold("/slow");
            target.answer_with("/slow", |_| async { "done" });
        },
        cancel: false,
    };
    let scene = Scene::new(&Stage::Sqlite, &script).await;
    let claimed = scene.claim().await.expect("a due run");
    let slow = scene.drive(claimed, usize::MAX);
    let steal = async {
        scene.target.received_at("/slow", 1).await;
        // The lease ends while the request is under way, and somebody else takes the run to its end.
        scene.clock.advance(LEASE);
        let stolen = scene.claim().await.expect("the lease is over");
        let other = scene.drive(stolen, usize::MAX);
        let release = async {
            scene.target.received_at("/slow", 2).await;
            scene.target.release("/slow");
        };
        tokio::join!(other, release).0
    };
    let (lost, won) = tokio::join!(slow, steal);
    // Both have their answer; only the one that holds the claim may write it.
    assert_eq!((lost, matches!(won, Some(Drove::Finished(_)))), (Some(Drove::Lost), true));
    let finished = scene.events().await.iter().filter(|event| matches!(event, Event::Finished { .. })).count();
    assert_eq!(finished, 1);
}
