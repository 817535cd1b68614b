//! What every database must do, whatever it is: written against the store alone, run on each database we have.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;
use weir::clock::Clock as _;
use weir::model::error::{Failure, FailureCode};
use weir::model::id::{EndpointId, RunId, WorkflowId};
use weir::model::journal::{Event, Message, Outcome, Output};
use weir::model::path::StepPath;
use weir::store::{
    Append, Appended, Claimed, Created, EndpointChange, Idempotency, Location, NewEndpoint, NewRevision, NewRun, Next,
    PageRequest, PathTaken, RunFilter, Sent, Status, Store, WorkflowChange,
};
use weir_tests::clock::ManualClock;

const LEASE: Duration = Duration::from_secs(30);

/// A database of its own for one test, and the clock that it goes by.
struct Database {
    store: Store,
    clock: ManualClock,
    location: Location,
    _dir: TempDir,
}

/// A fresh SQLite database.
async fn sqlite() -> Database {
    let (dir, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let location = Location::Embedded { path: dir.path().join("weir.db") };
    let store = Store::open(&location, Arc::new(clock.clone())).await.expect("opens");
    let nothing = NewRevision { name: "w".to_owned(), definition: json!({"steps": []}) };
    store.create_workflow(WORKFLOW, nothing).await.expect("created");
    Database { store, clock, location, _dir: dir }
}

/// Runs every test of the contract on one kind of database. Another database joins by one more line.
macro_rules! contract {
    ($($database:ident),*) => {
        $(mod $database {
            contract_tests! { $database:
                a_created_run_is_there_and_queued, one_key_makes_one_run, what_is_switched_off_makes_no_run, a_batch_of_creations_is_all_there,
                a_claim_excludes_every_other_until_its_lease_ends, an_append_needs_the_claim_and_its_sequence,
                a_repeated_append_is_written_once, a_wait_gives_the_claim_back_until_its_time,
                a_message_makes_a_waiting_run_due_at_once, a_message_that_came_before_a_wait_is_not_slept_over,
                a_finished_run_is_never_claimed, only_a_failed_run_is_opened_again,
                claims_without_progress_make_a_suspect, a_release_counts_no_interruption,
                suspects_are_claimed_one_at_a_time_and_by_themselves, due_runs_are_claimed_the_longest_due_first,
                revisions_never_change, a_path_belongs_to_one_endpoint, pages_follow_each_other_without_gaps,
                a_value_with_a_nul_character_harms_nobody, opening_again_voids_every_claim,
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

contract!(sqlite);

const WORKFLOW: WorkflowId = WorkflowId(Uuid::from_u128(7));

impl Database {
    fn run(&self, n: u128) -> NewRun {
        let now = self.clock.now();
        NewRun {
            id: RunId(Uuid::from_u128(n)),
            workflow_id: WORKFLOW,
            revision: 1,
            input: b"null".to_vec(),
            created_at: now,
            due_at: now.plus(Duration::from_secs(2)),
            endpoint: None,
            idempotency: None,
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
        let output = Output { result: json!("a\0b"), status: None, headers: None };
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

async fn a_created_run_is_there_and_queued(db: Database) {
    let run = db.create(1).await;
    let row = db.store.run(run).await.expect("readable").expect("there");
    assert_eq!((row.status, row.created_at, row.started_at), (Status::Queued, db.clock.now(), None));
    assert!(db.store.run(RunId(Uuid::from_u128(99))).await.expect("readable").is_none());
}

async fn one_key_makes_one_run(db: Database) {
    let with = |n: u128, key: &str, hash: u8| NewRun {
        idempotency: Some(Idempotency { key: key.to_owned(), hash: Some([hash; 32]) }),
        ..db.run(n)
    };
    let (first, same, other) = tokio::join!(
        db.store.create_run(with(1, "k", 1)),
        db.store.create_run(with(2, "k", 1)),
        db.store.create_run(with(3, "other", 1)),
    );
    assert_eq!(first.expect("created"), Created::New);
    assert_eq!(same.expect("found"), Created::Repeated(RunId(Uuid::from_u128(1))));
    assert_eq!(other.expect("created"), Created::New);
    assert_eq!(db.store.create_run(with(4, "k", 2)).await.expect("compared"), Created::Conflict);
}

async fn what_is_switched_off_makes_no_run(db: Database) {
    let endpoint = EndpointId(Uuid::from_u128(5));
    let new = NewEndpoint { id: endpoint, workflow_id: WORKFLOW, path: "hook".to_owned(), secret: vec![1] };
    assert!(db.store.create_endpoint(new).await.expect("written").is_ok());
    let delivered = |n: u128| NewRun { endpoint: Some(endpoint), ..db.run(n) };
    let create = async |run: NewRun| db.store.create_run(run).await.expect("answered");
    assert_eq!(create(delivered(1)).await, Created::New);
    assert!(db.store.change_endpoint(endpoint, EndpointChange::SetActive(false)).await.expect("changed").is_some());
    assert_eq!(create(delivered(2)).await, Created::Inactive);
    assert_eq!(create(db.run(3)).await, Created::New);
    assert!(db.store.change_workflow(WORKFLOW, WorkflowChange::SetActive(false)).await.expect("changed").is_some());
    assert_eq!(create(db.run(4)).await, Created::Inactive);
}

async fn a_batch_of_creations_is_all_there(db: Database) {
    let created = futures::future::join_all((1..=500).map(|n| db.store.create_run(db.run(n)))).await;
    assert!(created.into_iter().all(|created| created.expect("created") == Created::New));
    db.clock.advance(Duration::from_secs(2));
    assert_eq!(db.due().await.len(), 100);
}

async fn a_claim_excludes_every_other_until_its_lease_ends(db: Database) {
    let mut first = db.claimed(1).await;
    let run = first.claim.run;
    assert_eq!(db.status(run).await, Status::Running);
    assert!(db.claim(run).await.is_none());
    db.clock.advance(LEASE);
    let second = db.claim(run).await.expect("the lease is over");
    assert_ne!(second.claim.token, first.claim.token);
    assert_eq!(second.interrupts, 1);
    assert_eq!(db.write(&mut first, &db.started()).await, Appended::Lost);
}

async fn an_append_needs_the_claim_and_its_sequence(db: Database) {
    let mut claimed = db.claimed(1).await;
    assert_eq!(db.write(&mut claimed, &db.started()).await, written(0));
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, written(0));
    assert_eq!(claimed.claim.seq, 2);
    let entries = db.store.journal(claimed.claim.run, 0, 10).await.expect("readable");
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(entries[1].events, db.completed(Next::Continue).events);
    claimed.claim.seq = 7;
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, Appended::Lost);
    assert_eq!(db.store.journal(claimed.claim.run, 2, 10).await.expect("readable").len(), 0);
}

async fn a_repeated_append_is_written_once(db: Database) {
    let mut claimed = db.claimed(1).await;
    for append in [db.started(), db.finish(Outcome::Succeeded)] {
        assert_eq!(db.write(&mut claimed, &append).await, written(0));
        // Its answer got lost: the caller asks again with the same token and sequence.
        claimed.claim.seq -= 1;
        assert_eq!(db.write(&mut claimed, &append).await, written(0));
    }
    assert_eq!(db.store.journal(claimed.claim.run, 0, 10).await.expect("readable").len(), 2);
}

async fn a_wait_gives_the_claim_back_until_its_time(db: Database) {
    let mut claimed = db.claimed(1).await;
    db.write(&mut claimed, &db.started()).await;
    let until = db.clock.now().plus(Duration::from_secs(600));
    db.write(&mut claimed, &db.completed(Next::Wait(until))).await;
    let run = claimed.claim.run;
    assert_eq!((db.status(run).await, db.store.next_due().await.expect("readable")), (Status::Waiting, Some(until)));
    db.clock.advance(Duration::from_secs(599));
    assert_eq!(db.due().await, []);
    db.clock.advance(Duration::from_secs(1));
    assert_eq!(db.due().await, [run]);
    // Waiting is no interruption.
    assert_eq!(db.store.run(run).await.expect("readable").expect("there").status, Status::Running);
}

async fn a_message_makes_a_waiting_run_due_at_once(db: Database) {
    let mut claimed = db.claimed(1).await;
    db.write(&mut claimed, &db.started()).await;
    let run = claimed.claim.run;
    db.write(&mut claimed, &db.completed(Next::Wait(db.clock.now().plus(Duration::from_secs(600))))).await;
    assert!(matches!(db.store.send(run, Message::Cancel).await.expect("sent"), Sent::Delivered(_)));
    let again = db.claim(run).await.expect("due at once");
    assert_eq!(again.inbox, 1);
    assert_eq!(db.store.messages(run, 0).await.expect("readable"), [(1, Message::Cancel)]);
    assert_eq!(db.store.messages(run, 1).await.expect("readable"), []);
}

async fn a_message_that_came_before_a_wait_is_not_slept_over(db: Database) {
    let mut claimed = db.claimed(1).await;
    let run = claimed.claim.run;
    assert_eq!(db.write(&mut claimed, &db.started()).await, written(0));
    db.store.send(run, Message::Cancel).await.expect("sent");
    let far = db.clock.now().plus(Duration::from_secs(600));
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Wait(far))).await, written(1));
    assert_eq!(db.due().await, [run]);
    let other = db.claimed(2).await.claim;
    db.store.send(other.run, Message::Cancel).await.expect("sent");
    db.store.release(other.run, other.token, far, 0).await.expect("released");
    assert_eq!(db.due().await, [other.run]);
}

async fn a_finished_run_is_never_claimed(db: Database) {
    let mut claimed = db.claimed(1).await;
    let run = claimed.claim.run;
    db.write(&mut claimed, &db.started()).await;
    db.write(&mut claimed, &db.finish(Outcome::Succeeded)).await;
    db.clock.advance(LEASE * 10);
    assert!(db.claim(run).await.is_none());
    assert_eq!(db.due().await, []);
    assert_eq!(db.status(run).await, Status::Ended(Outcome::Succeeded));
    assert!(matches!(db.store.send(run, Message::Cancel).await.expect("answered"), Sent::Refused));
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, Appended::Lost);
}

async fn only_a_failed_run_is_opened_again(db: Database) {
    let mut failed = db.claimed(1).await;
    let run = failed.claim.run;
    assert!(matches!(db.store.send(run, Message::Redrive).await.expect("answered"), Sent::Refused));
    db.write(&mut failed, &db.started()).await;
    db.write(&mut failed, &db.finish(Outcome::Failed)).await;
    let row = db.store.run(run).await.expect("readable").expect("there");
    assert_eq!(row.error.expect("an error").code, FailureCode::HttpStatus);
    assert!(matches!(db.store.send(run, Message::Redrive).await.expect("sent"), Sent::Delivered(_)));
    let row = db.store.run(run).await.expect("readable").expect("there");
    assert_eq!((row.status, row.error, row.finished_at), (Status::Waiting, None, None));
    let again = db.claim(run).await.expect("open again");
    assert_eq!((again.claim.seq, again.inbox, again.interrupts), (2, 1, 0));
}

async fn claims_without_progress_make_a_suspect(db: Database) {
    let run = db.create(1).await;
    for interrupts in 0..2 {
        let mut claimed = db.claim(run).await.expect("free");
        assert_eq!(claimed.interrupts, interrupts);
        // The note that it began is no progress.
        if claimed.claim.seq == 0 {
            db.write(&mut claimed, &db.started()).await;
        }
        db.clock.advance(LEASE);
    }
    assert!(db.claim(run).await.is_none());
    assert_eq!(db.due().await, []);
    let mut suspect = db.store.claim_suspect(LEASE).await.expect("claims").expect("a suspect");
    assert_eq!(suspect.interrupts, 2);
    db.write(&mut suspect, &db.completed(Next::Continue)).await;
    db.clock.advance(LEASE);
    assert_eq!(db.claim(run).await.expect("progress clears it").interrupts, 1);
}

async fn a_release_counts_no_interruption(db: Database) {
    let run = db.create(1).await;
    for _ in 0..5 {
        let claimed = db.claim(run).await.expect("free");
        assert_eq!(claimed.interrupts, 0);
        db.store.release(run, claimed.claim.token, db.clock.now(), 0).await.expect("released");
    }
    let broken = db.claim(run).await.expect("free");
    db.store.abandon(run, broken.claim.token, db.clock.now()).await.expect("abandoned");
    assert_eq!(db.claim(run).await.expect("free").interrupts, 1);
}

async fn suspects_are_claimed_one_at_a_time_and_by_themselves(db: Database) {
    for n in 1..=3 {
        db.create(n).await;
    }
    for _ in 0..2 {
        db.clock.advance(LEASE);
        assert_eq!(db.due().await.len(), 3);
    }
    let fresh = db.create(4).await;
    db.clock.advance(LEASE);
    assert_eq!(db.due().await, [fresh]);
    assert!(db.store.claim_suspect(LEASE).await.expect("claims").is_some());
}

async fn due_runs_are_claimed_the_longest_due_first(db: Database) {
    let mut runs = Vec::new();
    for n in [3, 1, 2] {
        runs.push(db.create(n).await);
        db.clock.advance(Duration::from_millis(10));
    }
    assert_eq!(db.due().await, []);
    db.clock.advance(Duration::from_secs(2));
    let first = db.store.claim_due(2, LEASE).await.expect("claims");
    assert_eq!(
        first.iter().map(|claimed| claimed.claim.run).collect::<std::collections::HashSet<_>>(),
        std::collections::HashSet::from([runs[0], runs[1]])
    );
    assert_eq!(db.due().await, [runs[2]]);
}

async fn revisions_never_change(db: Database) {
    let revision = |name: &str, n: i32| NewRevision { name: name.to_owned(), definition: json!({"z": n, "a": "\0"}) };
    let workflow = WorkflowId(Uuid::from_u128(8));
    db.store.create_workflow(workflow, revision("one", 1)).await.expect("created");
    let revise = WorkflowChange::Revise(Some("two".to_owned()), None);
    let changed = db.store.change_workflow(workflow, revise).await.expect("changed").expect("there");
    assert_eq!(changed.revision.number, 2);
    assert!(db.store.change_workflow(workflow, WorkflowChange::SetActive(false)).await.expect("changed").is_some());
    let id = workflow;
    let workflow = db.store.workflow(id).await.expect("readable").expect("there");
    assert_eq!((workflow.revision.number, workflow.revision.name.as_str(), workflow.is_active), (2, "two", false));
    let first = db.store.revision(id, 1).await.expect("readable").expect("there");
    assert_eq!((first.name.as_str(), first.definition.to_string()), ("one", r#"{"z":1,"a":"\u0000"}"#.to_owned()));
    let numbers: Vec<_> =
        db.store.revisions(id, u32::MAX, 10).await.expect("readable").iter().map(|r| r.number).collect();
    assert_eq!(numbers, [2, 1]);
    let nobody = WorkflowId(Uuid::from_u128(9));
    assert!(db.store.change_workflow(nobody, WorkflowChange::SetActive(true)).await.expect("answered").is_none());
}

async fn a_path_belongs_to_one_endpoint(db: Database) {
    let endpoint = |n: u128| NewEndpoint {
        id: EndpointId(Uuid::from_u128(n)),
        workflow_id: WORKFLOW,
        path: "hook".to_owned(),
        secret: vec![1],
    };
    let (one, two) = tokio::join!(db.store.create_endpoint(endpoint(1)), db.store.create_endpoint(endpoint(2)));
    assert_eq!(one.expect("written").map(|endpoint| endpoint.path), Ok("hook".to_owned()));
    assert_eq!(two.expect("written").err(), Some(PathTaken));
    let id = EndpointId(Uuid::from_u128(1));
    let until = db.clock.now().plus(LEASE);
    assert!(db.store.change_endpoint(id, EndpointChange::Rotate(vec![2], until)).await.expect("changed").is_some());
    let found = db.store.endpoint_by_path("hook").await.expect("readable").expect("there");
    assert_eq!((found.secret, found.previous_secret), (vec![2], Some((vec![1], until))));
    assert!(db.store.delete_endpoint(id).await.expect("deleted"));
    assert!(!db.store.delete_endpoint(id).await.expect("answered"));
    assert!(db.store.endpoint(id).await.expect("readable").is_none());
}

async fn pages_follow_each_other_without_gaps(db: Database) {
    for n in 1..=7 {
        db.create(n).await;
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let request = PageRequest { limit: 3, after };
        let page = db.store.runs(RunFilter::default(), request).await.expect("readable");
        seen.extend(page.items.iter().map(|run| run.id.0.as_u128()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    let elsewhere = RunFilter { workflow_id: Some(WorkflowId(Uuid::from_u128(8))), status: None };
    let none = db.store.runs(elsewhere, PageRequest { limit: 3, after: None }).await.expect("readable");
    assert!(none.items.is_empty() && none.next.is_none());
}

async fn a_value_with_a_nul_character_harms_nobody(db: Database) {
    let mut bad = db.run(1);
    bad.input = br#"{"nul": "\u0000"}"#.to_vec();
    let (bad, good) = tokio::join!(db.store.create_run(bad), db.store.create_run(db.run(2)));
    assert_eq!((bad.expect("created"), good.expect("created")), (Created::New, Created::New));
    let mut claimed = db.claim(RunId(Uuid::from_u128(1))).await.expect("free");
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, written(0));
}

async fn opening_again_voids_every_claim(db: Database) {
    let claimed = db.claimed(1).await;
    let Database { store, clock, location, _dir } = db;
    store.close().await;
    let store = Store::open(&location, Arc::new(clock.clone())).await.expect("opens again");
    let again = store.claim_due(10, LEASE).await.expect("claims");
    assert_eq!((again.len(), again[0].claim.run, again[0].interrupts), (1, claimed.claim.run, 1));
}
