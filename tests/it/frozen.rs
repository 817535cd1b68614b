//! Plugins of released contracts go on working: `tests/frozen` has one of each, and what it says and gets stays what it was.

use std::path::Path;

use serde_json::{Value, json};
use weir_tests::process::Weir;

use crate::access::put;

/// The plugin of this version of the contract.
pub(crate) fn plugin(version: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("frozen/{version}/guest.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The same, which asks for nothing.
pub(crate) fn modest() -> Vec<u8> {
    weir_tests::plugin::asking(&plugin("0.1.0"), &json!({"name": "frozen", "version": "0.1.0"}))
}

/// A server with the plugin, which is granted what it asks for.
async fn server(version: &str) -> Weir {
    let weir = Weir::start(&["log_level=info,weir::tool=trace"]).await;
    let uploaded = weir.upload(plugin(version)).await.expect(201);
    assert_eq!((&uploaded["name"], &uploaded["version"]), (&json!("frozen"), &json!(version)));
    let rule = json!({"scheme": "http", "host": "127.0.0.1", "port": 9, "methods": ["GET"], "secrets": ["token"]});
    put(&weir, "/secrets/token", &json!({"value": "s3cret-of-tests", "hosts": ["http://127.0.0.1:9"]}))
        .await
        .expect(201);
    let granted = put(&weir, "/plugins/frozen/grant", &json!({"http": [rule], "settings": {"colour": "red"}})).await;
    assert_eq!(granted.expect(200)["missing"], json!([]));
    weir
}

fn step(tool: &str, input: &Value) -> Value {
    json!({"type": "mcp_tool", "plugin": "frozen", "tool_name": tool, "name": tool, "input": input,
        "retry": {"max_attempts": 2, "initial_delay_seconds": 0.001}, "timeout_seconds": 30})
}

/// What the step of a run came to.
async fn called(weir: &Weir, tool: &str, input: &Value) -> Value {
    let run = weir.run(&weir.workflow(&json!([step(tool, input)])).await, &Value::Null).await;
    weir.finished(&run).await;
    weir.steps(&run).await[0].clone()
}

#[tokio::test]
async fn a_plugin_of_0_1_0_is_listed_and_answers_as_it_did() {
    let weir = server("0.1.0").await;
    let tools = weir.get("/plugins/frozen/tools").await.expect(200)["items"].clone();
    let names: Vec<&str> = tools.as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["everything", "blocks", "tool_error", "fault", "ask"]);
    let icon = json!({"src": "data:image/png;base64,iVBORw0KGgo=", "mimeType": "image/png", "sizes": ["48x48", "any"], "theme": "dark"});
    let everything = json!({
        "name": "everything",
        "title": "Everything",
        "description": "Uses each import once, and answers with what it saw.",
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object", "required": ["call", "colour", "token"]},
        "annotations": {"title": "Every thing", "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true},
        "icons": [icon],
        "_meta": {"example.com/of": "tool"},
    });
    assert_eq!(tools[0], everything);

    // One run of three steps, each with its kind of answer.
    let arguments = json!({"text": "a \"b\" \u{e9}", "number": 1.5});
    let steps = json!([step("everything", &arguments), step("blocks", &json!({})), step("tool_error", &json!({}))]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let steps = weir.steps(&run).await;
    let saw = &steps[0]["result"];
    let call = json!({"tool": "everything", "arguments": arguments, "run": run, "step": "everything", "attempt": 1,
        "key": saw["call"]["key"], "deadline_ms": 30_000, "resumed": false});
    assert_eq!(saw["call"], call);
    assert!(saw["call"]["key"].as_str().is_some_and(|key| key.contains(&run)), "{saw}");
    assert_eq!((&saw["colour"], &saw["nothing"]), (&json!("red"), &Value::Null));
    assert!(saw["token"].as_str().is_some_and(|token| token.starts_with("weir-secret-")), "{saw}");
    let answer = &steps[0]["answer"];
    assert_eq!(answer["content"], json!([{"type": "text", "text": "all of it"}]));
    assert_eq!(answer["_meta"], json!({"example.com/of": "result"}));

    let resource = |member: &str, data: &str| {
        let mut resource =
            json!({"uri": "file:///a", "mimeType": "text/plain", "_meta": {"example.com/of": "resource"}});
        resource[member] = json!(data);
        json!({"type": "resource", "resource": resource})
    };
    let notes = json!({"audience": ["user", "assistant"], "priority": 0.5, "lastModified": "2026-07-28T00:00:00Z"});
    let blocks = json!([
        {"type": "text", "text": "a text", "annotations": notes, "_meta": {"example.com/of": "block"}},
        {"type": "image", "data": "AAH+/w==", "mimeType": "image/png"},
        {"type": "audio", "data": "/w==", "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "https://example.com/a", "name": "a", "title": "A", "description": "The first.",
            "mimeType": "text/plain", "size": 1_u64 << 40, "icons": [icon]},
        resource("text", "its text"),
        resource("blob", "AJ8="),
        {"type": "hologram", "depth": 3},
    ]);
    assert_eq!((&steps[1]["result"], &steps[1]["answer"]["is_error"]), (&blocks, &json!(false)));
    assert_eq!((&steps[2]["result"], &steps[2]["answer"]["is_error"]), (&json!("it went wrong"), &json!(true)));

    for (level, line) in
        [("TRACE", "a trace"), ("DEBUG", "a detail"), ("INFO", "a line"), ("WARN", "a warning"), ("ERROR", "an error")]
    {
        let found: Value =
            serde_json::from_str(&weir.line_with(&format!("\"message\":\"{line}\"")).await).expect("JSON");
        assert_eq!((&found["level"], &found["run.id"]), (&json!(level), &json!(run)), "{found}");
        assert_eq!(found["fields"], r#"{"of":"frozen"}"#);
    }
    assert!(!weir.line_with("\"message\":\"without fields\"").await.contains("\"fields\":"));
    let progress = weir.line_with("\"done\":2.0").await;
    assert!(progress.contains("\"total\":2.0"), "{progress}");
}

#[tokio::test]
async fn a_plugin_of_0_1_0_fails_as_it_did() {
    let weir = server("0.1.0").await;
    for (kind, code, attempts) in [
        ("invalid", "invalid_tool_arguments", 1),
        ("unknown", "tool_failed", 1),
        ("retryable", "tool_failed", 2),
        ("permanent", "tool_failed", 1),
    ] {
        let step = called(&weir, "fault", &json!({"kind": kind})).await;
        assert_eq!((&step["error"]["code"], &step["attempts"]), (&json!(code), &json!(attempts)), "{step}");
        assert!(
            step["error"]["message"].as_str().is_some_and(|text| text.contains(&format!("{kind} (as-told)"))),
            "{step}"
        );
    }
    weir.line_with("details of the fault").await;
}

#[tokio::test]
async fn a_plugin_of_0_1_0_asks_and_goes_on_as_it_did() {
    let weir = server("0.1.0").await;
    let run = weir.run(&weir.workflow(&json!([step("ask", &json!({}))])).await, &Value::Null).await;
    let questions = weir.asked(&run, "ask").await;
    let modes: Vec<_> = questions.iter().map(|question| (question["key"].clone(), question["mode"].clone())).collect();
    assert_eq!(json!(modes), json!([["form", "form"], ["page", "url"], ["raw", "raw"]]));
    assert_eq!(
        (&questions[0]["message"], &questions[1]["url"]),
        (&json!("Who is it?"), &json!("https://example.com/look"))
    );
    assert!(questions[0]["schema"]["properties"].is_object() && questions[2]["request"]["params"].is_object());
    for answer in answers() {
        weir.post(&format!("/runs/{run}/answers"), &answer).await.expect(202);
    }
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(weir.steps(&run).await[0]["result"], resumed());
}

/// An answer to each of its questions.
pub(crate) fn answers() -> [Value; 3] {
    [
        json!({"step": "ask", "key": "raw", "action": "accept", "content": {"role": "user", "of": [1, 2.5, null]}}),
        json!({"step": "ask", "key": "page", "action": "accept"}),
        json!({"step": "ask", "key": "form", "action": "decline"}),
    ]
}

/// What it makes of them.
pub(crate) fn resumed() -> Value {
    json!({"round": 1, "state": [0, 7, 255], "answers": {
        "raw": {"action": "accept", "content": {"role": "user", "of": [1, 2.5, null]}},
        "page": {"action": "accept", "content": null},
        "form": {"action": "decline", "content": null}}})
}
