//! Webhook endpoints: the URLs that trigger a workflow. Their secrets go in and never come out.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::extract::{Id, JsonBody, Query, read_members, read_text};
use super::openapi::{CommandProblems, ReadProblems, WriteProblems};
use super::page::{List, ListParams, page_request};
use super::problem::{Problem, ProblemCode};
use super::workflows;
use crate::clock::new_id;
use crate::model::id::{EndpointId, WorkflowId};
use crate::model::names::{endpoint_path_fault, secret_fault};
use crate::model::reader::Members;
use crate::model::time::Timestamp;
use crate::store::{Endpoint, EndpointChange, NewEndpoint, PathTaken};

// The macro that makes the document takes an alias for the type that it is.
type EndpointList = List<EndpointView>;

/// A webhook endpoint to create.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateEndpoint {
    /// The last part of its URL: `POST /webhooks/{path}`. Unique on the server.
    #[schema(min_length = 1, max_length = 200, pattern = "^[A-Za-z0-9_~:@!$&'()*+,;=-][A-Za-z0-9._~:@!$&'()*+,;=-]*$")]
    path: String,
    /// What senders put into the header `x-webhook-secret`.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[!-~]([ -~]*[!-~])?$")]
    secret: String,
}

/// A new secret.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateSecret {
    #[schema(min_length = 1, max_length = 1024, pattern = "^[!-~]([ -~]*[!-~])?$")]
    secret: String,
}

/// A webhook endpoint, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpoint)]
pub(super) struct EndpointView {
    id: Uuid,
    workflow_id: Uuid,
    path: String,
    /// Whether it may be called.
    is_active: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Until when the secret before the last rotation is valid too.
    #[schema(required = true)]
    previous_secret_until: Option<Timestamp>,
}

impl From<Endpoint> for EndpointView {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.id.0,
            workflow_id: endpoint.workflow_id.0,
            path: endpoint.path,
            is_active: endpoint.is_active,
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
            previous_secret_until: endpoint.previous_secret.map(|(_, until)| until),
        }
    }
}

fn read_path(members: &Members<'_>, value: &Value) -> Option<String> {
    read_text(members, "path", value, endpoint_path_fault)
}

fn read_secret(members: &Members<'_>, value: &Value) -> Option<String> {
    read_text(members, "secret", value, secret_fault)
}

fn not_found(id: EndpointId) -> Problem {
    Problem::new(ProblemCode::EndpointNotFound, format!("no webhook endpoint has the id {id}"))
}

/// Register a webhook endpoint
#[utoipa::path(post, operation_id = "create_webhook_endpoint", path = "/workflows/{workflow_id}/webhook-endpoints", tag = "webhook endpoints",
    params(("workflow_id" = Uuid, Path)), request_body = CreateEndpoint,
    responses((status = 200, body = EndpointView), WriteProblems))]
pub(super) async fn create(
    State(api): State<Api>,
    Id(workflow_id): Id<WorkflowId>,
    body: JsonBody,
) -> Result<Json<EndpointView>, Problem> {
    let new = read_members(&body, |members, _| {
        let path = members.require("path").and_then(|value| read_path(members, value));
        let secret = members.require("secret").and_then(|value| read_secret(members, value));
        Some(CreateEndpoint { path: path?, secret: secret? })
    })?;
    workflows::find(&api, workflow_id).await?;
    let id = EndpointId(new_id());
    let secret = api.vault.seal(id.0.as_bytes(), &new.secret);
    let created = api.store.create_endpoint(NewEndpoint { id, workflow_id, path: new.path.clone(), secret }).await?;
    let created = created.map_err(|PathTaken| {
        Problem::new(ProblemCode::PathTaken, format!("another webhook endpoint has the path `{}`", new.path))
    })?;
    Ok(Json(created.into()))
}

/// List the webhook endpoints of a workflow, newest first
#[utoipa::path(get, operation_id = "list_webhook_endpoints", path = "/workflows/{workflow_id}/webhook-endpoints", tag = "webhook endpoints",
    params(("workflow_id" = Uuid, Path), ListParams),
    responses((status = 200, body = EndpointList), ReadProblems))]
pub(super) async fn list(
    State(api): State<Api>,
    Id(workflow_id): Id<WorkflowId>,
    mut query: Query,
) -> Result<Response, Problem> {
    let request = page_request(&mut query);
    query.finish()?;
    workflows::find(&api, workflow_id).await?;
    let page = api.store.endpoints(workflow_id, request).await?;
    Ok(Json(List::of(page, EndpointView::from)).into_response())
}

/// Get a webhook endpoint
#[utoipa::path(get, operation_id = "get_webhook_endpoint", path = "/webhook-endpoints/{endpoint_id}", tag = "webhook endpoints",
    params(("endpoint_id" = Uuid, Path)), responses((status = 200, body = EndpointView), ReadProblems))]
pub(super) async fn get(State(api): State<Api>, Id(id): Id<EndpointId>) -> Result<Json<EndpointView>, Problem> {
    Ok(Json(api.store.endpoint(id).await?.ok_or_else(|| not_found(id))?.into()))
}

/// Delete a webhook endpoint
#[utoipa::path(delete, operation_id = "delete_webhook_endpoint", path = "/webhook-endpoints/{endpoint_id}", tag = "webhook endpoints",
    params(("endpoint_id" = Uuid, Path)), responses((status = 204, description = "It is gone"), CommandProblems))]
pub(super) async fn delete(State(api): State<Api>, Id(id): Id<EndpointId>) -> Result<StatusCode, Problem> {
    if api.store.delete_endpoint(id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(not_found(id)) }
}

/// Replace the secret of a webhook endpoint
///
/// The secret before stays valid for a while (`secret_grace_seconds`), so that senders can be moved over.
#[utoipa::path(post, operation_id = "rotate_webhook_secret", path = "/webhook-endpoints/{endpoint_id}/rotate-secret", tag = "webhook endpoints",
    params(("endpoint_id" = Uuid, Path)), request_body = RotateSecret,
    responses((status = 200, body = EndpointView), WriteProblems))]
pub(super) async fn rotate_secret(
    State(api): State<Api>,
    Id(id): Id<EndpointId>,
    body: JsonBody,
) -> Result<Json<EndpointView>, Problem> {
    let new = read_members(&body, |members, _| {
        let secret = members.require("secret").and_then(|value| read_secret(members, value));
        Some(RotateSecret { secret: secret? })
    })?;
    let until = api.store.clock().now().plus(Duration::from_secs(api.config.secret_grace_seconds.into()));
    let sealed = api.vault.seal(id.0.as_bytes(), &new.secret);
    change(&api, id, EndpointChange::Rotate(sealed, until)).await
}

async fn change(api: &Api, id: EndpointId, change: EndpointChange) -> Result<Json<EndpointView>, Problem> {
    let changed = api.store.change_endpoint(id, change).await?;
    Ok(Json(changed.ok_or_else(|| not_found(id))?.into()))
}

/// Switch a webhook endpoint on
#[utoipa::path(post, operation_id = "activate_webhook_endpoint", path = "/webhook-endpoints/{endpoint_id}/activate", tag = "webhook endpoints",
    params(("endpoint_id" = Uuid, Path)), responses((status = 200, body = EndpointView), CommandProblems))]
pub(super) async fn activate(State(api): State<Api>, Id(id): Id<EndpointId>) -> Result<Json<EndpointView>, Problem> {
    change(&api, id, EndpointChange::SetActive(true)).await
}

/// Switch a webhook endpoint off
///
/// It holds from the answer on.
#[utoipa::path(post, operation_id = "deactivate_webhook_endpoint", path = "/webhook-endpoints/{endpoint_id}/deactivate", tag = "webhook endpoints",
    params(("endpoint_id" = Uuid, Path)), responses((status = 200, body = EndpointView), CommandProblems))]
pub(super) async fn deactivate(State(api): State<Api>, Id(id): Id<EndpointId>) -> Result<Json<EndpointView>, Problem> {
    change(&api, id, EndpointChange::SetActive(false)).await
}
