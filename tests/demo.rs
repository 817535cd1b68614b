//! `make demo`: shows the main job on a real server, with real calls, and then after a `kill -9`.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use weir_tests::process::{Weir, answer};
use weir_tests::target::Target;

fn say(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

/// Makes a call and shows it as it went over the wire.
async fn call(weir: &Weir, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Value {
    println!("  > {method} {}", weir.url(path));
    let mut request: RequestBuilder = weir.request(method, path);
    for (name, value) in headers {
        println!("  > {name}: {value}");
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        println!("  > {body}");
        request = request.json(body);
    }
    let answered = answer(request).await;
    println!("  < {} {}", answered.status, answered.body);
    assert!(answered.status < 300, "the call was refused");
    answered.body
}

async fn show_run(weir: &Weir, run: &str) {
    let finished = weir.finished(run).await;
    println!("  run {run}: {}", finished["status"].as_str().unwrap_or_default());
    for step in weir.steps(run).await {
        let text = |member: &str| step[member].as_str().unwrap_or_default().to_owned();
        let (name, kind, status) = (text("name"), text("type"), text("status"));
        println!("  step {name:<6} {kind:<16} {status}  attempts {}  result {}", step["attempts"], step["result"]);
    }
    assert_eq!(finished["status"], "SUCCEEDED");
}

#[tokio::main]
async fn main() {
    let target = Target::start().await;
    target.answer_with("/orders/17", |_| async { axum::Json(json!({"order": 17, "total": 99.5})) });
    let mut weir = Weir::start(&[]).await;
    say("Weir is running, and so is a target for its http steps");
    println!("  weir    {} (pid {}, state in {})", weir.url(""), weir.pid(), weir.dir().display());
    println!("  target  {}", target.url(""));

    say("1. Create a workflow: fetch an order, book it, keep a snapshot");
    let workflow = json!({"name": "book an order", "definition": {"version": "1.0", "steps": [
        {"type": "http", "name": "fetch", "method": "GET", "url": target.url("/orders/{{ trigger.body.order }}")},
        {"type": "http", "name": "book", "method": "POST", "url": target.url("/bookings"),
         "json": {"amount": "{{ steps.fetch.result.total }}"}},
        {"type": "persist_snapshot", "name": "keep", "include_keys": ["fetch", "book"]}]}});
    let created = call(&weir, Method::POST, "/workflows/", &[], Some(&workflow)).await;
    let id = created["id"].as_str().expect("an id").to_owned();

    say("2. Connect it to a webhook that a secret protects");
    let endpoint = json!({"path": "orders", "secret": "s3cret"});
    call(&weir, Method::POST, &format!("/workflows/{id}/webhook-endpoints"), &[], Some(&endpoint)).await;

    say("3. Trigger it, as a sender would");
    let secret = [("x-webhook-secret", "s3cret")];
    let order = json!({"order": 17});
    let run = call(&weir, Method::POST, "/webhooks/orders", &secret, Some(&order)).await;
    let run = run["run_id"].as_str().expect("a run").to_owned();

    say("4. It ran in the background: its steps, what the target received, and the snapshot");
    show_run(&weir, &run).await;
    for request in target.all() {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        println!(
            "  target received {} {} {body} (Idempotency-Key {})",
            request.method,
            request.uri,
            request.header("idempotency-key")
        );
    }
    call(&weir, Method::GET, &format!("/runs/{run}/snapshots"), &[], None).await;
    assert_eq!(target.received("/bookings")[0].json(), json!({"amount": 99.5}));

    say("5. Once more, and this time the server is killed in the middle of the booking");
    target.hold("/bookings");
    let run = call(&weir, Method::POST, "/webhooks/orders", &secret, Some(&order)).await;
    let run = run["run_id"].as_str().expect("a run").to_owned();
    target.received_at("/bookings", 2).await;
    println!("  kill -9 {}", weir.pid());
    weir.kill();
    target.release("/bookings");
    weir.restart().await;
    println!("  started again: pid {}", weir.pid());
    show_run(&weir, &run).await;
    let fetched = target.received("/orders/17").len();
    let keys: Vec<_> =
        target.received("/bookings").iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    println!("  the order was fetched once for each run: {fetched} requests; its result was on disk before the kill");
    println!("  the booking was sent again under the same key: {} and {}", keys[1], keys[2]);
    assert_eq!((fetched, keys.len()), (2, 3));
    assert_eq!(keys[1], keys[2]);
    weir.terminate().await;

    say("Everything shown was real. What to type next:");
    println!("  cargo run -p weir -- serve            your own server: http://127.0.0.1:8000/docs has every route");
    println!("  cargo run -p weir -- config --defaults   every setting, with what it means");
    println!("  make test                             what is promised, proved");
}
