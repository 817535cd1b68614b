//! `make bench`: `weir bench` in both modes, and what needs more than one process or a database that is full already. Starts a
//! Postgres and a Redis of its own. Arguments: the `weir` to measure, and the runs of each workload.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
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

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let weir = PathBuf::from(args.next().expect("the program to measure")).canonicalize().expect("a program");
    let runs = args.next().unwrap_or_else(|| "20000".to_owned());
    use_binary(weir.clone());
    println!("--- embedded ---");
    bench(&weir, &runs, &[]);
    println!("--- on Postgres and Redis ---");
    let cluster = Cluster::start().await;
    let redis = cluster.redis.url();
    bench(&weir, &runs, &[("DATABASE_URL", &cluster.database), ("REDIS_URL", &redis), ("WEIR_MASTER_KEY", MASTER_KEY)]);
    drop(cluster);
    full_database().await;
    two_workers().await;
}

fn bench(weir: &PathBuf, runs: &str, env: &[(&str, &str)]) {
    let status =
        Command::new(weir).args(["bench", "--runs", runs]).envs(env.iter().copied()).status().expect("it runs");
    assert!(status.success(), "weir bench failed");
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
        let (mut runs, began) = (Vec::new(), Instant::now());
        let mut starting = JoinSet::new();
        let (api, workflow) = (std::sync::Arc::new(api), std::sync::Arc::new(workflow));
        for _ in 0..8 {
            let (api, workflow) = (std::sync::Arc::clone(&api), std::sync::Arc::clone(&workflow));
            starting.spawn(async move {
                let mut runs = Vec::new();
                for _ in 0..SCALED / 8 {
                    runs.push(api.run(&workflow, &Value::Null).await);
                }
                runs
            });
        }
        while let Some(started) = starting.join_next().await {
            runs.extend(started.expect("started"));
        }
        for run in &runs {
            assert_eq!(api.finished(run).await["status"], "SUCCEEDED");
        }
        #[expect(clippy::cast_precision_loss, reason = "a thousand fits")]
        speeds.push(runs.len() as f64 / began.elapsed().as_secs_f64());
        println!("{workers} worker(s): {:.0} runs/s", speeds[workers - 1]);
    }
    println!("two workers complete {:.2} x as many as one", speeds[1] / speeds[0]);
}
