//! Guests in Python and JavaScript: whole interpreters in the sandbox. They answer, fail and log as guests in Rust do, and
//! find nothing outside of themselves.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use weir_tests::process::Weir;

use crate::sandbox::resident;

/// The step of a run that calls a tool, with the id of the run.
async fn called(weir: &Weir, plugin: &str, tool: &str, input: &Value) -> Value {
    let mut step = json!({"type": "mcp_tool", "plugin": plugin, "tool_name": tool, "input": input});
    step["retry"] = json!({"max_attempts": 1});
    if tool == "sleep" {
        step["timeout_seconds"] = json!(0.1);
    }
    let run = weir.run(&weir.workflow(&json!([step])).await, &Value::Null).await;
    weir.finished(&run).await;
    let mut step = weir.steps(&run).await[0].clone();
    step["run"] = json!(run);
    step
}

/// What is said of a step that failed, after its code.
fn failure<'s>(step: &'s Value, code: &str) -> &'s str {
    assert_eq!((&step["status"], &step["error"]["code"]), (&json!("FAILED"), &json!(code)), "{step}");
    step["error"]["message"].as_str().expect("text")
}

/// Waits for a line of the call in the server's log, with this in its fields.
async fn logged(weir: &Weir, step: &Value, message: &str, fields: &str) {
    let line = weir.line_with(&format!("\"message\":\"{message}\",\"run.id\":{}", step["run"])).await;
    assert!(line.contains(fields), "{line}");
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn helpers_and_examples_pass_their_tests_without_webassembly() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository").join("plugins");
    for (directory, count) in [("python", 5), ("examples/hello-python", 5)] {
        let output = run(Command::new("python3").args(["-B", "-m", "unittest"]).current_dir(plugins.join(directory)));
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains(&format!("Ran {count} tests")) && said.ends_with("OK\n"), "{said}");
    }
    for (directory, count) in [("javascript", 4), ("examples/hello-javascript", 4)] {
        let test = ["--test", "--test-reporter=tap"];
        let output = run(Command::new("node").args(test).current_dir(plugins.join(directory)));
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(said.contains(&format!("# pass {count}\n# fail 0")), "{said}");
    }
}

#[tokio::test]
async fn a_guest_in_any_language_may_ask() {
    let mut weir = Weir::start(&[]).await;
    for plugin in ["hello-python", "hello-javascript"] {
        weir.example(plugin).await;
        let step = json!({"type": "mcp_tool", "name": "ask", "plugin": plugin, "tool_name": "greet_visitor"});
        let run = weir.run(&weir.workflow(&json!([step])).await, &Value::Null).await;
        weir.asked(&run, "ask").await;
        let question = weir.steps(&run).await[0]["questions"][0].clone();
        let name = json!({"type": "string", "description": "Your name."});
        let form = json!({"name": name, "title": {"type": "string"}});
        assert_eq!((&question["key"], &question["message"]), (&json!("name"), &json!("Who is there?")));
        assert_eq!((&question["schema"]["properties"], &question["schema"]["required"]), (&form, &json!(["name"])));
        weir.kill();
        weir.restart().await;
        let content = json!({"name": "Lovelace", "title": "Lady"});
        let answer = json!({"step": "ask", "key": "name", "action": "accept", "content": content});
        weir.post(&format!("/runs/{run}/answers"), &answer).await.expect(202);
        assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
        assert_eq!(weir.steps(&run).await[0]["result"], "Hello, Lady Lovelace!");
    }
}

#[test]
fn what_was_built_is_not_built_again() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository").join("plugins");
    let file = weir_tests::plugin::file("hello-python");
    let target = file.ancestors().nth(2).expect("a directory");
    let mut build = Command::new(plugins.join("build-guest.sh"));
    build.current_dir(plugins.join("examples/hello-python")).env("CARGO_TARGET_DIR", target);
    let output = run(&mut build);
    assert_eq!(String::from_utf8(output.stdout).expect("text").trim(), file.display().to_string());
    assert_eq!(String::from_utf8(output.stderr).expect("text"), "");
}

#[tokio::test]
async fn guests_in_python_and_javascript_answer_fail_and_log() {
    let weir = Weir::start(&[]).await;
    for (plugin, fetch, exception) in [
        ("hello-python", ("fetch_title", json!({"url": "http://127.0.0.1:9/"})), "ValueError: oh no"),
        ("hello-javascript", ("fetch_json", json!({"url": "http://127.0.0.1:9/", "member": "a"})), "TypeError: oh no"),
    ] {
        let uploaded = weir.example(plugin).await;
        assert_eq!((&uploaded["name"], &uploaded["version"]), (&json!(plugin), &json!("0.1.0")));
        let tools = weir.get(&format!("/plugins/{plugin}/tools")).await.expect(200);
        let greet = tools["items"].as_array().expect("tools").iter().find(|tool| tool["name"] == "greet");
        let described = json!({"type": "string", "description": "Who is greeted."});
        let greet = greet.expect("greet");
        assert_eq!(greet["inputSchema"]["properties"], json!({"name": described}));
        assert_eq!(greet["annotations"], json!({"readOnlyHint": true}));

        let step = called(&weir, plugin, "greet", &json!({"name": "Ada"})).await;
        assert_eq!((&step["result"], &step["status"]), (&json!("Hello, Ada!"), &json!("SUCCEEDED")));
        logged(&weir, &step, "greeting", "Ada").await;

        let fail = async |input: Value| called(&weir, plugin, "fail", &input).await;
        let step = fail(json!({"message": "oh no"})).await;
        assert_eq!(failure(&step, "tool_failed"), exception);
        logged(&weir, &step, "details of the fault", "app.").await;
        let step = fail(json!({"message": "not now", "kind": "retryable"})).await;
        assert_eq!(failure(&step, "tool_failed"), "not now (as-told)");
        let step = fail(json!({"message": "not so", "kind": "invalid-arguments"})).await;
        assert!(failure(&step, "invalid_tool_arguments").contains("not so"), "{step}");
        let step = fail(json!({"message": "there is none", "kind": "answer"})).await;
        assert_eq!((&step["result"], &step["answer"]["is_error"]), (&json!("there is none"), &json!(true)));

        let (tool, input) = fetch;
        let step = called(&weir, plugin, tool, &input).await;
        assert!(failure(&step, "tool_access_denied").contains("GET http://127.0.0.1:9"), "{step}");
    }
    // Each call has an instance of its own, and so its own random numbers.
    let draw = async || called(&weir, "hello-javascript", "draw", &json!({})).await["result"].clone();
    let (first, second) = (draw().await, draw().await);
    assert!((0..3).all(|n| first[n].is_number() && first[n] != second[n]), "{first} {second}");

    let input = json!({"name": "Ada"});
    for plugin in ["hello-python", "hello-javascript"] {
        let step = json!([{"type": "mcp_tool", "plugin": plugin, "tool_name": "greet", "input": input}]);
        let workflow = weir.workflow(&step).await;
        let calls = async |count: usize| {
            for _ in 0..count {
                let run = weir.run(&workflow, &Value::Null).await;
                assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
            }
            resident(&weir)
        };
        let before = calls(100).await;
        let after = calls(1000).await;
        assert!(after < before + 16 * 1024, "{plugin}: {before} KiB before, {after} KiB after");
    }
}

/// What a guest in Python attempts, and how each must fail.
const ATTEMPTS: [(&str, &str, &str); 26] = [
    ("open", "FileNotFoundError", "'/etc/passwd'"),
    ("open_relative", "FileNotFoundError", "'app.py'"),
    ("open_in_directory", "OSError", "Bad file descriptor"),
    ("create", "FileNotFoundError", "'/tmp/weir'"),
    ("list", "FileNotFoundError", "'/'"),
    ("list_here", "FileNotFoundError", "'.'"),
    ("stat", "FileNotFoundError", "'/'"),
    ("make_directory", "FileNotFoundError", "'/weir'"),
    ("remove", "FileNotFoundError", "'/etc/hostname'"),
    ("link", "FileNotFoundError", "'/etc/passwd'"),
    ("make_tcp_socket", "PermissionError", "Permission denied"),
    ("make_udp_socket", "PermissionError", "Permission denied"),
    ("connect", "PermissionError", "Permission denied"),
    ("connect_ipv6", "PermissionError", "Permission denied"),
    ("bind", "PermissionError", "Permission denied"),
    ("listen", "PermissionError", "Permission denied"),
    ("udp_send", "PermissionError", "Permission denied"),
    ("udp_bind", "PermissionError", "Permission denied"),
    ("resolve", "gaierror", ""),
    ("resolve_localhost", "gaierror", ""),
    ("process", "OSError", "does not support processes"),
    ("fork", "AttributeError", "no attribute 'fork'"),
    ("kill", "AttributeError", "no attribute 'kill'"),
    ("thread", "RuntimeError", "can't start new thread"),
    ("read_standard_input", "EOFError", "nothing to read"),
    ("read_descriptor", "OSError", "Bad file descriptor"),
];

#[tokio::test]
async fn an_interpreter_finds_nothing_outside_of_itself() {
    let weir = Weir::start(&["tool_fuel_max_millions=4000"]).await;
    let plugin = "misbehave-python";
    let uploaded = weir.example(plugin).await;
    let plugin_of = weir.get(&format!("/plugins/{plugin}")).await.expect(200);
    assert_eq!(plugin_of["digest"], uploaded["digest"]);
    for needed in
        ["wasi:cli/environment", "wasi:cli/exit", "wasi:filesystem/preopens", "wasi:sockets/tcp-create-socket"]
    {
        let imports = plugin_of["imports"].as_array().expect("imports");
        let there = imports.iter().filter_map(Value::as_str).any(|import| import.starts_with(needed));
        assert!(there, "{needed} is not even imported: {imports:?}");
    }
    let call = async |tool: &str, input: Value| called(&weir, plugin, tool, &input).await;
    let known: Vec<&str> = ATTEMPTS.iter().map(|(what, ..)| *what).collect();
    assert_eq!(call("attempts", json!({})).await["result"], json!(known), "each attempt is expected here");
    for (what, error, message) in ATTEMPTS {
        let step = call("attempt", json!({"what": what})).await;
        let said = step["result"]["message"].as_str().unwrap_or_default();
        assert!(step["result"]["error"] == error && said.contains(message), "{what}: {step}");
    }
    let empty = json!({"environment": {}, "arguments": [], "directory": "/"});
    assert_eq!(call("surroundings", json!({})).await["result"], empty);

    for (way, code, says) in [
        (
            "_exit",
            "tool_trapped",
            "the tool ended its process instead of answering; its last words: these are my last words",
        ),
        ("abort", "tool_trapped", "its last words: these are my last words"),
        ("sys.exit", "tool_failed", "SystemExit"),
    ] {
        for status in [0, 1] {
            let step = call("end_process", json!({"way": way, "status": status})).await;
            assert!(failure(&step, code).contains(says), "{step}");
        }
    }
    for (tool, code, says) in [
        ("endless_loop", "tool_fuel_exhausted", "4000000000 units"),
        ("sleep", "step_timeout", "0.1 seconds"),
        ("deep_recursion", "tool_failed", "RecursionError"),
        ("drop_recursion", "tool_stack_exhausted", "used up its stack"),
        ("memory_hog", "tool_failed", "MemoryError"),
    ] {
        let step = call(tool, json!({})).await;
        assert!(failure(&step, code).contains(says), "{step}");
    }
    // A tool may print as much as it likes; what it printed last stands with a trap.
    let step = call("print_flood", json!({"bytes": 1_000_000})).await;
    assert_eq!(step["result"], "printed", "{step}");
    let step = call("print_flood", json!({"bytes": 1_000_000, "then_abort": true})).await;
    assert!(failure(&step, "tool_trapped").ends_with("xxx and the end"), "{step}");
    // Whatever happened: the server is there, and the next call is the first one.
    for _ in 0..2 {
        assert_eq!(call("remember", json!({})).await["result"], 1);
    }
}
