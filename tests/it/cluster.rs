//! Several processes on Postgres and Redis: what one accepts any of them executes, and what each knows all know.

use std::path::PathBuf;

use serde_json::{Value, json};
use weir_tests::cluster::Cluster;
use weir_tests::postgres::Postgres;
use weir_tests::process::Weir;
use weir_tests::redis::Redis;
use weir_tests::target::Target;
use weir_tests::within;

async fn get(target: &Target, path: &str) -> Value {
    json!([{"type": "http", "name": "call", "url": target.url(path)}, {"type": "persist_snapshot", "name": "kept"}])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_accepts_another_executes() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let (api, worker) = tokio::join!(cluster.weir("api", &[]), cluster.weir("worker", &[]));
    let workflow = api.workflow(&get(&target, "/x").await).await;
    let run = api.run(&workflow, &json!({"who": "Ada"})).await;
    let finished = api.finished(&run).await;
    assert_eq!((&finished["status"], &finished["current_step_index"]), (&json!("SUCCEEDED"), &json!(2)), "{finished}");
    assert_eq!(api.steps(&run).await[0]["result"], json!({"n": 1}));
    // What clients of the original read from Redis.
    let key = format!("run:{run}:state");
    let state: Value = serde_json::from_str(&cluster.redis.command(&["GET", &key]).await).expect("JSON");
    assert_eq!(
        (&state["status"], &state["run_id"], &state["workflow_id"]),
        (&json!("SUCCEEDED"), &json!(run), &json!(workflow))
    );
    assert_eq!(state["context"]["call"]["result"], json!({"n": 1}));
    assert_eq!(state["steps"][1]["status"], "SUCCEEDED");
    let ttl: u32 = cluster.redis.command(&["TTL", &key]).await.trim().parse().expect("seconds");
    assert!((86_000..=86_400).contains(&ttl), "{ttl}");
    // A worker answers for its health, and for nothing else.
    assert_eq!(worker.get("/health/ready").await.expect(200)["status"], "ready");
    assert_eq!(worker.get("/workflows").await.status, 404);
    let metrics = worker.get("/metrics").await.expect(200);
    assert!(metrics.as_str().expect("text").contains("weir_runs_finished_total{outcome=\"SUCCEEDED\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_the_process_that_drives_the_run() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    // No renewal sees the message in time: it comes over the wire.
    let long = ["lease_seconds=3600"];
    let (api, _worker) = tokio::join!(cluster.weir("api", &long), cluster.weir("worker", &long));
    target.hold("/slow");
    let run = api.run(&api.workflow(&get(&target, "/slow").await).await, &Value::Null).await;
    target.received_at("/slow", 1).await;
    assert_eq!(api.post(&format!("/runs/{run}/cancel"), &Value::Null).await.status, 202);
    target.abandoned(1).await;
    assert_eq!(api.finished(&run).await["status"], "CANCELED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_runs_are_accepted_and_executed_all_the_same() {
    let (mut cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let (api, worker) = tokio::join!(cluster.weir("api", &[]), cluster.weir("worker", &["lease_seconds=3"]));
    let workflow = api.workflow(&get(&target, "/x").await).await;
    api.line_with("connected to Redis").await;
    worker.line_with("connected to Redis").await;
    cluster.redis.kill();
    let run = api.run(&workflow, &Value::Null).await;
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    worker.line_with("Redis is away").await;
    assert_eq!(worker.get("/health/ready").await.expect(200)["status"], "degraded");
    // A message is found too, by the renewal of the claim.
    target.hold("/slow");
    let run = api.run(&api.workflow(&get(&target, "/slow").await).await, &Value::Null).await;
    target.received_at("/slow", 1).await;
    assert_eq!(api.post(&format!("/runs/{run}/cancel"), &Value::Null).await.status, 202);
    assert_eq!(api.finished(&run).await["status"], "CANCELED");
    cluster.redis.start_again().await;
    let back = async {
        while worker.get("/health/ready").await.expect(200)["status"] != "ready" {
            tokio::task::yield_now().await;
        }
    };
    within("Redis to be found again", back).await;
    let run = api.run(&workflow, &Value::Null).await;
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    let by_hint = "weir_claims_total{by=\"hint\"}";
    let metrics = worker.get("/metrics").await.expect(200);
    assert!(metrics.as_str().expect("text").contains(by_hint), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_requests_are_told_to_come_again() {
    let (mut cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let weir = cluster.weir("all", &[]).await;
    let workflow = weir.workflow(&get(&target, "/x").await).await;
    // Several connections, used a moment ago: the first that is found broken tells of all.
    futures::future::join_all((0..8).map(|_| weir.get("/runs"))).await;
    cluster.postgres.stop(true).await;
    let refused = weir.post(&format!("/workflows/{workflow}/runs"), &json!({})).await;
    assert_eq!((refused.status, refused.text("code").as_str()), (503, "unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(weir.get("/health").await.status, 200);
    assert_eq!(weir.get("/health/ready").await.status, 503);
    cluster.postgres.start_again().await;
    let run = weir.run(&workflow, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(weir.get("/health/ready").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_another_master_key_is_refused() {
    let cluster = Cluster::start().await;
    let first = cluster.weir("api", &[]).await;
    let dir = tempfile::TempDir::new().expect("a directory");
    let settings = cluster.settings("all", &["master_key=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]);
    let args: Vec<String> = settings.iter().map(|setting| format!("--set={setting}")).collect();
    let args: Vec<&str> = ["serve"].into_iter().chain(args.iter().map(String::as_str)).collect();
    let output = weir_tests::process::run(dir.path(), &args, &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("the master key is not the one"), "{text}");
    assert_eq!(first.get("/health/ready").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_may_speak_tls_and_redis_ask_for_a_password_and_be_shared_under_a_prefix() {
    let password = ["--requirepass", "hush"];
    let (postgres, redis, target) = tokio::join!(Postgres::start_tls(), Redis::start_tls(&password), Target::start());
    let database = format!("{}?sslmode=verify-full", postgres.database().await);
    let cluster = Cluster { postgres, redis, database, proxies: None };
    // What the system trusts.
    let trusted = tempfile::NamedTempFile::new().expect("a file");
    let read = |file: PathBuf| std::fs::read_to_string(file).expect("a certificate");
    let both = read(cluster.postgres.certificate()) + &read(cluster.redis.certificate());
    std::fs::write(trusted.path(), both).expect("written");
    let certificate = format!("SSL_CERT_FILE={}", trusted.path().display());
    let start = async |role: &str| {
        let settings = cluster.settings(role, &["redis_prefix=ours"]);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let dir = std::sync::Arc::new(tempfile::TempDir::new().expect("a directory"));
        Weir::start_in(dir, &settings, &["env", &certificate]).await
    };
    let (api, worker) = tokio::join!(start("api"), start("worker"));
    let connections = "SELECT count(*) > 1, bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                       WHERE datname LIKE 'test%'";
    assert_eq!(cluster.postgres.psql(&cluster.postgres.url(), connections).await, "t|t");
    api.line_with("connected to Redis").await;
    worker.line_with("connected to Redis").await;
    let run = api.run(&api.workflow(&get(&target, "/x").await).await, &Value::Null).await;
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    assert!(cluster.redis.command(&["GET", &format!("run:{run}:state")]).await.contains("SUCCEEDED"));
    // A hint that nobody takes shows the name of the list.
    worker.signal(rustix::process::Signal::STOP);
    let run = api.run(&api.workflow(&get(&target, "/x").await).await, &Value::Null).await;
    let kept = async {
        while !cluster.redis.command(&["KEYS", "*"]).await.contains(&run) {
            tokio::task::yield_now().await;
        }
    };
    within("the copy of a queued run", kept).await;
    worker.signal(rustix::process::Signal::CONT);
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    assert!(!api.log().iter().chain(&worker.log()).any(|line| line.contains("hush")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_high_priority_go_first() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let api = cluster.weir("api", &[]).await;
    let start = async |priority: &str| {
        let steps = json!([{"type": "http", "url": target.url(&format!("/{priority}"))}]);
        let definition = json!({"version": "1.0", "priority": priority, "steps": steps});
        let created = api.post("/workflows/", &json!({"name": priority, "definition": definition})).await;
        api.run(&created.text("id"), &Value::Null).await
    };
    let mut runs = Vec::new();
    for priority in ["low", "normal", "high"] {
        runs.push(start(priority).await);
    }
    let all_hinted = async {
        for list in ["{weir}:hints:low", "{weir}:hints:normal", "{weir}:hints:high"] {
            while cluster.redis.command(&["LLEN", list]).await.trim() != "1" {
                tokio::task::yield_now().await;
            }
        }
    };
    within("the hints", all_hinted).await;
    // Not due yet: only the hints lead to them.
    cluster.sql("UPDATE runs SET due_at = due_at + 3600000000").await;
    let _worker = cluster.weir("worker", &["concurrent_runs_max=1"]).await;
    for run in &runs {
        assert_eq!(api.finished(run).await["status"], "SUCCEEDED");
    }
    let order: Vec<String> = target.all().into_iter().map(|received| received.uri).collect();
    assert_eq!(order, ["/high", "/normal", "/low"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_starts_before_postgres_waits_for_it() {
    let (mut cluster, target) = tokio::join!(Cluster::start(), Target::start());
    cluster.postgres.stop(true).await;
    let settings = cluster.settings("all", &[]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let dir = std::sync::Arc::new(tempfile::TempDir::new().expect("a directory"));
    let starting = Weir::start_in(dir, &settings, &[]);
    let (weir, ()) = tokio::join!(starting, cluster.postgres.start_again());
    weir.line_with("the database is not there yet").await;
    let run = weir.run(&weir.workflow(&get(&target, "/x").await).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    // What will not pass is said at once.
    let wrong =
        ["serve", "--database-url=postgres://nobody@127.0.0.1:1/x?sslmode=nonsense", "--set=redis_url=redis://x"];
    let output = weir_tests::process::run(weir.dir(), &wrong, &[]);
    assert!(!output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_long_ago_goes_away_by_itself() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let api = cluster.weir("api", &[]).await;
    let workflow = api.workflow(&get(&target, "/x").await).await;
    // Ids from September 2026, ended a second after they were made.
    let id = "(lpad(to_hex(1790000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid";
    let old = format!(
        "INSERT INTO runs (id, workflow_id, revision, input, created_at, due_at, seq, outcome, finished_at) \
         SELECT {id}, '{workflow}', 1, 'null', 1790000000000000, NULL, 1, 'SUCCEEDED', 1790000001000000 \
         FROM generate_series(1, 1000) AS n; \
         INSERT INTO journal (run_id, seq, claim, events) SELECT id, 1, gen_random_uuid(), '[]' FROM runs;"
    );
    cluster.sql(&old).await;
    let worker = cluster.weir("worker", &["retention_days=30"]).await;
    let young = api.run(&workflow, &Value::Null).await;
    assert_eq!(api.finished(&young).await["status"], "SUCCEEDED");
    let line = worker.line_with("runs that ended long ago are deleted").await;
    assert!(line.contains("\"deleted\":1000"), "{line}");
    let left = "SELECT (SELECT string_agg(id::text, ',') FROM runs), (SELECT count(DISTINCT run_id) FROM journal)";
    assert_eq!(cluster.sql(left).await, format!("{young}|1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_redis_was_away_is_shown_when_it_is_back() {
    let (mut cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let weir = cluster.weir("all", &[]).await;
    target.hold("/slow");
    let workflow = weir.workflow(&get(&target, "/slow").await).await;
    let runs = [weir.run(&workflow, &Value::Null).await, weir.run(&workflow, &Value::Null).await];
    target.received_at("/slow", 2).await;
    cluster.redis.kill();
    // The connection looks alive still: the first one goes into it, the second one waits for the next connection.
    for run in &runs {
        assert_eq!(weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.status, 202);
        assert_eq!(weir.finished(run).await["status"], "CANCELED");
    }
    cluster.redis.start_again().await;
    let shown = async {
        for run in &runs {
            let key = format!("run:{run}:state");
            while !cluster.redis.command(&["GET", &key]).await.contains("CANCELED") {
                tokio::task::yield_now().await;
            }
        }
    };
    within("the last states", shown).await;
}
