//! The HTTP API. Requests become validated values here and nowhere else; inside there is no HTTP.
//!
//! A folder of nouns: each file has the routes of one thing, with its request and response bodies.

mod definition;
mod endpoints;
mod extract;
mod openapi;
mod page;
mod plugins;
mod problem;
mod request;
mod runs;
mod server;
mod views;
mod webhooks;
mod workflows;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use tower::ServiceExt as _;
use tower::util::MapRequest;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use problem::{Problem, ProblemCode};

use crate::config::Config;
use crate::engine::Engine;
use crate::store::Store;
use crate::tools::Tools;
use crate::vault::Vault;

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Reads, and writes that are not runs.
    pub store: Store,
    /// Everything about runs.
    pub engine: Engine,
    /// Everything about plugins.
    pub tools: Tools,
    /// Seals and opens endpoint secrets.
    pub vault: Arc<Vault>,
    /// Limits of requests.
    pub config: Arc<Config>,
}

/// The whole API as a service.
pub type Service = MapRequest<Router, fn(Request) -> Request>;

/// Every route, with the document that describes them.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(workflows::create, workflows::list))
        .routes(routes!(workflows::get, workflows::update))
        .routes(routes!(workflows::revisions))
        .routes(routes!(workflows::activate))
        .routes(routes!(workflows::deactivate))
        .routes(routes!(endpoints::create, endpoints::list))
        .routes(routes!(endpoints::get, endpoints::delete))
        .routes(routes!(endpoints::rotate_secret))
        .routes(routes!(endpoints::activate))
        .routes(routes!(endpoints::deactivate))
        .routes(routes!(webhooks::deliver))
        .routes(routes!(runs::start))
        .routes(routes!(runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(runs::steps))
        .routes(routes!(runs::journal))
        .routes(routes!(runs::snapshots))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::redrive))
        .routes(routes!(plugins::upload, plugins::list))
        .routes(routes!(plugins::get))
        .routes(routes!(plugins::tools))
        .routes(routes!(server::health))
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The service that answers every request.
#[must_use]
pub fn service(api: Api) -> Service {
    let (router, document) = routes().split_for_parts();
    let router = router
        .with_state(api)
        .merge(server::documentation(document))
        .fallback(server::no_route)
        .method_not_allowed_fallback(server::no_method)
        .layer(CatchPanicLayer::custom(request::panicked))
        .layer(axum::middleware::from_fn(request::refuse_other_sites))
        .layer(axum::middleware::from_fn(request::observe));
    router.map_request(request::trim_slash as fn(Request) -> Request)
}
