//! Deliveries: whatever a sender posts becomes the input of a run, except its secrets.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Api;
use super::extract::{PathText, read_body};
use super::known::{self, Runnable};
use super::openapi::DeliveryProblems;
use super::problem::{Problem, ProblemCode};
use super::runs::{Accepted, CHANGES_MAX, accept, restless};
use crate::engine::Trigger;
use crate::model::reader::depth_fits;
use crate::store::{Caller, Endpoint, Idempotency};

const SECRET_HEADER: &str = "x-webhook-secret";

/// Headers whose name has one of these in it never become input: credentials, and signatures made with the secret.
const SECRET_NAMES: [&str; 13] = [
    "access-key",
    "api-key",
    "apikey",
    "auth",
    "cookie",
    "credential",
    "hmac",
    "jwt",
    "password",
    "secret",
    "signature",
    "subscription-key",
    "token",
];

/// Headers in which senders name a delivery, so that a repeated one answers the same run.
const DELIVERY_HEADERS: [&str; 3] = ["webhook-id", "x-github-delivery", "idempotency-key"];

/// Deliver to a webhook
///
/// The body may be anything: JSON and forms are parsed, other text stays text, and bytes become base64. The run's
/// input is `{body, query, headers, method, path}`. A delivery that repeats its `webhook-id`, `x-github-delivery` or
/// `idempotency-key` answers the run of the first one.
#[utoipa::path(post, operation_id = "deliver_webhook", path = "/webhooks/{path}", tag = "webhooks", security(()),
    params(("path" = String, Path, min_length = 1), ("x-webhook-secret" = String, Header, description = "The endpoint's secret")),
    request_body(content(("*/*"))),
    responses((status = 200, body = Accepted), DeliveryProblems))]
pub(super) async fn deliver(
    State(api): State<Api>,
    PathText(path): PathText,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Accepted>, Problem> {
    let mut endpoint = let_in(&api, &path, &headers).await?;
    let body = read_body(body, api.config.webhook_max_bytes, "webhook_max_bytes").await?;
    let input = json!({
        "body": parse_body(&headers, &body),
        "query": parse_pairs(uri.query().unwrap_or_default().as_bytes()),
        "headers": plain_headers(&headers),
        "method": method.as_str(),
        "path": path,
    });
    let input = Bytes::from(input.to_string());
    for _ in 0..CHANGES_MAX {
        let Runnable { revision, priority } = known::workflow(&api, endpoint.workflow_id).await?;
        let trigger = Trigger {
            workflow_id: endpoint.workflow_id,
            revision,
            input: input.clone(),
            caller: Some(Caller { endpoint: endpoint.id, secret: endpoint.secret.clone() }),
            idempotency: delivery_key(&endpoint, &headers).map(|key| Idempotency { key, hash: None }),
            priority,
        };
        if let Some(accepted) = accept(&api, &trigger).await? {
            return Ok(Json(accepted));
        }
        endpoint = let_in(&api, &path, &headers).await?;
    }
    Err(restless())
}

/// The endpoint with this path, if the request has its secret.
async fn let_in(api: &Api, path: &str, headers: &HeaderMap) -> Result<Arc<Endpoint>, Problem> {
    let not_found =
        || Problem::new(ProblemCode::EndpointNotFound, format!("no webhook endpoint has the path `{path}`"));
    let known = known::endpoint(api, path).await?.ok_or_else(not_found)?;
    if let Ok(true) = has_secret(api, &known, headers) {
        return Ok(known);
    }
    // The secret may be newer than what is known.
    let endpoint = known::read_endpoint(api, path).await?.ok_or_else(not_found)?;
    if has_secret(api, &endpoint, headers)? {
        return Ok(endpoint);
    }
    Err(Problem::new(
        ProblemCode::InvalidSecret,
        format!("the header `{SECRET_HEADER}` must hold the endpoint's secret"),
    ))
}

/// Compares in constant time: digests have one length, whatever the secrets are.
fn has_secret(api: &Api, endpoint: &Endpoint, headers: &HeaderMap) -> Result<bool, Problem> {
    let given = Sha256::digest(headers.get(SECRET_HEADER).map_or(&b""[..], |value| value.as_bytes()));
    let now = api.store.clock().now();
    let previous = endpoint.previous_secret.as_ref().filter(|(_, until)| *until > now).map(|(sealed, _)| sealed);
    let mut matches = subtle::Choice::from(0);
    for sealed in [Some(&endpoint.secret), previous].into_iter().flatten() {
        match api.vault.open_sealed(endpoint.id.0.as_bytes(), sealed) {
            Ok(secret) => matches |= Sha256::digest(&secret).ct_eq(&given),
            // The one before may be sealed with a master key that got lost; the one in force must open.
            Err(broken) if *sealed == endpoint.secret => return Err(Problem::internal(broken)),
            Err(_) => {}
        }
    }
    Ok(matches.into())
}

/// A key under which the same delivery is found again. What a sender chose is hashed: it may be of any length.
fn delivery_key(endpoint: &Endpoint, headers: &HeaderMap) -> Option<String> {
    let given = |name| headers.get(name).filter(|id| !id.is_empty()).map(|id| (name, id));
    let (name, id) = DELIVERY_HEADERS.into_iter().find_map(given)?;
    let digest = Sha256::new().chain_update(name).chain_update([0]).chain_update(id.as_bytes()).finalize();
    Some(format!("delivery:{}:{}", endpoint.id, STANDARD.encode(digest)))
}

fn parse_body(headers: &HeaderMap, body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/x-www-form-urlencoded" && std::str::from_utf8(body).is_ok() {
        // Tools that post JSON without saying so (curl -d) claim to post a form.
        return parse_json(body).unwrap_or_else(|| parse_pairs(body));
    }
    match (parse_json(body), std::str::from_utf8(body)) {
        (Some(value), _) if !kind.starts_with("text/") => value,
        (_, Ok(text)) => Value::String(text.to_owned()),
        _ => json!({ "base64": STANDARD.encode(body), "content_type": kind }),
    }
}

/// JSON that is too deep to be stored stays text.
fn parse_json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(depth_fits)
}

/// Form fields as an object; a name that comes more than once has an array.
fn parse_pairs(text: &[u8]) -> Value {
    let mut members: Map<String, Value> = Map::new();
    for (name, value) in url::form_urlencoded::parse(text) {
        let value = Value::String(value.into_owned());
        match members.get_mut(name.as_ref()) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                members.insert(name.into_owned(), value);
            }
        }
    }
    Value::Object(members)
}

fn plain_headers(headers: &HeaderMap) -> Value {
    let mut members: Map<String, Value> = Map::new();
    for (name, value) in
        headers.iter().filter(|(name, _)| !SECRET_NAMES.iter().any(|secret| name.as_str().contains(secret)))
    {
        let value = String::from_utf8_lossy(value.as_bytes());
        match members.get_mut(name.as_str()) {
            Some(Value::String(joined)) => {
                joined.push_str(", ");
                joined.push_str(&value);
            }
            _ => {
                members.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn parsed(kind: &'static str, body: &[u8]) -> Value {
        parse_body(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]), body)
    }

    #[test]
    fn any_body_is_an_input() {
        assert_eq!(parsed("application/json", b"{\"a\": 1}"), json!({"a": 1}));
        assert_eq!(parsed("application/json", b"{\"a\": "), json!("{\"a\": "));
        assert_eq!(parsed("application/json", b""), Value::Null);
        assert_eq!(parsed("application/x-www-form-urlencoded", b"a=1&b=x+y&a=2"), json!({"a": ["1", "2"], "b": "x y"}));
        assert_eq!(parsed("application/x-www-form-urlencoded", b"{\"a\": 1}"), json!({"a": 1}));
        assert_eq!(parsed("text/plain", b"17"), json!("17"));
        assert_eq!(parsed("image/png", &[0xff]), json!({"base64": "/w==", "content_type": "image/png"}));
    }
}
