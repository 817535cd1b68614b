//! What every request gets: an id, a line in the log, and a clean answer even when a handler panics.

use std::any::Any;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;

use super::problem::{Cause, Problem, ProblemCode, REQUEST, RequestInfo};
use crate::clock::new_id;
use crate::meter::meter;

/// Longest `x-request-id` that is taken over from a client, in bytes.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// Names the request, logs its one line, and returns its id as `x-request-id`.
#[expect(clippy::disallowed_methods, reason = "how long a request took is measured, not decided by")]
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX_BYTES && id.bytes().all(|b| b.is_ascii_graphic()))
        .map_or_else(|| new_id().to_string(), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", request.id = %id, %method, path);
    let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let info = RequestInfo { id: id.clone(), path };
    let started = std::time::Instant::now();
    let mut response = REQUEST.scope(info, next.run(request)).instrument(span.clone()).await;
    let elapsed = started.elapsed();
    let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
    let (status, cause) = (response.status().as_u16(), response.extensions_mut().remove::<Cause>());
    span.in_scope(|| match cause {
        Some(Cause(cause)) => tracing::error!(status, elapsed_ms, traceparent = trace, cause, "answered"),
        None => tracing::info!(status, elapsed_ms, traceparent = trace, "answered"),
    });
    meter().answered(method_name(&method), status, elapsed);
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// A method for the metrics: whatever somebody invents is one of a few.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

/// Refuses what a page of another site makes a browser send. Such a page cannot read answers, but without this it
/// could define and start workflows on a server that listens on the loopback address of whoever looks at it.
/// Webhooks have their secret, and senders no origin.
pub(super) async fn refuse_other_sites(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let origin = text("origin").map(|origin| origin.split_once("://").map_or(origin, |(_, authority)| authority));
    let other_site = origin.is_some_and(|origin| text("host") != Some(origin));
    let harmless = request.method().is_safe() || request.uri().path().starts_with("/webhooks/");
    if other_site && !harmless {
        return Problem::new(ProblemCode::CrossOrigin, "its `Origin` is not this server").into_response();
    }
    next.run(request).await
}

/// The answer for a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature belongs to the layer that catches panics")]
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Problem::internal(format!("a handler panicked: {}", text.unwrap_or_default())).into_response()
}

/// Every path works with and without a trailing slash. The documentation's own pages need theirs.
pub(super) fn trim_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path();
    if path.len() > 1 && path.ends_with('/') && path != "/docs/" {
        let trimmed = path.trim_end_matches('/');
        let trimmed = if trimmed.is_empty() { "/" } else { trimmed };
        let with_query = uri.query().map_or_else(|| trimmed.to_owned(), |query| format!("{trimmed}?{query}"));
        if let Ok(uri) = with_query.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}
