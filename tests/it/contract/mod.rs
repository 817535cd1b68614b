//! What every database must do, whatever it is: written against the store alone, run on each database we have.

mod advance;
mod rights;
mod shared;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;
use weir::clock::Clock as _;
use weir::model::error::{Failure, FailureCode};
use weir::model::id::{RunId, WorkflowId};
use weir::model::journal::{Event, Outcome, Output};
use weir::model::path::StepPath;
use weir::model::plugin::ToolLock;
use weir::store::{Append, Appended, Claimed, Created, Location, NewRevision, NewRun, Next, Status, Store};
use weir_tests::clock::ManualClock;
use weir_tests::postgres::Postgres;

use advance::*;
use rights::*;
use stored::*;

const LEASE: Duration = Duration::from_secs(30);

/// A database of its own for one test, and the clock that it goes by.
struct Database {
    store: Store,
    clock: ManualClock,
    location: Location,
    server: Server,
}

/// What a database lives in.
enum Server {
    Sqlite { _dir: TempDir },
    Postgres(Box<Postgres>),
}

/// A fresh SQLite database.
async fn sqlite() -> Database {
    let dir = TempDir::new().expect("a directory");
    let location = Location::Embedded { path: dir.path().join("weir.db") };
    Database::open(location, Server::Sqlite { _dir: dir }).await
}

/// A fresh database on a Postgres server of its own.
async fn postgres() -> Database {
    let server = Postgres::start().await;
    let location = Location::Cluster { url: server.database().await, connections_max: 5 };
    Database::open(location, Server::Postgres(Box::new(server))).await
}

/// Runs every test of the contract on each kind of database.
macro_rules! contract {
    ($($database:ident),*) => {
        $(mod $database {
            contract_tests! { $database:
                a_created_run_is_there_and_queued, one_key_makes_one_run, what_is_switched_off_or_changed_makes_no_run, a_run_may_begin_with_its_creation, a_batch_of_creations_is_all_there,
                a_claim_excludes_every_other_until_its_lease_ends, an_append_needs_the_claim_and_its_sequence,
                a_repeated_append_is_written_once, a_wait_gives_the_claim_back_until_its_time,
                a_message_makes_a_waiting_run_due_at_once, a_message_that_came_before_a_wait_is_not_slept_over, the_first_answer_to_a_question_counts,
                a_finished_run_is_never_claimed, only_a_failed_run_is_opened_again,
                claims_without_progress_make_a_suspect, a_release_counts_no_interruption,
                suspects_are_claimed_one_at_a_time_and_by_themselves, due_runs_are_claimed_the_longest_due_first,
                revisions_never_change, a_version_of_a_plugin_is_one_component, a_path_belongs_to_one_endpoint, pages_follow_each_other_without_gaps,
                a_value_with_a_nul_character_harms_nobody, every_list_can_be_filtered, a_fact_is_settled_once,
                revisions_that_are_made_at_once_get_numbers_of_their_own, keys_are_known_by_their_digests,
                a_name_means_its_active_version, what_a_revision_pins_is_not_deleted, what_is_pinned_while_it_is_deleted_stays_or_is_not_pinned, secrets_are_kept_by_name,
                what_ended_long_ago_is_swept_away_and_nothing_else, it_is_known_how_long_the_oldest_claimable_run_waits,
            }
        })*
    };
}

macro_rules! contract_tests {
    ($database:ident: $($test:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            super::$test(super::$database().await).await;
        })*
    };
}

contract!(sqlite, postgres);

const WORKFLOW: WorkflowId = WorkflowId(Uuid::from_u128(7));

impl Database {
    async fn open(location: Location, server: Server) -> Self {
        let clock = ManualClock::default();
        let store = Store::open(&location, Arc::new(clock.clone())).await.expect("opens");
        let nothing =
            NewRevision { name: "w".to_owned(), definition: json!({"steps": []}), tool_lock: ToolLock::new() };
        store.create_workflow(WORKFLOW, nothing).await.expect("created");
        Self { store, clock, location, server }
    }

    /// The store as another process has it.
    async fn another(&self) -> Store {
        Store::open(&self.location, Arc::new(self.clock.clone())).await.expect("opens")
    }

    fn run(&self, n: u128) -> NewRun {
        let now = self.clock.now();
        NewRun {
            id: RunId(Uuid::from_u128(n)),
            workflow_id: WORKFLOW,
            revision: 1,
            input: "null".into(),
            created_at: now,
            due_at: now.plus(Duration::from_secs(2)),
            caller: None,
            idempotency: None,
            begun: None,
        }
    }

    async fn create(&self, n: u128) -> RunId {
        let run = self.run(n);
        assert_eq!(self.store.create_run(run.clone()).await.expect("created"), Created::New);
        run.id
    }

    async fn claim(&self, run: RunId) -> Option<Claimed> {
        self.store.claim(vec![run], LEASE).await.expect("claims").pop()
    }

    async fn claimed(&self, n: u128) -> Claimed {
        let run = self.create(n).await;
        self.claim(run).await.expect("a free run")
    }

    async fn due(&self) -> Vec<RunId> {
        self.store.claim_due(100, LEASE).await.expect("claims").iter().map(|claimed| claimed.claim.run).collect()
    }

    async fn status(&self, run: RunId) -> Status {
        self.store.run(run).await.expect("readable").expect("there").status
    }

    fn started(&self) -> Append {
        append(vec![Event::Started { at: self.clock.now() }], Next::Continue)
    }

    fn completed(&self, next: Next) -> Append {
        let output = Output::of(json!("a\0b"));
        append(vec![Event::Completed { path: StepPath::top("a"), output, at: self.clock.now() }], next)
    }

    fn finish(&self, outcome: Outcome) -> Append {
        let error = (outcome == Outcome::Failed).then(|| Failure::new(FailureCode::HttpStatus, "500"));
        let at = self.clock.now();
        append(vec![Event::Finished { outcome, error: error.clone(), at }], Next::Finish(outcome, error, at))
    }

    async fn write(&self, claimed: &mut Claimed, append: &Append) -> Appended {
        self.store.append(&mut claimed.claim, append).await.expect("writable")
    }
}

fn append(events: Vec<Event>, next: Next) -> Append {
    Append { events, received: 0, step_index: None, next, durable: false }
}

fn written(inbox: u32) -> Appended {
    Appended::Written { inbox }
}
