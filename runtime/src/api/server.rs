//! The server itself: health, documentation, and what is not there.

use axum::extract::OriginalUri;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::extract::PathText;
use super::problem::{Problem, ProblemCode};
use crate::model::error::FailureCode;

/// Whether the process is alive.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/health", tag = "server", responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
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
