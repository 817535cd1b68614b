//! The `mcp_tool` step: one call of a tool, in the sandbox.

use crate::model::ask::Reply;
use crate::model::decide::Effect;
use crate::model::error::{AttemptFailure, FailureCode};
use crate::model::id::RunId;
use crate::model::plugin::ToolLock;
use crate::model::tool::ToolCall;
use crate::tools::{Caller, Tools};

/// Calls the tool of the plugin that `lock` pins for the step.
pub(super) async fn perform(
    tools: &Tools,
    run: RunId,
    effect: &Effect,
    call: &ToolCall,
    lock: &ToolLock,
) -> Result<Reply, AttemptFailure> {
    let step = effect.path.to_string();
    let Some(digest) = lock.get(&step) else {
        let message = "the revision does not say which plugin the step calls";
        return Err(AttemptFailure::permanent(FailureCode::PluginUnusable, message));
    };
    let by = Caller {
        run,
        step,
        attempt: effect.attempt,
        idempotency_key: effect.idempotency_key.clone(),
        resumed: effect.resumed.as_deref().cloned(),
        timeout: effect.timeout,
    };
    tools.call(*digest, call, by).await
}
