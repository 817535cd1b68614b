//! The workflows that are triggered.

use serde_json::{Value, json};
use url::Url;

use super::client::{Client, Hook};
use super::{LONG_RUN, guest, sandbox};

pub(super) struct Hooks {
    pub(super) nothing: Hook,
    pub(super) http: Hook,
    pub(super) tool: Hook,
    pub(super) long: Hook,
    pub(super) misbehaving: Vec<Hook>,
    pub(super) bare: Hook,
}

impl Hooks {
    pub(super) async fn make(client: &Client, target: &Url) -> anyhow::Result<Self> {
        let tool = |tool: &str, input: Value| json!({"type": "mcp_tool", "plugin": guest::NAME, "tool_name": tool, "input": input});
        let mut misbehaving = Vec::new();
        for name in guest::MISBEHAVING {
            let mut step = tool(name, json!({}));
            step["timeout_seconds"] = json!(600);
            step["retry"] = json!({"max_attempts": 1});
            misbehaving.push(client.hook(name, &json!([step])).await?);
        }
        let (http, echo) = (http(target), tool("echo", sandbox::arguments()));
        Ok(Self {
            nothing: client.hook("triggers", &json!([snapshot()])).await?,
            http: client.hook("http + snapshot", &json!([http, snapshot()])).await?,
            tool: client.hook("tool + snapshot", &json!([echo, snapshot()])).await?,
            long: client.hook("snapshots", &Value::Array(vec![snapshot(); LONG_RUN])).await?,
            misbehaving,
            bare: Hook::bare(target),
        })
    }

    /// What was made on the server.
    pub(super) fn all(&self) -> impl Iterator<Item = &Hook> {
        [&self.nothing, &self.http, &self.tool, &self.long].into_iter().chain(&self.misbehaving)
    }
}

/// A step that calls the bare handler.
pub(super) fn http(target: &Url) -> Value {
    json!({"type": "http", "url": target.as_str()})
}

pub(super) fn snapshot() -> Value {
    json!({"type": "persist_snapshot"})
}
