//! Adopting: workflows that name a plugin without a version take the version that is active now, by a new revision.

use super::Tools;
use crate::model::definition::Definition;
use crate::model::id::WorkflowId;
use crate::model::limits::Limits;
use crate::model::plugin::{PluginRef, ToolLock};
use crate::model::reader::Fault;
use crate::model::step::StepKind;
use crate::store::{PageRequest, Saved, StoreError, Workflow, WorkflowChange};

/// What became of a workflow that names the plugin.
#[derive(Debug)]
pub struct Adopted {
    /// The workflow.
    pub workflow: WorkflowId,
    /// Its name.
    pub name: String,
    /// Its new revision; or what in its definition does not fit the new version, in which case it stays as it is.
    pub revision: Result<u32, Vec<Fault>>,
}

impl Tools {
    /// Makes a new revision of every workflow that names the plugin without a version and pins another one than the
    /// active version. Other plugins stay pinned as they are.
    ///
    /// # Errors
    /// When the database does not answer; workflows that were told of before have their new revision.
    pub async fn adopt(&self, plugin: &str, limits: &Limits) -> Result<Vec<Adopted>, StoreError> {
        let (mut adopted, mut request) = (Vec::new(), PageRequest { limit: 100, after: None });
        loop {
            let page = self.store.workflows(request).await?;
            for workflow in page.items {
                adopted.extend(self.adopt_one(workflow, plugin, limits).await?);
            }
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(adopted),
            }
        }
    }

    async fn adopt_one(
        &self,
        mut workflow: Workflow,
        plugin: &str,
        limits: &Limits,
    ) -> Result<Option<Adopted>, StoreError> {
        loop {
            let (id, current) = (workflow.id, workflow.revision.clone());
            // A definition that this version does not read any more is nothing to adopt in.
            let Ok(definition) = Definition::parse(&current.definition, limits) else { return Ok(None) };
            let adopted = |revision| Ok(Some(Adopted { workflow: id, name: current.name.clone(), revision }));
            let lock = match self.relock(&definition, &current.tool_lock, plugin).await? {
                Ok(lock) if lock == current.tool_lock => return Ok(None),
                Ok(lock) => lock,
                Err(faults) => return adopted(Err(faults)),
            };
            let change = WorkflowChange::Relock { revision: current.number, tool_lock: lock };
            match self.store.change_workflow(id, change).await? {
                Saved::Done(changed) if changed.revision.number == current.number + 1 => {
                    return adopted(Ok(changed.revision.number));
                }
                // Somebody else was quicker: what is there now is looked at again.
                Saved::Done(changed) => workflow = *changed,
                Saved::PluginGone => {}
                Saved::Missing => return Ok(None),
            }
        }
    }

    /// A lock in which the steps that name the plugin without a version have what it is now.
    async fn relock(
        &self,
        definition: &Definition,
        current: &ToolLock,
        plugin: &str,
    ) -> Result<Result<ToolLock, Vec<Fault>>, StoreError> {
        let (mut lock, mut faults) = (current.clone(), Vec::new());
        for (index, step) in definition.steps.iter().enumerate() {
            let StepKind::McpTool(tool) = &step.kind else { continue };
            let named = match &tool.plugin {
                Some(PluginRef::Name(name)) => name == plugin,
                Some(_) => false,
                None => match current.get(&step.name) {
                    Some(digest) => self.is_version_of(*digest, plugin).await?,
                    None => false,
                },
            };
            if named {
                match self.pin(index, tool).await? {
                    Ok(digest) => drop(lock.insert(step.name.clone(), digest)),
                    Err(found) => faults.extend(found),
                }
            }
        }
        Ok(if faults.is_empty() { Ok(lock) } else { Err(faults) })
    }

    async fn is_version_of(
        &self,
        digest: crate::model::plugin::PluginDigest,
        plugin: &str,
    ) -> Result<bool, StoreError> {
        let found = self.store.plugin(&PluginRef::Digest(digest)).await?;
        Ok(found.is_some_and(|found| found.name == plugin))
    }
}
