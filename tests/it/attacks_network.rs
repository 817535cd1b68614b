//! Attacks that have a network: by a guest that is granted a host, by the host that answers it, and by whoever answers for
//! names. Each fails its own call with its own code, while well-behaved runs go on beside it.
//!
//! Elsewhere: what is not granted, redirects, secrets, many requests at once, bodies that are too large, and calls that are
//! given up (`access.rs`); addresses that are written in odd ways, and compressed bombs (`egress.rs`).

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weir_tests::process::Weir;
use weir_tests::target::Target;
use weir_tests::within;

use crate::access::{call, fetch, put, rule, server, upload};
use crate::attacks::beside;

/// A server with the plugin `misbehave`, which may do everything on this port.
async fn granted(port: u16, settings: &[&str]) -> Weir {
    let weir = Weir::start(settings).await;
    let rules = json!([{"scheme": "http", "host": "127.0.0.1", "port": port, "methods": ["GET", "POST"]}]);
    upload(&weir, "0.1.0", &rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    weir
}

/// The failure of a call of `misbehave` that has so much time.
async fn failure(weir: &Weir, tool: &str, input: &Value, seconds: f64) -> Value {
    let step = json!({"type": "mcp_tool", "plugin": "misbehave@0.1.0", "tool_name": tool, "input": input,
        "retry": {"max_attempts": 1}, "timeout_seconds": seconds});
    let run = weir.run(&weir.workflow(&json!([step])).await, &Value::Null).await;
    weir.finished(&run).await["error"].clone()
}

/// Parts of a request that would be another request, or another header, if they were sent as they are.
fn injections(target: &Target) -> Vec<Value> {
    let (url, at) = (target.url("/"), target.url(""));
    let header = |name: &str, value: &str| json!({"url": url, "headers": {name: value}});
    let mut inputs = vec![
        json!({"url": url, "method": "GET / HTTP/1.1\r\nx-injected: 1\r\n\r\nGET"}),
        json!({"url": url, "method": "GET\nx-injected: 1"}),
        json!({"url": url, "method": "G T"}),
        json!({"url": format!("{at}/ HTTP/1.1\r\nx-injected: 1\r\n\r\n")}),
        json!({"url": format!("{at}/\nx-injected: 1")}),
        json!({"url": format!("{at}/a b")}),
        json!({"url": format!("{at}/\u{0}")}),
        json!({"url": format!("{at}\r\nx-injected: 1/")}),
        json!({"url": url, "method": "POST", "body": "GET / HTTP/1.1", "headers": {"content-length": "2"}}),
        json!({"url": format!("http://x-injected@127.0.0.1:{}/", target.port())}),
    ];
    for name in ["", "x y", "x:injected", "x-injected\r\n", "x\u{0}", "x-\u{e9}", "x\r\nx-injected"] {
        inputs.push(header(name, "1"));
    }
    for value in [
        "1\r\nx-injected: 1",
        "1\nx-injected: 1",
        "1\rx-injected: 1",
        "1\u{0}",
        "1\u{7f}",
        "\u{1}",
        "1\r\n\r\nGET / HTTP/1.1",
    ] {
        inputs.push(header("x-a", value));
    }
    // What says where a request ends, and whom it is for, is the host's business.
    for (name, value) in
        [("transfer-encoding", "chunked"), ("connection", "keep-alive, x-a"), ("upgrade", "h2c"), ("host", "elsewhere")]
    {
        inputs.push(header(name, value));
    }
    inputs
}

#[tokio::test]
async fn no_part_of_a_request_becomes_another_header_or_request() {
    let target = Target::start().await;
    let weir = server(&json!([rule(&target, &json!({}))])).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": [rule(&target, &json!({}))]})).await.expect(200);
    let attacks = async {
        for input in injections(&target) {
            let (run, _) = call(&weir, "fetch_url", &input).await;
            let code = run["error"]["code"].as_str().unwrap_or("none");
            assert_eq!(code, "tool_failed", "{input}: {run}");
        }
        assert_eq!(target.count(), 0, "{:?}", target.all());
        // Other bytes than ASCII arrive as they are.
        let input = json!({"url": target.url("/"), "method": "POST", "body": "whole", "headers": {"x-a": "\u{e9}"}});
        assert_eq!(call(&weir, "fetch_url", &input).await.0["status"], "SUCCEEDED");
        let [received] = &target.all()[..] else { panic!("{:?}", target.all()) };
        assert_eq!((received.body.as_ref(), received.header("content-length")), (&b"whole"[..], "5"));
        assert_eq!(received.headers["x-a"].as_bytes(), "\u{e9}".as_bytes());
    };
    Box::pin(beside(&weir, attacks)).await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    within("a connection", listener.accept()).await.expect("a connection").0
}

/// Whether a connection to the port stands that nobody closed on its side.
fn established(weir: &Weir, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", weir.pid())).expect("a process");
    let remote = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|address| address.ends_with(&remote)) && columns.next() == Some("01")
    })
}

/// Reads a connection to its end, whatever the end is, and counts its bytes.
async fn drain(connection: &mut TcpStream) -> usize {
    let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
    while let Ok(read @ 1..) = connection.read(&mut buffer).await {
        count += read;
    }
    count
}

#[tokio::test]
async fn a_target_that_does_not_read_takes_no_more_than_the_calls_time() {
    const BODY_BYTES: usize = 8 << 20;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("small");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(16).expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let weir = granted(port, &["tool_request_max_bytes=33554432"]).await;
    let attack = async {
        let input = json!({"url": format!("http://127.0.0.1:{port}/"), "method": "POST", "more_bytes": BODY_BYTES});
        let (failed, mut connection) = futures::join!(failure(&weir, "fetch_url", &input, 8.0), accept(&listener));
        assert_eq!(failed["code"], "step_timeout", "{failed}");
        // The connection is closed, and the rest of the body was never sent.
        within("the end of the connection", async {
            while established(&weir, port) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let sent = within("the end of the body", drain(&mut connection)).await;
        assert!(sent < BODY_BYTES, "all {sent} bytes were sent");
    };
    Box::pin(beside(&weir, attack)).await;
}

/// Sends a response that goes on until nobody takes any more of it. Answers how much was taken.
async fn pour(listener: &TcpListener, head: &str, piece: &[u8]) -> usize {
    let mut connection = accept(listener).await;
    let _ = connection.read(&mut [0; 4096]).await.expect("a request");
    let mut count = 0;
    let mut next = head.as_bytes();
    while let Ok(written @ 1..) = connection.write(next).await {
        count += written;
        next = piece;
    }
    count
}

#[tokio::test]
async fn a_guest_that_reads_slowly_holds_little_and_only_as_long_as_it_may() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let weir = granted(port, &["response_max_bytes=1000000000"]).await;
    let attack = async {
        let input = json!({"url": format!("http://127.0.0.1:{port}/"), "count": 3_600_000});
        let before = crate::sandbox::resident(&weir);
        let piece = [b'x'; 1 << 16];
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        let (failed, sent) = futures::join!(failure(&weir, "read_slowly", &input, 2.0), pour(&listener, head, &piece));
        assert_eq!(failed["code"], "step_timeout", "{failed}");
        // What the kernel holds for both ends, and not what there is.
        assert!(sent < 64 << 20, "{sent} bytes were taken for a guest that read one");
        let after = crate::sandbox::resident(&weir);
        assert!(after < before + 64 * 1024, "{before} KiB before, {after} KiB after");
    };
    Box::pin(beside(&weir, attack)).await;
}

#[tokio::test]
async fn responses_without_an_end_fail_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let weir = granted(port, &[]).await;
    let ok = "HTTP/1.1 200 OK\r\n";
    let header = format!("x-a: {}\r\n", "x".repeat(60_000));
    let attack = async {
        for (name, head, piece, says) in [
            ("a body", format!("{ok}\r\n"), "x".repeat(1 << 16), "too large"),
            (
                "chunks",
                format!("{ok}transfer-encoding: chunked\r\n\r\n"),
                format!("1000\r\n{}\r\n", "x".repeat(4096)),
                "too large",
            ),
            ("headers", ok.to_owned(), header, "the connection to"),
            ("a status line", "HTTP/1.1 200 ".to_owned(), "x".repeat(1 << 16), "the connection to"),
            ("interim responses", String::new(), "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), "the connection to"),
            ("no response", "hello\r\n".to_owned(), "x".repeat(1 << 16), "the connection to"),
        ] {
            let input = json!({"url": format!("http://127.0.0.1:{port}/")});
            let poured = pour(&listener, if head.is_empty() { &piece } else { &head }, piece.as_bytes());
            let (failed, sent) = futures::join!(failure(&weir, "fetch_url", &input, 10.0), poured);
            let message = failed["message"].as_str().unwrap_or_default();
            assert!(message.contains(says), "{name}: {failed}");
            assert!(sent < 64 << 20, "{name}: {sent} bytes were taken");
        }
    };
    Box::pin(beside(&weir, attack)).await;
}

/// Answers for `rebind.test` with one address and the next time with the other, and notes that it was asked. It stands
/// before the C library, so that the server is the one that runs elsewhere, and no name server is needed.
const RESOLVER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int asked;

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (name && strcmp(name, "rebind.test") == 0) {
        FILE *notes = fopen(getenv("REBIND_NOTES"), "a");
        name = __sync_fetch_and_add(&asked, 1) % 2 ? "127.0.0.3" : "127.0.0.2";
        fprintf(notes, "%s\n", name);
        fclose(notes);
    }
    return real(name, service, hints, found);
}
"#;

/// Compiles the resolver.
fn resolver(dir: &Path) {
    std::fs::write(dir.join("resolver.c"), RESOLVER).expect("written");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o", "resolver.so", "resolver.c", "-ldl"]).current_dir(dir);
    let output = cc.output().expect("a C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Answers each connection with 200 and closes it, and counts them.
async fn serve(listener: TcpListener, count: &AtomicUsize) {
    loop {
        let mut connection = listener.accept().await.expect("a connection").0;
        count.fetch_add(1, Ordering::SeqCst);
        let _ = connection.read(&mut [0; 4096]).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        let _ = connection.write_all(answer).await;
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_dialled() {
    let dir = Arc::new(TempDir::new().expect("a directory"));
    resolver(dir.path());
    let (library, notes) = (dir.path().join("resolver.so"), dir.path().join("asked"));
    let wrapper = [format!("LD_PRELOAD={}", library.display()), format!("REBIND_NOTES={}", notes.display())];
    let open = TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let port = open.local_addr().expect("an address").port();
    // Nobody may go there.
    let closed = TcpListener::bind(("127.0.0.3", port)).await.expect("the same port");
    let weir = Weir::start_in(dir, &["egress_allow=127.0.0.2"], &["env", &wrapper[0], &wrapper[1]]).await;
    let rules = json!([{"scheme": "http", "host": "rebind.test", "port": port, "methods": ["GET"]}]);
    upload(&weir, "0.1.0", &rules).await;
    put(&weir, "/plugins/misbehave/grant", &json!({"http": rules})).await.expect(200);
    let url = format!("http://rebind.test:{port}/");
    let attacks = async {
        let step = json!([{"type": "http", "url": url, "retry": {"max_attempts": 1}}]);
        let workflow = weir.workflow(&step).await;
        for _ in 0..3 {
            // The name was asked for once, and that answer was checked and dialled; the next one is another.
            let run = weir.run(&workflow, &Value::Null).await;
            assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
            let denied = fetch(&weir, &url).await.expect_err("denied");
            assert_eq!(denied["code"], "tool_access_denied", "{denied}");
            assert!(
                denied["message"].as_str().is_some_and(|text| text.contains("is 127.0.0.3, which is not")),
                "{denied}"
            );
        }
        assert_eq!(fetch(&weir, &url).await.expect("open")["body"], "hi");
        let run = weir.run(&workflow, &Value::Null).await;
        assert_eq!(weir.finished(&run).await["error"]["code"], "egress_denied");
    };
    let (served, intruded) = (AtomicUsize::new(0), AtomicUsize::new(0));
    tokio::select! {
        () = beside(&weir, attacks) => {}
        () = serve(open, &served) => {}
        () = serve(closed, &intruded) => {}
    }
    assert_eq!((served.into_inner(), intruded.into_inner()), (4, 0));
    let asked = std::fs::read_to_string(notes).expect("it was asked");
    assert_eq!(asked, "127.0.0.2\n127.0.0.3\n".repeat(4));
}
