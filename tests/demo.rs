//! `make demo`: shows the main job on a real server, with real calls, and then after a `kill -9`.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use weir_tests::plugin;
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

/// Uploads a plugin as it is: bytes, no multipart, no base64.
async fn upload(weir: &Weir, name: &str) {
    let file = plugin::file(name);
    println!("  > POST {}   ({} bytes of {})", weir.url("/plugins"), plugin::bytes(name).len(), file.display());
    let uploaded = weir.upload(plugin::bytes(name)).await;
    println!("  < {} {}", uploaded.status, uploaded.body);
    assert_eq!(uploaded.status, 201, "the plugin was refused");
}

#[tokio::main]
async fn main() {
    let orders = json!([
        {"id": 17, "total": 99.5, "customer": {"name": "Ada"}}, {"id": 18, "total": 3, "customer": {"name": "Alan"}},
        {"id": 19, "total": 250, "customer": {"name": "Grace"}}]);
    let target = Target::start().await;
    target.answer_with("/orders", move |_| {
        let orders = orders.clone();
        async { axum::Json(orders) }
    });
    let mut weir = Weir::start(&[]).await;
    say("Weir is running, and so is a target for its http steps");
    println!("  weir    {} (pid {}, state in {})", weir.url(""), weir.pid(), weir.dir().display());
    println!("  target  {}", target.url(""));

    say("1. Upload a plugin: a WebAssembly component with a tool, which may do nothing that nobody granted");
    upload(&weir, "transform").await;

    say("2. Create a workflow: fetch orders, let the tool pick the large ones, keep a snapshot");
    let workflow = json!({"name": "large orders", "definition": {"version": "1.0", "steps": [
        {"type": "http", "name": "fetch", "method": "GET", "url": target.url("/orders")},
        {"type": "mcp_tool", "name": "large", "tool_name": "reshape", "input": {
            "data": "{{ steps.fetch.result }}", "each": "", "sort_by": "/total", "descending": true,
            "where": [{"at": "/total", "is": "more_than", "value": "{{ trigger.body.least }}"}],
            "select": {"order": "/id", "who": "/customer/name"}}},
        {"type": "persist_snapshot", "name": "keep", "include_keys": ["large"]}]}});
    let created = call(&weir, Method::POST, "/workflows/", &[], Some(&workflow)).await;
    let id = created["id"].as_str().expect("an id").to_owned();
    println!("  the revision pins the plugin by its digest: a later upload changes nothing for it");

    say("3. Connect it to a webhook that a secret protects");
    let endpoint = json!({"path": "orders", "secret": "s3cret"});
    call(&weir, Method::POST, &format!("/workflows/{id}/webhook-endpoints"), &[], Some(&endpoint)).await;

    say("4. Trigger it, as a sender would");
    let secret = [("x-webhook-secret", "s3cret")];
    let least = json!({"least": 50});
    let run = call(&weir, Method::POST, "/webhooks/orders", &secret, Some(&least)).await;
    let run = run["run_id"].as_str().expect("a run").to_owned();

    say("5. It ran in the background: its steps, what the tool used, and the snapshot");
    show_run(&weir, &run).await;
    let used = &weir.steps(&run).await[1]["used"];
    println!(
        "  the tool used {} units of fuel, {} KiB of memory and {} ms",
        used["fuel"],
        used["peak_memory_bytes"].as_u64().unwrap_or_default() / 1024,
        used["time_ms"]
    );
    let snapshots = call(&weir, Method::GET, &format!("/runs/{run}/snapshots"), &[], None).await;
    let picked = json!([{"order": 19, "who": "Grace"}, {"order": 17, "who": "Ada"}]);
    assert_eq!(snapshots["items"][0]["content"]["large"]["result"], picked);

    say("6. Once more, and this time the server is killed while it fetches");
    target.hold("/orders");
    let run = call(&weir, Method::POST, "/webhooks/orders", &secret, Some(&least)).await;
    let run = run["run_id"].as_str().expect("a run").to_owned();
    target.received_at("/orders", 2).await;
    println!("  kill -9 {}", weir.pid());
    weir.kill();
    target.release("/orders");
    weir.restart().await;
    println!("  started again: pid {}; the plugin came out of the database", weir.pid());
    show_run(&weir, &run).await;
    let keys: Vec<_> =
        target.received("/orders").iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    println!("  the request that the kill interrupted was sent again under the same key: {} and {}", keys[1], keys[2]);
    assert_eq!((keys.len(), &keys[1]), (3, &keys[2]));
    weir.terminate().await;

    say("Everything shown was real. What to type next:");
    println!("  cargo run -p weir -- serve            your own server: http://127.0.0.1:8000/docs has every route");
    println!("  cargo run -p weir -- plugin inspect {}", plugin::file("transform").display());
    println!("  cargo run -p weir -- config --defaults   every setting, with what it means");
    println!("  cargo run --release -p weir -- bench     what this machine gives");
    println!("  make test                             what is promised, proved");
}
