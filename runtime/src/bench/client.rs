//! How the load generator talks to a server: the API and nothing else.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, Method};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use crate::client;

/// The secret of the endpoints that are made, and deleted afterwards.
const SECRET: &str = "bench";

/// Idle connections that are kept: as many as are ever used at once.
const CONNECTIONS_MAX: usize = 1024;

/// How often is asked whether all runs have ended. This is how exact the end of a workload is known.
const POLL: Duration = Duration::from_millis(20);

/// A server, and connections to it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(client::Client);

/// A workflow with a webhook of its own.
#[derive(Clone)]
pub(super) struct Hook {
    workflow: String,
    endpoint: String,
    url: Url,
}

impl Hook {
    /// A webhook of the bare handler, which starts nothing.
    pub(super) fn bare(handler: &Url) -> Self {
        let mut url = handler.clone();
        url.set_path("/webhooks/weir-bench-01a217dd-f8a1-7c21-9f3c-6c1d5f2f7b11");
        Self { workflow: String::new(), endpoint: String::new(), url }
    }
}

impl Client {
    pub(super) fn new(base: Url) -> anyhow::Result<Self> {
        Ok(Self(client::Client::new(base, &["127.0.0.0/8", "::1", "localhost"], None, CONNECTIONS_MAX)?))
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.0.get(self.0.at(path)?).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(self.0.json(Method::POST, self.0.at(path)?, body).await?.1)
    }

    pub(super) async fn upload(&self, plugin: Vec<u8>) -> anyhow::Result<()> {
        self.0.upload(self.0.at("/plugins")?, plugin, None).await.map(|_| ())
    }

    /// Makes a workflow and a webhook for it.
    pub(super) async fn hook(&self, name: &str, steps: &Value) -> anyhow::Result<Hook> {
        let definition = json!({"version": "1.0", "steps": steps});
        let body = json!({"name": format!("weir bench: {name}"), "definition": definition});
        let workflow = id(&self.post("/workflows", &body).await?, "id")?;
        let path = format!("weir-bench-{}", crate::clock::new_id());
        let endpoint = json!({"path": path, "secret": SECRET});
        let endpoint = self.post(&format!("/workflows/{workflow}/webhook-endpoints"), &endpoint).await?;
        let url = self.0.at(&format!("/webhooks/{path}"))?;
        Ok(Hook { workflow, endpoint: id(&endpoint, "id")?, url })
    }

    /// Switches off what was made. Its runs stay, as all runs do.
    pub(super) async fn retire(&self, hook: &Hook) -> anyhow::Result<()> {
        let endpoint = self.0.at(&format!("/webhook-endpoints/{}", hook.endpoint))?;
        self.0.delete(endpoint).await?;
        self.post(&format!("/workflows/{}/deactivate", hook.workflow), &Value::Null).await.map(|_| ())
    }

    /// Triggers a run, and answers its id when it is acknowledged.
    pub(super) async fn trigger(&self, hook: &Hook) -> anyhow::Result<String> {
        let secret = (HeaderName::from_static("x-webhook-secret"), HeaderValue::from_static(SECRET));
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Bytes::from_static(br#"{"event":"order.created","order":17,"customer":"Ada","total":99.5}"#);
        let headers = HeaderMap::from_iter([secret, kind]);
        let (_, answered) = self.0.send(Method::POST, hook.url.clone(), headers, body).await?;
        id(&answered, "run_id")
    }

    /// Triggers a run and waits for its end, which must be a good one.
    pub(super) async fn complete(&self, hook: &Hook) -> anyhow::Result<()> {
        let run = self.trigger(hook).await?;
        loop {
            let answered = self.get(&format!("/runs/{run}?wait=30s")).await?;
            match answered["status"].as_str() {
                Some("SUCCEEDED") => return Ok(()),
                Some("FAILED" | "CANCELED") => bail!("run {run}: {}", answered["error_message"]),
                _ => {}
            }
        }
    }

    /// Waits until no run of the workflow is under way any more; all must have had a good end.
    pub(super) async fn all_complete(&self, hook: &Hook, within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        // In the order in which a run goes through them: none can slip by.
        while self.any(hook, "QUEUED").await? || self.any(hook, "WAITING").await? || self.any(hook, "RUNNING").await? {
            if began.elapsed() > within {
                bail!("runs are still under way after {within:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        if self.any(hook, "FAILED").await? {
            bail!("runs of workflow {} failed", hook.workflow);
        }
        Ok(())
    }

    /// Whether a run of the workflow has this status.
    async fn any(&self, hook: &Hook, status: &str) -> anyhow::Result<bool> {
        let runs = self.get(&format!("/runs?workflow_id={}&status={status}&limit=1", hook.workflow)).await?;
        Ok(runs["items"].as_array().is_some_and(|runs| !runs.is_empty()))
    }

    pub(super) async fn cancel(&self, run: &str) -> anyhow::Result<()> {
        self.post(&format!("/runs/{run}/cancel"), &Value::Null).await.map(|_| ())
    }
}

fn id(body: &Value, member: &str) -> anyhow::Result<String> {
    Ok(body[member].as_str().with_context(|| format!("no `{member}` in {body}"))?.to_owned())
}
