//! Tools that misbehave: each is stopped by its own limit and fails its own step with its own code, and nobody beside
//! it notices.

use serde_json::{Value, json};
use weir_tests::process::Weir;

use crate::errors::failure;

/// Limits that are reached quickly.
const SETTINGS: [&str; 2] = ["tool_fuel_max_millions=4000", "step_output_max_bytes=100000"];

fn step(tool: &str, input: &Value) -> Value {
    json!({"type": "mcp_tool", "tool_name": tool, "input": input, "retry": {"max_attempts": 1}})
}

async fn run(weir: &Weir, step: &Value) -> (Value, Value) {
    let run = weir.run(&weir.workflow(&json!([step])).await, &Value::Null).await;
    let finished = weir.finished(&run).await;
    (finished, weir.steps(&run).await[0].clone())
}

#[tokio::test]
async fn each_kind_of_misbehaviour_has_its_code() {
    let weir = Weir::start(&SETTINGS).await;
    weir.example("misbehave").await;
    let nothing = json!({});
    let target = json!({"authority": "169.254.169.254"});
    let timed = |tool: &str| {
        let mut step = step(tool, &json!({}));
        step["timeout_seconds"] = json!(0.02);
        step
    };
    let mut fails = step("answer_an_error", &nothing);
    fails["on_tool_error"] = json!("fail");
    let cases = [
        (step("endless_loop", &nothing), "tool_fuel_exhausted", Some(4_000_000_000)),
        (timed("endless_loop"), "step_timeout", None),
        (timed("sleep"), "step_timeout", None),
        (step("memory_hog", &nothing), "tool_memory_exceeded", None),
        (step("output_flood", &json!({"bytes": 99_990})), "tool_output_too_large", None),
        (step("output_flood", &json!({"bytes": 3_000_000})), "tool_output_too_large", None),
        (step("panic", &nothing), "tool_trapped", None),
        (step("deep_recursion", &nothing), "tool_stack_exhausted", None),
        (step("break_promise", &nothing), "tool_contract_broken", None),
        (step("fetch", &target), "tool_access_denied", None),
        (step("fail_for_now", &nothing), "tool_failed", None),
        (fails, "tool_error", None),
    ];
    let mut seen = std::collections::HashSet::new();
    for (step, code, fuel) in cases {
        let (finished, step) = run(&weir, &step).await;
        assert_eq!((&finished["status"], &finished["error"]["code"]), (&json!("FAILED"), &json!(code)), "{finished}");
        assert_eq!(finished["error"]["step"], "step_0");
        if seen.insert(code) && code != "step_timeout" {
            failure(code, &finished["error"]);
        }
        let used = &step["used"];
        assert!(used["time_ms"].as_f64() > Some(0.0), "{code}: {used}");
        assert!(fuel.is_none_or(|fuel: u64| used["fuel"].as_u64() == Some(fuel)), "{code}: {used}");
        if code == "tool_memory_exceeded" {
            let peak = used["peak_memory_bytes"].as_u64().expect("a number");
            assert!((60 << 20..=64 << 20).contains(&peak), "{peak}");
        }
    }
    // The answer of a tool that was refused the network, and an answer that says what went wrong, are answers.
    let (finished, step_of) = run(&weir, &step("try_fetch", &target)).await;
    assert_eq!(
        (&finished["status"], &step_of["result"]),
        (&json!("SUCCEEDED"), &json!("ErrorCode::HttpRequestDenied"))
    );
    let (finished, step_of) = run(&weir, &step("answer_an_error", &nothing)).await;
    assert_eq!((&finished["status"], &step_of["answer"]["is_error"]), (&json!("SUCCEEDED"), &json!(true)));
    let (finished, _) = run(&weir, &step("log_flood", &json!({"bytes": 5000}))).await;
    assert_eq!(finished["status"], "SUCCEEDED");
    let kept = weir.log().iter().filter(|line| line.contains("\"weir::tool\"") && line.contains("\"line ")).count();
    assert_eq!(kept, 100);
    assert!(weir.line_with("lines of the tool were dropped").await.contains("\"dropped\":4900"));
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let weir = Weir::start(&SETTINGS).await;
    weir.example("misbehave").await;
    for (tool, attempts) in [("fail_for_now", 3), ("panic", 1), ("memory_hog", 1)] {
        let mut step = step(tool, &json!({}));
        step["retry"] = json!({"max_attempts": 3, "initial_delay_seconds": 0.001});
        let (_, step) = run(&weir, &step).await;
        assert_eq!((&step["status"], &step["attempts"]), (&json!("FAILED"), &json!(attempts)), "{tool}");
    }
}

#[tokio::test]
async fn well_behaved_runs_go_on_beside_tools_without_an_end() {
    let weir = Weir::start(&["tool_calls_per_plugin_max=4", "tool_calls_max=8"]).await;
    weir.example("misbehave").await;
    weir.example("greet").await;
    let endless =
        weir.workflow(&json!([{"type": "mcp_tool", "tool_name": "endless_loop", "timeout_seconds": 600}])).await;
    let greet = json!([{"type": "mcp_tool", "tool_name": "greet", "input": {"name": "Ada"}}]);
    let greet = weir.workflow(&greet).await;
    // More than the plugin may run at once: the others wait, and take no place from anybody else.
    let mut runs = Vec::new();
    for _ in 0..12 {
        runs.push(weir.run(&endless, &Value::Null).await);
    }
    for _ in 0..20 {
        let run = weir.run(&greet, &Value::Null).await;
        assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    }
    for run in &runs {
        let steps = weir.steps(run).await;
        assert_eq!(steps[0]["status"], "RUNNING", "{steps:?}");
        weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.expect(202);
    }
    for run in &runs {
        assert_eq!(weir.finished(run).await["status"], "CANCELED");
    }
}

#[tokio::test]
async fn tools_that_take_their_time_keep_no_upload_waiting() {
    let weir = Weir::start(&["tool_calls_max=1"]).await;
    weir.example("misbehave").await;
    let sleeping = json!([{"type": "mcp_tool", "tool_name": "sleep", "timeout_seconds": 600}]);
    let run = weir.run(&weir.workflow(&sleeping).await, &Value::Null).await;
    weir_tests::within("the call", async {
        while weir.steps(&run).await[0]["status"] != "RUNNING" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    weir.example("greet").await;
    assert_eq!(weir.steps(&run).await[0]["status"], "RUNNING");
}

/// Resident memory of the server, in KiB.
pub(crate) fn resident(weir: &Weir) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", weir.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn memory_returns_to_where_it_was() {
    let weir = Weir::start(&SETTINGS).await;
    weir.example("misbehave").await;
    weir.example("greet").await;
    let workflow = weir.workflow(&json!([{"type": "mcp_tool", "tool_name": "greet", "input": {"name": "Ada"}}])).await;
    let calls = async |count: usize| {
        for _ in 0..count {
            let run = weir.run(&workflow, &Value::Null).await;
            assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
        }
        resident(&weir)
    };
    let misbehave = async || {
        for tool in ["memory_hog", "deep_recursion", "panic", "endless_loop"] {
            run(&weir, &step(tool, &json!({}))).await;
        }
        run(&weir, &step("output_flood", &json!({"bytes": 3_000_000}))).await;
        run(&weir, &step("take_memory", &json!({"bytes": 60_000_000}))).await;
    };
    misbehave().await;
    let before = calls(50).await;
    for _ in 0..5 {
        misbehave().await;
    }
    let after = calls(400).await;
    // Far less than one guest of 64 MiB that stayed.
    assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB after");
}
