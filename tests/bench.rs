//! `make bench`: `weir bench` in both modes, and what needs more than one process or a database that is full already. Starts a
//! Postgres and a Redis of its own. Arguments: the `weir` to measure, the runs of each workload, and which parts
//! are wanted where not all are: `embedded`, `cluster`, `kill`, `full`, `workers`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};
use weir_tests::cluster::{Cluster, MASTER_KEY};
use weir_tests::process::{Weir, use_binary};
use weir_tests::target::Target;

const FINISHED: u32 = 1_000_000;
const WAITING: u32 = 100_000;

/// Runs, one at a time, in each of the rounds.
const ONE_AT_A_TIME: usize = 100;
const ROUNDS: usize = 4;

/// How long a target takes to answer, and how many runs one worker executes at once meanwhile.
const ANSWER: Duration = Duration::from_millis(50);
const RUNS_MAX: usize = 16;
const SCALED: usize = 1000;

/// Runs that are under way when the server is killed, how long its claims last, and how soon afterwards all must be done.
const KILLED: usize = 500;
const LEASE: Duration = Duration::from_secs(2);
const RECOVERED: Duration = Duration::from_secs(2);

/// Calls that a server makes at once (`http_calls_max`).
const CALLS_MAX: usize = 256;

/// Requests at once where runs are started.
const STARTERS: usize = 16;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let weir = PathBuf::from(args.next().expect("the program to measure")).canonicalize().expect("a program");
    let runs = args.next().unwrap_or_else(|| "20000".to_owned());
    let parts: Vec<String> = args.collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    use_binary(weir.clone());
    if wanted("embedded") {
        println!("--- embedded ---");
        bench(&weir, &runs, &[]);
    }
    if wanted("cluster") {
        println!("--- on Postgres and Redis ---");
        let cluster = Cluster::start().await;
        let (database, redis) = (cluster.database.as_str(), cluster.redis.url());
        bench(&weir, &runs, &[("DATABASE_URL", database), ("REDIS_URL", &redis), ("WEIR_MASTER_KEY", MASTER_KEY)]);
    }
    if wanted("kill") {
        println!("--- kill -9 with {KILLED} runs under way, and as many calls as a server makes at once ---");
        killed("embedded", Weir::start(&[]).await, Duration::ZERO).await;
        let cluster = Cluster::start().await;
        let lease = format!("lease_seconds={}", LEASE.as_secs());
        killed("on Postgres and Redis", cluster.weir("all", &[&lease]).await, LEASE).await;
    }
    if wanted("full") {
        full_database().await;
    }
    if wanted("workers") {
        two_workers().await;
    }
}

fn bench(weir: &PathBuf, runs: &str, env: &[(&str, &str)]) {
    // By far the largest of the examples: a whole interpreter.
    let component = weir_tests::plugin::file("hello-python").display().to_string();
    let status = Command::new(weir)
        .args(["bench", "--runs", runs, "--component", &component])
        .envs(env.iter().copied())
        .status()
        .expect("it runs");
    assert!(status.success(), "weir bench failed");
}

/// Starts so many runs.
async fn start(weir: &Weir, workflow: &str, count: usize) -> Vec<String> {
    let starting = stream::iter(0..count).map(|_| weir.run(workflow, &Value::Null));
    starting.buffer_unordered(STARTERS).collect().await
}

/// Kills the server while as many calls are under way as it makes at once, starts it again, and says how long it took
/// until all runs had ended: from the kill on, and without the time that the claims of the dead process lasted.
async fn killed(mode: &str, mut weir: Weir, lease: Duration) {
    let target = Target::start().await;
    let steps = json!([{"type": "http", "url": target.url("/")}, {"type": "persist_snapshot"}]);
    let workflow = weir.workflow(&steps).await;
    target.hold("/");
    let runs = start(&weir, &workflow, KILLED).await;
    target.received_in_all(CALLS_MAX).await;
    weir.kill();
    let (began, in_flight) = (Instant::now(), target.count());
    target.release("/");
    weir.restart().await;
    let started = began.elapsed();
    let mut poll = interval(Duration::from_millis(20));
    for status in ["QUEUED", "WAITING", "RUNNING"] {
        let path = format!("/runs?workflow_id={workflow}&status={status}&limit=1");
        while weir.get(&path).await.expect(200)["items"] != json!([]) {
            poll.tick().await;
        }
    }
    let took = began.elapsed();
    for run in &runs {
        assert_eq!(weir.finished(run).await["status"], "SUCCEEDED");
    }
    let repeated = target.count() - runs.len();
    let verdict = |holds| if holds { "yes" } else { "NO " };
    println!(
        "{}  {mode}: all {} complete {:.2} s after the kill, {:.2} s of them after the claims (allowed: {RECOVERED:?}); \
         it listened again after {:.2} s",
        verdict(took <= lease + RECOVERED),
        runs.len(),
        took.as_secs_f64(),
        took.saturating_sub(lease).as_secs_f64(),
        started.as_secs_f64(),
    );
    println!("{}  {mode}: {repeated} calls repeated, {in_flight} were in flight", verdict(repeated <= in_flight));
}

/// From a trigger to the end of its run, one at a time, on an empty database and on one that is full, in turns.
async fn full_database() {
    let (empty, full) = tokio::join!(Cluster::start(), Cluster::start());
    let target = Target::start().await;
    let (one, other) = (empty.weir("all", &[]).await, full.weir("all", &[]).await);
    let steps = json!([{"type": "http", "url": target.url("/")}, {"type": "persist_snapshot"}]);
    let (on_one, on_other) = (one.workflow(&steps).await, other.workflow(&steps).await);
    println!("--- {WAITING} waiting and {FINISHED} finished runs, made by SQL ---");
    full.sql(&fill(&on_other)).await;
    full.sql("VACUUM ANALYZE").await;
    let (mut times_one, mut times_other) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        times(&one, &on_one, &mut times_one).await;
        times(&other, &on_other, &mut times_other).await;
    }
    let (one, other) = (p50_ms(&mut times_one), p50_ms(&mut times_other));
    println!("trigger to complete, p50: empty {one:.2} ms, full {other:.2} ms: {:.2} x (allowed: 1.5 x)", other / one);
}

/// Finished runs of the last weeks, each with its journal, and runs that wait for the next weeks.
fn fill(workflow: &str) -> String {
    let id = |n: &str| {
        format!("(lpad(to_hex(1790000000000 + {n}), 12, '0') || '7000' || '8000' || lpad(to_hex({n}), 12, '0'))::uuid")
    };
    let columns =
        "id, workflow_id, revision, input, created_at, due_at, started_at, seq, step_index, outcome, finished_at";
    let events = r#"[{"event":"started","at":"2026-09-20T00:00:00.000000+00:00"}]"#;
    format!(
        "INSERT INTO runs ({columns}) SELECT {}, '{workflow}', 1, 'null', 1790000000000000 + n * 1000, NULL, \
             1790000000000000 + n * 1000, 1, 2, 'SUCCEEDED', 1790000000000000 + n * 1000 \
         FROM generate_series(1, {FINISHED}) AS n; \
         INSERT INTO journal (run_id, seq, claim, events) SELECT id, 1, gen_random_uuid(), '{events}' FROM runs; \
         INSERT INTO runs ({columns}) SELECT {}, '{workflow}', 1, 'null', 1790000000000000, \
             (extract(epoch FROM now()) * 1e6)::bigint + 86400000000 + n * 1000000::bigint, 1790000000000000, 1, 0, NULL, NULL \
         FROM generate_series(1, {WAITING}) AS n;",
        id("n"),
        id(&format!("n + {FINISHED}")),
    )
}

async fn times(weir: &Weir, workflow: &str, times: &mut Vec<Duration>) {
    for _ in 0..ONE_AT_A_TIME {
        let began = Instant::now();
        let run = weir.run(workflow, &Value::Null).await;
        assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
        times.push(began.elapsed());
    }
}

fn p50_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Runs whose target takes its time, with one worker and with two.
async fn two_workers() {
    println!("--- {SCALED} runs whose target answers after {ANSWER:?}, {RUNS_MAX} at once in each worker ---");
    let runs_max = format!("concurrent_runs_max={RUNS_MAX}");
    let mut speeds = Vec::new();
    for workers in [1, 2] {
        let scene = Cluster::start().await;
        let (api, target) = (scene.weir("api", &[]).await, Target::start().await);
        let mut running = Vec::new();
        for _ in 0..workers {
            running.push(scene.weir("worker", &[&runs_max]).await);
        }
        target.answer_with("/", |_| async {
            tokio::time::timeout(ANSWER, std::future::pending::<()>()).await.unwrap_or_default();
            "done"
        });
        let workflow = api.workflow(&json!([{"type": "http", "url": target.url("/")}])).await;
        let began = Instant::now();
        let runs = start(&api, &workflow, SCALED).await;
        for run in &runs {
            assert_eq!(api.finished(run).await["status"], "SUCCEEDED");
        }
        #[expect(clippy::cast_precision_loss, reason = "a thousand fits")]
        speeds.push(runs.len() as f64 / began.elapsed().as_secs_f64());
        println!("{workers} worker(s): {:.0} runs/s", speeds[workers - 1]);
    }
    println!("two workers complete {:.2} x as many as one", speeds[1] / speeds[0]);
}
