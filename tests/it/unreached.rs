//! Targets that a tool does not reach: each is told in a way of its own, and tried again where that may help.

use std::net::TcpListener;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use weir_tests::process::Weir;
use weir_tests::redis::Redis;
use weir_tests::target::Target;

use crate::access::{call, put, rule, server, upload};

#[tokio::test]
async fn a_tool_is_told_why_there_is_no_response() {
    let (target, gone) = (Target::start().await, Target::start().await);
    let closed = json!({"scheme": "http", "host": "10.0.0.1", "methods": ["GET"]});
    let nowhere = json!({"scheme": "http", "host": "none.invalid", "methods": ["GET"]});
    let rules = json!([rule(&target, &json!({})), rule(&gone, &json!({})), closed, nowhere]);
    let weir = server(&rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    gone.stop().await;
    for (url, code, why) in [
        (gone.url("/"), "tool_failed", "ConnectionRefused"),
        ("http://none.invalid/".to_owned(), "tool_failed", "DnsError"),
        ("http://10.0.0.1/".to_owned(), "tool_access_denied", "10.0.0.1, which is not a public address"),
        (target.url("/..;/admin"), "", ""),
    ] {
        let (run, step) = call(&weir, "fetch_url", &json!({"url": url})).await;
        if why.is_empty() {
            assert_eq!(run["status"], "SUCCEEDED", "below the root anything goes: {run}");
            continue;
        }
        assert_eq!(run["error"]["code"], code, "{run}");
        assert!(run["error"]["message"].as_str().is_some_and(|text| text.contains(why)), "{url}: {run}");
        let counted = step["used"]["hosts"].as_object().is_some_and(|hosts| !hosts.is_empty());
        assert_eq!(counted, code == "tool_failed", "{url}: {step}");
    }
}

#[tokio::test]
async fn a_tool_is_told_how_a_connection_failed() {
    let (plain, untrusted) = tokio::join!(Target::start(), Redis::start_tls(&[]));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let cut = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = |of: std::io::Result<std::net::SocketAddr>| of.expect("an address").port();
    let (silent_port, cut_port) = (port(silent.local_addr()), port(cut.local_addr()));
    let mut cutting = JoinSet::new();
    cutting.spawn(async move { while cut.accept().await.is_ok() {} });
    let expected = [
        (plain.port(), "https", "TlsProtocolError"),
        (untrusted.port(), "https", "TlsCertificateError"),
        (silent_port, "https", "took too long"),
        (cut_port, "http", "ConnectionTerminated"),
    ];
    let rule = |(port, scheme, _)| json!({"scheme": scheme, "host": "127.0.0.1", "port": port, "methods": ["GET"]});
    let rules = Value::from_iter(expected.map(rule));
    let weir = Weir::start(&["egress_allow=127.0.0.1", "connect_timeout_seconds=1"]).await;
    upload(&weir, "0.1.0", &rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    for (port, scheme, why) in expected {
        let (run, step) = call(&weir, "fetch_url", &json!({"url": format!("{scheme}://127.0.0.1:{port}/")})).await;
        let error = &run["error"];
        assert_eq!(error["code"], "tool_failed", "{run}");
        let told = error["message"].as_str().expect("a message");
        assert!(told.contains(why) && told.contains(&format!("127.0.0.1:{port}")), "{told}");
        assert_eq!(step["used"]["hosts"].as_object().map(serde_json::Map::len), Some(1), "{step}");
    }
    // No byte of a request that is not encrypted.
    assert_eq!(plain.count(), 0);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_told_in_words() {
    let broken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = broken.local_addr().expect("an address").port();
    let mut breaking = JoinSet::new();
    breaking.spawn(async move {
        while let Ok((mut connection, _)) = broken.accept().await {
            let mut request = [0; 1024];
            assert!(connection.read(&mut request).await.is_ok_and(|bytes| bytes > 0));
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.expect("it is sent");
        }
    });
    let rules = json!([{"scheme": "http", "host": "127.0.0.1", "port": port, "methods": ["GET"]}]);
    // What somebody wants who looks for a defect of the host is nothing for a guest.
    let dir = Arc::new(TempDir::new().expect("a directory"));
    let weir = Weir::start_in(dir, &["egress_allow=127.0.0.1"], &["env", "RUST_BACKTRACE=1"]).await;
    upload(&weir, "0.1.0", &rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    let (run, _) = call(&weir, "fetch_url", &json!({"url": format!("http://127.0.0.1:{port}/")})).await;
    let told = run["error"]["message"].as_str().expect("a message");
    assert!(told.contains("connection terminated") && !told.contains('\n'), "{told}");
}
