//! Performs attempts of steps with outside effects, and says how they ended. Knows nothing of journals and claims.

mod http;
mod tool;

use weir_host::egress::Egress;

use crate::model::decide::{Call, Effect};
use crate::model::error::AttemptFailure;
use crate::model::id::RunId;
use crate::model::journal::Output;
use crate::model::plugin::ToolLock;
use crate::tools::Tools;

/// Performs attempts.
#[derive(Clone)]
pub struct Performer {
    egress: Egress,
    tools: Tools,
}

impl Performer {
    /// A performer that reaches the outside through `egress`, and the sandbox through `tools`.
    #[must_use]
    pub fn new(egress: Egress, tools: Tools) -> Self {
        Self { egress, tools }
    }

    /// Performs one attempt of a step of `run`, whose revision pins its plugins in `lock`. Dropping the future gives
    /// the attempt up and closes its connection.
    ///
    /// # Errors
    /// How the attempt failed, and whether another one may help.
    pub async fn perform(&self, run: RunId, effect: &Effect, lock: &ToolLock) -> Result<Output, AttemptFailure> {
        match &effect.call {
            Call::Http(call) => http::perform(&self.egress, effect, call).await,
            Call::Tool(call) => tool::perform(&self.tools, run, effect, call, lock).await,
        }
    }
}
