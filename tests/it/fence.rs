//! Fencing: whoever does not hold the claim any more writes nothing, however late it comes and whatever it believes.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use weir_tests::cluster::Cluster;
use weir_tests::process::Weir;
use weir_tests::target::Target;

const SHORT_LEASE: &str = "lease_seconds=2";

async fn slow(api: &Weir, target: &Target) -> String {
    let steps = json!([
        {"type": "http", "name": "slow", "url": target.url("/slow")},
        {"type": "http", "name": "after", "method": "POST", "url": target.url("/after"), "json": "{{ steps.slow.result.n }}"},
    ]);
    api.run(&api.workflow(&steps).await, &Value::Null).await
}

/// The events of a run's journal with this name.
async fn events(api: &Weir, run: &str, name: &str) -> usize {
    let journal = api.get(&format!("/runs/{run}/journal?limit=100")).await.expect(200);
    journal.to_string().matches(&format!("\"event\":\"{name}\"")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_frozen_for_longer_than_its_lease_loses_cleanly() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let short = [SHORT_LEASE];
    let (api, frozen) = tokio::join!(cluster.weir("api", &[]), cluster.weir("worker", &short));
    target.hold("/slow");
    let run = slow(&api, &target).await;
    target.received_at("/slow", 1).await;
    frozen.signal(Signal::STOP);
    // Another worker takes the run over when the lease is over, and is in the middle of the same step ...
    let other = cluster.weir("worker", &short).await;
    target.received_at("/slow", 2).await;
    // ... when the first one goes on and gets its answer, which is another one.
    target.release("/slow");
    frozen.signal(Signal::CONT);
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    frozen.line_with("somebody else holds the run now").await;
    let recorded = api.steps(&run).await[0]["result"]["n"].clone();
    assert_eq!((target.received("/after").len(), target.received("/after")[0].json()), (1, recorded));
    assert_eq!((events(&api, &run, "finished").await, events(&api, &run, "interrupted").await), (1, 1));
    let metrics = other.get("/metrics").await.expect(200);
    assert!(metrics.as_str().expect("text").contains("weir_runs_finished_total{outcome=\"SUCCEEDED\"} 1"), "{metrics}");
    // It works on as if nothing had happened.
    drop(other);
    let run = slow(&api, &target).await;
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_a_crash_of_postgres_took_back_is_lost_while_its_worker_lives() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let (api, worker) = tokio::join!(cluster.weir("api", &[]), cluster.weir("worker", &[]));
    target.hold("/slow");
    let run = slow(&api, &target).await;
    target.received_at("/slow", 1).await;
    // What a crash can take back are commits that did not wait for the disk: the claim, and the note of the attempt. Which
    // of them a crash takes is luck; here both are gone.
    let undo = "UPDATE runs SET claim = NULL, lease_until = NULL, seq = 0, interrupts = 0, due_at = 0, started_at = NULL; \
                DELETE FROM journal;";
    cluster.sql(undo).await;
    // Somebody claims the run again, while the first driver still waits for its answer.
    target.received_at("/slow", 2).await;
    target.release("/slow");
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    worker.line_with("somebody else holds the run now").await;
    let recorded = api.steps(&run).await[0]["result"]["n"].clone();
    assert_eq!((target.received("/after").len(), target.received("/after")[0].json()), (1, recorded));
    assert_eq!((events(&api, &run, "started").await, events(&api, &run, "finished").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_note_a_crash_took_back_is_given_back_by_its_own_worker() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    // Nobody else could take it over in time.
    let long = ["lease_seconds=3600"];
    let (api, worker) = tokio::join!(cluster.weir("api", &[]), cluster.weir("worker", &long));
    target.hold("/slow");
    let run = slow(&api, &target).await;
    target.received_at("/slow", 1).await;
    cluster.sql("UPDATE runs SET seq = 0, started_at = NULL; DELETE FROM journal;").await;
    target.release("/slow");
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    worker.line_with("somebody else holds the run now").await;
    assert_eq!(target.received("/slow").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_run_hinted_to_everybody_is_executed_once() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let api = cluster.weir("api", &[]).await;
    let workflow = api.workflow(&json!([{"type": "http", "url": target.url("/")}])).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(api.run(&workflow, &Value::Null).await);
    }
    for run in &runs {
        let hints: Vec<&str> = std::iter::repeat_n(run.as_str(), 20).collect();
        for list in ["{weir}:hints:high", "{weir}:hints:low"] {
            cluster.redis.command(&[&["LPUSH", list], &hints[..]].concat()).await;
        }
    }
    cluster
        .redis
        .command(&["LPUSH", "{weir}:hints:high", "nonsense", "", "00000000-0000-7000-8000-000000000000"])
        .await;
    let (_one, _two) = tokio::join!(cluster.weir("worker", &[]), cluster.weir("worker", &[]));
    for run in &runs {
        assert_eq!(api.finished(run).await["status"], "SUCCEEDED");
        assert_eq!(events(&api, run, "attempted").await, 1);
    }
    assert_eq!(target.all().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_is_followed_by_another_when_its_lease_is_over() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let short = [SHORT_LEASE];
    let (api, mut dies) = tokio::join!(cluster.weir("api", &[]), cluster.weir("worker", &short));
    target.hold("/slow");
    let run = slow(&api, &target).await;
    target.received_at("/slow", 1).await;
    let _heir = cluster.weir("worker", &short).await;
    dies.kill();
    target.received_at("/slow", 2).await;
    target.release("/slow");
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    let keys: Vec<_> = target.received("/slow").iter().map(|seen| seen.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys, [format!("{run}:slow"), format!("{run}:slow")]);
    assert_eq!(weir_tests::process::answer(api.request(Method::GET, "/health/ready")).await.status, 200);
}
