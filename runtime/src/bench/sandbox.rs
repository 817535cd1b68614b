//! What the sandbox costs: the bare minimum that a call of a component takes, and what a step does around it.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use weir_host::plugin::Call;

use crate::app::outside;
use crate::clock::new_id;
use crate::config::Config;
use crate::model::id::RunId;
use crate::model::tool::{OnToolError, ToolCall};
use crate::tools::{Caller, Examined, examine};

/// Calls of one measurement.
const CALLS: u32 = 20_000;

/// Processor time of one call.
pub(super) struct Cost {
    /// A fresh store, instantiate, call, drop: nothing that a host must do beside.
    pub(super) bare: Duration,
    /// What an `mcp_tool` step does: arguments held against the schema, limits, deadline, the answer mapped and measured.
    pub(super) step: Duration,
}

/// A sandbox in this process, with the plugin in it.
pub(super) struct Sandbox {
    plugin: Examined,
}

impl Sandbox {
    pub(super) async fn new(config: &Config, plugin: &[u8]) -> anyhow::Result<Self> {
        let (_, host) = outside(config)?;
        Ok(Self { plugin: examine(&host, plugin.to_vec()).await? })
    }

    /// Measures both, in turns.
    pub(super) async fn cost(&self, rounds: u32) -> anyhow::Result<Cost> {
        // Once for nothing: pages and caches are warm then.
        self.step(CALLS / 10).await?;
        self.bare(CALLS / 10).await?;
        let (mut bare, mut step) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            bare += self.bare(CALLS).await?;
            step += self.step(CALLS).await?;
        }
        let calls = CALLS * rounds;
        Ok(Cost { bare: bare / calls, step: step / calls })
    }

    async fn bare(&self, calls: u32) -> anyhow::Result<Duration> {
        let began = processor_time();
        for _ in 0..calls {
            self.plugin.loaded.bare(call()).await?;
        }
        Ok(processor_time().saturating_sub(began))
    }

    async fn step(&self, calls: u32) -> anyhow::Result<Duration> {
        let (run, began) = (RunId(new_id()), processor_time());
        for _ in 0..calls {
            let call =
                ToolCall { tool: "echo".to_owned(), arguments: arguments(), on_tool_error: OnToolError::Continue };
            let by = Caller {
                run,
                step: "call".to_owned(),
                attempt: 1,
                idempotency_key: "call".to_owned(),
                resumed: None,
                timeout: Duration::from_secs(30),
            };
            let (called, _) = self.plugin.loaded.call(&call, by, Arc::default(), None).await;
            called.map_err(|failed| anyhow::anyhow!("{}", failed.failure.message))?;
        }
        Ok(processor_time().saturating_sub(began))
    }
}

/// Some 200 bytes, as the arguments of real tools have.
pub(super) fn arguments() -> serde_json::Value {
    json!({"order": 17, "customer": {"name": "Ada Lovelace", "city": "London"}, "lines": [
        {"sku": "A-1", "quantity": 2, "price": 12.5}, {"sku": "B-7", "quantity": 1, "price": 74.5}], "currency": "GBP"})
}

fn call() -> Call {
    Call {
        tool: "echo".to_owned(),
        arguments: arguments().to_string(),
        run_id: String::new(),
        step: "call".to_owned(),
        attempt: 1,
        idempotency_key: "call".to_owned(),
        resumed: None,
        timeout: Duration::from_secs(30),
        reach: Arc::default(),
        tape: None,
    }
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
