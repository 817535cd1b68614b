//! What the tools of a definition are when it is saved: the digests that its revision pins.

use std::time::Duration;

use serde_json::Value;

use super::Tools;
use super::schema::Schema;
use crate::model::definition::Definition;
use crate::model::plugin::{PluginDigest, PluginRef, ToolLock};
use crate::model::reader::{Fault, join};
use crate::model::step::StepKind;
use crate::model::tool::ToolStep;
use crate::store::{PluginVersion, StoreError, VersionStatus};

/// How long the arguments of one step are held against a schema while a definition is saved.
const ARGUMENTS_TIMEOUT: Duration = Duration::from_secs(5);

impl Tools {
    /// Finds the plugin of every tool that `definition` calls.
    ///
    /// Arguments without expressions are held against the tool's schema here already: what is wrong with them would be
    /// wrong in every run.
    ///
    /// # Errors
    /// All steps whose tool cannot be found or whose arguments do not fit, with pointers into the definition.
    pub async fn lock(&self, definition: &Definition) -> Result<Result<ToolLock, Vec<Fault>>, StoreError> {
        let (mut lock, mut faults) = (ToolLock::new(), Vec::new());
        for (index, step) in definition.steps.iter().enumerate() {
            let StepKind::McpTool(tool) = &step.kind else { continue };
            match self.pin(index, tool).await? {
                Ok(digest) => drop(lock.insert(step.name.clone(), digest)),
                Err(found) => faults.extend(found),
            }
        }
        Ok(if faults.is_empty() { Ok(lock) } else { Err(faults) })
    }

    /// The digest that the step at `index` pins, or what is wrong with the step.
    pub(super) async fn pin(
        &self,
        index: usize,
        tool: &ToolStep,
    ) -> Result<Result<PluginDigest, Vec<Fault>>, StoreError> {
        let pointer = join("/steps", &index.to_string());
        let (digest, input_schema) = match self.find(tool).await? {
            Ok(found) => found,
            Err((member, message)) => return Ok(Err(vec![Fault { pointer: join(&pointer, member), message }])),
        };
        if let Err(refused) = self.accepted(digest).await? {
            let member = if tool.plugin.is_some() { "plugin" } else { "tool_name" };
            let message = format!("the plugin of the tool `{}` may not be used: {refused}", tool.tool);
            return Ok(Err(vec![Fault { pointer: join(&pointer, member), message }]));
        }
        let faults = self.argument_faults(tool, input_schema, join(&pointer, "input")).await;
        Ok(if faults.is_empty() { Ok(digest) } else { Err(faults) })
    }

    /// The plugin of a step, and its tool's input schema; or the member of the step that leads nowhere.
    async fn find(&self, step: &ToolStep) -> Result<Result<(PluginDigest, Value), (&'static str, String)>, StoreError> {
        let name = &step.tool;
        let digest = match &step.plugin {
            Some(plugin) => match self.store.plugin(plugin).await? {
                Some(found) => match usable(plugin, &found) {
                    Ok(()) => found.digest,
                    Err(message) => return Ok(Err(("plugin", message))),
                },
                None => return Ok(Err(("plugin", format!("no plugin of this server is `{plugin}`")))),
            },
            None => match self.store.plugins_with_tool(name).await?.as_slice() {
                [] => return Ok(Err(("tool_name", format!("no plugin of this server offers a tool named `{name}`")))),
                [(_, digest)] => *digest,
                several => {
                    let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                    let message = format!("several plugins offer a tool named `{name}`: {}", names.join(", "));
                    return Ok(Err(("tool_name", format!("{message}; say which in `plugin`"))));
                }
            },
        };
        let tools = self.store.plugin_tools(digest).await?;
        let found = tools.iter().find(|tool| tool["name"] == name.as_str());
        Ok(found.map(|tool| (digest, tool["inputSchema"].clone())).ok_or_else(|| {
            let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
            let plugin = step.plugin.as_ref().map(PluginRef::to_string).unwrap_or_default();
            ("tool_name", format!("the plugin `{plugin}` has no tool named `{name}`; it has {}", names.join(", ")))
        }))
    }

    /// What is wrong with arguments that have no expression in them.
    async fn argument_faults(&self, tool: &ToolStep, input_schema: Value, pointer: String) -> Vec<Fault> {
        let Some(input) = tool.literal_input().cloned() else { return Vec::new() };
        // A stored schema was compiled before; should this version not take it, or take too long, the call will say so.
        let hold = move || Schema::compile(&input_schema).map(|schema| schema.faults(&input, &pointer));
        let held = tokio::time::timeout(ARGUMENTS_TIMEOUT, self.host.in_background(hold)).await;
        held.ok().and_then(Result::ok).and_then(Result::ok).unwrap_or_default()
    }
}

/// Whether a definition may name a version of a plugin in this way.
fn usable(named: &PluginRef, found: &PluginVersion) -> Result<(), String> {
    let (name, version) = (&found.name, &found.version);
    match (named, found.status) {
        (_, VersionStatus::Retired) => Err(format!("`{name}@{version}` is retired")),
        (PluginRef::Name(_), VersionStatus::Waiting) => Err(format!(
            "no version of `{name}` is active: `{name}@{version}` wants more than it is granted, and waits for a grant"
        )),
        (PluginRef::Name(_), VersionStatus::Inactive) => {
            Err(format!("no version of `{name}` is active: activate one, or name it as `{name}@{version}`"))
        }
        _ => Ok(()),
    }
}
