//! Who may come in: API keys, where they hold and where not, and how many requests at once.

use reqwest::Method;
use serde_json::{Value, json};
use weir_tests::process::{Answer, Weir, answer, run};
use weir_tests::target::Target;

/// Runs `weir key` beside the server, and answers the first line it prints.
fn key(weir: &Weir, args: &[&str]) -> String {
    let args = [&["key", "--data-dir=data"], args].concat();
    let output = run(weir.dir(), &args, &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").lines().next().unwrap_or_default().to_owned()
}

async fn with_key(weir: &Weir, method: Method, path: &str, value: &str) -> Answer {
    answer(weir.request(method, path).header("authorization", value)).await
}

#[tokio::test]
async fn the_first_key_locks_every_door_but_those_that_say_so() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/")}])).await;
    weir.endpoint(&workflow, "hook").await;
    let ada = key(&weir, &["create", "ada"]);
    assert!(ada.starts_with("weir_") && ada.len() == 48, "{ada}");
    let refused = weir.get("/workflows").await;
    insta::assert_snapshot!("invalid_api_key", refused.shape(&[]));
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    for (method, path) in [
        (Method::GET, "/runs"),
        (Method::GET, "/metrics"),
        (Method::GET, "/plugins"),
        (Method::POST, "/plugins"),
        (Method::POST, "/workflows/"),
    ] {
        assert_eq!(answer(weir.request(method, path)).await.status, 401, "{path}");
    }
    let long = "x".repeat(5000);
    for wrong in ["Bearer", "Bearer ", "Basic x", ada.as_str(), &format!("Bearer {ada}x"), &format!("Bearer {long}")] {
        assert_eq!(with_key(&weir, Method::GET, "/workflows", wrong).await.status, 401, "{wrong}");
    }
    for right in [format!("Bearer {ada}"), format!("bearer {ada}"), format!("BEARER  {ada} ")] {
        assert_eq!(with_key(&weir, Method::GET, "/workflows", &right).await.status, 200, "{right}");
    }
    for open in ["/health", "/health/ready", "/docs/", "/openapi.json", "/docs/errors/internal"] {
        assert_eq!(weir.get(open).await.status, 200, "{open}");
    }
    let delivered = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
    assert_eq!(answer(delivered).await.status, 200);
    // Several keys, each by itself; and the last one gone, the door stays locked.
    let bob = key(&weir, &["create", "bob"]);
    assert!(key(&weir, &["list"]).ends_with("ada"));
    key(&weir, &["delete", "ada"]);
    assert_eq!(with_key(&weir, Method::GET, "/runs", &format!("Bearer {ada}")).await.status, 401);
    assert_eq!(with_key(&weir, Method::GET, "/runs", &format!("Bearer {bob}")).await.status, 200);
    key(&weir, &["delete", "bob"]);
    assert_eq!(weir.get("/runs").await.status, 401);
    assert!(!weir.log().iter().any(|line| line.contains(&ada) || line.contains(&bob)));
    weir.terminate().await;
}

#[tokio::test]
async fn keys_of_the_configuration_let_the_server_listen_anywhere() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let output = run(dir.path(), &["key", "create", "ops", "--offline"], &[]);
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let [key, hash] = lines[..] else { panic!("{text}") };
    assert!(!dir.path().join("weir-data").exists(), "nothing is touched");
    let weir = Weir::start(&["listen=0.0.0.0:0", &format!("api_key_hashes={hash}")]).await;
    assert_eq!(weir.get("/workflows").await.status, 401);
    assert_eq!(with_key(&weir, Method::GET, "/workflows", &format!("Bearer {key}")).await.status, 200);
}

#[tokio::test]
async fn key_commands_say_what_is_wrong() {
    let weir = Weir::start(&[]).await;
    // A file that is made of what it prints has the key, and nothing else.
    let made = run(weir.dir(), &["key", "create", "ada", "--data-dir=data"], &[]);
    let (out, err) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    assert!(out.starts_with("weir_") && out.lines().count() == 1, "{made:?}");
    assert!(err.contains("This is the key `ada`. It is shown this once"), "{err}");
    for (args, says) in [
        (&["create", "ada"][..], "there is a key `ada` already"),
        (&["create", ""], "a key's name has 1 to 100 bytes"),
        (&["create", "a\nb"], "no control characters"),
        (&["delete", "eve"], "there is no key `eve`"),
    ] {
        let output = run(weir.dir(), &[&["key", "--data-dir=data"], args].concat(), &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(says), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_are_told_to_come_again() {
    let (weir, target) = (Weir::start(&["requests_max=1"]).await, Target::start().await);
    target.hold("/slow");
    let run =
        weir.run(&weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await, &Value::Null).await;
    target.received_at("/slow", 1).await;
    let path = format!("/runs/{run}?wait=60s");
    // It may find the one place taken at first.
    let waiting = async {
        loop {
            let answered = weir.get(&path).await;
            if answered.status != 503 {
                break answered;
            }
        }
    };
    let others = async {
        // Until the one that waits has its place, others are answered.
        let refused = loop {
            let other = weir.get("/runs").await;
            if other.status != 200 {
                break other;
            }
        };
        assert_eq!((refused.status, refused.text("code").as_str()), (503, "unavailable"));
        assert!(refused.text("detail").contains("requests_max"));
        assert_eq!(weir.get("/health/ready").await.status, 200);
        target.release("/slow");
    };
    assert_eq!(tokio::join!(waiting, others).0.expect(200)["status"], "SUCCEEDED");
    assert_eq!(weir.get("/runs").await.status, 200);
}

#[tokio::test]
async fn the_healthcheck_asks_the_server() {
    let mut weir = Weir::start(&[]).await;
    let listen = format!("--set=listen={}", weir.url("").trim_start_matches("http://"));
    assert!(run(weir.dir(), &["healthcheck", &listen], &[]).status.success());
    weir.terminate().await;
    let output = run(weir.dir(), &["healthcheck", &listen], &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("nobody listens on 127.0.0.1"), "{text}");
}
