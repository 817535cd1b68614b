//! What a run does: retries, timeouts, cancel, redrive, conditions and expressions.

use axum::http::StatusCode;
use serde_json::{Value, json};
use weir_tests::process::Weir;
use weir_tests::target::Target;

async fn both() -> (Weir, Target) {
    (Weir::start(&[]).await, Target::start().await)
}

/// A retry policy that does not make tests wait.
fn quick(max_attempts: u32) -> Value {
    json!({"max_attempts": max_attempts, "initial_delay_seconds": 0.001, "max_delay_seconds": 0.01})
}

#[tokio::test]
async fn failures_that_may_pass_are_retried_under_one_key() {
    let (weir, target) = both().await;
    for status in [500, 503, 408, 425, 429, 502] {
        target.answer("/flaky", StatusCode::from_u16(status).unwrap());
    }
    let steps = json!([{"type": "http", "name": "call", "url": target.url("/flaky"), "retry": quick(7)}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let keys: Vec<_> =
        target.received("/flaky").iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys, vec![format!("{run}:call"); 7]);
    let step = &weir.steps(&run).await[0];
    assert_eq!((&step["attempts"], &step["status"], &step["error"]), (&json!(7), &json!("SUCCEEDED"), &Value::Null));
}

#[tokio::test]
async fn permanent_failures_fail_at_once_and_name_the_step() {
    let (weir, target) = both().await;
    for status in [400, 401, 403, 404, 409, 410, 422, 304] {
        let path = format!("/{status}");
        target.answer(&path, StatusCode::from_u16(status).unwrap());
        let run =
            weir.run(&weir.workflow(&json!([{"type": "http", "url": target.url(&path)}])).await, &Value::Null).await;
        let run = weir.finished(&run).await;
        assert_eq!((&run["status"], &run["error"]["code"]), (&json!("FAILED"), &json!("http_status")), "{status}");
        assert_eq!(run["error"]["step"], "step_0");
        assert_eq!(run["error_message"], run["error"]["message"]);
        assert_eq!(target.received(&path).len(), 1, "{status}");
    }
}

#[tokio::test]
async fn attempts_end() {
    let (weir, target) = both().await;
    for _ in 0..9 {
        target.answer("/down", StatusCode::BAD_GATEWAY);
    }
    let steps = json!([{"type": "http", "url": target.url("/down"), "retry": quick(3)}, {"type": "persist_snapshot"}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    let finished = weir.finished(&run).await;
    assert_eq!((&finished["status"], &finished["current_step_index"]), (&json!("FAILED"), &json!(0)));
    assert_eq!(target.received("/down").len(), 3);
    assert_eq!(weir.steps(&run).await[1]["status"], "PENDING");
}

#[tokio::test]
async fn retry_after_is_honoured_and_the_waiting_run_can_be_canceled_at_once() {
    let (weir, target) = both().await;
    target.answer("/busy", (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "600")]));
    let steps = json!([{"type": "http", "url": target.url("/busy"), "retry": quick(3)}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    let waiting = weir_tests::within("a waiting run", async {
        loop {
            // Each look waits a little by itself: the answer comes when the time is up.
            let now = weir.get(&format!("/runs/{run}?wait=20ms")).await.expect(200);
            if now["status"] == "WAITING" {
                return now;
            }
        }
    })
    .await;
    assert!(waiting["finished_at"].is_null());
    let step = &weir.steps(&run).await[0];
    let (ended, next) = (step["started_at"].as_str().unwrap(), step["next_attempt_at"].as_str().unwrap());
    let seconds = |text: &str| text.parse::<weir::model::time::Timestamp>().unwrap().as_micros() / 1_000_000;
    assert!((599..=602).contains(&(seconds(next) - seconds(ended))), "{step}");
    let canceled = weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await;
    assert_eq!(canceled.status, 202);
    assert_eq!(weir.finished(&run).await["status"], "CANCELED");
    assert_eq!(target.received("/busy").len(), 1);
    let again = weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await;
    assert_eq!((again.status, &again.body["code"]), (409, &json!("run_finished")));
}

#[tokio::test]
async fn cancel_gives_the_attempt_under_way_up_and_closes_its_connection() {
    let (weir, target) = both().await;
    target.hold("/slow");
    let run =
        weir.run(&weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await, &Value::Null).await;
    target.received_at("/slow", 1).await;
    assert_eq!(weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.status, 202);
    assert_eq!(weir.finished(&run).await["status"], "CANCELED");
    target.abandoned(1).await;
    assert_eq!(weir.steps(&run).await[0]["status"], "CANCELED");
}

#[tokio::test]
async fn a_queued_run_is_canceled_at_once_although_every_permit_is_taken() {
    let (weir, target) = (Weir::start(&["concurrent_runs_max=2"]).await, Target::start().await);
    target.hold("/slow");
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(weir.run(&workflow, &Value::Null).await);
    }
    target.received_at("/slow", 2).await;
    let mut queued = Vec::new();
    for run in &runs {
        if weir.get(&format!("/runs/{run}")).await.expect(200)["status"] == "QUEUED" {
            queued.push(run.clone());
        }
    }
    assert_eq!(queued.len(), 2);
    for run in &queued {
        assert_eq!(weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.status, 202);
        assert_eq!(weir.finished(run).await["status"], "CANCELED");
    }
    target.release("/slow");
    for run in runs.iter().filter(|run| !queued.contains(run)) {
        assert_eq!(weir.finished(run).await["status"], "SUCCEEDED");
    }
    assert_eq!(target.received("/slow").len(), 2);
}

#[tokio::test]
async fn a_step_has_a_timeout_for_each_attempt() {
    let (weir, target) = both().await;
    target.hold("/slow");
    let steps = json!([{"type": "http", "url": target.url("/slow"), "timeout_seconds": 0.05, "retry": quick(2)}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    let finished = weir.finished(&run).await;
    assert_eq!((&finished["status"], &finished["error"]["code"]), (&json!("FAILED"), &json!("step_timeout")));
    assert_eq!(target.received("/slow").len(), 2);
    target.abandoned(2).await;
}

#[tokio::test]
async fn a_run_has_a_timeout() {
    let (weir, target) = both().await;
    target.hold("/slow");
    let mut definition = weir_tests::definition(&json!([{"type": "http", "url": target.url("/slow")}]));
    definition["timeout_seconds"] = json!(0.2);
    let created = weir.post("/workflows", &json!({"name": "short", "definition": definition})).await;
    let run = weir.run(&created.text("id"), &Value::Null).await;
    let finished = weir.finished(&run).await;
    assert_eq!((&finished["status"], &finished["error"]["code"]), (&json!("FAILED"), &json!("run_timeout")));
    target.abandoned(1).await;
}

#[tokio::test]
async fn redrive_goes_on_from_the_failed_step_under_a_new_key() {
    let (weir, target) = both().await;
    target.answer("/second", StatusCode::NOT_FOUND);
    let steps = json!([
        {"type": "http", "name": "first", "url": target.url("/first")},
        {"type": "http", "name": "second", "method": "POST", "url": target.url("/second"), "json": "{{ steps.first.result }}"},
        {"type": "persist_snapshot", "name": "kept"},
    ]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "FAILED");
    assert_eq!(weir.post(&format!("/runs/{run}/redrive"), &Value::Null).await.status, 202);
    let finished = weir.finished(&run).await;
    assert_eq!((&finished["status"], &finished["error"]), (&json!("SUCCEEDED"), &Value::Null));
    assert_eq!(target.received("/first").len(), 1);
    let second = target.received("/second");
    let keys: Vec<_> = second.iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys, [format!("{run}:second"), format!("{run}:second:redrive-1")]);
    // The context of before is still there.
    assert_eq!(second[1].json(), json!({"n": 1}));
    let again = weir.post(&format!("/runs/{run}/redrive"), &Value::Null).await;
    assert_eq!((again.status, &again.body["code"]), (409, &json!("run_not_failed")));
}

#[tokio::test]
async fn expressions_see_the_trigger_the_steps_the_run_and_the_workflow() {
    let (weir, target) = both().await;
    target.answer("/a", axum::Json(json!({"items": [{"id": 7}], "text": "x\"y"})));
    let steps = json!([
        {"type": "http", "name": "a", "url": target.url("/a")},
        {"type": "http", "name": "b", "method": "POST", "url": target.url("/b/{{ steps.a.result['items'][0].id }}"),
         "headers": {"x-who": "{{ trigger.who|upper }}"}, "query": {"n": "{{ trigger.n * 2 }}"},
         "json": {"whole": "{{ steps.a.result }}", "status": "{{ steps.a.status }}", "run": "{{ run.id }}",
                  "name": "{{ workflow.name }}", "revision": "{{ workflow.revision }}", "text": "<{{ steps.a.result.text }}>"}},
    ]);
    let run = weir.run(&weir.workflow(&steps).await, &json!({"who": "ada", "n": 21})).await;
    assert_eq!(weir.finished(&run).await["error_message"], Value::Null);
    let sent = target.all().pop().expect("a request");
    assert_eq!((sent.uri.as_str(), sent.header("x-who")), ("/b/7?n=42", "ADA"));
    assert_eq!(
        sent.json(),
        json!({"whole": {"items": [{"id": 7}], "text": "x\"y"}, "status": 200, "run": run,
        "name": "test", "revision": 1, "text": "<x\"y>"})
    );
}

#[tokio::test]
async fn a_condition_skips_its_step() {
    let (weir, target) = both().await;
    let steps = json!([
        {"type": "http", "name": "no", "url": target.url("/no"), "if": "trigger.go == 'yes'"},
        {"type": "http", "name": "yes", "url": target.url("/yes"), "if": "{{ trigger.go == 'no' and steps.no is not defined }}"},
        {"type": "persist_snapshot"},
    ]);
    let run = weir.run(&weir.workflow(&steps).await, &json!({"go": "no"})).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let statuses: Vec<_> = weir.steps(&run).await.into_iter().map(|step| step["status"].clone()).collect();
    assert_eq!(statuses, ["SKIPPED", "SUCCEEDED", "SUCCEEDED"]);
    assert_eq!((target.received("/no").len(), target.received("/yes").len()), (0, 1));
    let snapshots = weir.get(&format!("/runs/{run}/snapshots")).await.expect(200);
    let kept: Vec<_> = snapshots["items"][0]["content"].as_object().expect("content").keys().cloned().collect();
    assert_eq!(kept, ["yes"]);
}

#[tokio::test]
async fn a_graceful_stop_finishes_the_attempt_and_the_next_start_goes_on() {
    let (mut weir, target) = both().await;
    target.hold("/slow");
    let steps = json!([{"type": "http", "url": target.url("/slow")}, {"type": "http", "url": target.url("/next")}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    target.received_at("/slow", 1).await;
    weir.signal(rustix::process::Signal::TERM);
    weir.line_with("stopping").await;
    target.release("/slow");
    weir.ended().await;
    assert_eq!(target.received("/next").len(), 0);
    weir.restart().await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!((target.received("/slow").len(), target.received("/next").len()), (1, 1));
}

#[tokio::test]
async fn a_workflow_without_steps_succeeds() {
    let (weir, _target) = both().await;
    let run = weir.run(&weir.workflow(&json!([])).await, &Value::Null).await;
    let finished = weir.finished(&run).await;
    assert_eq!((&finished["status"], &finished["current_step_index"]), (&json!("SUCCEEDED"), &json!(0)));
}

#[tokio::test]
async fn a_thousand_snapshots_cost_no_squares() {
    let weir = Weir::start(&["steps_max=1000", "definition_max_bytes=1000000"]).await;
    let steps: Vec<Value> = (0..1000).map(|_| json!({"type": "persist_snapshot", "include_keys": []})).collect();
    let run = weir.run(&weir.workflow(&json!(steps)).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["current_step_index"], 1000);
    // The first of them comes with the creation, and all others in one append with the end of the run.
    let journal = weir.get(&format!("/runs/{run}/journal")).await.expect(200);
    assert_eq!(journal["items"].as_array().expect("items").len(), 2);
}
