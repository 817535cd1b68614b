//! The client of the original system, unchanged: its calls word for word, and each defect of the original as a test.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_tests::process::{Weir, answer};
use weir_tests::target::Target;

/// Runs curl as the original's README does.
fn curl(arguments: &[&str]) -> Value {
    let output = Command::new("curl").arg("-s").args(arguments).output().expect("curl runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_calls_of_the_original_work_word_for_word() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    let definition = json!({"name": "Demo", "definition": {"version": "1.0", "steps": [
        {"type": "http", "method": "GET", "url": target.url("/get"), "timeout_seconds": 10},
        {"type": "persist_snapshot", "include_keys": ["step_0"]}]}});
    let json_type = "Content-Type: application/json";
    let created = curl(&["-X", "POST", &weir.url("/workflows/"), "-H", json_type, "-d", &definition.to_string()]);
    for member in ["id", "name", "is_active", "definition", "created_at", "updated_at"] {
        assert!(members(&created).contains(&member), "{created}");
    }
    assert_eq!(created["definition"], definition["definition"]);
    assert_eq!(created["is_active"], json!(true));
    let id = created["id"].as_str().expect("an id");
    assert_eq!(Uuid::parse_str(id).expect("a UUID").get_version_num(), 7);

    let url = weir.url(&format!("/workflows/{id}/webhook-endpoints"));
    let secret = r#"{"path": "demo-hook", "secret": "s3cret"}"#;
    let endpoint = curl(&["-X", "POST", &url, "-H", json_type, "-d", secret]);
    for member in ["id", "workflow_id", "path", "is_active", "created_at"] {
        assert!(members(&endpoint).contains(&member), "{endpoint}");
    }
    assert!(!endpoint.to_string().contains("s3cret"), "{endpoint}");

    let url = weir.url("/webhooks/demo-hook");
    let triggered =
        curl(&["-X", "POST", &url, "-H", "x-webhook-secret: s3cret", "-H", json_type, "-d", r#"{"hello": 1}"#]);
    assert_eq!(members(&triggered), ["run_id", "status"]);
    assert_eq!(triggered["status"], "QUEUED");

    let run_id = triggered["run_id"].as_str().expect("a run");
    // Right after the trigger this must answer (defect 1).
    let run = curl(&[&weir.url(&format!("/runs/{run_id}"))]);
    let wanted = [
        "id",
        "workflow_id",
        "status",
        "current_step_index",
        "started_at",
        "finished_at",
        "error_message",
        "created_at",
    ];
    for member in wanted {
        assert!(members(&run).contains(&member), "{run}");
    }
    let run = weir.finished(run_id).await;
    assert_eq!((&run["status"], &run["current_step_index"]), (&json!("SUCCEEDED"), &json!(2)));
    let text = run["created_at"].as_str().expect("a time");
    assert!(text.ends_with("+00:00") && text.len() == "2026-11-22T10:00:00.000000+00:00".len(), "{text}");
    assert_eq!(curl(&[&weir.url("/health")]), json!({"status": "ok"}));
}

#[tokio::test]
async fn the_context_has_type_and_result_under_each_steps_name() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.answer("/a", axum::Json(json!({"v": [1, "zwei", null]})));
    let workflow = weir
        .workflow(&json!([
            {"type": "http", "url": target.url("/a")},
            {"type": "http", "name": "second", "url": target.url("/b")},
            {"type": "persist_snapshot"},
            {"type": "persist_snapshot", "name": "part", "include_keys": ["second"]},
        ]))
        .await;
    let run = weir.run(&workflow, &Value::Null).await;
    weir.finished(&run).await;
    let snapshots = weir.get(&format!("/runs/{run}/snapshots")).await.expect(200);
    let whole = &snapshots["items"][0]["content"];
    assert_eq!(members(whole), ["step_0", "second"]);
    assert_eq!(
        (&whole["step_0"]["type"], &whole["step_0"]["result"]),
        (&json!("http"), &json!({"v": [1, "zwei", null]}))
    );
    assert_eq!((&whole["second"]["result"], &whole["second"]["status"]), (&json!({"n": 1}), &json!(200)));
    assert_eq!(whole["second"]["headers"]["content-type"], "application/json");
    assert_eq!(members(&snapshots["items"][1]["content"]), ["second"]);
}

#[tokio::test]
async fn a_json_body_reaches_the_target() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    let steps = json!([
        {"type": "http", "method": "POST", "url": target.url("/json"), "json": {"a": [1, {"b": null}]},
         "headers": {"X-Mine": "yes"}, "query": {"q": "a b", "many": [1, 2]}},
        {"type": "http", "method": "PUT", "url": target.url("/form"), "form": {"a": "x y", "n": 3}},
        {"type": "http", "method": "PATCH", "url": target.url("/text"), "body": "plain"},
        {"type": "http", "method": "DELETE", "url": target.url("/none")},
    ]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let only = |path: &str| target.received(path).pop().expect("one request");
    let sent = only("/json");
    assert_eq!(sent.json(), json!({"a": [1, {"b": null}]}));
    assert_eq!(
        (sent.method.as_str(), sent.header("content-type"), sent.header("x-mine")),
        ("POST", "application/json", "yes")
    );
    assert_eq!(sent.uri, "/json?q=a+b&many=1&many=2");
    assert_eq!(sent.header("idempotency-key"), format!("{run}:step_0"));
    assert_eq!((only("/form").body, only("/form").method), ("a=x+y&n=3".into(), Method::PUT));
    assert_eq!((only("/text").body, only("/text").method), ("plain".into(), Method::PATCH));
    assert_eq!((only("/none").body.len(), only("/none").method), (0, Method::DELETE));
}

#[tokio::test]
async fn replies_that_are_not_json_are_results() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.answer("/text", "plain words");
    target.answer("/empty", axum::http::StatusCode::NO_CONTENT);
    target.answer("/bytes", ([("content-type", "application/octet-stream")], vec![0xff_u8, 0x00]));
    let step = |path: &str| json!({"type": "http", "url": target.url(path)});
    let steps = json!([step("/text"), step("/empty"), step("/bytes")]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let results: Vec<Value> = weir.steps(&run).await.into_iter().map(|step| step["result"].clone()).collect();
    let bytes = json!({"base64": "/wA=", "content_type": "application/octet-stream"});
    assert_eq!(results, [json!("plain words"), Value::Null, bytes]);
}

#[tokio::test]
async fn one_slow_target_does_not_block_other_runs() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.hold("/slow");
    let slow = weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await;
    let fast = weir.workflow(&json!([{"type": "http", "url": target.url("/fast")}])).await;
    let stuck = weir.run(&slow, &Value::Null).await;
    target.received_at("/slow", 1).await;
    let quick = weir.run(&fast, &Value::Null).await;
    assert_eq!(weir.finished(&quick).await["status"], "SUCCEEDED");
    assert_eq!(weir.get(&format!("/runs/{stuck}")).await.expect(200)["status"], "RUNNING");
    target.release("/slow");
    assert_eq!(weir.finished(&stuck).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn inactive_means_refused_from_the_answer_on() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/")}])).await;
    let endpoint = weir.endpoint(&workflow, "hook").await;
    let deliver = async || {
        let request = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
        let delivered = answer(request).await;
        (delivered.status, delivered.body["code"].clone())
    };
    let set = async |path: String| weir.post(&path, &Value::Null).await.expect(200);
    assert_eq!(deliver().await.0, 200);
    set(format!("/webhook-endpoints/{endpoint}/deactivate")).await;
    assert_eq!(deliver().await, (400, json!("endpoint_inactive")));
    set(format!("/webhook-endpoints/{endpoint}/activate")).await;
    set(format!("/workflows/{workflow}/deactivate")).await;
    assert_eq!(deliver().await, (409, json!("workflow_inactive")));
    let started = weir.post(&format!("/workflows/{workflow}/runs"), &json!({})).await;
    assert_eq!((started.status, &started.body["code"]), (409, &json!("workflow_inactive")));
    set(format!("/workflows/{workflow}/activate")).await;
    assert_eq!(deliver().await.0, 200);
}

#[tokio::test]
async fn secrets_are_neither_stored_nor_passed_on_in_clear() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    let steps = json!([{"type": "http", "method": "POST", "url": target.url("/in"), "json": "{{ trigger }}"}]);
    let workflow = weir.workflow(&steps).await;
    let body = json!({"path": "hook", "secret": "very-secret-4711"});
    weir.post(&format!("/workflows/{workflow}/webhook-endpoints"), &body).await.expect(200);
    let request = weir
        .request(Method::POST, "/webhooks/hook/?a=1&a=2&b=3")
        .header("x-webhook-secret", "very-secret-4711")
        .header("authorization", "Bearer very-secret-4711")
        .header("cookie", "s=very-secret-4711")
        .header("x-hub-signature-256", "sha256=very-secret-4711")
        .header("x-event", "push")
        .json(&json!({"k": "v"}));
    let run = answer(request).await.text("run_id");
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let input = target.received("/in")[0].json();
    assert_eq!(
        (&input["body"], &input["query"], &input["method"], &input["path"], &input["headers"]["x-event"]),
        (&json!({"k": "v"}), &json!({"a": ["1", "2"], "b": "3"}), &json!("POST"), &json!("hook"), &json!("push"))
    );
    assert!(!input.to_string().contains("4711"), "{input}");
    weir.terminate().await;
    for file in std::fs::read_dir(weir.dir().join("data")).expect("the data directory") {
        let path = file.expect("a file").path();
        let bytes = std::fs::read(&path).expect("readable");
        let found = bytes.windows(16).any(|window| window == b"very-secret-4711");
        assert!(!found, "the secret stands in {}", path.display());
    }
    assert!(!weir.log().concat().contains("4711"));
}
