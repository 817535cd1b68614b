//! What a database that several processes share must do besides: each test has two stores or more on it.

use std::collections::HashSet;
use std::sync::Arc;

use weir::clock::{Clock as _, SharedClock};
use weir::model::id::RunId;
use weir::model::journal::{Event, Outcome};
use weir::store::{Appended, Idempotency, NewRun, Next, Status, Store};

use super::{Database, LEASE, Server, postgres, written};

fn server(db: &mut Database) -> &mut weir_tests::postgres::Postgres {
    match &mut db.server {
        Server::Postgres(server) => server,
        Server::Sqlite { .. } => panic!("an embedded database is not shared"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_at_once_migrate_once() {
    let server = weir_tests::postgres::Postgres::start().await;
    let location = weir::store::Location::Cluster { url: server.database().await, connections_max: 2 };
    let opening = (0..6).map(|_| Store::open(&location, Arc::new(SharedClock::default())));
    for opened in futures::future::join_all(opening).await {
        opened.expect("opens").close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_claimed_by_one_process() {
    let db = postgres().await;
    let runs: Vec<_> = (1..=300).map(|n| db.run(n)).collect();
    let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
    futures::future::join_all(runs.into_iter().map(|run| db.store.create_run(run))).await;
    db.clock.advance(LEASE);
    let others = [db.another().await, db.another().await, db.another().await];
    let by_hint = others[0].claim(ids.clone(), LEASE);
    let (a, b, c, d) = tokio::join!(
        by_hint,
        others[1].claim_due(200, LEASE),
        others[2].claim_due(200, LEASE),
        db.store.claim(ids, LEASE)
    );
    let claimed: Vec<RunId> = [a, b, c, d]
        .into_iter()
        .flat_map(|claimed| claimed.expect("claims"))
        .map(|claimed| claimed.claim.run)
        .collect();
    let rest = db.store.claim_due(300, LEASE).await.expect("claims");
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), claimed.len(), "a run was claimed twice");
    assert_eq!(claimed.len() + rest.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_makes_one_run_whichever_process_is_asked() {
    let db = postgres().await;
    let others = [db.another().await, db.another().await];
    let run =
        |n: u128| NewRun { idempotency: Some(Idempotency { key: format!("k{}", n % 10), hash: None }), ..db.run(n) };
    // Both sides get the keys in another order, so that they would wait for each other.
    let one = (1..=50).map(|n| others[0].create_run(run(n)));
    let two = (51..=100).rev().map(|n| others[1].create_run(run(n)));
    let created = futures::future::join_all(one.collect::<Vec<_>>().into_iter().chain(two.collect::<Vec<_>>())).await;
    let new = created.iter().filter(|created| matches!(created, Ok(weir::store::Created::New))).count();
    let repeated = created.iter().filter(|created| matches!(created, Ok(weir::store::Created::Repeated(_)))).count();
    assert_eq!((new, repeated), (10, 90), "{created:?}");
}

#[tokio::test]
async fn a_renewed_claim_lasts_and_a_lost_one_is_known() {
    let db = postgres().await;
    let (kept, mut lost) = (db.claimed(1).await, db.claimed(2).await);
    let tokens = [(kept.claim.run, kept.claim.token), (lost.claim.run, lost.claim.token)];
    db.clock.advance(LEASE / 2);
    let renewed = db.store.renew(&tokens, LEASE).await.expect("renewed");
    assert_eq!((renewed.held.len(), renewed.lost, renewed.lease_until), (2, vec![], Some(db.clock.now().plus(LEASE))));
    db.clock.advance(LEASE / 2);
    assert!(db.claim(kept.claim.run).await.is_none());
    db.clock.advance(LEASE / 2);
    let stolen = db.another().await.claim(vec![lost.claim.run], LEASE).await.expect("claims").pop().expect("free");
    assert_eq!(stolen.interrupts, 1);
    let renewed = db.store.renew(&tokens, LEASE).await.expect("renewed");
    assert_eq!((renewed.held, renewed.lost), (vec![(kept.claim.run, 0)], vec![lost.claim.run]));
    assert_eq!(db.write(&mut lost, &db.started()).await, Appended::Lost);
}

#[tokio::test]
async fn the_store_goes_on_by_itself_when_postgres_was_restarted() {
    let mut db = postgres().await;
    let mut claimed = db.claimed(1).await;
    db.write(&mut claimed, &db.started()).await;
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, written(0));
    for fast in [true, false] {
        server(&mut db).stop(fast).await;
        let refused = db.store.create_run(db.run(9)).await.expect_err("Postgres is away");
        assert!(matches!(refused, weir::store::StoreError::Unavailable(_)), "{refused}");
        assert!(db.store.run(claimed.claim.run).await.is_err());
        server(&mut db).start_again().await;
        // The first try after that may meet the old connections, and no caller sees them.
        assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, written(0));
        let n = if fast { 10 } else { 11 };
        db.create(n).await;
        assert!(db.claim(RunId(uuid::Uuid::from_u128(n))).await.is_some());
        assert!(db.store.run(claimed.claim.run).await.expect("readable").is_some());
    }
}

fn url(db: &Database) -> String {
    match &db.location {
        weir::store::Location::Cluster { url, .. } => url.clone(),
        weir::store::Location::Embedded { .. } => panic!("an embedded database is not shared"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_locked_row_does_not_hold_up_the_others() {
    use sqlx::Connection as _;
    let db = postgres().await;
    let mut claimed = Vec::new();
    for n in 1..=20 {
        let mut run = db.claimed(n).await;
        db.write(&mut run, &db.started()).await;
        claimed.push(run);
    }
    let mut person = sqlx::PgConnection::connect(&url(&db)).await.expect("connects");
    let lock = format!("BEGIN; SELECT 1 FROM runs WHERE id = '{}' FOR UPDATE", claimed[0].claim.run);
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut person).await.expect("locked");
    let completed = db.completed(Next::Continue);
    let appends = claimed.iter_mut().map(|run| db.store.append(&mut run.claim, &completed));
    let appended = futures::future::join_all(appends).await;
    assert!(matches!(appended[0], Err(weir::store::StoreError::Unavailable(_))), "{:?}", appended[0]);
    assert!(appended[1..].iter().all(|appended| matches!(appended, Ok(Appended::Written { .. }))), "{appended:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut person).await.expect("given back");
    assert_eq!(db.write(&mut claimed[0], &completed).await, written(0));
}

#[tokio::test]
async fn a_database_that_was_read_only_for_a_while_is_used_again() {
    let mut db = postgres().await;
    db.create(1).await;
    let (address, name) = (url(&db), "test_0");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'weir'";
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    server(&mut db).psql(&address, &read_only).await;
    server(&mut db).psql(&address, cut).await;
    let now = RunId(uuid::Uuid::from_u128(1));
    for refused in [db.store.claim(vec![now], LEASE).await.err(), db.store.create_run(db.run(2)).await.err()] {
        assert!(matches!(refused, Some(weir::store::StoreError::Unavailable(_))), "{refused:?}");
    }
    let postgres = server(&mut db);
    let admin = postgres.url();
    postgres.psql(&admin, &format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    assert!(db.claim(now).await.is_some());
    db.create(3).await;
    let change = weir::store::WorkflowChange::SetActive(false);
    super::there(db.store.change_workflow(super::WORKFLOW, change).await);
}

#[tokio::test]
async fn rights_that_are_missing_for_a_while_make_runs_wait() {
    let mut db = postgres().await;
    let mut claimed = db.claimed(1).await;
    let address = url(&db);
    server(&mut db).psql(&address, "ALTER TABLE journal RENAME TO gone").await;
    let refused = db.store.append(&mut claimed.claim, &db.started()).await.expect_err("refused");
    assert!(matches!(refused, weir::store::StoreError::Unavailable(_)), "{refused}");
    server(&mut db).psql(&address, "ALTER TABLE gone RENAME TO journal").await;
    assert_eq!(db.write(&mut claimed, &db.started()).await, written(0));
}

/// Rows of `runs` that were read through an index, and sequential scans of it, since the statistics were reset. The backends
/// of the store must have ended: they report at their end.
async fn effort(server: &weir_tests::postgres::Postgres, url: &str) -> (u64, u64) {
    let sql = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'runs'";
    let row = server.psql(url, sql).await;
    let (scans, rows) = row.trim().split_once('|').expect("two columns");
    (scans.parse().expect("a number"), rows.parse().expect("a number"))
}

/// What a process does all the time: runs `from` and after it, six of them, from their creation to their end.
async fn work(db: &Database, store: &Store, from: u128) {
    // Postgres keeps the plan of a statement from its sixth execution on.
    for n in from..from + 6 {
        let keyed =
            |id: u128| NewRun { idempotency: Some(Idempotency { key: format!("k{n}"), hash: None }), ..db.run(id) };
        let run = keyed(n);
        let id = run.id;
        assert_eq!(store.create_run(run).await.expect("created"), weir::store::Created::New);
        assert_eq!(store.create_run(keyed(100 + n)).await.expect("found"), weir::store::Created::Repeated(id));
        let mut claimed = store.claim(vec![id], LEASE).await.expect("claims").pop().expect("free");
        store.renew(&[(id, claimed.claim.token)], LEASE).await.expect("renewed");
        let append = |next| super::append(vec![Event::Started { at: db.clock.now() }], next);
        assert_eq!(store.append(&mut claimed.claim, &append(Next::Continue)).await.expect("written"), written(0));
        let finish = append(Next::Finish(Outcome::Succeeded, None, db.clock.now()));
        assert_eq!(store.append(&mut claimed.claim, &finish).await.expect("written"), written(0));
        assert!(store.claim_due(10, LEASE).await.expect("claims").is_empty());
        assert!(store.next_due().await.expect("readable").is_none());
        assert_eq!(store.run(id).await.expect("readable").expect("there").status, Status::Ended(Outcome::Succeeded));
        assert_eq!(store.journal(id, 0, 10).await.expect("readable").len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_made_on_an_empty_database_are_those_for_a_full_one() {
    let mut db = postgres().await;
    let address = url(&db);
    let store = db.another().await;
    work(&db, &store, 1).await;
    let fill = format!(
        "INSERT INTO runs (id, workflow_id, revision, input, created_at, seq, outcome, finished_at) \
         SELECT gen_random_uuid(), '{}', 1, 'null', 1, 1, 'SUCCEEDED', 1 FROM generate_series(1, 20000)",
        super::WORKFLOW
    );
    // Nobody analyzes the table: its plans are those of its first moments.
    for sql in ["ALTER TABLE runs SET (autovacuum_enabled = off)", &fill, "SELECT pg_stat_reset()"] {
        server(&mut db).psql(&address, sql).await;
    }
    work(&db, &store, 11).await;
    store.close().await;
    let (scans, _) = effort(server(&mut db), &address).await;
    assert_eq!(scans, 0, "a statement read the whole table");
}

/// What claims cost in a database with `n` finished and `n` waiting runs, and fifty that are due.
async fn cost_of_claims(n: u32) -> u64 {
    let mut db = postgres().await;
    let now = db.clock.now().as_micros();
    let weir::store::Location::Cluster { url, .. } = db.location.clone() else { panic!("shared") };
    let columns = "id, workflow_id, revision, input, created_at, due_at, seq, outcome, finished_at";
    let fill = |from: u32, count: u32, due_at: &str, outcome: &str| {
        format!(
            "INSERT INTO runs ({columns}) SELECT lpad(to_hex(n), 32, '0')::uuid, '{}', 1, 'null', {now}, {due_at}, 1, {outcome}, NULL \
             FROM generate_series({}, {}) AS n;",
            super::WORKFLOW,
            from + 1,
            from + count,
        )
    };
    let fill = [
        fill(0, n, "NULL", "'SUCCEEDED'"),
        fill(n, n, &format!("{now} + 3600000000 + n"), "NULL"),
        fill(2 * n, 50, &format!("{now} - n"), "NULL"),
        "ANALYZE".to_owned(),
    ];
    for sql in fill {
        server(&mut db).psql(&url, &sql).await;
    }
    server(&mut db).psql(&url, "SELECT pg_stat_reset()").await;
    let store = db.another().await;
    let due = store.claim_due(30, LEASE).await.expect("claims");
    assert_eq!(due.len(), 30);
    assert_eq!(store.claim_due(30, LEASE).await.expect("claims").len(), 20);
    assert!(store.claim_suspect(LEASE).await.expect("claims").is_none());
    assert_eq!(store.claim(due.iter().map(|due| due.claim.run).collect(), LEASE).await.expect("claims").len(), 0);
    let tokens: Vec<_> = due.iter().map(|due| (due.claim.run, due.claim.token)).collect();
    assert_eq!(store.renew(&tokens, LEASE).await.expect("renewed").held.len(), 30);
    store.next_due().await.expect("readable");
    store.oldest_claimable().await.expect("readable");
    store.close().await;
    let (scans, rows) = effort(server(&mut db), &url).await;
    assert_eq!(scans, 0, "a statement read the whole table");
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_claims_cost_does_not_grow_with_finished_or_waiting_runs() {
    let (few, many) = (cost_of_claims(5_000).await, cost_of_claims(50_000).await);
    println!("{few} rows read beside 10,000 other runs, {many} beside 100,000");
    assert!(many <= few + few / 4, "{few} rows became {many}");
}
