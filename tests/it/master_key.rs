//! Changing the master key, as docs/OPERATIONS.md says: what it seals stays good, and the old key opens nothing afterwards.

use std::os::unix::fs::PermissionsExt as _;

use reqwest::Method;
use serde_json::json;
use weir_tests::cluster::{Cluster, MASTER_KEY};
use weir_tests::process::{Weir, answer, run};
use weir_tests::target::Target;

const NEW_KEY: &str = "/////////////////////////////////////////w8=";

/// A secret of an endpoint, and one that a step sends.
async fn with_secrets(weir: &Weir, target: &Target) {
    let host = format!("http://127.0.0.1:{}", target.port());
    let secret = json!({"value": "hush-hush-hush", "hosts": [host]});
    answer(weir.request(Method::PUT, "/secrets/token").json(&secret)).await.expect(201);
    let steps = json!([{"type": "http", "url": target.url("/"), "headers": {"x-token": "{{ secrets.token }}"}}]);
    weir.endpoint(&weir.workflow(&steps).await, "hook").await;
}

/// Both are good.
async fn both_open(weir: &Weir, target: &Target) {
    let before = target.count();
    let delivery = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
    let run = answer(delivery).await.expect(200)["run_id"].as_str().expect("a run").to_owned();
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let received = target.all();
    assert_eq!((received.len(), received[before].header("x-token")), (before + 1, "hush-hush-hush"));
}

fn reseal(weir: &Weir, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = run(weir.dir(), &[&["key", "reseal"], args].concat(), env);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test]
async fn an_embedded_server_gets_another_key() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    with_secrets(&weir, &target).await;
    both_open(&weir, &target).await;
    weir.terminate().await;
    let file = weir.dir().join("data/weir.key");
    let old = std::fs::read_to_string(&file).expect("a key");
    std::fs::write(&file, NEW_KEY).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mine");
    let said = reseal(&weir, &["--data-dir=data"], &[("WEIR_MASTER_KEYS_ACCEPTED", old.trim())]);
    // An endpoint and a secret.
    assert!(said.contains("sealed anew: 2"), "{said}");
    weir.restart().await;
    both_open(&weir, &target).await;
    weir.terminate().await;
    std::fs::write(&file, old).expect("written");
    weir.restart().await;
    let delivery = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
    assert_eq!(answer(delivery).await.expect(500)["code"], "internal");
    assert!(weir.line_with("the master key is not the one").await.contains("cause"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_gets_another_key_without_downtime() {
    let (cluster, target) = tokio::join!(Cluster::start(), Target::start());
    let (both, new) = (format!("master_keys_accepted={NEW_KEY}"), format!("master_key={NEW_KEY}"));
    let old = format!("master_keys_accepted={MASTER_KEY}");
    let first = cluster.weir("all", &[]).await;
    with_secrets(&first, &target).await;
    // One after the other is restarted so that it opens both, ...
    let second = cluster.weir("all", &[&both]).await;
    drop(first);
    both_open(&second, &target).await;
    // ... then so that it seals with the new one, beside those that do not yet.
    let third = cluster.weir("all", &[&new, &old]).await;
    both_open(&third, &target).await;
    let servers = [format!("database_url={}", cluster.database), format!("redis_url={}", cluster.redis.url())];
    let settings = [&servers[..], &[new.clone(), old]].concat();
    let settings: Vec<String> = settings.iter().map(|setting| format!("--set={setting}")).collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    // An endpoint, a secret, and what every process of a cluster holds its key against.
    assert!(reseal(&third, &settings, &[]).contains("sealed anew: 3"));
    both_open(&second, &target).await;
    both_open(&third, &target).await;
    drop((second, third));
    let last = cluster.weir("all", &[&new]).await;
    both_open(&last, &target).await;
}
