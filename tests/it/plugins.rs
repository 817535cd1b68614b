//! Plugins from outside: uploaded, listed, called by workflows, pinned by revisions, and refused when they are none.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_host::plugin::Artifact;
use weir_tests::plugin::{bytes, patched};
use weir_tests::process::{Answer, Weir, answer};
use weir_tests::target::Target;

/// `greet` in another version, which says something else.
fn greet(version: &str, says: &str) -> Vec<u8> {
    patched(&patched(&bytes("greet"), r#""version":"0.1.0""#, &format!(r#""version":"{version}""#)), "Hello", says)
}

fn call(input: &Value) -> Value {
    json!([{"type": "mcp_tool", "name": "call", "tool_name": "greet", "input": input}])
}

async fn create(weir: &Weir, steps: &Value) -> Answer {
    weir.post("/workflows", &json!({"name": "test", "definition": weir_tests::definition(steps)})).await
}

async fn faults(weir: &Weir, steps: &Value) -> Vec<(String, String)> {
    let refused = create(weir, steps).await.expect(422);
    assert_eq!(refused["code"], "invalid_definition");
    let text = |fault: &Value, member: &str| fault[member].as_str().expect("text").to_owned();
    let faults = refused["errors"].as_array().expect("faults");
    faults.iter().map(|fault| (text(fault, "pointer"), text(fault, "message"))).collect()
}

/// What the step `call` of a run came to.
async fn called(weir: &Weir, workflow: &str, input: &Value) -> Value {
    let run = weir.run(workflow, input).await;
    weir.finished(&run).await;
    weir.steps(&run).await[0].clone()
}

#[tokio::test]
async fn a_plugin_is_uploaded_and_found() {
    let weir = Weir::start(&[]).await;
    let uploaded = weir.upload(bytes("greet")).await;
    assert_eq!(uploaded.headers["location"], "/plugins/greet@0.1.0");
    let plugin = uploaded.expect(201);
    assert_eq!(
        (&plugin["name"], &plugin["version"], &plugin["tools"]),
        (&json!("greet"), &json!("0.1.0"), &json!(["greet"]))
    );
    // The same bytes, and the component that the host made of them, are the same plugin.
    let component = Artifact::admit(&bytes("greet")).expect("sound").component;
    assert_eq!(plugin["size_bytes"], component.len());
    assert_eq!(weir.upload(component).await.expect(200)["digest"], plugin["digest"]);
    assert_eq!(weir.upload(bytes("greet")).await.expect(200)["digest"], plugin["digest"]);
    let transform = weir.example("transform").await;
    let list = weir.get("/plugins").await.expect(200);
    assert_eq!(list["items"], json!([transform, plugin]));
    let digest = plugin["digest"].as_str().expect("a digest");
    for path in ["greet".to_owned(), "greet@0.1.0".to_owned(), digest.to_owned(), digest.replace(':', "%3A")] {
        let found = weir.get(&format!("/plugins/{path}")).await.expect(200);
        assert_eq!((&found["digest"], &found["imports"]), (&plugin["digest"], &plugin["imports"]));
        assert_eq!(found["versions"].as_array().map(Vec::len), Some(1));
    }
    let tools = weir.get("/plugins/greet/tools").await.expect(200);
    let tool = &tools["items"][0];
    assert_eq!((&tool["name"], &tool["description"]), (&json!("greet"), &json!("Greets a person by name.")));
    assert_eq!(tool["inputSchema"]["properties"], json!({"name": {"type": "string"}}));
    assert_eq!(tool["inputSchema"]["required"], json!(["name"]));
    let reshape = weir.get("/plugins/transform/tools").await.expect(200)["items"][0].clone();
    assert_eq!(reshape["annotations"], json!({"readOnlyHint": true, "idempotentHint": true, "openWorldHint": false}));
    assert_eq!((&reshape["title"], reshape["outputSchema"].is_object()), (&json!("Reshape JSON"), true));
}

#[tokio::test]
async fn steps_call_tools_and_later_steps_see_what_they_answered() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    weir.example("greet").await;
    weir.example("transform").await;
    target.answer("/orders", axum::Json(json!([{"id": 7, "total": 99.5}, {"id": 8, "total": 3}])));
    let workflow = weir
        .workflow(&json!([
            {"type": "http", "name": "fetch", "url": target.url("/orders")},
            {"type": "mcp_tool", "name": "large", "tool_name": "reshape", "plugin": "transform@0.1.0", "input": {
                "data": "{{ steps.fetch.result }}", "each": "", "select": {"order": "/id"},
                "where": [{"at": "/total", "is": "more_than", "value": "{{ trigger.least }}"}]}},
            {"type": "mcp_tool", "name": "hello", "tool_name": "greet", "input": {"name": "order {{ steps.large.result[0].order }}"}},
            {"type": "persist_snapshot", "name": "kept", "include_keys": ["large", "hello"]},
        ]))
        .await;
    let run = weir.run(&workflow, &json!({"least": 50})).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let steps = weir.steps(&run).await;
    assert_eq!((&steps[1]["type"], &steps[1]["result"]), (&json!("mcp_tool"), &json!([{"order": 7}])));
    assert_eq!(steps[2]["result"], "Hello, order 7!");
    let answer = &steps[1]["answer"];
    assert_eq!(answer["content"], json!([{"type": "text", "text": "[{\"order\":7}]"}]));
    assert_eq!(answer["plugin"], weir.get("/plugins/transform").await.expect(200)["digest"]);
    for step in &steps[1..3] {
        let used = &step["used"];
        assert!(used["fuel"].as_u64() > Some(1000) && used["time_ms"].as_f64() > Some(0.0), "{used}");
        assert!((Some(1 << 20)..Some(1 << 22)).contains(&used["peak_memory_bytes"].as_u64()), "{used}");
    }
    let snapshots = weir.get(&format!("/runs/{run}/snapshots")).await.expect(200);
    let kept = &snapshots["items"][0]["content"];
    let block = json!([{"type": "text", "text": "Hello, order 7!"}]);
    let expected = json!({"type": "mcp_tool", "result": "Hello, order 7!", "content": block, "is_error": false});
    assert_eq!(kept["hello"], expected);
}

#[tokio::test]
async fn definitions_that_name_no_tool_or_wrong_arguments_are_refused() {
    let weir = Weir::start(&[]).await;
    weir.example("greet").await;
    let step = |member: &str, value: Value| {
        let mut step = json!({"type": "mcp_tool", "tool_name": "greet", "input": {"name": "Ada"}});
        step[member] = value;
        step
    };
    for (member, value, pointer, says) in [
        ("tool_name", json!("reshape"), "/tool_name", "no plugin of this server offers a tool named `reshape`"),
        ("tool_name", json!(""), "/tool_name", "must be 1 to 128 characters"),
        ("plugin", json!("transform"), "/plugin", "no plugin of this server is `transform`"),
        ("plugin", json!("greet@9"), "/plugin", "no plugin of this server is `greet@9`"),
        ("plugin", json!("a b"), "/plugin", "must be a plugin's name"),
        ("input", json!({"nmae": "Ada"}), "/input", "is a required property"),
        ("input", json!({"name": 17}), "/input/name", "is not of type \"string\""),
        ("input", json!([]), "/input", "must be an object"),
        ("input", json!("Ada"), "/input", "must be an object"),
        ("on_tool_error", json!("retry"), "/on_tool_error", "must be `continue` or `fail`"),
        ("inptu", json!({}), "/inptu", "unknown member"),
    ] {
        let found = faults(&weir, &json!([{"type": "persist_snapshot"}, step(member, value)])).await;
        let pointer = format!("/definition/steps/1{pointer}");
        assert!(found.iter().any(|(at, message)| *at == pointer && message.contains(says)), "{says}: {found:?}");
    }
    let mut elsewhere = step("tool_name", json!("greeet"));
    elsewhere["plugin"] = json!("greet");
    let found = faults(&weir, &json!([elsewhere, step("tool_name", json!("nope"))])).await;
    assert_eq!(found[0].1, "the plugin `greet` has no tool named `greeet`; it has greet");
    assert_eq!(found.len(), 2, "all at once: {found:?}");
    // Two plugins with one tool: somebody has to say which.
    let other = weir.request(Method::POST, "/plugins?name=other&version=1").body(unnamed());
    answer(other).await.expect(201);
    let found = faults(&weir, &json!([step("if", json!("true"))])).await;
    assert!(found[0].1.contains("several plugins offer a tool named `greet`: greet, other"), "{found:?}");
    create(&weir, &json!([step("plugin", json!("other"))])).await.expect(200);
}

/// `greet` without a word about who it is.
fn unnamed() -> Vec<u8> {
    patched(&bytes("greet"), "weir:request", "other:sectio")
}

#[tokio::test]
async fn arguments_are_validated_before_the_tool_runs() {
    let weir = Weir::start(&[]).await;
    weir.example("greet").await;
    let workflow = weir.workflow(&call(&json!({"name": "{{ trigger.who }}", "title": "{{ trigger.title }}"}))).await;
    let step = called(&weir, &workflow, &json!({"who": {"secret": "s3cret"}, "title": 1})).await;
    assert_eq!((&step["status"], &step["attempts"]), (&json!("FAILED"), &json!(1)));
    let error = &step["error"];
    assert_eq!(error["code"], "invalid_tool_arguments");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("/input/name: ") && message.contains("/input: "), "{message}");
    assert!(!message.contains("s3cret"), "{message}");
    crate::errors::failure("invalid_tool_arguments", error);
    assert!(step.get("used").is_none(), "the guest did not run: {step}");
    let whole = weir.workflow(&call(&json!("{{ trigger }}"))).await;
    assert_eq!(called(&weir, &whole, &json!({"name": "Ada"})).await["result"], "Hello, Ada!");
    assert_eq!(called(&weir, &whole, &json!([1])).await["error"]["code"], "invalid_tool_arguments");
}

#[tokio::test]
async fn a_revision_keeps_the_plugin_that_it_was_saved_with() {
    let mut weir = Weir::start(&[]).await;
    let first = weir.example("greet").await;
    let input = json!({"name": "Ada"});
    let old = weir.workflow(&call(&input)).await;
    let second = weir.upload(greet("0.2.0", "Howdy")).await.expect(201);
    assert_ne!(first["digest"], second["digest"]);
    let new = weir.workflow(&call(&input)).await;
    let mut pinned = call(&input);
    pinned[0]["plugin"] = json!("greet@0.1.0");
    let by_version = weir.workflow(&pinned).await;
    pinned[0]["plugin"] = second["digest"].clone();
    let by_digest = weir.workflow(&pinned).await;
    for (workflow, says) in
        [(&old, "Hello, Ada!"), (&new, "Howdy, Ada!"), (&by_version, "Hello, Ada!"), (&by_digest, "Howdy, Ada!")]
    {
        assert_eq!(called(&weir, workflow, &Value::Null).await["result"], says);
    }
    assert_eq!(weir.get(&format!("/workflows/{old}")).await.expect(200)["tool_lock"], json!({"call": first["digest"]}));
    // A new name keeps the plugin, a new definition takes the newest one; the first revision stays as it was.
    let revise = async |body: Value| answer(weir.request(Method::PUT, &format!("/workflows/{old}")).json(&body)).await;
    assert_eq!(revise(json!({"name": "renamed"})).await.expect(200)["tool_lock"], json!({"call": first["digest"]}));
    assert_eq!(called(&weir, &old, &Value::Null).await["result"], "Hello, Ada!");
    let body = json!({"definition": weir_tests::definition(&call(&input))});
    assert_eq!(revise(body).await.expect(200)["tool_lock"], json!({"call": second["digest"]}));
    assert_eq!(called(&weir, &old, &Value::Null).await["result"], "Howdy, Ada!");
    let revisions = weir.get(&format!("/workflows/{old}/revisions")).await.expect(200);
    assert_eq!(revisions["items"][2]["tool_lock"], json!({"call": first["digest"]}));
    // Everything is in the database: another process finds it.
    weir.kill();
    weir.restart().await;
    assert_eq!(called(&weir, &old, &Value::Null).await["result"], "Howdy, Ada!");
    assert_eq!(called(&weir, &by_version, &Value::Null).await["result"], "Hello, Ada!");
}

#[tokio::test]
async fn a_call_that_a_crash_interrupted_is_made_again() {
    let mut weir = Weir::start(&[]).await;
    weir.example("misbehave").await;
    let steps = json!([{"type": "mcp_tool", "name": "call", "tool_name": "endless_loop", "timeout_seconds": 600}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    attempts(&weir, &run, 1).await;
    weir.kill();
    weir.restart().await;
    attempts(&weir, &run, 2).await;
    // Canceling gives the call up at once, whatever it does.
    weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.expect(202);
    assert_eq!(weir.finished(&run).await["status"], "CANCELED");
}

/// Waits until so many attempts of the first step have begun.
async fn attempts(weir: &Weir, run: &str, count: u64) {
    weir_tests::within("an attempt", async {
        while weir.steps(run).await[0]["attempts"] != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_and_nothing_is_kept() {
    let weir = Weir::start(&["plugin_max_bytes=1200000"]).await;
    let wat = |text: &str| wat::parse_str(text).expect("sound");
    let outside = wat(r#"(component
        (import "wasi:keyvalue/store@0.2.0" (instance))
        (import "wasi:io/poll@0.3.0" (instance))
        (import "host-function" (func)))"#);
    let relocation = |count| format!("(func {})", "(i32.store (i32.const 0) (i32.const 0)) ".repeat(count));
    let truncated = bytes("greet")[..20_000].to_vec();
    // What the first section is: behind the four bytes that say what it is all, and the version.
    let mut flipped = bytes("greet");
    flipped[8] ^= 0xff;
    let mut huge = bytes("greet");
    huge.resize(1_200_001, 0);
    for (body, status, code, says) in [
        (b"not wasm".to_vec(), 422, "invalid_plugin", "no WebAssembly: neither a component nor a core module"),
        (Vec::new(), 422, "invalid_plugin", "no WebAssembly"),
        (truncated, 422, "invalid_plugin", "malformed WebAssembly at byte "),
        (flipped, 422, "invalid_plugin", "malformed WebAssembly at byte "),
        (wat("(module)"), 422, "invalid_plugin", "does not export weir:plugin/tools@0.1.0"),
        (wat("(component)"), 422, "invalid_plugin", "does not export weir:plugin/tools@0.1.0"),
        (
            outside,
            422,
            "invalid_plugin",
            "imports what is not offered: wasi:keyvalue/store@0.2.0, wasi:io/poll@0.3.0, host-function",
        ),
        (wat(&format!("(module (func {}))", "nop ".repeat(300_000))), 422, "invalid_plugin", "a function has 3000"),
        // What stores addresses may be longer, and not without an end.
        (
            wat(&format!("(module (memory 1) {})", relocation(70_000))),
            422,
            "invalid_plugin",
            "does not export weir:plugin",
        ),
        (wat(&format!("(module (memory 1) {})", relocation(160_000))), 422, "invalid_plugin", "a function has 11200"),
        (
            bytes("misbehave_listing"),
            422,
            "invalid_plugin",
            "did not list its tools: the tool wanted more than 67108864 bytes",
        ),
        (huge, 413, "payload_too_large", "`plugin_max_bytes`"),
        (unnamed(), 422, "invalid_request", ""),
    ] {
        let refused = weir.upload(body).await.expect(status);
        assert_eq!(refused["code"], code, "{refused}");
        assert!(refused["detail"].as_str().expect("text").contains(says), "{refused}");
    }
    let post = |query: &str| weir.request(Method::POST, &format!("/plugins{query}"));
    for (request, pointer) in [
        (post("?name=other").body(bytes("greet")), "name"),
        (post("?version=9").body(bytes("greet")), "version"),
        (post("?name=a%20b&version=1").body(unnamed()), "name"),
        (post("?name=a").body(unnamed()), "version"),
        (post("?nmae=a").body(unnamed()), "nmae"),
    ] {
        let refused = answer(request).await.expect(422);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let typed = post("").header("content-type", "application/json").body("{}");
    assert_eq!(answer(typed).await.expect(415)["code"], "unsupported_media_type");
    assert_eq!(weir.get("/plugins").await.expect(200)["items"], json!([]));
    // A version is one component for ever.
    weir.example("greet").await;
    let taken = weir.upload(greet("0.1.0", "Howdy")).await.expect(409);
    assert_eq!(taken["code"], "plugin_version_taken", "{taken}");
    assert_eq!(weir.get("/plugins/nobody").await.expect(404)["code"], "plugin_not_found");
    assert_eq!(weir.get("/plugins/a%20b").await.expect(422)["code"], "invalid_request");
}

/// The one block of `language` in a text after `heading`.
fn block(text: &str, heading: &str, language: &str) -> String {
    let (_, after) = text.split_once(heading).expect(heading);
    let (_, block) = after.split_once(&format!("```{language}\n")).expect(language);
    block.split_once("```").expect("an end").0.to_owned()
}

#[tokio::test]
async fn the_plugin_of_the_readme_builds_and_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let source = block(&read("README.md"), "## A plugin", "rust");
    assert!(source.lines().count() <= 17, "a plugin and its test are short:\n{source}");
    // An author's crate, away from this repository: it depends on the SDK alone.
    let home = TempDir::new().expect("a directory");
    assert!(weir_tests::process::run(home.path(), &["plugin", "new", "greet"], &[]).status.success());
    let author = home.path().join("greet");
    std::fs::write(author.join("src/lib.rs"), source).expect("written");
    std::fs::copy(root.join("Cargo.lock"), author.join("Cargo.lock")).expect("copied");
    let target = weir_tests::plugin::file("greet").ancestors().nth(4).expect("a directory").join("author");
    let run = |command: &mut Command| {
        let output = command.current_dir(&author).env("CARGO_TARGET_DIR", &target).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(run(Command::new("cargo").args(["test", "--offline"])).contains("greets_by_name ... ok"));
    let built = run(Command::new(root.join("plugins/build.sh")).arg("--offline"));
    let plugin = std::fs::read(built.trim()).expect("the script names the file");
    let weir = Weir::start(&[]).await;
    assert_eq!(weir.upload(plugin).await.expect(201)["name"], "greet");
    let workflow = weir.workflow(&call(&json!({"name": "Ada"}))).await;
    assert_eq!(called(&weir, &workflow, &Value::Null).await["result"], "Hello, Ada!");
}

#[tokio::test]
async fn a_request_section_is_there_once() {
    let weir = Weir::start(&[]).await;
    let component = Artifact::admit(&unnamed()).expect("sound").component;
    let with = |sections: &[&str]| {
        let mut component = component.clone();
        for text in sections {
            let section = wasm_encoder::CustomSection { name: "weir:request".into(), data: text.as_bytes().into() };
            wasm_encoder::ComponentSection::append_to_component(&section, &mut component);
        }
        component
    };
    for (sections, says) in [
        (&[r#"{"name": "a", "version": "1"}"#, r#"{"name": "a", "version": "1"}"#][..], "more than one section"),
        (&["{"], "is not a request"),
        (&[r#"["a", "1"]"#], "must be an object, not an array"),
        (&[r#"{"name": "a", "http": [{"host": "a.com", "methods": "GET"}]}"#], "`http[0].methods` must be an array"),
        (&[r#"{"name": "a", "hosts": []}"#], "unknown member `hosts`"),
    ] {
        let refused = weir.upload(with(sections)).await.expect(422);
        assert!(refused["detail"].as_str().expect("text").contains(says), "{refused}");
    }
    let mut disagree = Artifact::admit(&bytes("greet")).expect("sound").component;
    let section = wasm_encoder::CustomSection { name: "weir:request".into(), data: b"{\"name\": \"b\"}".into() };
    wasm_encoder::ComponentSection::append_to_component(&section, &mut disagree);
    assert_eq!(weir.upload(disagree).await.expect(422)["code"], "invalid_plugin");
    let uploaded = weir.upload(with(&[r#"{"name": "a", "version": "1"}"#])).await.expect(201);
    assert_eq!((&uploaded["name"], &uploaded["version"]), (&json!("a"), &json!("1")));
}
