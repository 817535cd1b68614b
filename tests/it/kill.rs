//! Survives anything, part two: a real process, `kill -9`, under load, with a real target that counts.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use weir_tests::load::{Senders, Witness};
use weir_tests::process::{Weir, answer};
use weir_tests::target::Target;

const KILLS: usize = 60;
const SENDERS: usize = 8;

/// Kills the server at random moments while senders are at work, and answers the runs that were acknowledged.
async fn kill_under_load(weir: &mut Weir, target: &Target) -> Vec<String> {
    let senders = Senders::start(SENDERS, vec![weir.url("")]);
    let mut dice = StdRng::seed_from_u64(4711);
    for kill in 0..KILLS {
        // A random moment is one after a random number of further requests; now and then one during the start.
        let moment = target.count() + dice.random_range(1..40);
        target.received_in_all(moment).await;
        weir.kill();
        if kill % 7 == 0 {
            weir.respawn();
            weir.kill();
        }
        weir.restart().await;
        senders.redirect(vec![weir.url("")]);
    }
    senders.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_kills_lose_nothing_stick_nothing_and_repeat_only_what_was_in_flight() {
    let target = Target::start().await;
    let (witness, steps) = Witness::watch(&target);
    let mut weir = Weir::start(&["log_level=warn,weir::app=info"]).await;
    weir.endpoint(&weir.workflow(&steps).await, "load").await;
    let runs = kill_under_load(&mut weir, &target).await;
    assert!(runs.len() >= KILLS, "{} runs are no load", runs.len());
    assert_eq!(runs.iter().collect::<HashSet<_>>().len(), runs.len(), "two deliveries were answered with one run");

    let mut requests = 0;
    for run in &runs {
        requests += witness.check(&weir, run, true).await;
    }
    assert_eq!(witness.repeated(), Vec::<String>::new(), "steps were repeated after a later one began");
    for status in ["QUEUED", "RUNNING", "WAITING", "FAILED", "CANCELED"] {
        let left = weir.get(&format!("/runs?status={status}")).await.expect(200);
        assert_eq!(left["items"], json!([]), "{status}");
    }
    let repeats = requests - 2 * runs.len();
    println!("{KILLS} kills, {} runs, {requests} requests, {repeats} of them repeats", runs.len());
}

#[tokio::test]
async fn a_run_that_kills_the_process_again_and_again_is_quarantined_and_the_others_are_not() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.hold("/poison");
    target.hold("/slow");
    let poison = weir.workflow(&json!([{"type": "http", "url": target.url("/poison")}])).await;
    let innocent = weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await;
    let (culprit, bystander) = (weir.run(&poison, &Value::Null).await, weir.run(&innocent, &Value::Null).await);
    target.received_at("/slow", 1).await;
    // Whenever the poisonous step is performed, the process dies.
    for death in 1..=7 {
        target.received_at("/poison", death).await;
        weir.kill();
        if death == 3 {
            // The bystander got suspicious by being there; alone it makes progress and is cleared.
            target.release("/slow");
        }
        weir.restart().await;
    }
    let convicted = weir.finished(&culprit).await;
    assert_eq!(convicted["status"], "FAILED");
    crate::errors::failure("quarantined", &convicted["error"]);
    assert_eq!(target.received("/poison").len(), 7);
    assert_eq!(weir.finished(&bystander).await["status"], "SUCCEEDED");
    // A person may try again.
    target.release("/poison");
    assert_eq!(weir.post(&format!("/runs/{culprit}/redrive"), &Value::Null).await.status, 202);
    assert_eq!(weir.finished(&culprit).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn a_suspect_that_waits_for_its_turn_can_be_canceled_at_once() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.hold("/slow");
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await;
    let runs = [weir.run(&workflow, &Value::Null).await, weir.run(&workflow, &Value::Null).await];
    for death in 1..=2 {
        target.received_at("/slow", 2 * death).await;
        weir.kill();
        weir.restart().await;
    }
    // Now both are suspects, and one of them has the lane.
    target.received_at("/slow", 5).await;
    let in_lane = target.received("/slow")[4].header("idempotency-key").to_owned();
    let (mut waiting, lane): (Vec<_>, Vec<_>) = runs.iter().partition(|run| !in_lane.starts_with(run.as_str()));
    assert_eq!((waiting.len(), lane.len()), (1, 1));
    waiting.extend(lane);
    for run in waiting {
        assert_eq!(weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.status, 202);
        assert_eq!(weir.finished(run).await["status"], "CANCELED");
    }
    assert_eq!(target.received("/slow").len(), 5);
}

#[tokio::test]
async fn stops_in_order_never_count_as_interruptions() {
    let target = Target::start().await;
    let mut weir = Weir::start(&["shutdown_timeout_seconds=0"]).await;
    target.hold("/slow");
    let run =
        weir.run(&weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await, &Value::Null).await;
    for stop in 1..=7 {
        target.received_at("/slow", stop).await;
        weir.terminate().await;
        weir.restart().await;
    }
    target.received_at("/slow", 8).await;
    target.release("/slow");
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn a_conflict_after_an_interrupted_attempt_is_retried() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.hold("/once");
    let retry = json!({"initial_delay_seconds": 0.001});
    let steps = json!([{"type": "http", "method": "POST", "url": target.url("/once"), "retry": retry}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    target.received_at("/once", 1).await;
    weir.kill();
    for _ in 0..2 {
        target.answer("/once", axum::http::StatusCode::CONFLICT);
    }
    target.release("/once");
    weir.restart().await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert!((3..=4).contains(&target.received("/once").len()));
    let key = format!("{run}:step_0");
    assert!(target.received("/once").iter().all(|request| request.header("idempotency-key") == key));
}

#[tokio::test]
async fn an_acknowledged_run_is_on_disk_even_if_nobody_ever_looked_at_it() {
    let target = Target::start().await;
    let mut weir = Weir::start(&["role=api"]).await;
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/")}])).await;
    let run = weir.run(&workflow, &Value::Null).await;
    assert_eq!(weir.get(&format!("/runs/{run}")).await.expect(200)["status"], "QUEUED");
    weir.kill();
    let health = async |weir: &Weir| answer(weir.request(Method::GET, "/health")).await.status;
    weir.set("role=all");
    weir.restart().await;
    assert_eq!(health(&weir).await, 200);
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
}
