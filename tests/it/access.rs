//! What a tool may reach: what it asks for and is granted, and nothing else. Seen by real targets.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_tests::plugin::{asking, bytes};
use weir_tests::process::{Weir, answer};
use weir_tests::target::Target;

const SECRET: &str = "s3cret-of/the\"operator";

/// A server with the plugin `misbehave`, which asks for `rules`.
pub(crate) async fn server(rules: &Value) -> Weir {
    let weir = Weir::start(&["egress_allow=127.0.0.1,localhost", "response_max_bytes=100000"]).await;
    upload(&weir, "0.1.0", rules).await;
    weir
}

pub(crate) async fn upload(weir: &Weir, version: &str, rules: &Value) -> Value {
    let request = json!({
        "name": "misbehave", "version": version, "http": rules,
        "secrets": [{"name": "token", "description": "for the tests"}],
        "settings": [{"name": "colour", "default": "blue"}, {"name": "size"}],
    });
    weir.upload(asking(&bytes("misbehave"), &request)).await.expect(201)
}

/// Everything on the target, with the secret.
pub(crate) fn rule(target: &Target, more: &Value) -> Value {
    let mut rule = json!({"scheme": "http", "host": "127.0.0.1", "port": target.port(), "methods": ["GET", "POST"]});
    rule.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    rule
}

pub(crate) async fn put(weir: &Weir, path: &str, body: &Value) -> weir_tests::process::Answer {
    answer(weir.request(Method::PUT, path).json(body)).await
}

async fn set_secret(weir: &Weir, hosts: &[String]) {
    put(weir, "/secrets/token", &json!({"value": SECRET, "hosts": hosts})).await.expect(201);
}

/// One call of a tool by its version: the run, and its step.
pub(crate) async fn call(weir: &Weir, tool: &str, input: &Value) -> (Value, Value) {
    let step = json!({"type": "mcp_tool", "plugin": "misbehave@0.1.0", "tool_name": tool, "input": input,
        "retry": {"max_attempts": 1}, "timeout_seconds": 20});
    let run = weir.run(&weir.workflow(&json!([step])).await, &Value::Null).await;
    (weir.finished(&run).await, weir.steps(&run).await[0].clone())
}

pub(crate) async fn fetch(weir: &Weir, url: &str) -> Result<Value, Value> {
    let (run, step) = call(weir, "fetch_url", &json!({"url": url})).await;
    if run["status"] == "SUCCEEDED" { Ok(step["result"].clone()) } else { Err(run["error"].clone()) }
}

#[tokio::test]
async fn a_request_is_made_when_it_is_asked_for_and_granted() {
    let target = Target::start().await;
    target.answer_with("/repos/mine", |_| async { "hello" });
    let asked = rule(&target, &json!({"path_prefix": "/repos"}));
    let weir = server(&json!([asked])).await;
    let url = target.url("/repos/mine");
    let plugin = weir.get("/plugins/misbehave").await.expect(200);
    assert_eq!(
        (&plugin["status"], &plugin["asks"]),
        (&json!("waiting"), &json!([format!("GET, POST http://127.0.0.1:{}/repos and below", target.port())]))
    );
    // Nobody granted anything.
    let denied = fetch(&weir, &url).await.expect_err("denied");
    assert_eq!(denied["code"], "tool_access_denied", "{denied}");
    assert!(
        denied["message"].as_str().is_some_and(|text| text.contains("asks for it, and it is not granted")),
        "{denied}"
    );
    assert_eq!(target.count(), 0);
    // All that it asks for, and less.
    let granted = put(&weir, "/plugins/misbehave/grant", &json!({"http": [asked]})).await.expect(200);
    assert_eq!(
        (&granted["missing"], weir.get("/plugins/misbehave").await.text("status").as_str()),
        (&json!([]), "active")
    );
    let fetched = fetch(&weir, &url).await.expect("granted");
    assert_eq!((&fetched["status"], &fetched["body"]), (&json!(200), &json!("hello")));
    for (path, why) in [
        ("/other", "does not ask for it"),
        ("/repos/../other", "does not ask for it"),
        ("/repos/%2e%2e/other", "does not ask for it"),
        ("/repos/..%2fother", "does not ask for it"),
        ("/repos/..;/other", "does not ask for it"),
        ("/reposx", "does not ask for it"),
    ] {
        let denied = fetch(&weir, &target.url(path)).await.expect_err("denied");
        assert!(denied["message"].as_str().is_some_and(|text| text.contains(why)), "{path}: {denied}");
    }
    let deleted = call(&weir, "fetch_url", &json!({"url": url, "method": "DELETE"})).await.0;
    assert_eq!(deleted["error"]["code"], "tool_access_denied");
    let narrow = json!({"http": [rule(&target, &json!({"methods": ["POST"]}))]});
    put(&weir, "/plugins/misbehave/grant", &narrow).await.expect(200);
    let denied = fetch(&weir, &url).await.expect_err("denied");
    assert!(denied["message"].as_str().is_some_and(|text| text.contains("is not granted")), "{denied}");
    answer(weir.request(Method::DELETE, "/plugins/misbehave/grant")).await.expect(204);
    let posted = call(&weir, "fetch_url", &json!({"url": url, "method": "POST"})).await.0;
    assert_eq!(posted["error"]["code"], "tool_access_denied");
    assert_eq!(target.count(), 1);
    // What is granted is no way around the addresses that are closed.
    let closed = Weir::start(&["egress_allow=10.0.0.1"]).await;
    upload(&closed, "0.1.0", &json!([asked])).await;
    put(&closed, "/plugins/misbehave/grant", &json!({"http": [asked]})).await.expect(200);
    let denied = fetch(&closed, &url).await.expect_err("denied");
    assert!(denied["message"].as_str().is_some_and(|text| text.contains("not a public address")), "{denied}");
    assert_eq!(target.count(), 1);
}

#[tokio::test]
async fn each_redirect_is_a_request_of_its_own() {
    let (target, other) = (Target::start().await, Target::start().await);
    let weir = server(&json!([rule(&target, &json!({}))])).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": [rule(&target, &json!({}))]})).await.expect(200);
    let to = |place: String| (StatusCode::FOUND, [("location", place)]);
    target.answer("/same", to(target.url("/end")));
    target.answer("/away", to(other.url("/")));
    target.answer("/metadata", to("http://169.254.169.254/latest/meta-data/".to_owned()));
    target.answer("/file", to("file:///etc/passwd".to_owned()));
    let follow = async |path: &str| call(&weir, "fetch_url", &json!({"url": target.url(path), "redirects": 3})).await.0;
    assert_eq!(follow("/same").await["status"], "SUCCEEDED");
    for path in ["/away", "/metadata"] {
        assert_eq!(follow(path).await["error"]["code"], "tool_access_denied", "{path}");
    }
    assert_eq!(follow("/file").await["error"]["code"], "tool_failed");
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn a_secret_leaves_only_where_it_may_and_never_comes_back() {
    let (target, other) = (Target::start().await, Target::start().await);
    let with_secret = json!({"secrets": ["token"]});
    let rules = json!([rule(&target, &with_secret), rule(&other, &with_secret)]);
    let weir = server(&rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    let call_with = async |target: &Target, path: &str, place: Value| {
        let mut input = json!({"url": target.url(path), "secret": "token"});
        input.as_object_mut().expect("an object").extend(place.as_object().expect("an object").clone());
        call(&weir, "fetch_url", &input).await
    };
    let header = || json!({"headers": {"authorization": "Bearer [secret]"}});
    // It is granted, and not set.
    let (run, _) = call_with(&target, "/", header()).await;
    assert!(run["error"]["message"].as_str().is_some_and(|text| text.contains("granted, and not set")), "{run}");
    set_secret(&weir, &[format!("http://127.0.0.1:{}", target.port())]).await;
    // A target that sends everything back, in each of the ways in which it could.
    target.answer_with("/echo", |received| async move {
        let secret = received.header("authorization").trim_start_matches("Bearer ").to_owned();
        let mut headers = HeaderMap::new();
        headers.insert("x-echo", secret.parse().expect("a header"));
        (headers, format!("{secret} {} {}", json!(secret), received.uri))
    });
    let (run, step) = call_with(&target, "/echo", header()).await;
    assert_eq!(run["status"], "SUCCEEDED", "{run}");
    assert_eq!(target.received("/echo")[0].header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(step["result"]["body"], "[secret token] \"[secret token]\" /echo");
    assert_eq!(step["result"]["echoed"], "[secret token]");
    assert_eq!(
        (&step["used"]["secrets"], &step["used"]["hosts"][format!("http://127.0.0.1:{}", target.port())]["requests"]),
        (&json!(["token"]), &json!(1))
    );
    let mut query = json!({"url": format!("{}?key=[secret]", target.url("/query")), "secret": "token"});
    assert_eq!(call(&weir, "fetch_url", &query).await.0["status"], "SUCCEEDED");
    assert_eq!(target.received("/query")[0].uri, "/query?key=s3cret%2Dof%2Fthe%22operator");
    // In a path or a body the placeholder is a text like any other; for another host it goes nowhere at all.
    query = json!({"url": target.url("/[secret]"), "method": "POST", "body": "[secret]", "secret": "token"});
    assert_eq!(call(&weir, "fetch_url", &query).await.0["status"], "SUCCEEDED");
    let received = target.all().pop().expect("a request");
    assert!(received.uri.starts_with("/weir-secret-") && received.body.starts_with(b"weir-secret-"), "{received:?}");
    let (run, _) = call_with(&other, "/", header()).await;
    assert!(run["error"]["message"].as_str().is_some_and(|text| text.contains("may not go to")), "{run}");
    assert_eq!(other.count(), 0);
    // What the guest holds is good for one call, and stands nowhere as what it is.
    let shown = async || call(&weir, "show_secret", &json!({"name": "token"})).await.1["result"].clone();
    let (one, two) = (shown().await, shown().await);
    assert!(one != two && one.as_str().is_some_and(|text| text.starts_with("weir-secret-")), "{one} {two}");
    let place = json!({"headers": {"x-old": one}});
    assert_eq!(call_with(&target, "/old", place).await.0["status"], "SUCCEEDED");
    assert_eq!(target.received("/old")[0].header("x-old"), one.as_str().expect("text"));
    // Header injection: the client refuses what would begin another header.
    let (run, _) = call_with(&target, "/x", json!({"headers": {"x-a": "b\r\nx-c: [secret]"}})).await;
    assert_eq!(run["error"]["code"], "tool_failed", "{run}");
    no_trace(&weir).await;
}

async fn no_trace(weir: &Weir) {
    no_trace_of(weir, "s3cret-of").await;
}

/// A part of the secret stands neither in the log nor in the database.
pub(crate) async fn no_trace_of(weir: &Weir, secret: &str) {
    let log = weir.log();
    assert!(!log.iter().any(|line| line.contains(secret)), "the log has the secret");
    assert_eq!(weir.get("/secrets").await.expect(200)["items"][0]["name"], "token");
    for entry in std::fs::read_dir(weir.dir().join("data")).expect("a directory") {
        let path = entry.expect("an entry").path();
        let found = std::fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        assert!(!found, "{} has the secret", path.display());
    }
}

#[tokio::test]
async fn an_http_step_sends_a_secret_and_does_not_keep_it() {
    let target = Target::start().await;
    let weir = Weir::start(&[]).await;
    target.answer_with("/echo", |received| async move { format!("{} {}", received.header("x-key"), received.uri) });
    set_secret(&weir, &[format!("http://127.0.0.1:{}", target.port())]).await;
    let http = |url: String| json!([{"type": "http", "url": url, "headers": {"x-key": "Key {{ secrets.token }}"}, "query": {"k": "{{ secrets.token }}"}}]);
    let run = weir.run(&weir.workflow(&http(target.url("/echo"))).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(target.received("/echo")[0].header("x-key"), format!("Key {SECRET}"));
    assert_eq!(target.received("/echo")[0].uri, "/echo?k=s3cret%2Dof%2Fthe%22operator");
    assert_eq!(weir.steps(&run).await[0]["result"], "Key [secret token] /echo?k=[secret token]");
    // Another host: nothing is sent.
    let other = Target::start().await;
    let run = weir.run(&weir.workflow(&http(other.url("/echo"))).await, &Value::Null).await;
    assert_eq!((&weir.finished(&run).await["error"]["code"], other.count()), (&json!("secret_unavailable"), 0));
    // A secret stands in headers and queries only.
    for (member, value) in [
        ("json", json!({"a": "{{ secrets.token }}"})),
        ("if", json!("secrets.token == 'x'")),
        ("url", json!("https://example.com/{{ secrets.token }}?a=1")),
        ("url", json!("https://{{ secrets.token }}@example.com/")),
    ] {
        let mut step = json!({"type": "http", "method": "POST", "url": target.url("/")});
        step[member] = value;
        let definition = weir_tests::definition(&json!([step]));
        let refused = weir.post("/workflows", &json!({"name": "x", "definition": definition})).await.expect(422);
        assert!(refused["detail"].as_str().is_some_and(|text| text.contains(" can stand in")), "{refused}");
        let place = format!("/definition/steps/0/{member}");
        let pointer = refused["errors"][0]["pointer"].as_str();
        assert!(pointer.is_some_and(|pointer| pointer.starts_with(&place)), "{refused}");
    }
    // What stands for it is no value to compute with.
    let step = json!({"type": "http", "url": target.url("/"), "headers": {"x-key": "{{ secrets.token | upper }}"}});
    let definition = weir_tests::definition(&json!([step]));
    let refused = weir.post("/workflows", &json!({"name": "x", "definition": definition})).await.expect(422);
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("stands alone")), "{refused}");
    no_trace(&weir).await;
}

#[tokio::test]
async fn an_http_step_follows_a_redirect_with_the_secret_in_it() {
    let (target, other) = (Target::start().await, Target::start().await);
    let weir = Weir::start(&[]).await;
    set_secret(&weir, &[format!("http://127.0.0.1:{}", target.port())]).await;
    let query = |uri: &str| uri.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
    target.answer_with("/v1", move |received| async move {
        (StatusCode::TEMPORARY_REDIRECT, [("location", format!("/v1/?{}", query(&received.uri)))])
    });
    target.answer_with("/v1/", |received| async move { received.uri });
    let elsewhere = other.url("/v1");
    target.answer_with("/away", move |received| {
        let location = format!("{elsewhere}?{}", query(&received.uri));
        async { (StatusCode::TEMPORARY_REDIRECT, [("location", location)]) }
    });
    // Here it is named by the other way to name it, and only in the first request.
    put(&weir, "/secrets/token-2", &json!({"value": "s3cret-of/two", "hosts": [target.url("")]})).await.expect(201);
    let get = async |path: &str| {
        let query = json!({"key": "{{ secrets.token }}", "k": "{{ secrets[\"token-2\"] }}"});
        let step = json!([{"type": "http", "url": target.url(path), "query": query, "retry": {"max_attempts": 1}}]);
        let run = weir.run(&weir.workflow(&step).await, &Value::Null).await;
        (weir.finished(&run).await, weir.steps(&run).await[0]["result"].clone())
    };
    assert_eq!(get("/v1").await.1, "/v1/?key=[secret token]&k=[secret token-2]");
    assert_eq!(target.received("/v1/")[0].uri, "/v1/?key=s3cret%2Dof%2Fthe%22operator&k=s3cret%2Dof%2Ftwo");
    let failed = get("/away").await.0;
    assert_eq!((&failed["error"]["code"], other.count()), (&json!("secret_unavailable"), 0), "{failed}");
    no_trace(&weir).await;
}

#[tokio::test]
async fn requests_of_a_call_have_limits() {
    let target = Target::start().await;
    let weir = Weir::start(&[
        "egress_allow=127.0.0.1",
        "response_max_bytes=1000",
        "tool_request_max_bytes=1000",
        "tool_requests_max=5",
        "tool_requests_at_once_max=2",
    ])
    .await;
    upload(&weir, "0.1.0", &json!([rule(&target, &json!({}))])).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": [rule(&target, &json!({}))]})).await.expect(200);
    target.answer_with("/big", |_| async { "x".repeat(1001) });
    let failed = fetch(&weir, &target.url("/big")).await.expect_err("too large");
    assert!(failed["message"].as_str().is_some_and(|text| text.contains("too large")), "{failed}");
    let big = json!({"url": target.url("/"), "method": "POST", "body": "x".repeat(1001)});
    assert_eq!(call(&weir, "fetch_url", &big).await.0["error"]["code"], "tool_failed");
    // Two at once, five in all; the others are denied.
    target.hold("/many");
    let step = json!([{"type": "mcp_tool", "plugin": "misbehave@0.1.0", "tool_name": "fetch_many",
        "input": {"url": target.url("/many"), "count": 8}, "timeout_seconds": 60}]);
    let run = weir.run(&weir.workflow(&step).await, &Value::Null).await;
    target.received_at("/many", 2).await;
    assert_eq!(target.received("/many").len(), 2);
    target.release("/many");
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(weir.steps(&run).await[0]["result"], json!({"answered": 5, "denied": 3, "failed": 0}));
}

/// A body that begins and does not end; tells when its connection is closed.
struct Endless(watch::Sender<usize>, bool);

impl futures::Stream for Endless {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::replace(&mut self.1, true) {
            Poll::Pending
        } else {
            Poll::Ready(Some(Ok(Bytes::from_static(b"x"))))
        }
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.send_modify(|closed| *closed += 1);
    }
}

#[tokio::test]
async fn a_call_that_is_over_closes_its_connections() {
    let target = Target::start().await;
    let (closed, mut closings) = watch::channel(0);
    target.hold("/silent");
    target.answer_with("/endless", move |_| {
        let body = Body::from_stream(Endless(closed.clone(), false));
        async { body }
    });
    let mut weir = server(&json!([rule(&target, &json!({}))])).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": [rule(&target, &json!({}))]})).await.expect(200);
    let start = async |weir: &Weir, path: &str, seconds: f64| {
        let step = json!({"type": "mcp_tool", "plugin": "misbehave@0.1.0", "tool_name": "fetch_url",
            "input": {"url": target.url(path)}, "timeout_seconds": seconds, "retry": {"max_attempts": 1}});
        weir.run(&weir.workflow(&json!([step])).await, &Value::Null).await
    };
    // Its time is up: before the head of a response, and in the middle of a body.
    for (n, path) in [(1, "/silent"), (1, "/endless")] {
        let run = start(&weir, path, 0.5).await;
        assert_eq!(weir.finished(&run).await["error"]["code"], "step_timeout", "{path}");
        match path {
            "/silent" => target.abandoned(n).await,
            _ => drop(weir_tests::within("the end of a body", closings.wait_for(|closed| *closed >= n)).await),
        }
    }
    // Somebody cancels the run.
    for (n, path) in [(2, "/silent"), (2, "/endless")] {
        let run = start(&weir, path, 600.0).await;
        target.received_at(path, n).await;
        weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.expect(202);
        assert_eq!(weir.finished(&run).await["status"], "CANCELED");
        match path {
            "/silent" => target.abandoned(n).await,
            _ => drop(weir_tests::within("the end of a body", closings.wait_for(|closed| *closed >= n)).await),
        }
    }
    // The server stops.
    weir.set("shutdown_timeout_seconds=0");
    weir.terminate().await;
    weir.restart().await;
    start(&weir, "/silent", 600.0).await;
    start(&weir, "/endless", 600.0).await;
    target.received_at("/silent", 3).await;
    target.received_at("/endless", 3).await;
    weir.terminate().await;
    target.abandoned(3).await;
    drop(weir_tests::within("the end of a body", closings.wait_for(|closed| *closed >= 3)).await);
}
