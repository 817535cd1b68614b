//! Every refusal and every failure, from outside: a snapshot for each code, and all of them in one shape.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use axum::http::StatusCode;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use weir::api::ProblemCode;
use weir::model::error::FailureCode;
use weir_tests::process::{Weir, answer};
use weir_tests::target::Target;

const NOBODY: &str = "01970000-0000-7000-8000-000000000000";

/// Sends a request that must be refused, and keeps its shape under the code's name.
async fn refused(seen: &mut BTreeSet<String>, known: &[(&str, &str)], request: RequestBuilder) {
    let answer = answer(request).await;
    let code = answer.body["code"].as_str().unwrap_or_else(|| panic!("no code: {answer:?}")).to_owned();
    assert_eq!(answer.body["status"], json!(answer.status));
    assert_eq!(answer.body["type"], json!(format!("/docs/errors/{code}")));
    assert_eq!(answer.headers["x-request-id"], answer.body["request_id"].as_str().expect("an id"));
    if seen.insert(code.clone()) {
        insta::assert_snapshot!(code, answer.shape(known));
    }
}

/// What is refused of versions of plugins, grants and secrets.
async fn rights_are_refused(weir: &Weir, seen: &mut BTreeSet<String>, known: &[(&str, &str)]) {
    refused(seen, known, weir.request(Method::DELETE, "/plugins/greet@0.1.0")).await;
    let rule = json!({"host": "api.example.com", "methods": ["GET"]});
    let eager = json!({"name": "greet", "version": "0.2.0", "http": [rule]});
    weir.upload(weir_tests::plugin::asking(&weir_tests::plugin::bytes("greet"), &eager)).await.expect(201);
    refused(seen, known, weir.request(Method::POST, "/plugins/greet@0.2.0/activate")).await;
    let wrong = json!({"http": [{"host": "api.example.com", "methods": []}]});
    refused(seen, known, weir.request(Method::PUT, "/plugins/greet@0.2.0/grant").json(&wrong)).await;
    let pinning =
        json!([{"type": "mcp_tool", "plugin": "greet@0.2.0", "tool_name": "greet", "input": {"name": "Ada"}}]);
    let pinning = weir.workflow(&pinning).await;
    let known = &[known, &[(pinning.as_str(), "[pinning]")]].concat();
    refused(seen, known, weir.request(Method::DELETE, "/plugins/greet@0.2.0")).await;
    refused(seen, known, weir.request(Method::DELETE, "/secrets/nobody")).await;
}

/// What is refused of answers to what tools ask.
async fn answers_are_refused(weir: &Weir, seen: &mut BTreeSet<String>, known: &[(&str, &str)]) {
    weir.example("approve").await;
    let asking = json!([{"type": "mcp_tool", "name": "ask", "tool_name": "approve_by_all",
        "input": {"question": "Deploy?", "approvers": ["Ada", "Grace"]}}]);
    let run = weir.run(&weir.workflow(&asking).await, &Value::Null).await;
    weir.asked(&run, "ask").await;
    let answers = format!("/runs/{run}/answers");
    let known = &[known, &[(run.as_str(), "[run]")]].concat();
    let decline = |key: &str| json!({"step": "ask", "key": key, "action": "decline"});
    refused(seen, known, weir.request(Method::POST, &answers).json(&decline("other"))).await;
    weir.post(&answers, &decline("Ada")).await.expect(202);
    let again = json!({"step": "ask", "key": "Ada", "action": "cancel"});
    refused(seen, known, weir.request(Method::POST, &answers).json(&again)).await;
}

#[tokio::test]
async fn every_problem_has_its_shape() {
    let weir = Weir::start(&["request_max_bytes=5000", "webhook_max_bytes=1000"]).await;
    let workflow = weir.workflow(&json!([])).await;
    let endpoint = weir.endpoint(&workflow, "hook").await;
    let run = weir.run(&workflow, &Value::Null).await;
    weir.finished(&run).await;
    let known = [(workflow.as_str(), "[workflow]"), (endpoint.as_str(), "[endpoint]"), (run.as_str(), "[run]")];
    let mut seen = BTreeSet::new();
    let post = |path: &str| weir.request(Method::POST, path);
    let runs = format!("/workflows/{workflow}/runs");
    let hook = || post("/webhooks/hook").header("x-webhook-secret", "s3cret");

    let typed = |body: &'static str, kind: &str| post("/workflows").header("content-type", kind).body(body);
    refused(&mut seen, &known, typed("{\"name\": ", "application/json")).await;
    refused(&mut seen, &known, typed("name: x", "application/yaml")).await;
    let definition = json!({"version": "1.0", "steps": [
        {"type": "http", "url": "nowhere", "timeout_second": 3},
        {"type": "persist_snapshot", "include_keys": ["later"]},
        {"type": "http", "url": "https://example.com/{{ steps.later.result }}", "if": "1 +"},
        {"type": "mcp_tool", "tool_name": "greet", "input": {}}]});
    refused(&mut seen, &known, post("/workflows").json(&json!({"name": "x", "definition": definition}))).await;
    refused(&mut seen, &known, post("/workflows").json(&json!({"nme": "x", "definition": {"steps": []}}))).await;
    refused(&mut seen, &known, post("/workflows").json(&json!({"name": "x".repeat(6000)}))).await;
    for path in [
        format!("/workflows/{NOBODY}"),
        format!("/runs/{NOBODY}"),
        format!("/webhook-endpoints/{NOBODY}"),
        "/plugins/nobody".to_owned(),
        "/no/such/thing".to_owned(),
    ] {
        refused(&mut seen, &known, weir.request(Method::GET, &path)).await;
    }
    refused(&mut seen, &known, post("/plugins").body("no plugin")).await;
    let signed = post("/plugins").header("weir-plugin-signature", "AAAA");
    refused(&mut seen, &known, signed.body(weir_tests::plugin::bytes("greet"))).await;
    weir.example("greet").await;
    let other = weir_tests::plugin::patched(&weir_tests::plugin::bytes("greet"), "Hello", "Howdy");
    let digest = weir.get("/plugins/greet").await.text("digest");
    let known = [&known[..], &[(digest.as_str(), "[digest]")]].concat();
    refused(&mut seen, &known, post("/plugins").body(other)).await;
    rights_are_refused(&weir, &mut seen, &known).await;
    refused(&mut seen, &known, weir.request(Method::PATCH, "/runs")).await;
    refused(&mut seen, &known, post("/webhooks/hook").header("x-webhook-secret", "wrong")).await;
    refused(
        &mut seen,
        &known,
        post(&format!("/workflows/{workflow}/webhook-endpoints")).json(&json!({"path": "hook", "secret": "x"})),
    )
    .await;
    for input in [1, 2] {
        let request = post(&runs).header("idempotency-key", "k").json(&json!({"input": input}));
        if input == 1 {
            answer(request).await.expect(202);
        } else {
            refused(&mut seen, &known, request).await;
        }
    }
    answers_are_refused(&weir, &mut seen, &known).await;
    refused(&mut seen, &known, post(&format!("/runs/{run}/cancel"))).await;
    refused(&mut seen, &known, post(&format!("/runs/{run}/redrive"))).await;
    refused(&mut seen, &known, post("/workflows").header("origin", "https://evil.example").body("{}")).await;
    answer(post(&format!("/webhook-endpoints/{endpoint}/deactivate"))).await.expect(200);
    refused(&mut seen, &known, hook()).await;
    answer(post(&format!("/webhook-endpoints/{endpoint}/activate"))).await.expect(200);
    answer(post(&format!("/workflows/{workflow}/deactivate"))).await.expect(200);
    refused(&mut seen, &known, hook()).await;

    // `unavailable` is shown on a disk that is full (disk.rs), `invalid_api_key` at the door (door.rs), `plugin_signature_required` where one is (signing.rs), the others with a
    // damaged database or key (below).
    let elsewhere = ["unavailable", "invalid_api_key", "plugin_signature_required", "run_unreadable", "internal"];
    let elsewhere = elsewhere.map(str::to_owned);
    let all: BTreeSet<String> = ProblemCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let shown: BTreeSet<String> = seen.iter().cloned().chain(elsewhere).collect();
    assert_eq!(shown, all);
}

#[tokio::test]
async fn every_refusal_of_the_framework_has_the_same_shape() {
    let weir = Weir::start(&["webhook_max_bytes=1000"]).await;
    let workflow = weir.workflow(&json!([])).await;
    weir.endpoint(&workflow, "hook").await;
    let large =
        weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret").body("x".repeat(1001));
    for (request, status, code) in [
        (weir.request(Method::GET, "/runs/not-a-uuid"), 422, "invalid_request"),
        (weir.request(Method::GET, "/runs/%ff"), 422, "invalid_request"),
        (weir.request(Method::GET, "/runs?limit=0"), 422, "invalid_request"),
        (weir.request(Method::GET, "/runs?limit=1&limit=2"), 422, "invalid_request"),
        (weir.request(Method::GET, "/runs?stauts=FAILED"), 422, "invalid_request"),
        (weir.request(Method::GET, "/runs?cursor=!!"), 422, "invalid_request"),
        (weir.request(Method::GET, "/runs?status=failed"), 422, "invalid_request"),
        (weir.request(Method::GET, &format!("/runs/{NOBODY}?wait=soon")), 422, "invalid_request"),
        (weir.request(Method::POST, "/workflows").json(&json!([1])), 422, "invalid_request"),
        (weir.request(Method::POST, "/workflows"), 422, "invalid_request"),
        (
            weir.request(Method::POST, &format!("/workflows/{workflow}/runs")).header("idempotency-key", "").body("{}"),
            422,
            "invalid_request",
        ),
        (weir.request(Method::DELETE, "/workflows"), 405, "method_not_allowed"),
        (weir.request(Method::GET, "/docs/errors/no_such_code"), 404, "route_not_found"),
        (weir.request(Method::GET, "//"), 404, "route_not_found"),
        (large, 413, "payload_too_large"),
    ] {
        let answer = answer(request).await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
}

#[tokio::test]
async fn bytes_that_are_no_http_do_no_harm() {
    let weir = Weir::start(&[]).await;
    let address = weir.url("").trim_start_matches("http://").to_owned();
    for bytes in [
        &b"\x00\xff\xfe"[..],
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /workflows HTTP/1.1\r\ncontent-length: 99\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(&address).expect("connects");
        stream.write_all(bytes).expect("written");
        stream.shutdown(std::net::Shutdown::Write).expect("shut down");
        let mut answer = Vec::new();
        // Whatever it says, or nothing: the connection ends.
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(weir.get("/health").await.status, 200);
}

#[tokio::test]
async fn every_code_has_a_page_that_the_server_shows() {
    let weir = Weir::start(&[]).await;
    let problems = ProblemCode::ALL.iter().map(|code| code.as_str());
    for code in problems.chain(FailureCode::ALL.iter().map(|code| code.as_str())) {
        let page = weir.get(&format!("/docs/errors/{code}")).await;
        let text = page.body.as_str().expect("a page").to_owned();
        assert!(page.status == 200 && text.starts_with(&format!("# {code}\n")), "{code}: {text}");
        assert!(text.contains("## What happened") && text.contains("## What to do"), "{code}: {text}");
    }
}

#[tokio::test]
async fn a_defect_tells_the_client_nothing_and_the_log_everything() {
    let mut weir = Weir::start(&[]).await;
    let workflow = weir.workflow(&json!([])).await;
    let endpoint = weir.endpoint(&workflow, "hook").await;
    weir.terminate().await;
    // Somebody lost the master key, and a new one was made.
    std::fs::remove_file(weir.dir().join("data/weir.key")).expect("removed");
    weir.restart().await;
    let deliver = async |secret: &str| {
        answer(weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", secret)).await
    };
    let refused = deliver("s3cret").await;
    insta::assert_snapshot!("internal", refused.shape(&[]));
    let line = weir.line_with(&refused.text("request_id")).await;
    assert!(line.contains("the master key is not the one"), "{line}");
    // A new secret is all that is needed.
    weir.post(&format!("/webhook-endpoints/{endpoint}/rotate-secret"), &json!({"secret": "new"})).await.expect(200);
    assert_eq!((deliver("new").await.status, deliver("s3cret").await.status), (200, 401));
}

#[tokio::test]
async fn failures_of_steps_name_their_code_and_the_limit() {
    let settings =
        ["step_output_max_bytes=2000", "context_max_bytes=3000", "response_max_bytes=4000", "redirects_max=1"];
    let (weir, target) = (Weir::start(&settings).await, Target::start().await);
    target.answer_with("/big", |_| async { "x".repeat(1200) });
    target.answer_with("/bigger", |_| async { "x".repeat(3000) });
    target.answer_with("/huge", |_| async { "x".repeat(5000) });
    target.answer_with("/round", |_| async { (StatusCode::FOUND, [("location", "/round")]) });
    target.answer_with("/gone", |_| async { StatusCode::GONE });
    target.hold("/slow");
    let once = json!({"max_attempts": 1});
    let http = |path: &str| json!({"type": "http", "url": target.url(path), "retry": once});
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let with = |path: &str, member: &str, value: Value| {
        let mut step = http(path);
        step[member] = value;
        json!([step])
    };
    for (steps, code) in [
        (json!([http("/gone")]), "http_status"),
        (with("/slow", "timeout_seconds", json!(0.1)), "step_timeout"),
        (json!([http("/bigger")]), "step_output_too_large"),
        (json!([http("/big"), http("/big"), http("/big")]), "context_too_large"),
        (json!([http("/huge")]), "response_too_large"),
        (json!([http("/round")]), "too_many_redirects"),
        (with("/", "url", json!("{{ trigger.nope }}")), "expression_failed"),
        (with("/", "headers", json!({"x": "{{ 'a\\nb' }}"})), "invalid_request_values"),
        (with("/", "url", json!("http://10.0.0.1/")), "egress_denied"),
        (with("/", "headers", json!({"x-token": "{{ secrets.token }}"})), "secret_unavailable"),
        (with("/", "url", json!(format!("http://{closed}/"))), "connection_failed"),
    ] {
        let run = weir.run(&weir.workflow(&steps).await, &json!({})).await;
        let finished = weir.finished(&run).await;
        assert_eq!(finished["status"], "FAILED", "{finished}");
        failure(code, &finished["error"]);
    }
    let mut definition = weir_tests::definition(&json!([{"type": "http", "url": target.url("/slow")}]));
    definition["timeout_seconds"] = json!(0.1);
    let created = weir.post("/workflows", &json!({"name": "short", "definition": definition})).await;
    let run = weir.run(&created.text("id"), &Value::Null).await;
    failure("run_timeout", &weir.finished(&run).await["error"]);
    // `interrupted` and `quarantined` are shown where processes are killed, `unreadable` and `plugin_unusable` below,
    // `invalid_tool_arguments` in plugins.rs, nine codes of tools in sandbox.rs, `imported` in import.rs, and
    // `answer_timeout` in ask.rs.
    assert_eq!(FailureCode::ALL.len(), 12 + 2 + 2 + 1 + 9 + 1 + 1);
}

/// Keeps how a failure looks under its code's name. Outputs hold headers with a time in them: their size is left out.
pub(crate) fn failure(code: &str, error: &Value) {
    assert_eq!(error["code"], code, "{error}");
    insta::with_settings!({filters => vec![(r"(is|are) \d+ bytes long", "$1 [size] bytes long")]}, {
        insta::assert_snapshot!(format!("failure_{code}"), format!("{error:#}"));
    });
}

#[tokio::test]
async fn what_expressions_of_a_step_make_together_is_limited() {
    let (weir, target) = (Weir::start(&["step_output_max_bytes=1048576"]).await, Target::start().await);
    let many: Vec<&str> = vec!["{{ trigger }}"; 100];
    let steps = json!([{"type": "http", "method": "POST", "url": target.url("/"), "json": many}]);
    let run = weir.run(&weir.workflow(&steps).await, &json!("x".repeat(500_000))).await;
    let finished = weir.finished(&run).await;
    assert_eq!(finished["error"]["code"], "expression_failed", "{finished}");
    assert_eq!(target.all().len(), 0);
}

#[tokio::test]
async fn a_step_has_a_limited_number_of_expressions() {
    let weir = Weir::start(&[]).await;
    let body = |count: usize| {
        let step = json!({"type": "http", "url": "http://x/", "json": vec!["{{ 1 }}"; count]});
        json!({"name": "x", "definition": weir_tests::definition(&json!([step, step]))})
    };
    weir.post("/workflows", &body(256)).await.expect(200);
    let refused = weir.post("/workflows", &body(257)).await.expect(422);
    assert_eq!(refused["errors"][0]["pointer"], "/definition/steps/0/json/256");
    assert_eq!(refused["errors"].as_array().expect("errors").len(), 2);
}

#[tokio::test]
async fn json_of_any_depth_can_be_read_back() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let workflow =
        weir.workflow(&json!([{"type": "http", "url": target.url("/")}, {"type": "persist_snapshot"}])).await;
    let nothing = weir.workflow(&json!([])).await;
    weir.endpoint(&workflow, "hook").await;
    for levels in [1, 64, 65, 120, 127, 128, 100_000] {
        target.answer("/", ([("content-type", "application/json")], deep(levels)));
        let request = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
        let run = answer(request.body(deep(levels))).await.expect(200)["run_id"].as_str().expect("a run").to_owned();
        assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED", "{levels}");
        for part in ["steps", "journal", "snapshots"] {
            assert_eq!(weir.get(&format!("/runs/{run}/{part}")).await.status, 200, "{levels} {part}");
        }
        let result = &weir.steps(&run).await[0]["result"];
        assert_eq!(result.is_array(), levels <= 64, "{levels}");
        let body = format!("{{\"input\": {}}}", deep(levels));
        let start = answer(weir.request(Method::POST, &format!("/workflows/{nothing}/runs")).body(body)).await;
        assert!(
            start.status == if levels < 64 { 202 } else { 422 } || (levels > 120 && start.status == 400),
            "{levels} {start:?}"
        );
    }
}

#[tokio::test]
async fn a_run_that_this_version_cannot_read_says_so_and_goes_on_when_it_can() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    let steps = json!([{"type": "http", "url": target.url("/a")}, {"type": "http", "url": target.url("/b")}]);
    target.answer("/b", StatusCode::GONE);
    let workflow = weir.workflow(&steps).await;
    let run = weir.run(&workflow, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["error"]["code"], "http_status");
    sql(&mut weir, "UPDATE revisions SET definition = CAST('{\"steps\": [{\"type\": \"future\"}]}' AS BLOB)").await;
    for _ in 0..2 {
        assert_eq!(weir.post(&format!("/runs/{run}/redrive"), &Value::Null).await.status, 202);
        let finished = weir.finished(&run).await;
        failure("unreadable", &finished["error"]);
        assert_eq!(finished["current_step_index"], 1);
    }
    let steps = weir.get(&format!("/runs/{run}/steps")).await;
    insta::assert_snapshot!("run_unreadable", steps.shape(&[(&run, "[run]")]));
    let repaired = weir_tests::definition(
        &json!([{"type": "http", "url": target.url("/a")}, {"type": "http", "url": target.url("/b")}]),
    );
    sql(&mut weir, &format!("UPDATE revisions SET definition = CAST('{repaired}' AS BLOB)")).await;
    assert_eq!(weir.post(&format!("/runs/{run}/redrive"), &Value::Null).await.status, 202);
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(target.received("/a").len(), 1);
}

#[tokio::test]
async fn a_plugin_that_is_gone_fails_the_step_that_calls_it() {
    let mut weir = Weir::start(&[]).await;
    weir.example("greet").await;
    let steps = json!([{"type": "mcp_tool", "tool_name": "greet", "input": {"name": "Ada"}}]);
    let workflow = weir.workflow(&steps).await;
    let gone = format!("sha256:{}", "0".repeat(64));
    sql(&mut weir, &format!("UPDATE revisions SET tool_lock = CAST('{{\"step_0\": \"{gone}\"}}' AS BLOB)")).await;
    let run = weir.run(&workflow, &Value::Null).await;
    failure("plugin_unusable", &weir.finished(&run).await["error"]);
}

/// Changes the database behind the server's back, while it is down.
async fn sql(weir: &mut Weir, statement: &str) {
    use sqlx::{Connection as _, SqliteConnection};
    weir.terminate().await;
    let path = weir.dir().join("data/weir.db");
    assert!(!path.with_extension("db-wal").exists(), "after an orderly end everything is in the one file");
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.expect("opens");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.expect("changed");
    connection.close().await.expect("closed");
    weir.restart().await;
}
