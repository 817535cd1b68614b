//! `weir plugin rehearse`: a new version makes the calls of the active one again, when the target of both is gone.

use serde_json::{Value, json};
use weir_tests::plugin::{asking, bytes, patched};
use weir_tests::process::{Weir, run};
use weir_tests::target::Target;

use crate::access::{call, put, rule, server};

/// What `weir plugin rehearse` says of a version, and its status.
fn rehearse(weir: &Weir, version: &[u8], args: &[&str]) -> (Option<i32>, String, String) {
    std::fs::write(weir.dir().join("new.wasm"), version).expect("written");
    let url = weir.url("/");
    let output = run(weir.dir(), &[&["plugin", "rehearse", "new.wasm"], args].concat(), &[("WEIR_SERVER", &url)]);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// `misbehave` in another version, which asks for these rules.
fn version(plugin: &[u8], rules: &Value) -> Vec<u8> {
    let request = json!({"name": "misbehave", "version": "0.2.0", "http": rules, "secrets": [{"name": "token"}],
        "settings": [{"name": "colour", "default": "blue"}]});
    asking(plugin, &request)
}

/// A call that is kept: a server that was started anew keeps the first call of each plugin, and writes it down at its end.
async fn keep(weir: &mut Weir, tool: &str, input: &Value) {
    call(weir, tool, input).await;
    weir.terminate().await;
    weir.restart().await;
}

#[tokio::test]
async fn a_new_version_makes_the_calls_of_the_active_one_again() {
    let target = Target::start().await;
    target.answer_with("/orders", |received| async move { format!("for {}", received.header("x-key")) });
    let rules = json!([rule(&target, &json!({"secrets": ["token"]}))]);
    let mut weir = server(&rules).await;
    let nothing = rehearse(&weir, &version(&bytes("misbehave"), &rules), &[]);
    assert!(nothing.0 == Some(1) && nothing.2.contains("keeps no call of misbehave@0.1.0 yet"), "{nothing:?}");
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules, "settings": {"size": "1"}})).await.expect(200);
    let hosts = [target.url("")];
    put(&weir, "/secrets/token", &json!({"value": "hush-hush-hush", "hosts": hosts})).await.expect(201);
    let order = json!({"url": target.url("/orders"), "secret": "token", "headers": {"x-key": "[secret]"}});
    let posted = json!({"url": target.url("/a"), "method": "POST", "body": "x"});
    keep(&mut weir, "take_memory", &json!({"bytes": 10})).await;
    keep(&mut weir, "fetch_url", &order).await;
    keep(&mut weir, "fetch_url", &posted).await;
    // It is denied, and lives on; and it fails.
    keep(&mut weir, "try_fetch", &json!({"authority": "127.0.0.1:1"})).await;
    keep(&mut weir, "fail_for_now", &json!({})).await;
    let (calls, count) = (weir.get("/plugins/misbehave/calls").await.expect(200)["items"].clone(), target.count());
    assert!(!calls.to_string().contains("hush"), "{calls:?}");
    target.stop().await;

    // The same code, which asks for the same.
    let plugin = bytes("misbehave");
    let (status, said, error) = rehearse(&weir, &version(&plugin, &rules), &[]);
    assert_eq!(status, Some(0), "{said}{error}");
    assert!(said.contains(" makes 5 calls of misbehave@0.1.0 again\n"), "{said}");
    assert!(said.contains("  does not know the setting size any more\n5 equal, 0 different, "), "{said}");
    assert!(said.contains("\nfuel ") && said.contains("\n  take_memory ") && said.contains("(+0.0 %)\n"), "{said}");

    // It answers in other words, and asks for more.
    let more = json!([rule(&target, &json!({"secrets": ["token"], "methods": ["DELETE", "GET", "POST"]}))]);
    let other = patched(&plugin, "took ", "used ");
    let (status, said, error) = rehearse(&weir, &version(&other, &more), &[]);
    assert_eq!(status, Some(1), "{said}{error}");
    assert!(
        said.contains(&format!("  asks for more: DELETE, GET, POST {}/, with the secret `token`\n", target.url(""))),
        "{said}"
    );
    let different =
        "different take_memory: call 5\n  /outcome/answer/result: wanted \"took 10 bytes\", got \"used 10 bytes\"";
    assert!(said.contains(different) && said.contains("4 equal, 1 different, 0 wants access, 0 failed"), "{said}");
    assert!(
        error.contains("does not do the same: it asks for more than is granted; 1 of 5 calls ended in another way"),
        "{error}"
    );

    // It asks for less than it does, and is not granted more than the active version is.
    let less = json!([rule(&target, &json!({"methods": ["POST"]}))]);
    let (status, said, _) = rehearse(&weir, &version(&plugin, &less), &["--json"]);
    let document: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((status, &document["same"]), (Some(1), &json!(false)));
    assert_eq!(document["counts"], json!({"equal": 4, "different": 0, "wants_access": 1, "failed": 0, "left_out": 0}));
    let wanting = document["calls"].as_array().expect("a list").iter().find(|call| call["verdict"] == "wants_access");
    let wanting = wanting.expect("one");
    assert_eq!((&wanting["call"], &wanting["wants"]), (&json!(4), &json!(["the secret `token` (it is not granted)"])));
    assert_eq!(wanting["no_longer"], json!([format!("GET {}", target.url("/orders"))]));

    // The latest alone; and nothing on the server has changed.
    let (status, said, _) = rehearse(&weir, &version(&other, &rules), &["--last", "1", "--name", "misbehave@0.1.0"]);
    assert!(status == Some(0) && said.contains("makes 1 call of") && said.contains("1 equal"), "{said}");
    let (status, _, error) = rehearse(&weir, &plugin, &["--name", "nobody"]);
    assert!(status == Some(1) && error.contains("plugin_not_found"), "{error}");
    assert_eq!(rehearse(&weir, &plugin, &["--last", "0"]).0, Some(2));
    assert_eq!(weir.get("/plugins/misbehave").await.expect(200)["version"], "0.1.0");
    assert_eq!(
        (weir.get("/plugins/misbehave@0.1.0/calls").await.expect(200)["items"].clone(), target.count()),
        (calls, count)
    );
}

#[tokio::test]
async fn a_call_whose_requests_got_no_answer_is_left_out() {
    let target = Target::start().await;
    let rules = json!([rule(&target, &json!({}))]);
    let mut weir = server(&rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    target.stop().await;
    keep(&mut weir, "fetch_url", &json!({"url": target.url("/a")})).await;
    let (status, said, error) = rehearse(&weir, &version(&bytes("misbehave"), &rules), &[]);
    assert!(status == Some(1) && said.contains("left out fetch_url: call 1\n"), "{said}{error}");
    assert!(error.contains("no call could be made again"), "{error}");
    keep(&mut weir, "take_memory", &json!({"bytes": 10})).await;
    let (status, said, error) = rehearse(&weir, &version(&bytes("misbehave"), &rules), &[]);
    assert!(
        status == Some(0) && said.contains("1 equal, 0 different, 0 wants access, 0 failed, 1 left out"),
        "{said}{error}"
    );
}
