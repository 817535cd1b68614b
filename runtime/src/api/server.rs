//! The server itself: health, documentation, and what is not there.

use axum::extract::{OriginalUri, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::Api;
use super::extract::PathText;
use super::openapi::{MetricsProblems, ReadinessProblems};
use super::problem::{Problem, ProblemCode};
use crate::meter::{MEDIA_TYPE, meter};
use crate::model::error::FailureCode;

/// Whether the process is alive.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/health", tag = "server", security(()), responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the process can do its part.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`, or `degraded`: everything works, and some of it more slowly.
    #[schema(example = "ready")]
    status: &'static str,
    /// What is slower, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    detail: Option<&'static str>,
}

/// Whether the process can do its part
///
/// The database answers and has the schema that this version needs, and a process that executes runs could claim lately.
/// Without Redis runs are accepted and executed all the same, more slowly: that is `degraded`, and no reason to send
/// requests elsewhere.
#[utoipa::path(get, path = "/health/ready", tag = "server", security(()),
    responses((status = 200, body = Readiness), ReadinessProblems))]
pub(super) async fn ready(State(api): State<Api>) -> Result<Json<Readiness>, Problem> {
    api.engine.ready().map_err(|why| Problem::new(ProblemCode::Unavailable, why))?;
    api.store.ready().await?;
    Ok(Json(if api.engine.is_connected() {
        Readiness { status: "ready", detail: None }
    } else {
        Readiness { status: "degraded", detail: Some("Redis is away: runs are begun by looking at the database") }
    }))
}

/// Metrics of this process, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"), MetricsProblems))]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    // A database that is away must not hide everything else.
    let oldest_claimable = api.store.oldest_claimable().await.ok();
    meter().sampled(oldest_claimable, api.store.connections(), api.engine.is_connected());
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], meter().text()).into_response()
}

/// `/openapi.json`, the interactive documentation at `/docs`, and the page of every error code below it. All assets
/// are part of the binary.
pub(super) fn documentation(document: utoipa::openapi::OpenApi) -> Router {
    let ui = SwaggerUi::new("/docs")
        .url("/openapi.json", document)
        .config(Config::default().try_it_out_enabled(true).doc_expansion("list"));
    Router::new().merge(ui).route("/docs/errors/{code}", get(error_page))
}

async fn error_page(PathText(code): PathText) -> Result<Response, Problem> {
    let problem = ProblemCode::ALL.iter().find(|known| known.as_str() == code).map(|known| known.page());
    let failure = || FailureCode::ALL.iter().find(|known| known.as_str() == code).map(|known| known.page());
    let page = problem.or_else(failure);
    let page =
        page.ok_or_else(|| Problem::new(ProblemCode::RouteNotFound, format!("no error has the code `{code}`")))?;
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], page).into_response())
}

pub(super) async fn no_route(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(ProblemCode::RouteNotFound, format!("nothing is at `{}`; `/docs` has the routes", uri.path()))
}

pub(super) async fn no_method(method: Method) -> Problem {
    Problem::new(ProblemCode::MethodNotAllowed, format!("`{method}` is not among the methods that `Allow` names"))
}
