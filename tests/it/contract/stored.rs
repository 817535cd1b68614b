//! What is created is there, once, and as it was given.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use weir::clock::Clock as _;
use weir::model::id::{ClaimToken, EndpointId, RunId, WorkflowId};
use weir::model::journal::{Event, Message, Outcome};
use weir::model::plugin::{PluginDigest, PluginRef, ToolLock};
use weir::store::{
    Added, Appended, Begun, Caller, Created, EndpointChange, Idempotency, NewEndpoint, NewPlugin, NewRevision, NewRun,
    Next, PageRequest, PathTaken, RunFilter, Saved, Status, Store, StoredSignature, VersionStatus, WorkflowChange,
};

use super::{Database, LEASE, WORKFLOW, add, there, written};

pub(super) async fn a_created_run_is_there_and_queued(db: Database) {
    let run = db.create(1).await;
    let row = db.store.run(run).await.expect("readable").expect("there");
    assert_eq!((row.status, row.created_at, row.started_at), (Status::Queued, db.clock.now(), None));
    assert!(db.store.run(RunId(Uuid::from_u128(99))).await.expect("readable").is_none());
}

pub(super) async fn one_key_makes_one_run(db: Database) {
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

pub(super) async fn what_is_switched_off_or_changed_makes_no_run(db: Database) {
    let endpoint = EndpointId(Uuid::from_u128(5));
    let new = NewEndpoint { id: endpoint, workflow_id: WORKFLOW, path: "hook".to_owned(), secret: vec![1] };
    assert!(db.store.create_endpoint(new).await.expect("written").is_ok());
    let delivered =
        |n: u128, secret: u8| NewRun { caller: Some(Caller { endpoint, secret: vec![secret] }), ..db.run(n) };
    let create = async |run: NewRun| db.store.create_run(run).await.expect("answered");
    let change = async |change| db.store.change_endpoint(endpoint, change).await.expect("changed").expect("there");
    assert_eq!(create(delivered(1, 1)).await, Created::New);
    change(EndpointChange::Rotate(vec![2], db.clock.now())).await;
    assert_eq!(create(delivered(2, 1)).await, Created::Changed);
    assert_eq!(create(delivered(3, 2)).await, Created::New);
    change(EndpointChange::SetActive(false)).await;
    assert_eq!(create(delivered(4, 2)).await, Created::Changed);
    assert_eq!(create(db.run(5)).await, Created::New);
    let revise = WorkflowChange::Revise(Some("renamed".to_owned()), None);
    there(db.store.change_workflow(WORKFLOW, revise).await);
    assert_eq!(create(db.run(6)).await, Created::Changed);
    assert_eq!(create(NewRun { revision: 2, ..db.run(7) }).await, Created::New);
    there(db.store.change_workflow(WORKFLOW, WorkflowChange::SetActive(false)).await);
    assert_eq!(create(NewRun { revision: 2, ..db.run(8) }).await, Created::Changed);
}

pub(super) async fn a_run_may_begin_with_its_creation(db: Database) {
    let begun = |n: u128, key: &str| {
        let (token, at) = (ClaimToken(Uuid::from_u128(100 + n)), db.clock.now());
        let begun = Begun { token, lease: LEASE, events: vec![Event::Started { at }], step_index: 1 };
        let idempotency = Some(Idempotency { key: key.to_owned(), hash: None });
        NewRun { begun: Some(begun), idempotency, ..db.run(n) }
    };
    let (first, plain) = (begun(1, "a"), db.run(2));
    let created = tokio::join!(db.store.create_run(first.clone()), db.store.create_run(plain.clone()));
    assert_eq!((created.0.expect("created"), created.1.expect("created")), (Created::New, Created::New));
    let repeated = begun(3, "a");
    assert_eq!(db.store.create_run(repeated.clone()).await.expect("found"), Created::Repeated(first.id));
    let row = db.store.run(first.id).await.expect("readable").expect("there");
    assert_eq!((row.status, row.started_at, row.step_index), (Status::Running, Some(first.created_at), 1));
    let journal = async |run| db.store.journal(run, 0, 10).await.expect("readable");
    let entries = journal(first.id).await;
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1]);
    assert_eq!(entries[0].events, [Event::Started { at: first.created_at }]);
    assert!(journal(plain.id).await.is_empty() && journal(repeated.id).await.is_empty());
    // Its claim is like any other: fenced, held until its lease ends, and counted when it does so without a release.
    db.clock.advance(LEASE / 2);
    assert!(db.claim(first.id).await.is_none());
    let mut claim = first.claim().expect("claimed");
    let next = db.completed(Next::Continue);
    assert_eq!(db.store.append(&mut claim, &next).await.expect("written"), Appended::Written { inbox: 0 });
    // The append was as good as a renewal.
    assert_eq!(claim.lease_until, db.clock.now().plus(LEASE));
    db.clock.advance(LEASE / 2);
    assert!(db.claim(first.id).await.is_none());
    db.clock.advance(LEASE / 2);
    let claimed = db.claim(first.id).await.expect("free again");
    assert_eq!((claimed.claim.seq, claimed.interrupts), (2, 1));
    assert_eq!(db.store.append(&mut claim, &db.completed(Next::Continue)).await.expect("answered"), Appended::Lost);
}

pub(super) async fn a_batch_of_creations_is_all_there(db: Database) {
    let created = futures::future::join_all((1..=500).map(|n| db.store.create_run(db.run(n)))).await;
    assert!(created.into_iter().all(|created| created.expect("created") == Created::New));
    db.clock.advance(Duration::from_secs(2));
    assert_eq!(db.due().await.len(), 100);
}

pub(super) async fn revisions_never_change(db: Database) {
    let revision = |name: &str, n: i32| NewRevision {
        name: name.to_owned(),
        definition: json!({"z": n, "a": "\0"}),
        tool_lock: ToolLock::from([(format!("step_{n}"), PluginDigest([7; 32]))]),
    };
    let workflow = WorkflowId(Uuid::from_u128(8));
    add(&db, "1", 7, VersionStatus::Active, None).await;
    there(db.store.create_workflow(workflow, revision("one", 1)).await);
    let revise = WorkflowChange::Revise(Some("two".to_owned()), None);
    let changed = there(db.store.change_workflow(workflow, revise).await);
    assert_eq!(changed.revision.number, 2);
    there(db.store.change_workflow(workflow, WorkflowChange::SetActive(false)).await);
    let id = workflow;
    let workflow = db.store.workflow(id).await.expect("readable").expect("there");
    assert_eq!((workflow.revision.number, workflow.revision.name.as_str(), workflow.is_active), (2, "two", false));
    let first = db.store.revision(id, 1).await.expect("readable").expect("there");
    assert_eq!((first.name.as_str(), first.definition.to_string()), ("one", r#"{"z":1,"a":"\u0000"}"#.to_owned()));
    let numbers: Vec<_> =
        db.store.revisions(id, u32::MAX, 10).await.expect("readable").iter().map(|r| r.number).collect();
    assert_eq!(numbers, [2, 1]);
    // What a revision does not say anew, it keeps: also the plugins that its definition means.
    assert_eq!(
        (&workflow.revision.tool_lock, &first.tool_lock),
        (&revision("", 1).tool_lock, &revision("", 1).tool_lock)
    );
    let nobody = WorkflowId(Uuid::from_u128(9));
    let missing = db.store.change_workflow(nobody, WorkflowChange::SetActive(true)).await.expect("answered");
    assert!(matches!(missing, Saved::Missing));
}

pub(super) async fn a_version_of_a_plugin_is_one_component(db: Database) {
    let plugin = |name: &str, version: &str, n: u8| NewPlugin {
        signature: None,
        name: name.to_owned(),
        version: version.to_owned(),
        digest: PluginDigest([n; 32]),
        component: vec![n; 100_000],
        imports: vec!["a:b/c@1.0.0".to_owned()],
        tools: vec![(format!("tool_{n}"), json!({"name": format!("tool_{n}")})), ("same".to_owned(), json!({"n": n}))],
        request: None,
        status: VersionStatus::Active,
        rights: None,
    };
    let add =
        async |name: &str, version: &str, n: u8| db.store.add_plugin(plugin(name, version, n)).await.expect("written");
    assert_eq!(add("a", "1", 1).await, Added::New);
    assert_eq!(add("a", "1", 1).await, Added::Same);
    assert_eq!(add("a", "1", 2).await, Added::VersionTaken(PluginDigest([1; 32])));
    assert_eq!(add("b", "1", 1).await, Added::New);
    assert_eq!(add("a", "2", 2).await, Added::New);
    let find = async |text: &str| {
        let plugin = PluginRef::parse(text).expect("a plugin");
        let found = db.store.plugin(&plugin).await.expect("readable");
        found.map(|found| (found.name, found.version, found.digest.0[0], found.size_bytes))
    };
    let named = |name: &str, version: &str, n: u8| Some((name.to_owned(), version.to_owned(), n, 100_000));
    assert_eq!(find("a").await, named("a", "2", 2));
    assert_eq!(find("a@1").await, named("a", "1", 1));
    assert_eq!(find("b").await, named("b", "1", 1));
    assert_eq!(find(&PluginDigest([1; 32]).to_string()).await, named("b", "1", 1));
    assert_eq!((find("c").await, find("a@3").await), (None, None));
    assert_eq!(db.store.component(PluginDigest([2; 32])).await.expect("readable"), Some(vec![2; 100_000]));
    assert_eq!(db.store.component(PluginDigest([3; 32])).await.expect("readable"), None);
    let offering = db.store.plugins_with_tool("same").await.expect("readable");
    assert_eq!(offering, [("a".to_owned(), PluginDigest([2; 32])), ("b".to_owned(), PluginDigest([1; 32]))]);
    let offering = db.store.plugins_with_tool("tool_1").await.expect("readable");
    assert_eq!(offering, [("b".to_owned(), PluginDigest([1; 32]))]);
    let tools = db.store.plugin_tools(PluginDigest([1; 32])).await.expect("readable");
    assert_eq!(tools, [json!({"name": "tool_1"}), json!({"n": 1})]);
    let page = db.store.plugins(PageRequest { limit: 1, after: None }).await.expect("readable");
    let rest = db.store.plugins(PageRequest { limit: 1, after: page.next }).await.expect("readable");
    let names = [page.items, rest.items].concat().into_iter().map(|plugin| plugin.name).collect::<Vec<_>>();
    assert_eq!((names, rest.next), (vec!["a".to_owned(), "b".to_owned()], None));
    let versions = db.store.plugin_versions("a", 10).await.expect("readable");
    assert_eq!(versions.iter().map(|version| version.version.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    // A signature can come later, is replaced by another one, and stays when none comes.
    let signed = |n: u8| Some(StoredSignature { signature: [n; 64], signed_by: [n; 32] });
    for (signature, then) in [(None, None), (signed(7), signed(7)), (signed(8), signed(8)), (None, signed(8))] {
        let again = NewPlugin { signature, ..plugin("a", "1", 1) };
        assert_eq!(db.store.add_plugin(again).await.expect("written"), Added::Same);
        assert_eq!(db.store.plugin_signature(PluginDigest([1; 32])).await.expect("readable"), then);
        let found = db.store.plugin(&PluginRef::Name("b".to_owned())).await.expect("readable").expect("there");
        assert_eq!(found.signed_by, then.map(|signed| signed.signed_by), "it belongs to the component");
    }
    let taken = NewPlugin { signature: signed(9), ..plugin("a", "1", 2) };
    assert_eq!(db.store.add_plugin(taken).await.expect("written"), Added::VersionTaken(PluginDigest([1; 32])));
    assert_eq!(db.store.plugin_signature(PluginDigest([2; 32])).await.expect("readable"), None);
}

pub(super) async fn a_path_belongs_to_one_endpoint(db: Database) {
    let endpoint = |n: u128| NewEndpoint {
        id: EndpointId(Uuid::from_u128(n)),
        workflow_id: WORKFLOW,
        path: "hook".to_owned(),
        secret: vec![1],
    };
    let (one, two) = tokio::join!(db.store.create_endpoint(endpoint(1)), db.store.create_endpoint(endpoint(2)));
    let (won, lost): (Vec<_>, Vec<_>) =
        [one, two].into_iter().map(|made| made.expect("written")).partition(Result::is_ok);
    assert_eq!((won.len(), lost[0].as_ref().err()), (1, Some(&PathTaken)));
    let id = won[0].as_ref().expect("made").id;
    let until = db.clock.now().plus(LEASE);
    assert!(db.store.change_endpoint(id, EndpointChange::Rotate(vec![2], until)).await.expect("changed").is_some());
    let found = db.store.endpoint_by_path("hook").await.expect("readable").expect("there");
    assert_eq!((found.secret, found.previous_secret), (vec![2], Some((vec![1], until))));
    assert!(db.store.delete_endpoint(id).await.expect("deleted"));
    assert!(!db.store.delete_endpoint(id).await.expect("answered"));
    assert!(db.store.endpoint(id).await.expect("readable").is_none());
}

pub(super) async fn pages_follow_each_other_without_gaps(db: Database) {
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

pub(super) async fn a_value_with_a_nul_character_harms_nobody(db: Database) {
    let mut bad = db.run(1);
    bad.input = r#"{"nul": "\u0000"}"#.into();
    let (bad, good) = tokio::join!(db.store.create_run(bad), db.store.create_run(db.run(2)));
    assert_eq!((bad.expect("created"), good.expect("created")), (Created::New, Created::New));
    let mut claimed = db.claim(RunId(Uuid::from_u128(1))).await.expect("free");
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, written(0));
}

pub(super) async fn every_list_can_be_filtered(db: Database) {
    let mut finished = Vec::new();
    for (n, outcome) in [(1, Outcome::Succeeded), (2, Outcome::Failed), (3, Outcome::Canceled)] {
        let mut claimed = db.claimed(n).await;
        db.write(&mut claimed, &db.started()).await;
        db.write(&mut claimed, &db.finish(outcome)).await;
        finished.push((Status::Ended(outcome), claimed.claim.run));
    }
    let mut waiting = db.claimed(4).await;
    db.write(&mut waiting, &db.started()).await;
    db.write(&mut waiting, &db.completed(Next::Wait(db.clock.now().plus(LEASE)))).await;
    let running = db.claimed(5).await.claim.run;
    let queued = db.create(6).await;
    let others = [(Status::Waiting, waiting.claim.run), (Status::Running, running), (Status::Queued, queued)];
    for (status, run) in finished.into_iter().chain(others) {
        for workflow_id in [None, Some(WORKFLOW)] {
            let filter = RunFilter { workflow_id, status: Some(status) };
            let page = db.store.runs(filter, PageRequest { limit: 10, after: None }).await.expect("readable");
            assert_eq!(page.items.iter().map(|run| run.id).collect::<Vec<_>>(), [run], "{status:?}");
        }
    }
    let lists = PageRequest { limit: 10, after: None };
    assert_eq!(db.store.workflows(lists).await.expect("readable").items.len(), 1);
    assert_eq!(db.store.revisions(WORKFLOW, u32::MAX, 10).await.expect("readable").len(), 1);
    assert_eq!(db.store.endpoints(WORKFLOW, lists).await.expect("readable").items.len(), 0);
}

pub(super) async fn a_fact_is_settled_once(db: Database) {
    assert_eq!(db.store.fact("colour", b"red".to_vec()).await.expect("settled"), b"red");
    assert_eq!(db.store.fact("colour", b"blue".to_vec()).await.expect("known"), b"red");
}

pub(super) async fn revisions_that_are_made_at_once_get_numbers_of_their_own(db: Database) {
    let revise = |n: u32| {
        let change = WorkflowChange::Revise(Some(format!("name {n}")), None);
        db.store.change_workflow(WORKFLOW, change)
    };
    let made = futures::future::join_all((0..20).map(revise)).await;
    let mut numbers: Vec<u32> = made.into_iter().map(|workflow| there(workflow).revision.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (2..=21).collect::<Vec<_>>());
}

pub(super) async fn keys_are_known_by_their_digests(db: Database) {
    let knows = async |hash: u8| db.store.knows_api_key(&[hash; 32]).await.expect("readable");
    assert_eq!(knows(1).await, (false, false));
    assert!(db.store.add_api_key("b".to_owned(), [1; 32]).await.expect("written"));
    assert!(!db.store.add_api_key("b".to_owned(), [2; 32]).await.expect("written"));
    // As a command does it beside the process that has the database open.
    let beside = Store::open_beside(&db.location, Arc::new(db.clock.clone())).await.expect("opens");
    assert!(beside.add_api_key("a".to_owned(), [3; 32]).await.expect("written"));
    beside.close().await;
    assert_eq!((knows(1).await, knows(2).await, knows(3).await), ((true, true), (true, false), (true, true)));
    let names: Vec<_> = db.store.api_keys().await.expect("readable").into_iter().map(|key| key.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(db.store.delete_api_key("b".to_owned()).await.expect("written"));
    assert!(!db.store.delete_api_key("b".to_owned()).await.expect("written"));
    assert_eq!((knows(1).await, knows(3).await), ((true, false), (true, true)));
}

/// An id that was made at the clock's time, or one that says nothing of its time.
fn id(db: &Database, n: u128, timeless: bool) -> RunId {
    let millis = u128::try_from(db.clock.now().as_micros() / 1000).expect("after 1970");
    RunId(Uuid::from_u128(if timeless { n | 0xf << 124 } else { millis << 80 | 7 << 76 | n }))
}

pub(super) async fn what_ended_long_ago_is_swept_away_and_nothing_else(db: Database) {
    let finished = async |n: u128, timeless: bool| {
        let run = NewRun { id: id(&db, n, timeless), ..db.run(n) };
        assert_eq!(db.store.create_run(run.clone()).await.expect("created"), Created::New);
        let mut claimed = db.claim(run.id).await.expect("free");
        db.write(&mut claimed, &db.started()).await;
        db.store.send(run.id, Message::Cancel).await.expect("sent");
        db.write(&mut claimed, &db.finish(Outcome::Succeeded)).await;
        run.id
    };
    let mut old = Vec::new();
    for n in 1..=25 {
        old.push(finished(n, n > 20).await);
    }
    let waits = NewRun { id: id(&db, 50, false), ..db.run(50) };
    assert_eq!(db.store.create_run(waits.clone()).await.expect("created"), Created::New);
    db.clock.advance(Duration::from_secs(100 * 86_400));
    let young = [finished(60, false).await, finished(61, true).await];
    let ended_before = db.clock.now().minus(Duration::from_secs(86_400));
    let (mut after, mut deleted) = (None, 0);
    loop {
        let swept = db.store.sweep(after, ended_before, 10).await.expect("swept");
        deleted += swept.deleted;
        assert!(swept.deleted <= 10);
        let Some(last) = swept.last else { break };
        after = Some(last);
    }
    assert_eq!(deleted, 25);
    for run in old {
        assert!(db.store.run(run).await.expect("readable").is_none());
        assert!(db.store.journal(run, 0, 10).await.expect("readable").is_empty());
        assert!(db.store.messages(run, 0).await.expect("readable").is_empty());
    }
    for run in [young[0], young[1], waits.id] {
        assert!(db.store.run(run).await.expect("readable").is_some());
    }
    assert_eq!(db.store.journal(young[0], 0, 10).await.expect("readable").len(), 2);
}

pub(super) async fn it_is_known_how_long_the_oldest_claimable_run_waits(db: Database) {
    db.store.ready().await.expect("ready");
    let shared = matches!(db.location, weir::store::Location::Cluster { .. });
    assert_eq!(db.store.time().await.expect("readable").is_some(), shared);
    let oldest = async || db.store.oldest_claimable().await.expect("readable");
    assert_eq!(oldest().await, Duration::ZERO);
    db.create(1).await;
    db.clock.advance(Duration::from_secs(5));
    assert_eq!(oldest().await, Duration::from_secs(3));
    assert_eq!(db.due().await.len(), 1);
    assert_eq!(oldest().await, Duration::ZERO);
    db.clock.advance(LEASE);
    assert_eq!(oldest().await, LEASE + Duration::from_secs(3));
}

#[tokio::test]
async fn opening_an_embedded_database_again_voids_every_claim() {
    let db = super::sqlite().await;
    let claimed = db.claimed(1).await;
    let Database { store, clock, location, server } = db;
    store.close().await;
    let store = Store::open(&location, Arc::new(clock.clone())).await.expect("opens again");
    let again = store.claim_due(10, LEASE).await.expect("claims");
    assert_eq!((again.len(), again[0].claim.run, again[0].interrupts), (1, claimed.claim.run, 1));
    drop(server);
}
