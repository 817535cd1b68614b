//! Ways in which a host that was sent a secret could give it back: in names, in errors, later.

use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Value, json};
use weir_tests::process::Weir;
use weir_tests::target::Target;

use crate::access::{call, no_trace_of, put, rule, upload};

/// It could be a part of a host, the name of a header, or a coding.
const SECRET: &str = "deadbeefcafe1234";

async fn server(target: &Target) -> Weir {
    let weir = Weir::start(&["egress_allow=127.0.0.1"]).await;
    let secret = json!({"value": SECRET, "hosts": [target.url("")]});
    put(&weir, "/secrets/token", &secret).await.expect(201);
    weir
}

fn named(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().expect("a header"))])
}

#[tokio::test]
async fn a_secret_comes_back_neither_in_names_nor_in_errors() {
    let target = Target::start().await;
    let weir = server(&target).await;
    target.answer("/named", (named("x-deadbeefcafe1234-is-it", "1"), named("x-other", "2"), "named"));
    let away = format!("http://{SECRET}.example.com/");
    target.answer("/away", (StatusCode::FOUND, named("location", &away)));
    target.answer("/coded", (named("content-encoding", SECRET), "coded"));
    let mut twice = named("content-encoding", "identity");
    twice.append("content-encoding", "gzip".parse().expect("a header"));
    target.answer("/twice", (twice, "coded"));
    let get = async |path: &str| {
        let headers = json!({"x-key": "{{ secrets.token }}"});
        let step = json!([{"type": "http", "url": target.url(path), "headers": headers, "retry": {"max_attempts": 1}}]);
        let run = weir.run(&weir.workflow(&step).await, &Value::Null).await;
        (weir.finished(&run).await["error"].clone(), weir.steps(&run).await[0].clone())
    };
    let (error, step) = get("/named").await;
    assert_eq!(
        (&error, &step["result"], &step["response_headers"]["x-other"]),
        (&Value::Null, &json!("named"), &json!("2"))
    );
    for (path, says) in [
        ("/away", "the secret `token` may not go to http://[secret token].example.com"),
        ("/coded", "is encoded as `[secret token]`, which cannot be looked through"),
        ("/twice", "is encoded as `gzip`, which cannot be looked through"),
    ] {
        let (error, step) = get(path).await;
        assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{path}: {error}");
        assert!(!step.to_string().contains(SECRET), "{path}: {step}");
    }
    no_trace_of(&weir, SECRET).await;
}

#[tokio::test]
async fn a_secret_does_not_come_back_in_answer_to_a_request_without_it() {
    let target = Target::start().await;
    let weir = server(&target).await;
    let kept = Arc::new(Mutex::new(String::new()));
    let (keeps, gives) = (Arc::clone(&kept), Arc::clone(&kept));
    target.answer_with("/keep", move |received| {
        received.header("authorization").clone_into(&mut keeps.lock().expect("nobody panicked"));
        async { "kept" }
    });
    target.answer_with("/give", move |_| {
        let kept = gives.lock().expect("nobody panicked").clone();
        async { kept }
    });
    let rules = json!([rule(&target, &json!({"secrets": ["token"]}))]);
    upload(&weir, "0.1.0", &rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    let headers = json!({"authorization": "Bearer [secret]"});
    let keep = json!({"url": target.url("/keep"), "secret": "token", "headers": headers});
    assert_eq!(call(&weir, "fetch_url", &keep).await.1["result"]["body"], "kept");
    assert_eq!(*kept.lock().expect("nobody panicked"), format!("Bearer {SECRET}"));
    // Another call, which never asked for the secret.
    let give = json!({"url": target.url("/give")});
    assert_eq!(call(&weir, "fetch_url", &give).await.1["result"]["body"], "Bearer [secret token]");
    no_trace_of(&weir, SECRET).await;
}
