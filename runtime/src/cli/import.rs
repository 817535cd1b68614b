//! `weir import`: workflows, webhook endpoints and the history of runs, from the original system. Says what it takes, and
//! what it does not take and why; never changes what is here already.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;

use super::{print, printable};
use crate::app;
use crate::config::Config;
use crate::model::definition::Definition;
use crate::model::id::{RunId, WorkflowId};
use crate::model::limits::Limits;
use crate::model::names::{endpoint_path_fault, secret_fault, workflow_name_fault};
use crate::model::original::{OriginalRun, history, translate};
use crate::model::plugin::ToolLock;
use crate::model::reader::{Fault, depth_fits};
use crate::model::step::StepKind;
use crate::store::{
    Brought, ImportedEndpoint, ImportedRun, ImportedWorkflow, Location, NewRevision, Original, OriginalEndpoint,
    OriginalWorkflow, Store,
};
use crate::tools::Tools;
use crate::vault::Vault;

/// Runs that are held and written at once.
const BATCH_RUNS: usize = 200;

/// How many records of one kind were taken, were here already, and were not taken.
#[derive(Default)]
struct Tally {
    taken: u64,
    known: u64,
    refused: u64,
}

/// What is peculiar about runs that were taken.
#[derive(Default)]
struct Peculiar {
    results_lost: u64,
    of_older_definitions: u64,
}

struct Import {
    store: Store,
    vault: Arc<Vault>,
    tools: Tools,
    limits: Limits,
    /// The workflows that are here, each with the definition that its imported runs executed.
    here: HashMap<WorkflowId, Definition>,
    workflows: Tally,
    endpoints: Tally,
    runs: Tally,
    peculiar: Peculiar,
}

pub(super) async fn run(from: &str, config: &Config) -> anyhow::Result<()> {
    let mut original = Original::open(from).await.context("--from")?;
    let location = config.location()?;
    let (store, _, _) = Box::pin(app::open(&location)).await?;
    let imported = Box::pin(import(&mut original, &store, &location, config)).await;
    original.close().await;
    store.close().await;
    imported.context("what was taken so far stays: import again for the rest")
}

async fn import(original: &mut Original, store: &Store, location: &Location, config: &Config) -> anyhow::Result<()> {
    let vault = Arc::new(app::vault(config, location, store).await?);
    let (_, host) = app::outside(config)?;
    let import = Import {
        tools: Tools::new(store.clone(), host, Arc::clone(&vault), config.plugin_trust()?),
        vault,
        store: store.clone(),
        limits: config.limits(),
        here: HashMap::new(),
        workflows: Tally::default(),
        endpoints: Tally::default(),
        runs: Tally::default(),
        peculiar: Peculiar::default(),
    };
    import.all(original).await
}

/// A line of the report.
fn say(text: &str) -> anyhow::Result<()> {
    print(&format!("{}\n", printable(text)))
}

fn lines(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.message)).collect()
}

impl Import {
    async fn all(mut self, original: &mut Original) -> anyhow::Result<()> {
        for workflow in original.workflows().await? {
            self.workflow(workflow).await?;
        }
        for endpoint in original.endpoints().await? {
            self.endpoint(endpoint).await?;
        }
        self.history(original).await?;
        self.report()
    }

    async fn workflow(&mut self, workflow: OriginalWorkflow) -> anyhow::Result<()> {
        let label = format!("workflow {} `{}`", workflow.id, workflow.name);
        let translated = serde_json::from_str(&workflow.definition).map(translate);
        if let Some(revision) = self.store.revision(workflow.id, 1).await? {
            self.workflows.known += 1;
            if translated.as_ref().ok().map(|(document, _)| document) != Some(&revision.definition) {
                say(&format!("left as it is: {label}: the original changed it after it was imported"))?;
            }
            if let Ok(definition) = Definition::parse(&revision.definition, &self.limits.for_accepted()) {
                self.here.insert(workflow.id, definition);
            }
            return Ok(());
        }
        let accepted = match translated {
            Ok((document, notes)) => self.accept(&workflow, document).await?.map(|accepted| (accepted, notes)),
            Err(error) => Err(vec![format!("its definition cannot be read: {error}")]),
        };
        match accepted {
            Ok(((definition, revision), notes)) => {
                let OriginalWorkflow { id, is_active, created_at, updated_at, .. } = workflow;
                let imported = ImportedWorkflow { id, is_active, revision, created_at, updated_at };
                match self.store.import_workflow(imported).await? {
                    Brought::New => self.workflows.taken += 1,
                    Brought::Known | Brought::PathTaken => self.workflows.known += 1,
                }
                self.here.insert(id, definition);
                let switched = if is_active { "" } else { ", switched off as it was" };
                say(&format!("taken: {label}{switched}"))?;
                notes.iter().try_for_each(|note| say(&format!("    note: {note}")))
            }
            Err(why) => {
                self.workflows.refused += 1;
                say(&format!("not taken: {label}"))?;
                why.iter().try_for_each(|why| say(&format!("    {why}")))
            }
        }
    }

    /// The workflow as it would be saved here, or all its faults.
    async fn accept(
        &self,
        workflow: &OriginalWorkflow,
        document: Value,
    ) -> anyhow::Result<Result<(Definition, NewRevision), Vec<String>>> {
        let mut faults: Vec<String> =
            workflow_name_fault(&workflow.name).map(|fault| format!("its name {fault}")).into_iter().collect();
        if !depth_fits(&document) {
            faults.push("its definition is nested too deep".to_owned());
        }
        let definition = match Definition::parse(&document, &self.limits) {
            Ok(definition) => definition,
            Err(found) => {
                faults.extend(lines(&found));
                return Ok(Err(faults));
            }
        };
        let calls_tools = definition.steps.iter().any(|step| matches!(step.kind, StepKind::McpTool(_)));
        let lock = if calls_tools { self.tools.lock(&definition).await? } else { Ok(ToolLock::new()) };
        Ok(match lock {
            Ok(tool_lock) if faults.is_empty() => {
                Ok((definition, NewRevision { name: workflow.name.clone(), definition: document, tool_lock }))
            }
            Ok(_) => Err(faults),
            Err(found) => {
                faults.extend(lines(&found));
                faults.push("upload the plugin that is missing, and import again".to_owned());
                Err(faults)
            }
        })
    }

    async fn endpoint(&mut self, endpoint: OriginalEndpoint) -> anyhow::Result<()> {
        let label = format!("webhook endpoint {} `{}`", endpoint.id, endpoint.path);
        let why = match endpoint.workflow_id.filter(|id| self.here.contains_key(id)) {
            None => Some("its workflow was not taken".to_owned()),
            Some(workflow_id) => {
                let path = endpoint_path_fault(&endpoint.path).map(|fault| format!("its path {fault}"));
                match path.or_else(|| secret_fault(&endpoint.secret).map(|fault| format!("its secret {fault}"))) {
                    Some(fault) => Some(fault),
                    None => self.take_endpoint(endpoint, workflow_id).await?,
                }
            }
        };
        let Some(why) = why else { return Ok(()) };
        self.endpoints.refused += 1;
        say(&format!("not taken: {label}: {why}"))
    }

    /// Why it could not be taken, if so.
    async fn take_endpoint(
        &mut self,
        endpoint: OriginalEndpoint,
        workflow_id: WorkflowId,
    ) -> anyhow::Result<Option<String>> {
        let OriginalEndpoint { id, path, is_active, secret, created_at, updated_at, .. } = endpoint;
        let secret = self.vault.seal(id.as_bytes(), &secret);
        let imported = ImportedEndpoint { id, workflow_id, path, is_active, secret, created_at, updated_at };
        match self.store.import_endpoint(imported).await? {
            Brought::New => self.endpoints.taken += 1,
            Brought::Known => self.endpoints.known += 1,
            Brought::PathTaken => return Ok(Some("another webhook endpoint has its path here".to_owned())),
        }
        Ok(None)
    }

    async fn history(&mut self, original: &mut Original) -> anyhow::Result<()> {
        let mut homeless: BTreeMap<String, u64> = BTreeMap::new();
        let mut runs = original.runs();
        loop {
            let batch = runs.next(BATCH_RUNS).await?;
            if batch.is_empty() {
                break;
            }
            let mut imported = Vec::with_capacity(batch.len());
            for run in batch {
                match run.workflow_id.and_then(|id| Some((id, self.here.get(&id)?))) {
                    Some((workflow, definition)) => match told(&run, workflow, definition) {
                        Ok(run) => imported.push(run),
                        Err(why) => {
                            self.runs.refused += 1;
                            say(&format!("not taken: run {} of workflow {workflow}: {why}", run.id))?;
                        }
                    },
                    None => {
                        self.runs.refused += 1;
                        let workflow = run.workflow_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
                        *homeless.entry(workflow).or_default() += 1;
                    }
                }
            }
            self.take_runs(&imported).await?;
        }
        homeless.iter().try_for_each(|(workflow, runs)| {
            say(&format!("not taken: the runs of workflow {workflow} ({runs}): the workflow was not taken"))
        })
    }

    async fn take_runs(&mut self, runs: &[ImportedRun]) -> anyhow::Result<()> {
        let new: HashSet<RunId> = self.store.import_runs(runs).await?.into_iter().collect();
        for run in runs {
            if !new.contains(&run.id) {
                self.runs.known += 1;
                continue;
            }
            self.runs.taken += 1;
            self.peculiar.results_lost += run.history.results_lost;
            self.peculiar.of_older_definitions += u64::from(run.history.is_of_older_definition);
        }
        Ok(())
    }

    fn report(&self) -> anyhow::Result<()> {
        let mut text = format!("\n{:<20} {:>12} {:>12} {:>12}\n", "", "taken", "here already", "not taken");
        for (kind, tally) in
            [("workflows", &self.workflows), ("webhook endpoints", &self.endpoints), ("runs", &self.runs)]
        {
            text += &format!("{kind:<20} {:>12} {:>12} {:>12}\n", tally.taken, tally.known, tally.refused);
        }
        let Peculiar { results_lost, of_older_definitions } = self.peculiar;
        if results_lost > 0 {
            text +=
                &format!("{results_lost} steps of these runs have the result null: the original did not keep it.\n");
        }
        if of_older_definitions > 0 {
            text += &format!(
                "{of_older_definitions} of these runs executed an older definition, which the original did not keep: they \
                 are shown with the steps of the one that it has.\n"
            );
        }
        if self.workflows.taken + self.endpoints.taken + self.runs.taken == 0 {
            text += "Nothing was new.\n";
        } else if self.workflows.known + self.endpoints.known + self.runs.known > 0 {
            text += "What was here already was not changed.\n";
        }
        print(&text)
    }
}

fn told(run: &OriginalRun, workflow_id: WorkflowId, definition: &Definition) -> Result<ImportedRun, String> {
    let history = history(run, definition)?;
    Ok(ImportedRun { id: run.id, workflow_id, created_at: run.created_at, history })
}
