//! What the sandbox costs: the bare minimum that a call of a component takes, and what a step does around it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::task::JoinSet;
use weir_host::plugin::{Call, Grant, PluginHost, Trust};

use super::guest;
use crate::app::outside;
use crate::clock::{SystemClock, new_id};
use crate::config::Config;
use crate::model::ask::Reply;
use crate::model::id::RunId;
use crate::model::journal::Output;
use crate::model::plugin::PluginDigest;
use crate::model::tool::{OnToolError, ToolCall};
use crate::store::{Location, Store};
use crate::tools::{Caller, Examined, Origin, Tools, Upload, answer, examine};
use crate::vault::Vault;

/// Calls of one measurement.
const CALLS: u32 = 20_000;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls of each plugin that are kept.
const CALLS_KEPT: u32 = 20;

/// Processor time of one call.
pub(super) struct Cost {
    /// A fresh store, instantiate, call, drop: nothing that a host must do beside.
    pub(super) bare: Duration,
    /// What an `mcp_tool` step does: arguments held against the schema, limits, deadline, the answer mapped and measured.
    pub(super) step: Duration,
}

/// What calls cost.
pub(super) struct Costs {
    /// Of a plugin that asks for nothing.
    pub(super) plain: Cost,
    /// Of a plugin that uses a setting and a secret, which are granted, while what it does is written down.
    pub(super) rights: Cost,
}

/// A sandbox in this process, with both plugins in it. Its database is its own.
pub(super) struct Sandbox {
    plain: Plugin,
    rights: Plugin,
    tools: Tools,
    store: Store,
}

/// A plugin that is measured with: for bare calls, and as steps know it.
struct Plugin {
    tool: &'static str,
    bare: Examined,
    digest: PluginDigest,
}

impl Sandbox {
    /// With a database in `dir`.
    pub(super) async fn new(config: &Config, dir: &Path) -> anyhow::Result<Self> {
        let (_, host) = outside(config)?;
        let dir = dir.join("sandbox");
        std::fs::create_dir_all(&dir)?;
        let location = Location::Embedded { path: dir.join("weir.db") };
        let store = Store::open(&location, Arc::new(SystemClock)).await?;
        let vault = Arc::new(Vault::open(&dir.join("weir.key"), true)?);
        let tools = Tools::new(store.clone(), host.clone(), vault, Trust::default()).keeping(CALLS_KEPT);
        let plain = Plugin::put("echo", &tools, &host, guest::module()?).await?;
        let rights = Plugin::put("use", &tools, &host, guest::with_rights()?).await?;
        let asked = rights.bare.artifact.request.clone().context("a request")?;
        let mut grant = Grant::all_of(&asked);
        grant.settings.insert("colour".to_owned(), "red".to_owned());
        store.set_plugin_grant(rights.digest, &serde_json::to_value(&grant)?, true).await?;
        let origin = Origin::parse("api.example.com").map_err(anyhow::Error::msg)?;
        tools.secrets.put("token", "a secret of the operator", &[origin]).await?;
        tools.changed();
        let sandbox = Self { plain, rights, tools, store };
        let output = sandbox.call(&sandbox.rights, RunId(new_id())).await?;
        let shown = answer(&output)["content"][0]["text"].to_string();
        ensure!(shown.contains("weir-secret-"), "the tool did not get its secret: {shown}");
        Ok(sandbox)
    }

    /// Measures both plugins, each bare and as a step, in turns.
    pub(super) async fn costs(&self, rounds: u32) -> anyhow::Result<Costs> {
        let mut keeping = JoinSet::new();
        let tools = self.tools.clone();
        keeping.spawn(async move { tools.keep_book().await });
        let costs =
            Costs { plain: self.cost(&self.plain, rounds).await?, rights: self.cost(&self.rights, rounds).await? };
        keeping.shutdown().await;
        self.tools.write_book().await;
        // What was promised to be on, was.
        let (uses, calls) =
            (self.store.plugin_uses(self.rights.digest).await?, self.store.plugin_calls(self.rights.digest).await?);
        let counted: u64 = uses.iter().filter(|used| used.what == "setting colour").map(|used| used.count).sum();
        ensure!(counted >= u64::from(CALLS * rounds) && !calls.is_empty(), "what the tool did was not written down");
        Ok(costs)
    }

    async fn cost(&self, plugin: &Plugin, rounds: u32) -> anyhow::Result<Cost> {
        // Once for nothing: pages and caches are warm then.
        self.steps(plugin, CALLS / 10).await?;
        plugin.bare(CALLS / 10).await?;
        let (mut bare, mut step) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            bare += plugin.bare(CALLS).await?;
            step += self.steps(plugin, CALLS).await?;
        }
        let calls = CALLS * rounds;
        Ok(Cost { bare: bare / calls, step: step / calls })
    }

    async fn steps(&self, plugin: &Plugin, calls: u32) -> anyhow::Result<Duration> {
        let (run, began) = (RunId(new_id()), processor_time());
        for _ in 0..calls {
            self.call(plugin, run).await?;
        }
        Ok(processor_time().saturating_sub(began))
    }

    /// What a step does.
    async fn call(&self, plugin: &Plugin, run: RunId) -> anyhow::Result<Output> {
        let call =
            ToolCall { tool: plugin.tool.to_owned(), arguments: arguments(), on_tool_error: OnToolError::Continue };
        let (step, idempotency_key) = ("call".to_owned(), "call".to_owned());
        let by = Caller { run, step, attempt: 1, idempotency_key, resumed: None, timeout: TIMEOUT };
        match self.tools.call(plugin.digest, &call, by).await {
            Ok(Reply::Output(output)) => Ok(output),
            Ok(Reply::Asked(_)) => bail!("the tool asks a question"),
            Err(failed) => bail!("{}", failed.failure.message),
        }
    }
}

impl Plugin {
    async fn put(tool: &'static str, tools: &Tools, host: &PluginHost, bytes: Vec<u8>) -> anyhow::Result<Self> {
        let upload = Upload { bytes: bytes.clone(), name: None, version: None, activate: true, signature: None };
        let uploaded = tools.upload(upload).await.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        Ok(Self { tool, bare: examine(host, bytes).await?, digest: uploaded.plugin.digest })
    }

    async fn bare(&self, calls: u32) -> anyhow::Result<Duration> {
        let began = processor_time();
        for _ in 0..calls {
            self.bare.loaded.bare(call(self.tool)).await?;
        }
        Ok(processor_time().saturating_sub(began))
    }
}

/// Some 200 bytes, as the arguments of real tools have.
pub(super) fn arguments() -> serde_json::Value {
    json!({"order": 17, "customer": {"name": "Ada Lovelace", "city": "London"}, "lines": [
        {"sku": "A-1", "quantity": 2, "price": 12.5}, {"sku": "B-7", "quantity": 1, "price": 74.5}], "currency": "GBP"})
}

fn call(tool: &str) -> Call {
    Call {
        tool: tool.to_owned(),
        arguments: arguments().to_string(),
        run_id: String::new(),
        step: "call".to_owned(),
        attempt: 1,
        idempotency_key: "call".to_owned(),
        resumed: None,
        timeout: TIMEOUT,
        reach: Arc::default(),
        tape: None,
    }
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
