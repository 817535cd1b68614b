//! The plugins that are there to be used and copied, each uploaded and called by a workflow.

use serde_json::{Value, json};
use weir_tests::process::Weir;

/// The results of a workflow of these calls: a plugin, its tool, and the arguments.
async fn results(calls: &[(&str, &str, Value)], trigger: &Value) -> Vec<Value> {
    let weir = Weir::start(&[]).await;
    let mut steps = Vec::new();
    for (plugin, tool, input) in calls {
        weir.example(&plugin.replace('-', "_")).await;
        steps.push(json!({"type": "mcp_tool", "name": tool, "plugin": plugin, "tool_name": tool, "input": input}));
    }
    let workflow = weir.workflow(&json!(steps)).await;
    let run = weir.run(&workflow, trigger).await;
    let ended = weir.finished(&run).await;
    let steps = weir.steps(&run).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{steps:?}");
    steps.into_iter().map(|step| step["result"].clone()).collect()
}

#[tokio::test]
async fn a_workflow_reads_checks_and_tells() {
    let calls = [
        ("csv-json", "csv_to_json", json!({"text": "{{ trigger.table }}", "delimiter": ";"})),
        ("schema", "check", json!({"schema": "{{ trigger.schema }}", "value": "{{ steps.csv_to_json.result.rows }}"})),
        ("html-text", "html_to_text", json!({"html": "{{ trigger.page }}"})),
        (
            "template",
            "render",
            json!({
                "template": "{{ trigger.template }}",
                "values": {"head": "{{ steps.html_to_text.result }}", "faults": "{{ steps.check.result.faults }}"},
            }),
        ),
    ];
    let trigger = json!({
        "table": "id;who\n7;Ada\n8;\n",
        "schema": {"items": {"properties": {"who": {"minLength": 1, "pattern": "^[A-Z]"}}}},
        "page": "<h1>Orders</h1><p>of <b>today</b></p>",
        "template": "{{ head }}{% for fault in faults %}\n{{ fault.pointer }}{% endfor %}",
    });
    let got = results(&calls, &trigger).await;
    assert_eq!(got[0]["rows"], json!([{"id": "7", "who": "Ada"}, {"id": "8", "who": ""}]));
    assert_eq!(got[1]["valid"], false);
    assert_eq!(got[2], "Orders\n\nof today");
    assert_eq!(got[3], "Orders\n\nof today\n/1/who\n/1/who");
}
