//! The API beside the original's calls: lists, revisions, idempotency, rotation, waiting.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};
use weir_tests::process::{Weir, answer};
use weir_tests::target::Target;

const NOTHING: [Value; 0] = [];

#[tokio::test]
async fn every_path_works_with_and_without_a_trailing_slash() {
    let weir = Weir::start(&[]).await;
    let workflow = weir.workflow(&json!(NOTHING)).await;
    for path in ["/health", "/workflows", "/runs", &format!("/workflows/{workflow}"), "/openapi.json"] {
        assert_eq!(weir.get(path).await.status, 200, "{path}");
        assert_eq!(weir.get(&format!("{path}/")).await.status, 200, "{path}/");
    }
    assert_eq!(weir.get("/runs/?limit=1").await.status, 200);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let weir = Weir::start(&[]).await;
    let (one, other) = (weir.workflow(&json!(NOTHING)).await, weir.workflow(&json!(NOTHING)).await);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(weir.run(&one, &json!(n)).await);
    }
    let elsewhere = weir.run(&other, &Value::Null).await;
    for run in ids.iter().chain([&elsewhere]) {
        weir.finished(run).await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = weir.get(&format!("/runs?workflow_id={one}&status=SUCCEEDED&limit=2{cursor}")).await.expect(200);
        seen.extend(
            page["items"].as_array().expect("items").iter().map(|run| run["id"].as_str().expect("id").to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ids.reverse();
    assert_eq!(seen, ids);
    for (status, count) in
        [("FAILED", 0), ("QUEUED", 0), ("RUNNING", 0), ("WAITING", 0), ("CANCELED", 0), ("SUCCEEDED", 6)]
    {
        let page = weir.get(&format!("/runs?status={status}")).await.expect(200);
        assert_eq!(page["items"].as_array().expect("items").len(), count, "{status}");
    }
    assert_eq!(weir.get("/workflows?limit=1").await.expect(200)["items"][0]["id"], json!(other));
}

#[tokio::test]
async fn an_update_makes_a_revision_and_runs_keep_theirs() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.hold("/old");
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/old")}])).await;
    let before = weir.run(&workflow, &Value::Null).await;
    target.received_at("/old", 1).await;
    let path = format!("/workflows/{workflow}");
    let definition = weir_tests::definition(&json!([{"type": "http", "url": target.url("/new")}]));
    let update = weir.request(Method::PUT, &path).json(&json!({"name": "renamed", "definition": definition}));
    let updated = answer(update).await.expect(200);
    assert_eq!((&updated["revision"], &updated["name"]), (&json!(2), &json!("renamed")));
    let after = weir.run(&workflow, &Value::Null).await;
    assert_eq!(weir.finished(&after).await["revision"], 2);
    target.release("/old");
    assert_eq!(weir.finished(&before).await["revision"], 1);
    assert_eq!((target.received("/old").len(), target.received("/new").len()), (1, 1));
    let revisions = weir.get(&format!("{path}/revisions")).await.expect(200);
    let numbers: Vec<_> =
        revisions["items"].as_array().expect("items").iter().map(|item| item["number"].clone()).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(revisions["items"][1]["name"], "test");
    let broken = weir.request(Method::PUT, &path).json(&json!({"definition": {"steps": [{"type": "no"}]}}));
    assert_eq!(answer(broken).await.body["code"], "invalid_definition");
    assert_eq!(weir.get(&path).await.expect(200)["revision"], 2);
}

#[tokio::test]
async fn an_idempotency_key_answers_the_same_run() {
    let weir = Weir::start(&[]).await;
    let (workflow, other) = (weir.workflow(&json!(NOTHING)).await, weir.workflow(&json!(NOTHING)).await);
    let start = async |workflow: &str, key: &str, input: Value| {
        let request = weir.request(Method::POST, &format!("/workflows/{workflow}/runs"));
        answer(request.header("Idempotency-Key", key).json(&json!({"input": input}))).await
    };
    let first = start(&workflow, "k", json!(1)).await;
    assert_eq!(first.status, 202);
    let run = first.text("run_id");
    assert_eq!(first.headers["location"], format!("/runs/{run}"));
    weir.finished(&run).await;
    let again = start(&workflow, "k", json!(1)).await;
    assert_eq!((again.status, again.text("run_id"), again.text("status")), (202, run, "SUCCEEDED".to_owned()));
    let conflict = start(&workflow, "k", json!(2)).await;
    assert_eq!((conflict.status, &conflict.body["code"]), (409, &json!("idempotency_conflict")));
    assert_eq!(start(&other, "k", json!(2)).await.status, 202);
    // Many at once: one run.
    let same: Vec<_> = (0..32).map(|_| start(&workflow, "storm", json!(1))).collect();
    let runs: HashSet<_> =
        futures::future::join_all(same).await.into_iter().map(|started| started.text("run_id")).collect();
    assert_eq!(runs.len(), 1);
}

#[tokio::test]
async fn a_repeated_delivery_answers_the_same_run() {
    let weir = Weir::start(&[]).await;
    let workflow = weir.workflow(&json!(NOTHING)).await;
    weir.endpoint(&workflow, "hook").await;
    let deliver = async |name: &str, id: &str, body: &str| {
        let request = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
        answer(request.header(name, id).body(body.to_owned())).await.text("run_id")
    };
    for name in ["webhook-id", "x-github-delivery", "idempotency-key"] {
        let first = deliver(name, "d-1", "one").await;
        assert_eq!(deliver(name, "d-1", "the same, sent again").await, first, "{name}");
        assert_ne!(deliver(name, "d-2", "one").await, first, "{name}");
    }
}

#[tokio::test]
async fn a_repeated_delivery_needs_the_secret_of_now() {
    let weir = Weir::start(&["secret_grace_seconds=0"]).await;
    let workflow = weir.workflow(&json!(NOTHING)).await;
    let endpoint = weir.endpoint(&workflow, "hook").await;
    let deliver = async |secret: &str| {
        let request = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", secret);
        answer(request.header("webhook-id", "d-1")).await
    };
    let first = deliver("s3cret").await.expect(200);
    weir.post(&format!("/webhook-endpoints/{endpoint}/rotate-secret"), &json!({"secret": "new"})).await.expect(200);
    assert_eq!(deliver("s3cret").await.status, 401);
    assert_eq!(deliver("new").await.expect(200)["run_id"], first["run_id"]);
    answer(weir.request(Method::DELETE, &format!("/webhook-endpoints/{endpoint}"))).await;
    assert_eq!(deliver("new").await.status, 404);
}

#[tokio::test]
async fn a_rotated_secret_leaves_the_old_one_valid_for_a_while() {
    let mut weir = Weir::start(&["secret_grace_seconds=3600"]).await;
    let workflow = weir.workflow(&json!(NOTHING)).await;
    let endpoint = weir.endpoint(&workflow, "hook").await;
    let deliver = async |weir: &Weir, secret: &str| {
        answer(weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", secret)).await.status
    };
    let rotate = format!("/webhook-endpoints/{endpoint}/rotate-secret");
    let rotated = weir.post(&rotate, &json!({"secret": "second"})).await.expect(200);
    assert!(rotated["previous_secret_until"].is_string(), "{rotated}");
    assert_eq!(
        (deliver(&weir, "s3cret").await, deliver(&weir, "second").await, deliver(&weir, "third").await),
        (200, 200, 401)
    );
    weir.terminate().await;
    weir.restart().await;
    assert_eq!((deliver(&weir, "s3cret").await, deliver(&weir, "second").await), (200, 200));
    weir.post(&rotate, &json!({"secret": "third"})).await.expect(200);
    assert_eq!(
        (deliver(&weir, "s3cret").await, deliver(&weir, "second").await, deliver(&weir, "third").await),
        (401, 200, 200)
    );
}

#[tokio::test]
async fn without_grace_the_old_secret_ends_at_once() {
    let weir = Weir::start(&["secret_grace_seconds=0"]).await;
    let workflow = weir.workflow(&json!(NOTHING)).await;
    let endpoint = weir.endpoint(&workflow, "hook").await;
    weir.post(&format!("/webhook-endpoints/{endpoint}/rotate-secret"), &json!({"secret": "second"})).await.expect(200);
    let request = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
    assert_eq!(answer(request).await.status, 401);
}

#[tokio::test]
async fn endpoints_are_listed_and_deleted() {
    let weir = Weir::start(&[]).await;
    let workflow = weir.workflow(&json!(NOTHING)).await;
    let (first, second) = (weir.endpoint(&workflow, "one").await, weir.endpoint(&workflow, "two").await);
    let path = format!("/workflows/{workflow}/webhook-endpoints");
    let listed = weir.get(&path).await.expect(200);
    let ids: Vec<_> = listed["items"].as_array().expect("items").iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, [json!(second), json!(first)]);
    assert_eq!(answer(weir.request(Method::DELETE, &format!("/webhook-endpoints/{first}"))).await.status, 204);
    assert_eq!(weir.get(&format!("/webhook-endpoints/{first}")).await.status, 404);
    let request = weir.request(Method::POST, "/webhooks/one").header("x-webhook-secret", "s3cret");
    assert_eq!(answer(request).await.status, 404);
    weir.endpoint(&workflow, "one").await;
}

#[tokio::test]
async fn waiting_answers_when_the_run_is_over_or_the_time_is_up() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.hold("/slow");
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await;
    let run = weir.run(&workflow, &Value::Null).await;
    let early = weir.get(&format!("/runs/{run}?wait=10ms")).await.expect(200);
    assert!(early["finished_at"].is_null());
    let path = format!("/runs/{run}?wait=60s");
    let (late, ()) = tokio::join!(weir.get(&path), async {
        target.received_at("/slow", 1).await;
        target.release("/slow");
    });
    assert_eq!(late.expect(200)["status"], "SUCCEEDED");
}

#[tokio::test]
async fn a_page_of_snapshots_ends_before_it_becomes_too_large() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.answer_with("/large", |_| async { "x".repeat(1_000_000) });
    let large = json!({"type": "http", "url": target.url("/large")});
    let mut steps = vec![large; 5];
    steps.extend((0..4).map(|_| json!({"type": "persist_snapshot"})));
    let run = weir.run(&weir.workflow(&json!(steps)).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = weir.get(&format!("/runs/{run}/snapshots{cursor}")).await.expect(200);
        let items = page["items"].as_array().expect("items");
        assert_eq!(items.len(), 1, "two of them are larger than a page");
        seen.push(items[0]["path"].as_str().expect("a path").to_owned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("?cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["step_5", "step_6", "step_7", "step_8"]);
}

#[tokio::test]
async fn a_request_id_goes_in_and_out_and_into_the_log() {
    let weir = Weir::start(&[]).await;
    let answered = answer(weir.request(Method::GET, "/nowhere").header("x-request-id", "my-id-1")).await;
    assert_eq!(
        (&answered.headers["x-request-id"], &answered.body["request_id"]),
        (&"my-id-1".parse().unwrap(), &json!("my-id-1"))
    );
    weir.line_with("my-id-1").await;
    let other = answer(weir.request(Method::GET, "/nowhere").header("x-request-id", "with space")).await;
    assert_ne!(other.headers["x-request-id"], "with space");
}

#[tokio::test]
async fn the_documentation_is_served_by_the_binary_itself() {
    let weir = Weir::start(&[]).await;
    let page = weir.get("/docs/").await;
    let text = page.body.as_str().expect("a page").to_owned();
    assert!(text.contains("swagger-ui") && !text.contains("https://"), "{text}");
    for asset in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        let found = weir.get(&format!("/docs/{asset}")).await;
        assert_eq!(found.status, 200, "{asset}");
    }
    assert_eq!(weir.get("/openapi.json").await.expect(200)["openapi"], "3.1.0");
}
