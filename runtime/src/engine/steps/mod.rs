//! Performs attempts of steps with outside effects, and says how they ended. Knows nothing of journals and claims.

mod http;
mod tool;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use weir_host::egress::Egress;

use crate::meter::meter;
use crate::model::ask::Reply;
use crate::model::decide::{Call, Effect};
use crate::model::error::AttemptFailure;
use crate::model::id::RunId;
use crate::model::plugin::ToolLock;
use crate::tools::Tools;

/// Performs attempts.
#[derive(Clone)]
pub struct Performer {
    egress: Egress,
    /// A place for each request at once.
    http_calls: Arc<Semaphore>,
    tools: Tools,
}

impl Performer {
    /// A performer that reaches the outside through `egress`, by up to `http_calls_max` requests at once, and the sandbox
    /// through `tools`.
    #[must_use]
    pub fn new(egress: Egress, http_calls_max: usize, tools: Tools) -> Self {
        Self { egress, http_calls: Arc::new(Semaphore::new(http_calls_max)), tools }
    }

    /// Waits for the turn of an attempt whose time begins then. A tool's time begins in the sandbox, which has places of
    /// its own.
    pub(super) async fn turn(&self, call: &Call) -> Option<OwnedSemaphorePermit> {
        match call {
            // The semaphore is never closed.
            Call::Http(_) => Arc::clone(&self.http_calls).acquire_owned().await.ok(),
            Call::Tool(_) => None,
        }
    }

    /// Performs one attempt of a step of `run`, whose revision pins its plugins in `lock`. Dropping the future gives
    /// the attempt up and closes its connection.
    ///
    /// # Errors
    /// How the attempt failed, and whether another one may help.
    pub async fn perform(&self, run: RunId, effect: &Effect, lock: &ToolLock) -> Result<Reply, AttemptFailure> {
        let began = Instant::now();
        let (kind, result) = match &effect.call {
            Call::Http(call) => {
                let output = http::perform(&self.egress, &self.tools.secrets, effect, call).await;
                ("http", output.map(Reply::Output))
            }
            Call::Tool(call) => ("mcp_tool", tool::perform(&self.tools, run, effect, call, lock).await),
        };
        let what = match &result {
            Ok(Reply::Output(_)) => "ok",
            Ok(Reply::Asked(_)) => "asked",
            Err(failed) => failed.failure.code.as_str(),
        };
        meter().attempted(kind, what, began.elapsed());
        result
    }
}
