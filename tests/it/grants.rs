//! Grants over time: what a new version takes over, which version a name means, and what was used of a grant.

use reqwest::Method;
use serde_json::{Value, json};
use weir_tests::plugin::{asking, bytes};
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
    // Nothing of what it asks for: it goes on waiting, and the name means what it meant.
    let other = json!({"host": "elsewhere.example.com", "methods": ["GET"]});
    for nothing in [json!({}), json!({"http": []}), json!({"http": [other], "settings": {"colour": "red"}})] {
        put(&weir, "/plugins/misbehave@0.3.0/grant", &nothing).await.expect(200);
        let waiting = weir.get("/plugins/misbehave@0.3.0").await.expect(200);
        let meant = weir.get("/plugins/misbehave").await.expect(200);
        assert_eq!((&waiting["status"], &meant["version"]), (&json!("waiting"), &json!("0.2.0")), "{nothing}");
    }
    let some = json!({"http": [rule(&target, &json!({"path_prefix": "/repos", "methods": ["GET"]}))]});
    put(&weir, "/plugins/misbehave@0.3.0/grant", &some).await.expect(200);
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
async fn a_grant_is_read_strictly_and_the_one_before_stays() {
    let target = Target::start().await;
    let weir = server(&json!([rule(&target, &json!({}))])).await;
    let path = "/plugins/misbehave/grant";
    let sound = json!({"http": [rule(&target, &json!({}))], "settings": {"colour": "red"}});
    put(&weir, path, &sound).await.expect(200);
    let kept = weir.get(path).await.expect(200)["grant"].clone();
    let twice = r#"{"http": [{"host": "a.com", "methods": ["GET"], "host": "b.com"}], "settings": {}, "http": []}"#;
    for (body, pointers) in [
        ("[]", vec![""]),
        ("", vec![""]),
        (r#"[[["a.com", "https", null, ["GET"], "/", []]], {}]"#, vec![""]),
        (
            r#"{"http": [["a.com", "https", null, ["GET"]], {"methods": ["*", "GET", "GET"]}], "settings": []}"#,
            vec!["/http/0", "/http/1", "/http/1/methods/0", "/http/1/methods/2", "/settings"],
        ),
        (r#"{"memory_max_bytes": 1, "timeout_seconds": 0}"#, vec!["/memory_max_bytes", "/timeout_seconds"]),
        (r#"{"http": [{"host": "x.y,z.w", "methods": ["GET"]}]}"#, vec!["/http/0/host"]),
        (
            r#"{"http": [{"host": "a.com", "methods": ["GET"], "secrets": ["token", "nobody", "", "a b"]}]}"#,
            vec!["/http/0/secrets/1", "/http/0/secrets/2", "/http/0/secrets/3"],
        ),
        (twice, vec!["/http/0/host", "/http"]),
    ] {
        let request = weir.request(Method::PUT, path).header("content-type", "application/json");
        let refused = answer(request.body(body)).await.expect(422);
        let faults = refused["errors"].as_array().expect("faults").iter();
        let mut told: Vec<&str> = faults.filter_map(|fault| fault["pointer"].as_str()).collect();
        let mut expected = pointers;
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!((&refused["code"], told), (&json!("invalid_grant"), expected), "{body}: {refused}");
    }
    assert_eq!(weir.get(path).await.expect(200)["grant"], kept);
    for path in [
        "/plugins/misbehave?x=1",
        "/plugins/misbehave/tools?x=1",
        "/plugins/misbehave/calls?x=1",
        "/plugins/misbehave/grant?x=1",
        "/secrets?x=1",
    ] {
        let refused = weir.get(path).await.expect(422);
        assert_eq!(
            (&refused["code"], &refused["errors"][0]["pointer"]),
            (&json!("invalid_request"), &json!("x")),
            "{path}"
        );
    }
    for (method, path) in [
        (Method::PUT, "/plugins/misbehave/grant?x=1"),
        (Method::DELETE, "/plugins/misbehave/grant?x=1"),
        (Method::DELETE, "/secrets/token?x=1"),
        (Method::POST, "/runs/00000000-0000-0000-0000-000000000000/answers?x=1"),
    ] {
        assert_eq!(
            answer(weir.request(method, path).json(&json!({}))).await.expect(422)["errors"][0]["pointer"],
            "x",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_secret_that_a_new_version_does_not_ask_for_is_not_taken_over() {
    let target = Target::start().await;
    let rules = json!([rule(&target, &json!({"secrets": ["token"]}))]);
    let weir = server(&rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    let request = json!({"name": "misbehave", "version": "0.2.0", "http": [rule(&target, &json!({}))]});
    let less = weir.upload(asking(&bytes("misbehave"), &request)).await.expect(201);
    assert_eq!(less["status"], "active", "{less}");
    // What it took over can be granted as it is.
    let taken = weir.get("/plugins/misbehave@0.2.0/grant").await.expect(200)["grant"].clone();
    assert_eq!(taken["http"][0]["secrets"], Value::Null, "{taken}");
    put(&weir, "/plugins/misbehave@0.2.0/grant", &taken).await.expect(200);
}

#[tokio::test]
async fn memory_of_a_grant_that_no_guest_begins_with_is_named() {
    let target = Target::start().await;
    let weir = server(&json!([rule(&target, &json!({}))])).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"memory_max_bytes": 65536})).await.expect(200);
    let error = call(&weir, "show_setting", &json!({"name": "colour"})).await.0["error"].clone();
    assert_eq!(error["code"], "tool_memory_exceeded", "{error}");
    let says = "the tool wanted more than 65536 bytes of memory to begin (`memory_max_bytes` of its grant)";
    assert_eq!(error["message"], says);
}

#[tokio::test]
async fn time_of_a_grant_that_is_shorter_than_the_steps_is_named() {
    let target = Target::start().await;
    let weir = server(&json!([rule(&target, &json!({}))])).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"timeout_seconds": 1})).await.expect(200);
    let error = call(&weir, "sleep", &json!({})).await.0["error"].clone();
    assert_eq!(error["code"], "step_timeout", "{error}");
    assert_eq!(error["message"], "the tool took longer than 1 seconds (`timeout_seconds` of its grant)");
}

#[tokio::test]
async fn secrets_name_each_place_once_and_are_listed_by_pages() {
    let target = Target::start().await;
    let weir = server(&json!([rule(&target, &json!({}))])).await;
    for name in ["a", "b", "c"] {
        let hosts = ["api.example.com", "https://API.example.com:443", "*.example.com"];
        let set =
            put(&weir, &format!("/secrets/{name}"), &json!({"value": "hush-hush", "hosts": hosts})).await.expect(201);
        assert_eq!(set["hosts"], json!(["https://api.example.com", "https://*.example.com"]));
    }
    let first = weir.get("/secrets?limit=2").await.expect(200);
    assert_eq!((first["items"].as_array().map(Vec::len), &first["next_cursor"]), (Some(2), &json!("b")));
    let rest = weir.get("/secrets?limit=2&cursor=b").await.expect(200);
    assert_eq!((&rest["items"][0]["name"], &rest["next_cursor"]), (&json!("c"), &Value::Null));
    for host in ["a..b", "-a.b", "x.y,z.w", "*"] {
        let refused = put(&weir, "/secrets/d", &json!({"value": "hush-hush", "hosts": [host]})).await.expect(422);
        let message = refused["errors"][0]["message"].as_str().expect("text");
        // It must not suggest what is refused then.
        assert!(!message.contains("or `*`"), "{refused}");
    }
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
