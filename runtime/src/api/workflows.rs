//! Workflows and their revisions.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::definition::DefinitionSchema;
use super::extract::{Id, JsonBody, Query, read_members, read_text};
use super::openapi::{CommandProblems, CreateProblems, ListProblems, ReadProblems, WriteProblems};
use super::page::{List, ListParams, NumberedParams, number_request, page_request};
use super::problem::{Problem, ProblemCode};
use super::runs::CHANGES_MAX;
use crate::clock::new_id;
use crate::model::definition::Definition;
use crate::model::id::WorkflowId;
use crate::model::limits::Limits;
use crate::model::names::workflow_name_fault;
use crate::model::plugin::ToolLock;
use crate::model::reader::{Fault, Faults, Members};
use crate::model::time::Timestamp;
use crate::store::{NewRevision, Revision, Saved, Workflow, WorkflowChange};

// The macro that makes the document takes an alias for the type that it is.
type WorkflowList = List<WorkflowView>;
type RevisionList = List<RevisionView>;

/// A workflow to create.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: `create` reads the body")]
pub(super) struct CreateWorkflow {
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(value_type = DefinitionSchema)]
    definition: Value,
}

/// A new revision. What is left out stays as it is.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: `update` reads the body")]
pub(super) struct UpdateWorkflow {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(value_type = Option<DefinitionSchema>)]
    definition: Option<Value>,
}

/// A workflow with its current revision.
#[derive(Serialize, ToSchema)]
#[schema(as = Workflow)]
pub(super) struct WorkflowView {
    id: Uuid,
    name: String,
    /// Whether it may be triggered.
    is_active: bool,
    /// Number of the current revision.
    revision: u32,
    /// The definition, as it was sent.
    #[schema(value_type = Object)]
    definition: Value,
    /// The plugins that the definition calls: step names, and the digests that are pinned for them.
    #[schema(value_type = HashMap<String, String>)]
    tool_lock: ToolLock,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// One version of a workflow. Never changes.
#[derive(Serialize, ToSchema)]
#[schema(as = Revision)]
pub(super) struct RevisionView {
    number: u32,
    /// The workflow's name as of this revision.
    name: String,
    #[schema(value_type = Object)]
    definition: Value,
    /// The plugins that the definition calls: step names, and the digests that are pinned for them.
    #[schema(value_type = HashMap<String, String>)]
    tool_lock: ToolLock,
    created_at: Timestamp,
}

impl From<Workflow> for WorkflowView {
    fn from(workflow: Workflow) -> Self {
        Self {
            id: workflow.id.0,
            name: workflow.revision.name,
            is_active: workflow.is_active,
            revision: workflow.revision.number,
            definition: workflow.revision.definition,
            tool_lock: workflow.revision.tool_lock,
            created_at: workflow.created_at,
            updated_at: workflow.updated_at,
        }
    }
}

impl From<Revision> for RevisionView {
    fn from(revision: Revision) -> Self {
        let Revision { number, name, definition, tool_lock, created_at } = revision;
        Self { number, name, definition, tool_lock, created_at }
    }
}

fn read_name(members: &Members<'_>, value: &Value) -> Option<String> {
    read_text(members, "name", value, workflow_name_fault)
}

fn read_definition(value: &Value, limits: &Limits, faults: &Faults) -> Option<NewDefinition> {
    match Definition::parse(value, limits) {
        Ok(parsed) => Some(NewDefinition { document: value.clone(), parsed }),
        Err(found) => {
            found.into_iter().map(in_body).for_each(|fault| faults.add(&fault.pointer, fault.message));
            None
        }
    }
}

/// A fault of a definition, as a fault of the body that holds it.
fn in_body(fault: Fault) -> Fault {
    Fault { pointer: format!("/definition{}", fault.pointer), ..fault }
}

/// A definition that is sound in itself. Whether its tools exist, the database knows.
struct NewDefinition {
    document: Value,
    parsed: Definition,
}

impl NewDefinition {
    /// The document, with the plugins that it calls.
    async fn locked(&self, api: &Api) -> Result<(Value, ToolLock), Problem> {
        let lock = api.tools.lock(&self.parsed).await?;
        let refused = |faults: Vec<Fault>| {
            Problem::faulty(ProblemCode::InvalidDefinition, faults.into_iter().map(in_body).collect())
        };
        Ok((self.document.clone(), lock.map_err(refused)?))
    }
}

pub(super) async fn find(api: &Api, id: WorkflowId) -> Result<Workflow, Problem> {
    api.store.workflow(id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: WorkflowId) -> Problem {
    Problem::new(ProblemCode::WorkflowNotFound, format!("no workflow has the id {id}"))
}

/// Create a workflow
///
/// All faults of the definition are reported at once, each with its JSON pointer.
#[utoipa::path(post, operation_id = "create_workflow", path = "/workflows", tag = "workflows", request_body = CreateWorkflow,
    responses((status = 200, body = WorkflowView), CreateProblems))]
pub(super) async fn create(State(api): State<Api>, body: JsonBody) -> Result<Json<WorkflowView>, Problem> {
    let new = read_members(&body, |members, faults| {
        let name = members.require("name").and_then(|value| read_name(members, value));
        let definition =
            members.require("definition").and_then(|value| read_definition(value, api.engine.limits(), faults));
        Some((name?, definition?))
    })?;
    let (id, name) = (WorkflowId(new_id()), new.0);
    for _ in 0..CHANGES_MAX {
        let (definition, tool_lock) = new.1.locked(&api).await?;
        let revision = NewRevision { name: name.clone(), definition, tool_lock };
        if let Some(created) = done(api.store.create_workflow(id, revision).await?, id)? {
            return Ok(created);
        }
    }
    Err(restless())
}

/// The answer for a workflow that was saved; nothing where a plugin was deleted between the look at it and the write.
fn done(saved: Saved, id: WorkflowId) -> Result<Option<Json<WorkflowView>>, Problem> {
    match saved {
        Saved::Done(workflow) => Ok(Some(Json((*workflow).into()))),
        Saved::Missing => Err(not_found(id)),
        Saved::PluginGone => Ok(None),
    }
}

fn restless() -> Problem {
    Problem::new(ProblemCode::Unavailable, "the plugins of the definition are being changed again and again")
}

/// List workflows, newest first
#[utoipa::path(get, operation_id = "list_workflows", path = "/workflows", tag = "workflows", params(ListParams),
    responses((status = 200, body = WorkflowList), ListProblems))]
pub(super) async fn list(State(api): State<Api>, mut query: Query) -> Result<Response, Problem> {
    let request = page_request(&mut query);
    query.finish()?;
    let page = api.store.workflows(request).await?;
    Ok(Json(List::of(page, WorkflowView::from)).into_response())
}

/// Get a workflow
#[utoipa::path(get, operation_id = "get_workflow", path = "/workflows/{workflow_id}", tag = "workflows", params(("workflow_id" = Uuid, Path)),
    responses((status = 200, body = WorkflowView), ReadProblems))]
pub(super) async fn get(State(api): State<Api>, Id(id): Id<WorkflowId>) -> Result<Json<WorkflowView>, Problem> {
    Ok(Json(find(&api, id).await?.into()))
}

/// Make a new revision of a workflow
///
/// Runs in flight keep the revision that they started with.
#[utoipa::path(put, operation_id = "update_workflow", path = "/workflows/{workflow_id}", tag = "workflows", params(("workflow_id" = Uuid, Path)),
    request_body = UpdateWorkflow, responses((status = 200, body = WorkflowView), WriteProblems))]
pub(super) async fn update(
    State(api): State<Api>,
    Id(id): Id<WorkflowId>,
    body: JsonBody,
) -> Result<Json<WorkflowView>, Problem> {
    let update = read_members(&body, |members, faults| {
        let name = members.take("name").map(|value| read_name(members, value));
        let definition = members.take("definition").map(|value| read_definition(value, api.engine.limits(), faults));
        if name.is_none() && definition.is_none() {
            faults.add("", "needs `name`, `definition` or both");
        }
        Some((name.flatten(), definition.flatten()))
    })?;
    let (name, definition) = update;
    for _ in 0..CHANGES_MAX {
        let definition = match &definition {
            Some(definition) => Some(definition.locked(&api).await?),
            None => None,
        };
        let change = WorkflowChange::Revise(name.clone(), definition);
        if let Some(changed) = done(api.store.change_workflow(id, change).await?, id)? {
            return Ok(changed);
        }
    }
    Err(restless())
}

/// List the revisions of a workflow, newest first
#[utoipa::path(get, operation_id = "list_revisions", path = "/workflows/{workflow_id}/revisions", tag = "workflows",
    params(("workflow_id" = Uuid, Path), NumberedParams),
    responses((status = 200, body = RevisionList), ReadProblems))]
pub(super) async fn revisions(
    State(api): State<Api>,
    Id(id): Id<WorkflowId>,
    mut query: Query,
) -> Result<Response, Problem> {
    let (limit, before) = number_request(&mut query);
    query.finish()?;
    find(&api, id).await?;
    let before = before.and_then(|before| u32::try_from(before).ok()).unwrap_or(u32::MAX);
    let rows = api.store.revisions(id, before, limit + 1).await?;
    Ok(Json(List::numbered(rows, limit, |row| row.number.into(), RevisionView::from)).into_response())
}

async fn set_active(api: &Api, id: WorkflowId, active: bool) -> Result<Json<WorkflowView>, Problem> {
    done(api.store.change_workflow(id, WorkflowChange::SetActive(active)).await?, id)?.ok_or_else(restless)
}

/// Switch a workflow on
#[utoipa::path(post, operation_id = "activate_workflow", path = "/workflows/{workflow_id}/activate", tag = "workflows",
    params(("workflow_id" = Uuid, Path)), responses((status = 200, body = WorkflowView), CommandProblems))]
pub(super) async fn activate(State(api): State<Api>, Id(id): Id<WorkflowId>) -> Result<Json<WorkflowView>, Problem> {
    set_active(&api, id, true).await
}

/// Switch a workflow off
///
/// It holds from the answer on: no new run is accepted. Runs that were accepted go on.
#[utoipa::path(post, operation_id = "deactivate_workflow", path = "/workflows/{workflow_id}/deactivate", tag = "workflows",
    params(("workflow_id" = Uuid, Path)), responses((status = 200, body = WorkflowView), CommandProblems))]
pub(super) async fn deactivate(State(api): State<Api>, Id(id): Id<WorkflowId>) -> Result<Json<WorkflowView>, Problem> {
    set_active(&api, id, false).await
}
