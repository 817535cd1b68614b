//! The OpenAPI 3.1 document, generated from the handlers, and what they share in it.

#![expect(unused_qualifications, reason = "the derive of the document qualifies what it is given")]

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, Modify, OpenApi, PartialSchema, ToSchema};

use super::problem::{ProblemBody, ProblemCode};
use crate::model::time::Timestamp;

/// The frame of the document; the routes fill it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir",
        description = "A durable workflow runtime. Define a workflow, connect it to a webhook, and every trigger \
                       becomes a run that survives any crash.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact(),
    ),
    components(schemas(ProblemBody)),
    modifiers(&ApiKey),
    security(("api_key" = [])),
    tags(
        (name = "workflows", description = "Definitions and their revisions"),
        (name = "webhook endpoints", description = "URLs that trigger a workflow"),
        (name = "webhooks", description = "Where senders deliver"),
        (name = "runs", description = "Executions"),
        (name = "plugins", description = "Components with tools that steps call"),
        (name = "secrets", description = "Secrets that requests carry"),
        (name = "server", description = "The server itself"),
    ),
)]
pub(super) struct Document;

/// How a client shows its API key. A server without any key asks for none.
struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description =
            Some("An API key, as `weir key create` prints it. A server without any key asks for none".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339 in UTC, with microseconds and the offset `+00:00`"))
            .examples(["2026-11-22T10:00:00.000000+00:00"])
            .into()
    }
}

impl ToSchema for Timestamp {}

fn problems(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    statuses.iter().map(|status| (status.to_string(), problem(*status).into())).collect()
}

fn problem(status: u16) -> Response {
    let with_status = |code: &&ProblemCode| code.status().as_u16() == status;
    let codes: Vec<_> =
        ProblemCode::ALL.iter().filter(with_status).map(|code| format!("`{}`", code.as_str())).collect();
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(codes.join(", ")).content("application/problem+json", body);
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let with_header = match StatusCode::from_u16(status) {
        Ok(StatusCode::SERVICE_UNAVAILABLE) => {
            let header = HeaderBuilder::new().schema(Some(text())).description(Some("Seconds to wait")).build();
            response.header("Retry-After", header)
        }
        _ => response,
    };
    with_header.build()
}

/// Declares a set of problems that several handlers share.
macro_rules! problem_sets {
    ($($(#[$doc:meta])* $name:ident: [$($status:literal),*];)*) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    problems(&[$($status),*])
                }
            }
        )*
    };
}

problem_sets! {
    /// Of a list.
    ListProblems: [401, 422, 500, 503];
    /// Of reading one thing.
    ReadProblems: [401, 404, 422, 500, 503];
    /// Of looking into a run.
    InspectProblems: [401, 404, 409, 422, 500, 503];
    /// Of a command on one thing, without a body.
    CommandProblems: [401, 403, 404, 409, 422, 500, 503];
    /// Of creating something.
    CreateProblems: [400, 401, 403, 413, 415, 422, 500, 503];
    /// Of an upload.
    UploadProblems: [400, 401, 403, 409, 413, 415, 422, 500, 503];
    /// Of creating or changing something that belongs to something else.
    WriteProblems: [400, 401, 403, 404, 409, 413, 415, 422, 500, 503];
    /// Of a delivery.
    DeliveryProblems: [400, 401, 404, 409, 413, 422, 500, 503];
    /// Of asking whether the process is ready.
    ReadinessProblems: [500, 503];
    /// Of asking for metrics.
    MetricsProblems: [401, 500, 503];
}
