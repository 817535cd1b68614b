//! The HTTP API. Requests become validated values here and nowhere else; inside there is no HTTP.
//!
//! A folder of nouns: each file has the routes of one thing, with its request and response bodies.

mod answers;
mod definition;
mod door;
mod endpoints;
mod extract;
mod grants;
mod known;
mod openapi;
mod page;
mod plugins;
mod problem;
mod request;
mod runs;
mod secrets;
mod server;
mod versions;
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

pub use door::Door;
pub use known::Known;
pub use problem::{Problem, ProblemCode};

use crate::config::Config;
use crate::engine::Engine;
use crate::store::Store;
use crate::tools::Tools;
use crate::vault::Vault;

/// What handlers work with. Cheap to clone: every layer of every request does.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

impl Api {
    /// Made from these.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The parts of an [`Api`].
pub struct Parts {
    /// Reads, and writes that are not runs.
    pub store: Store,
    /// Everything about runs.
    pub engine: Engine,
    /// Everything about plugins.
    pub tools: Tools,
    /// Seals and opens endpoint secrets.
    pub vault: Arc<Vault>,
    /// Who may come in.
    pub door: Door,
    /// What triggers need to know.
    pub known: Known,
    /// Limits of requests.
    pub config: Config,
}

/// The whole API as a service.
pub type Service = MapRequest<Router, fn(Request) -> Request>;

/// The routes that need an API key as soon as there is one, with the document that describes them.
fn guarded() -> OpenApiRouter<Api> {
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
        .routes(routes!(runs::start))
        .routes(routes!(runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(runs::steps))
        .routes(routes!(runs::journal))
        .routes(routes!(runs::snapshots))
        .routes(routes!(answers::give))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::redrive))
        .routes(routes!(plugins::upload, plugins::list))
        .routes(routes!(plugins::get, versions::delete))
        .routes(routes!(plugins::tools))
        .routes(routes!(versions::activate))
        .routes(routes!(versions::retire))
        .routes(routes!(grants::get, grants::put, grants::delete))
        .routes(routes!(grants::calls))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::put, secrets::delete))
        .routes(routes!(server::metrics))
}

/// Deliveries have a secret of their own.
fn webhooks() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(webhooks::deliver))
}

/// Health is for whoever watches, and answers also when everything else is full.
fn health() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(server::health)).routes(routes!(server::ready))
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    guarded().merge(webhooks()).merge(health()).into_openapi()
}

/// The service that answers every request.
#[must_use]
pub fn service(api: Api) -> Service {
    let guard = axum::middleware::from_fn_with_state(api.clone(), door::guard);
    let limit = axum::middleware::from_fn_with_state(api.clone(), door::limit);
    let routes = guarded().route_layer(guard).merge(webhooks()).route_layer(limit).merge(health());
    let (router, document) = routes.split_for_parts();
    finish(router.with_state(api).merge(server::documentation(document)))
}

/// The service of a process that only executes runs: its health and its metrics.
#[must_use]
pub fn worker_service(api: Api) -> Service {
    let guard = axum::middleware::from_fn_with_state(api.clone(), door::guard);
    let routes = OpenApiRouter::new().routes(routes!(server::metrics)).route_layer(guard).merge(health());
    finish(routes.split_for_parts().0.with_state(api))
}

fn finish(router: Router) -> Service {
    let router = router
        .fallback(server::no_route)
        .method_not_allowed_fallback(server::no_method)
        .layer(CatchPanicLayer::custom(request::panicked))
        .layer(axum::middleware::from_fn(request::refuse_other_sites))
        .layer(axum::middleware::from_fn(request::observe));
    router.map_request(request::trim_slash as fn(Request) -> Request)
}
