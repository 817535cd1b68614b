//! Grants over time: what a new version takes over, which version a name means, and what was used of a grant.

use reqwest::Method;
use serde_json::{Value, json};
use weir_tests::process::answer;
use weir_tests::target::Target;

use crate::access::{call, fetch, put, rule, server, upload};

#[tokio::test]
async fn a_new_version_takes_over_no_more_than_was_granted() {
    let target = Target::start().await;
    let weir = server(&json!([rule(&target, &json!({"path_prefix": "/repos"}))])).await;
    let grant = json!({"http": [rule(&target, &json!({"path_prefix": "/repos"}))], "settings": {"colour": "red"}});
    put(&weir, "/plugins/misbehave/grant", &grant).await.expect(200);
    let shown = call(&weir, "show_setting", &json!({"name": "colour"})).await.1;
    assert_eq!(shown["result"], "red");
    assert_eq!(call(&weir, "show_setting", &json!({"name": "size"})).await.1["result"], Value::Null);
    assert_eq!(call(&weir, "show_setting", &json!({"name": "nobody"})).await.1["result"], Value::Null);
    let named =
        json!([{"type": "mcp_tool", "plugin": "misbehave", "tool_name": "show_setting", "input": {"name": "colour"}}]);
    let workflow = weir.workflow(&named).await;
    // Less is taken over, and active at once; the workflow keeps what it pins until it is told to follow.
    let less = upload(&weir, "0.2.0", &json!([rule(&target, &json!({"path_prefix": "/repos/mine"}))])).await;
    assert_eq!(less["status"], "active");
    let inherited = weir.get("/plugins/misbehave@0.2.0/grant").await.expect(200);
    assert_eq!((&inherited["grant"]["settings"], &inherited["missing"]), (&json!({"colour": "red"}), &json!([])));
    assert_eq!(weir.get(&format!("/workflows/{workflow}")).await.expect(200)["revision"], 1);
    // More waits.
    let more = upload(&weir, "0.3.0", &json!([rule(&target, &json!({}))])).await;
    assert_eq!(more["status"], "waiting");
    assert_eq!(weir.get("/plugins/misbehave").await.expect(200)["version"], "0.2.0");
    let refused = weir.post("/plugins/misbehave@0.3.0/activate", &Value::Null).await.expect(409);
    assert_eq!(refused["code"], "grant_required", "{refused}");
    let missing = weir.get("/plugins/misbehave@0.3.0/grant").await.expect(200)["missing"].clone();
    assert_eq!(missing, json!([format!("GET, POST http://127.0.0.1:{}/", target.port())]));
    put(&weir, "/plugins/misbehave@0.3.0/grant", &json!({"http": []})).await.expect(200);
    assert_eq!(weir.get("/plugins/misbehave").await.expect(200)["version"], "0.3.0");
    // The workflow follows when somebody says so, and is listed.
    let followed = weir.post("/plugins/misbehave@0.2.0/activate?adopt=true", &Value::Null).await.expect(200);
    assert_eq!(followed["adopted"][0]["revision"], 2, "{followed}");
    let adopted = weir.get(&format!("/workflows/{workflow}")).await.expect(200);
    assert_eq!(adopted["tool_lock"]["step_0"], less["digest"]);
    let again = weir.post("/plugins/misbehave@0.2.0/activate?adopt=true", &Value::Null).await.expect(200);
    assert_eq!(again["adopted"], json!([]));
    // Retired, and deleted where nobody pins it.
    weir.post("/plugins/misbehave@0.2.0/retire", &Value::Null).await.expect(200);
    let definition = weir_tests::definition(&named);
    let refused = weir.post("/workflows", &json!({"name": "x", "definition": definition})).await.expect(422);
    assert!(
        refused["detail"].as_str().is_some_and(|text| text.contains("no version of `misbehave` is active")),
        "{refused}"
    );
    answer(weir.request(Method::DELETE, "/plugins/misbehave@0.3.0")).await.expect(204);
    assert_eq!(
        answer(weir.request(Method::DELETE, "/plugins/misbehave@0.2.0")).await.expect(409)["code"],
        "plugin_in_use"
    );
    let run = weir.run(&workflow, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn what_was_used_is_written_down() {
    let target = Target::start().await;
    let mut weir = server(&json!([rule(&target, &json!({"secrets": ["token"]}))])).await;
    let grant = json!({"http": [rule(&target, &json!({"secrets": ["token"]}))], "settings": {"colour": "red"}});
    put(&weir, "/plugins/misbehave/grant", &grant).await.expect(200);
    fetch(&weir, &target.url("/a")).await.expect("granted");
    fetch(&weir, "http://127.0.0.1:1/").await.expect_err("denied");
    // A server that stops writes down what it knows.
    weir.terminate().await;
    weir.restart().await;
    let shown = weir.get("/plugins/misbehave/grant").await.expect(200);
    let uses: Vec<&str> =
        shown["uses"].as_array().expect("a list").iter().filter_map(|used| used["what"].as_str()).collect();
    let port = target.port();
    assert_eq!(
        uses,
        [
            "denied GET http://127.0.0.1:1/: the plugin does not ask for it in its request".to_owned(),
            format!("rule GET http://127.0.0.1:{port}/"),
        ]
    );
    assert_eq!(
        shown["unused"],
        json!([format!("rule POST http://127.0.0.1:{port}/"), "secret token", "setting colour"])
    );
    let calls = weir.get("/plugins/misbehave/calls").await.expect(200)["items"].clone();
    let kept = &calls.as_array().expect("a list").last().expect("a call");
    assert_eq!(
        (&kept["tool"], &kept["http"][0]["url"], &kept["http"][0]["status"]),
        (&json!("fetch_url"), &json!(target.url("/a")), &json!(200))
    );
}
