//! Versions of plugins: activate, retire, delete.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::extract::{NoQuery, PathText, Query};
use super::openapi::CommandProblems;
use super::plugins::{PluginParam, PluginView, find, gone, view};
use super::problem::{Problem, ProblemCode};
use crate::model::plugin::PluginRef;
use crate::store::{Deleted, PluginVersion};
use crate::tools::{Adopted, HttpRule, read_request};

/// Whether workflows follow.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its schema is used: `activate` reads the query")]
pub(super) struct ActivateParams {
    /// Whether every workflow that names the plugin without a version gets a new revision with this one. Default: false.
    #[param(required = false)]
    adopt: bool,
}

/// What became of an activation.
#[derive(Serialize, ToSchema)]
#[schema(as = Activation)]
pub(super) struct ActivationView {
    plugin: PluginView,
    /// The workflows that were to follow.
    adopted: Vec<AdoptedView>,
}

/// What became of a workflow that names the plugin.
#[derive(Serialize, ToSchema)]
#[schema(as = AdoptedWorkflow)]
struct AdoptedView {
    workflow_id: Uuid,
    name: String,
    /// Its new revision; null: it keeps the one that it has.
    revision: Option<u32>,
    /// Why it keeps it: what in its definition does not fit this version of the plugin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    faults: Vec<String>,
}

impl From<Adopted> for AdoptedView {
    fn from(adopted: Adopted) -> Self {
        let fault = |fault: &crate::model::reader::Fault| format!("{}: {}", fault.pointer, fault.message);
        let (revision, faults) = match &adopted.revision {
            Ok(revision) => (Some(*revision), Vec::new()),
            Err(faults) => (None, faults.iter().map(fault).collect()),
        };
        Self { workflow_id: adopted.workflow.0, name: adopted.name, revision, faults }
    }
}

/// The version that a command is for. A name alone could mean another one by the time that it is read.
async fn version(api: &Api, text: &str) -> Result<PluginVersion, Problem> {
    if let Ok(PluginRef::Name(name)) = PluginRef::parse(text) {
        find(api, text).await?;
        return Err(Problem::parameter("plugin", format!("say which version: `{name}@...`, or its digest")));
    }
    find(api, text).await
}

/// Make a version of a plugin what its name means
///
/// Definitions that are saved from now on take it; workflows that were saved before keep the version that they pin, unless
/// `adopt` is true: then each that names the plugin without a version gets a new revision, and is listed.
#[utoipa::path(post, operation_id = "activate_plugin", path = "/plugins/{plugin}/activate", tag = "plugins",
    params(PluginParam, ActivateParams), responses((status = 200, body = ActivationView), CommandProblems))]
pub(super) async fn activate(
    State(api): State<Api>,
    PathText(text): PathText,
    mut query: Query,
) -> Result<Json<ActivationView>, Problem> {
    let adopt = query.take("adopt", |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be `true` or `false`".to_owned()),
    });
    query.finish()?;
    let plugin = version(&api, &text).await?;
    let named = format!("`{}@{}`", plugin.name, plugin.version);
    if let Err(refused) = api.tools.accepted(plugin.digest).await? {
        let detail = format!("{named} may not be used: {refused}");
        return Err(Problem::new(ProblemCode::PluginSignatureRequired, detail));
    }
    let request = read_request(&plugin).map_err(Problem::internal)?;
    // A grant that is narrower than what it asks for is somebody's decision; none at all is not.
    if api.tools.grant(plugin.digest).await?.is_none() && !request.http.is_empty() {
        let wants: Vec<String> = request.http.iter().map(HttpRule::to_string).collect();
        let detail = format!("{named} asks for {}", wants.join("; "));
        return Err(Problem::new(ProblemCode::GrantRequired, detail));
    }
    if !api.store.activate_plugin(&plugin.name, plugin.id).await? {
        return Err(gone(&text));
    }
    let adopted = match adopt {
        Some(true) => api.tools.adopt(&plugin.name, api.engine.limits()).await?,
        _ => Vec::new(),
    };
    let plugin = find(&api, &format!("{}@{}", plugin.name, plugin.version)).await?;
    Ok(Json(ActivationView {
        plugin: view(&api, plugin).await?,
        adopted: adopted.into_iter().map(Into::into).collect(),
    }))
}

/// Retire a version of a plugin
///
/// No definition can name it any more. Revisions that pin it, and their runs, go on.
#[utoipa::path(post, operation_id = "retire_plugin", path = "/plugins/{plugin}/retire", tag = "plugins",
    params(PluginParam), responses((status = 200, body = PluginView), CommandProblems))]
pub(super) async fn retire(
    State(api): State<Api>,
    PathText(text): PathText,
    _: NoQuery,
) -> Result<Json<PluginView>, Problem> {
    let plugin = version(&api, &text).await?;
    api.store.retire_plugin(plugin.id).await?;
    let plugin = find(&api, &format!("{}@{}", plugin.name, plugin.version)).await?;
    Ok(Json(view(&api, plugin).await?))
}

/// Delete a version of a plugin that nobody uses
///
/// It must not be active, and no revision of a workflow may pin it.
#[utoipa::path(delete, operation_id = "delete_plugin", path = "/plugins/{plugin}", tag = "plugins",
    params(PluginParam), responses((status = 204, description = "It is gone"), CommandProblems))]
pub(super) async fn delete(
    State(api): State<Api>,
    PathText(text): PathText,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    let plugin = version(&api, &text).await?;
    let named = format!("`{}@{}`", plugin.name, plugin.version);
    match api.store.delete_plugin(plugin.id).await? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::Active => Err(Problem::new(ProblemCode::PluginActive, format!("{named} is active"))),
        Deleted::InUse(users) => {
            let user = |(workflow, revision): &(crate::model::id::WorkflowId, u32)| {
                format!("revision {revision} of the workflow {workflow}")
            };
            let users: Vec<String> = users.iter().map(user).collect();
            Err(Problem::new(ProblemCode::PluginInUse, format!("{named} is pinned by {}", users.join(", "))))
        }
    }
}
