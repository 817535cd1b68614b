//! The OpenAPI document: as it was agreed, and exact enough that a fuzzer finds no answer outside it.

use std::process::{Command, Stdio};

use weir_tests::process::Weir;

#[test]
fn the_document_is_the_agreed_one() {
    // Whoever changes the API on purpose accepts the new document with `cargo insta review`.
    let document = weir::api::document().to_pretty_json().expect("JSON");
    insta::assert_snapshot!("openapi", document);
}

#[tokio::test]
async fn a_schema_driven_fuzzer_finds_no_answer_outside_the_document() {
    let weir = Weir::start(&["log_level=warn,weir::app=info", "wait_max_seconds=1"]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/schemathesis.sh");
    let made = weir_tests::process::run(weir.dir(), &["key", "create", "fuzzer", "--data-dir=data"], &[]).stdout;
    let key = String::from_utf8(made).expect("text").lines().next().expect("a key").to_owned();
    let mut fuzzer = Command::new("bash");
    fuzzer.arg(script).arg(weir.url("")).env("WEIR_API_KEY", key).stdin(Stdio::null());
    let fuzzed = fuzzer.output().expect("bash runs");
    let (out, err) = (String::from_utf8_lossy(&fuzzed.stdout), String::from_utf8_lossy(&fuzzed.stderr));
    assert!(fuzzed.status.success(), "{out}\n{err}");
    println!("{out}");
    assert_eq!(weir.get("/health").await.status, 200);
}
