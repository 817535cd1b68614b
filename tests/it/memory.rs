//! A thousand calls leave the server as large as a hundred did, whatever plugin is called.
//!
//! Elsewhere: guests in Python and JavaScript (`guests.rs`), and tools that misbehave (`sandbox.rs`).

use serde_json::{Value, json};
use weir_tests::process::Weir;

use crate::sandbox::resident;

/// What the server may have more after a thousand rounds than after a hundred, in KiB. One that kept a page of 4 KiB of each
/// call would have eight times as much.
const SLACK_KIB: u64 = 4 * 1024;

/// The calls of one run: plugin, tool, arguments, and what it answers.
fn calls() -> Vec<(&'static str, &'static str, Value, Value)> {
    let schema = json!({"items": {"required": ["who"]}});
    vec![
        ("greet", "greet", json!({"name": "Ada"}), json!("Hello, Ada!")),
        (
            "csv-json",
            "csv_to_json",
            json!({"text": "who\nAda\n"}),
            json!({"columns": ["who"], "rows": [{"who": "Ada"}]}),
        ),
        ("html-text", "html_to_text", json!({"html": "<h1>Orders</h1>"}), json!("Orders")),
        ("schema", "check", json!({"schema": schema, "value": [{"who": 7}]}), json!({"valid": true, "faults": []})),
        ("template", "render", json!({"template": "Hi {{ who }}", "values": {"who": "Ada"}}), json!("Hi Ada")),
        (
            "transform",
            "reshape",
            json!({"data": [{"id": 7}, {"id": 8}], "each": "", "select": {"order": "/id"}, "limit": 1}),
            json!([{"order": 7}]),
        ),
    ]
}

/// Definitions read `{{` in arguments as their own; what a plugin shall see comes with the trigger.
fn from_trigger(tool: &str) -> String {
    format!("{{{{ trigger.{tool} }}}}")
}

/// A server and two workflows that call every example once.
struct Calling {
    weir: Weir,
    workflow: String,
    input: Value,
    approval: String,
}

impl Calling {
    async fn start() -> Self {
        let mut weir = Weir::start(&[]).await;
        for (plugin, ..) in calls() {
            weir.example(&plugin.replace('-', "_")).await;
        }
        weir.example("github_issue").await;
        weir.example("approve").await;
        // What compiling them took is given back with the process: the next one finds their code.
        weir.terminate().await;
        weir.restart().await;
        weir.line_with("plugins ready: ").await;
        let step = |plugin: &str, tool: &str, input: Value| {
            json!({"type": "mcp_tool", "name": tool, "plugin": plugin, "tool_name": tool, "input": input,
                "retry": {"max_attempts": 1}})
        };
        let sound = calls().into_iter().map(|(plugin, tool, ..)| step(plugin, tool, json!(from_trigger(tool))));
        // Nothing is granted to it.
        let issue = step("github-issue@0.1.0", "create_issue", json!({"repo": "a/b", "title": "c"}));
        let steps = sound.chain([issue]).collect();
        let input = calls().into_iter().map(|(_, tool, input, _)| (tool.to_owned(), input)).collect();
        // Nobody answers what it asks.
        let mut approval = step("approve", "approve", json!({"question": "Deploy?"}));
        approval["answer_timeout_seconds"] = json!(0.001);
        Self {
            workflow: weir.workflow(&Value::Array(steps)).await,
            input: Value::Object(input),
            approval: weir.workflow(&json!([approval])).await,
            weir,
        }
    }

    /// Calls each of them once.
    async fn round(&self) {
        let run = self.weir.run(&self.workflow, &self.input).await;
        assert_eq!(self.weir.finished(&run).await["error"]["code"], "tool_access_denied");
        for (step, (_, tool, _, answer)) in self.weir.steps(&run).await.iter().zip(calls()) {
            assert_eq!(step["result"], answer, "{tool}");
        }
        let run = self.weir.run(&self.approval, &Value::Null).await;
        assert_eq!(self.weir.finished(&run).await["error"]["code"], "answer_timeout");
    }

    /// Calls each of them so often, and says what the server has then.
    async fn rounds(&self, count: usize) -> u64 {
        for _ in 0..count {
            self.round().await;
        }
        resident(&self.weir)
    }
}

#[tokio::test]
async fn a_thousand_calls_of_each_example_leave_what_a_hundred_left() {
    let calling = Calling::start().await;
    let before = calling.rounds(100).await;
    let after = calling.rounds(1000).await;
    println!("{before} KiB before, {after} KiB after");
    assert!(after < before + SLACK_KIB, "{before} KiB before, {after} KiB after");
}
