//! The egress guard, from outside: what an http step may reach.

use axum::http::StatusCode;
use serde_json::{Value, json};
use weir_tests::process::Weir;
use weir_tests::target::Target;

/// The failure of a run that calls `url`, or nothing if it succeeds.
async fn call(weir: &Weir, url: &str) -> Option<(String, String)> {
    let steps = json!([{"type": "http", "url": url, "retry": {"max_attempts": 1}}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    let finished = weir.finished(&run).await;
    let error = &finished["error"];
    (finished["status"] != "SUCCEEDED").then(|| {
        (error["code"].as_str().expect("a code").to_owned(), error["message"].as_str().expect("a message").to_owned())
    })
}

#[tokio::test]
async fn nothing_but_public_addresses_is_reached_by_default() {
    let (weir, target) = (Weir::start(&["egress_allow="]).await, Target::start().await);
    let port = target.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00:ec2::254]",
        "LOCALHOST",
    ] {
        let (code, message) = call(&weir, &format!("http://{host}:{port}/")).await.expect(host);
        assert_eq!(code, "egress_denied", "{host}: {message}");
        assert!(message.contains("WEIR_EGRESS_ALLOW"), "{message}");
    }
    assert_eq!(target.all().len(), 0);
}

#[tokio::test]
async fn a_rule_for_a_port_opens_that_port_alone() {
    let (open, closed) = (Target::start().await, Target::start().await);
    for host in ["127.0.0.1", "localhost"] {
        let weir = Weir::start(&[&format!("egress_allow={host}:{}", open.port())]).await;
        assert_eq!(call(&weir, &format!("http://{host}:{}/", open.port())).await, None);
        let (code, _) = call(&weir, &format!("http://{host}:{}/", closed.port())).await.expect("denied");
        assert_eq!(code, "egress_denied");
    }
    let weir = Weir::start(&[&format!("egress_allow=127.0.0.0/8:{}", open.port())]).await;
    assert_eq!(call(&weir, &format!("http://localhost:{}/", open.port())).await, None);
    assert_eq!(closed.all().len(), 0);
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_checked_again() {
    let (open, closed) = (Target::start().await, Target::start().await);
    let weir = Weir::start(&[&format!("egress_allow=127.0.0.1:{}", open.port()), "redirects_max=3"]).await;
    let to = |url: String| (StatusCode::FOUND, [("location", url)]);
    open.answer("/out", to(closed.url("/secret")));
    let (code, _) = call(&weir, &open.url("/out")).await.expect("denied");
    assert_eq!((code.as_str(), closed.all().len()), ("egress_denied", 0));
    open.answer("/metadata", to("http://169.254.169.254/latest/meta-data".to_owned()));
    assert_eq!(call(&weir, &open.url("/metadata")).await.expect("denied").0, "egress_denied");
    open.answer("/file", to("file:///etc/passwd".to_owned()));
    assert_eq!(call(&weir, &open.url("/file")).await.expect("refused").0, "invalid_request_values");
    for hop in 0..3 {
        open.answer(&format!("/{hop}"), to(format!("/{}", hop + 1)));
    }
    assert_eq!(call(&weir, &open.url("/0")).await, None);
    open.answer_with("/circle", |_| async { (StatusCode::FOUND, [("location", "/circle")]) });
    assert_eq!(call(&weir, &open.url("/circle")).await.expect("endless").0, "too_many_redirects");
    assert_eq!(open.received("/circle").len(), 4);
}

#[tokio::test]
async fn a_redirect_to_another_origin_takes_no_credentials_along() {
    let (first, second) = (Target::start().await, Target::start().await);
    let weir = Weir::start(&[]).await;
    first.answer("/same", (StatusCode::FOUND, [("location", "/here")]));
    first.answer("/other", (StatusCode::TEMPORARY_REDIRECT, [("location", second.url("/there"))]));
    first.answer("/post", (StatusCode::FOUND, [("location", "/after")]));
    let headers = json!({"authorization": "Bearer t", "x-api-key": "k", "accept": "text/x"});
    let steps = json!([
        {"type": "http", "url": first.url("/same"), "headers": headers},
        {"type": "http", "method": "POST", "url": first.url("/other"), "headers": headers, "json": {"a": 1}},
        {"type": "http", "method": "POST", "url": first.url("/post"), "json": {"a": 1}},
    ]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(first.received("/here")[0].header("authorization"), "Bearer t");
    let there = &second.received("/there")[0];
    assert_eq!((there.header("authorization"), there.header("x-api-key"), there.header("accept")), ("", "", "text/x"));
    assert_eq!((there.method.as_str(), there.json()), ("POST", json!({"a": 1})));
    assert_eq!(first.received("/after")[0].method, "GET");
}

#[tokio::test]
async fn responses_have_a_cap_after_decompression() {
    let (weir, target) = (Weir::start(&["response_max_bytes=10000"]).await, Target::start().await);
    target.answer("/fits", "x".repeat(10_000));
    assert_eq!(call(&weir, &target.url("/fits")).await, None);
    target.answer("/large", "x".repeat(10_001));
    assert_eq!(call(&weir, &target.url("/large")).await.expect("too large").0, "response_too_large");
    // 20,000 zeros, compressed by gzip to a few bytes.
    let bomb = gzip(&[b'0'; 20_000]);
    assert!(bomb.len() < 1000);
    target.answer("/bomb", ([("content-encoding", "gzip")], bomb));
    assert_eq!(call(&weir, &target.url("/bomb")).await.expect("too large").0, "response_too_large");
    assert_eq!(target.received("/bomb").len(), 1);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("gzip runs");
    child.stdin.take().expect("piped").write_all(bytes).expect("written");
    child.wait_with_output().expect("gzip ends").stdout
}

#[tokio::test]
async fn connections_are_used_again() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    let steps: Vec<Value> = (0..20).map(|_| json!({"type": "http", "url": target.url("/")})).collect();
    let run = weir.run(&weir.workflow(&json!(steps)).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!((target.all().len(), target.connections()), (20, 1));
}
