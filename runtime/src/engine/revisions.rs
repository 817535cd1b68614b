//! Parsed definitions, shared by all runs of a revision. A revision never changes, so nothing here goes stale.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::definition::Definition;
use crate::model::error::{Failure, FailureCode};
use crate::model::id::WorkflowId;
use crate::model::limits::Limits;
use crate::model::plugin::ToolLock;
use crate::store::{Store, StoreError};

/// Most revisions that are kept parsed.
const KEPT_MAX: usize = 1024;

/// A revision, ready to execute.
pub(super) struct Parsed {
    pub(super) name: String,
    pub(super) definition: Definition,
    /// The plugins that its steps call.
    pub(super) tool_lock: ToolLock,
}

#[derive(Default)]
pub(super) struct Revisions {
    kept: Mutex<HashMap<(WorkflowId, u32), Arc<Parsed>>>,
}

impl Revisions {
    /// The revision `number` of `workflow`; a failure where it is gone or cannot be read by this version.
    pub(super) async fn get(
        &self,
        store: &Store,
        limits: &Limits,
        workflow: WorkflowId,
        number: u32,
    ) -> Result<Result<Arc<Parsed>, Failure>, StoreError> {
        let key = (workflow, number);
        if let Some(parsed) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Ok(Arc::clone(parsed)));
        }
        let unreadable = |message: String| Ok(Err(Failure::new(FailureCode::Unreadable, message)));
        let Some(revision) = store.revision(workflow, number).await? else {
            return unreadable(format!("revision {number} of the workflow is gone"));
        };
        let definition = match Definition::parse(&revision.definition, &limits.for_accepted()) {
            Ok(definition) => definition,
            Err(faults) => {
                let first = faults.first().map(|fault| format!("{}: {}", fault.pointer, fault.message));
                let first = first.unwrap_or_default();
                return unreadable(format!("revision {number} is not valid for this version of Weir: {first}"));
            }
        };
        let parsed = Arc::new(Parsed { name: revision.name, definition, tool_lock: revision.tool_lock });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&parsed));
        Ok(Ok(parsed))
    }
}
