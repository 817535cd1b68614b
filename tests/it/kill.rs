//! Survives anything, part two: a real process, `kill -9`, under load, with a real target that counts.

#![expect(clippy::unwrap_used, reason = "a poisoned lock means that a test has failed already")]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_tests::process::{Weir, answer};
use weir_tests::target::{Received, Target};

const KILLS: usize = 60;
const SENDERS: usize = 8;

/// Sends deliveries until it is told to stop, each again and again until it is acknowledged.
async fn send(number: usize, url: watch::Receiver<String>, mut stop: watch::Receiver<bool>) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let (mut runs, mut url) = (Vec::new(), url);
    for delivery in 0.. {
        let body = json!({"sender": number, "delivery": delivery});
        let run = loop {
            let base = url.borrow_and_update().clone();
            let request = client
                .post(format!("{base}/webhooks/load"))
                .header("x-webhook-secret", "s3cret")
                .header("webhook-id", format!("{number}-{delivery}"))
                .json(&body);
            let acknowledged = async { request.send().await.ok()?.json::<Value>().await.ok() }.await;
            if let Some(run) = acknowledged.as_ref().and_then(|answer| answer["run_id"].as_str()) {
                break run.to_owned();
            }
            // The server is down: try again when it is back, at the latest at the next address.
            tokio::select! {
                changed = url.changed() => changed.expect("the test lives"),
                stopped = stop.changed() => {
                    stopped.expect("the test lives");
                    return runs;
                }
            }
        };
        runs.push(run);
        if *stop.borrow() {
            return runs;
        }
    }
    runs
}

/// What the target knows of one step of one run.
#[derive(Default)]
struct Seen {
    bodies: HashSet<String>,
    requests: usize,
}

/// A target that remembers every request by its idempotency key.
#[derive(Clone, Default)]
struct Witness {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    repeated: Arc<Mutex<Vec<String>>>,
}

impl Witness {
    /// Notes a request and answers how many have come under its key.
    fn note(&self, received: &Received) -> usize {
        let key = received.header("idempotency-key").to_owned();
        let mut seen = self.seen.lock().unwrap();
        // The second step is only performed when the outcome of the first is on disk.
        if let Some(run) = key.strip_suffix(":one")
            && seen.contains_key(&format!("{run}:two"))
        {
            self.repeated.lock().unwrap().push(key.clone());
        }
        let step = seen.entry(key).or_default();
        step.requests += 1;
        step.bodies.insert(String::from_utf8_lossy(&received.body).into_owned());
        step.requests
    }

    fn take(&self, run: &str, step: &str) -> Seen {
        self.seen.lock().unwrap().remove(&format!("{run}:{step}")).expect("it was performed")
    }

    /// Checks a run against what was seen, and answers how many requests it made.
    async fn check(&self, weir: &Weir, run: &str) -> usize {
        let finished = weir.finished(run).await;
        assert_eq!(finished["status"], "SUCCEEDED", "{finished}");
        let steps = weir.steps(run).await;
        let recorded = steps[0]["result"]["nth"].as_u64().expect("a result");
        let (one, two) = (self.take(run, "one"), self.take(run, "two"));
        assert!(recorded <= one.requests as u64, "{run} recorded an answer that was never given");
        // All attempts of a step say the same, and what the recorded outcome before it says.
        assert_eq!(two.bodies, HashSet::from([json!({ "first": recorded }).to_string()]), "{run}");
        assert_eq!(one.bodies.len(), 1, "{run}");
        for (step, requests) in [(&steps[0], one.requests), (&steps[1], two.requests)] {
            let attempts = usize::try_from(step["attempts"].as_u64().expect("a number")).expect("fits");
            assert!(requests <= attempts, "{run}: {requests} requests in {attempts} attempts");
        }
        let journal = weir.get(&format!("/runs/{run}/journal?limit=100")).await.expect(200);
        let events = |name: &str| journal.to_string().matches(&format!("\"event\":\"{name}\"")).count();
        assert_eq!((events("finished"), events("failed")), (1, 0), "{journal}");
        // What was performed again was in flight at a kill, each time.
        assert_eq!(events("attempted"), 2 + events("interrupted"), "{journal}");
        one.requests + two.requests
    }
}

/// Kills the server at random moments while `senders` are at work, and answers the runs that were acknowledged.
async fn kill_under_load(weir: &mut Weir, target: &Target) -> Vec<String> {
    let (address, url) = watch::channel(weir.url(""));
    let (stop, stopped) = watch::channel(false);
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(send(number, url.clone(), stopped.clone()));
    }
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
        address.send(weir.url("")).expect("senders live");
    }
    stop.send(true).expect("senders live");
    senders.join_all().await.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_kills_lose_nothing_stick_nothing_and_repeat_only_what_was_in_flight() {
    let (target, witness) = (Target::start().await, Witness::default());
    for path in ["/one", "/two"] {
        let witness = witness.clone();
        // Every attempt gets another answer: whoever starts the next step too early is found out by its body.
        target.answer_with(path, move |received| {
            let nth = witness.note(&received);
            async move { axum::Json(json!({ "nth": nth })) }
        });
    }
    let mut weir = Weir::start(&["log_level=warn,weir::app=info"]).await;
    let workflow = weir
        .workflow(&json!([
            {"type": "http", "name": "one", "method": "POST", "url": target.url("/one"), "json": "{{ trigger.body }}"},
            {"type": "http", "name": "two", "method": "POST", "url": target.url("/two"),
             "json": {"first": "{{ steps.one.result.nth }}"}},
            {"type": "persist_snapshot", "name": "kept"},
        ]))
        .await;
    weir.endpoint(&workflow, "load").await;
    let runs = kill_under_load(&mut weir, &target).await;
    assert!(runs.len() >= KILLS, "{} runs are no load", runs.len());
    assert_eq!(runs.iter().collect::<HashSet<_>>().len(), runs.len(), "two deliveries were answered with one run");

    let mut requests = 0;
    for run in &runs {
        requests += witness.check(&weir, run).await;
    }
    assert_eq!(*witness.repeated.lock().unwrap(), Vec::<String>::new(), "steps were repeated after a later one began");
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
