//! The `http` step: one request, and its answer as a result.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use indexmap::IndexMap;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};
use weir_host::egress::{Egress, EgressError, Placeholders, Request, Response, Secret};

use crate::model::decide::Effect;
use crate::model::error::{AttemptFailure, FailureCode};
use crate::model::journal::Output;
use crate::model::reader::depth_fits;
use crate::model::step::{Body, HttpCall};
use crate::tools::{SecretError, Secrets};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What may stand in a header as it is; the rest of a step's name is percent-encoded.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'"');

/// Statuses of failures that may pass: RFC 9110 for 408 and 5xx, RFC 8470 for 425, RFC 6585 for 429.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

pub(super) async fn perform(
    egress: &Egress,
    secrets: &Secrets,
    effect: &Effect,
    call: &HttpCall,
) -> Result<Output, AttemptFailure> {
    let mut request = request(call, &effect.idempotency_key)?;
    for (text, name) in &call.secrets {
        request.secrets.add(text.clone(), secret(secrets, name).await?);
    }
    let response = egress.send(request).await.map_err(|error| failure(&error))?;
    let status = response.status;
    if call.expect_status.iter().any(|range| range.contains(&status.as_u16())) {
        return Ok(output(&response));
    }
    // Some services answer 409 while an earlier request under the same key is still in flight.
    let still_in_flight = effect.after_unsettled && status == StatusCode::CONFLICT;
    let reason = status.canonical_reason().unwrap_or("no standard meaning");
    let message = format!("the target answered {} ({reason}), which the step does not expect", status.as_u16());
    let mut failed = AttemptFailure::permanent(FailureCode::HttpStatus, message);
    failed.retryable = may_pass(status) || still_in_flight;
    failed.retry_after = retry_after(&response.headers);
    Err(failed)
}

async fn secret(secrets: &Secrets, name: &str) -> Result<Arc<Secret>, AttemptFailure> {
    match secrets.get(name).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => {
            let message = format!("no secret of this server is called `{name}`");
            Err(AttemptFailure::permanent(FailureCode::SecretUnavailable, message))
        }
        Err(error @ SecretError::Store(_)) => {
            Err(AttemptFailure::retryable(FailureCode::SecretUnavailable, error.to_string()))
        }
        Err(error) => Err(AttemptFailure::permanent(FailureCode::SecretUnavailable, error.to_string())),
    }
}

fn request(call: &HttpCall, idempotency_key: &str) -> Result<Request, AttemptFailure> {
    let invalid =
        |error: &dyn std::fmt::Display| AttemptFailure::permanent(FailureCode::InvalidRequestValues, error.to_string());
    let mut headers = HeaderMap::new();
    let key = utf8_percent_encode(idempotency_key, NOT_IN_HEADERS).to_string();
    headers.insert(IDEMPOTENCY_KEY.clone(), HeaderValue::try_from(key).map_err(|error| invalid(&error))?);
    let (kind, body) = match &call.body {
        Body::Empty => (None, Bytes::new()),
        Body::Json(value) => (Some("application/json"), Bytes::from(value.to_string())),
        Body::Text(text) => (Some("text/plain; charset=utf-8"), Bytes::from(text.clone())),
        Body::Form(fields) => {
            let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            (Some("application/x-www-form-urlencoded"), Bytes::from(encoded))
        }
    };
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    // The definition's own headers win; one that it names twice is sent twice.
    for (name, _) in &call.headers {
        headers.remove(name);
    }
    for (name, value) in &call.headers {
        headers.append(name.clone(), value.clone());
    }
    let method = Method::try_from(call.method).map_err(|error| invalid(&error))?;
    Ok(Request { method, url: call.url.clone(), headers, body, secrets: Placeholders::default(), known: Vec::new() })
}

fn failure(error: &EgressError) -> AttemptFailure {
    let message = error.to_string();
    match error {
        EgressError::Denied(_) => AttemptFailure::permanent(FailureCode::EgressDenied, message),
        EgressError::Withheld(_) | EgressError::Coding(_) => {
            AttemptFailure::permanent(FailureCode::SecretUnavailable, message)
        }
        EgressError::Unusable(_) => AttemptFailure::permanent(FailureCode::InvalidRequestValues, message),
        EgressError::TooManyRedirects(_) => AttemptFailure::permanent(FailureCode::TooManyRedirects, message),
        EgressError::TooLarge(_) => AttemptFailure::permanent(FailureCode::ResponseTooLarge, message),
        EgressError::Connection(..) => AttemptFailure::retryable(FailureCode::ConnectionFailed, message),
    }
}

fn output(response: &Response) -> Output {
    let mut headers: IndexMap<String, String> = IndexMap::new();
    for (name, value) in &response.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    let kind = response.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let status = Some(response.status.as_u16());
    Output { status, headers: Some(headers), ..Output::of(decode(kind, &response.body)) }
}

/// The body as a value: nothing is null, JSON is JSON, text is a string, anything else an object with base64.
///
/// JSON that is too deep to be stored stays text. Targets often call their JSON `text/plain`: there an object or an array is taken as JSON, and a bare `17` as text.
fn decode(kind: &str, body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    let is_text = kind.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"));
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && (!is_text || value.is_object() || value.is_array())
        && depth_fits(&value)
    {
        return value;
    }
    match std::str::from_utf8(body) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({
            "base64": base64::engine::general_purpose::STANDARD.encode(body),
            "content_type": kind,
        }),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3).
#[expect(clippy::disallowed_methods, reason = "a date in a header is about the wall clock of the target")]
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_become_values() {
        assert_eq!(decode("application/json", b"{\"a\": 1}"), json!({"a": 1}));
        assert_eq!(decode("", b"17"), json!(17));
        assert_eq!(decode("text/plain", b"17"), json!("17"));
        assert_eq!(decode("text/plain; charset=utf-8", b"[17]"), json!([17]));
        assert_eq!(decode("text/html", b"<p>"), json!("<p>"));
        assert_eq!(decode("application/json", b"{broken"), json!("{broken"));
        assert_eq!(decode("application/json", b""), Value::Null);
        let (fits, deep) =
            (format!("{}{}", "[".repeat(64), "]".repeat(64)), format!("{}{}", "[".repeat(65), "]".repeat(65)));
        assert!(decode("application/json", fits.as_bytes()).is_array());
        assert_eq!(decode("application/json", deep.as_bytes()), json!(deep));
        let bytes = decode("image/png", &[0xff, 0x00]);
        assert_eq!(bytes, json!({"base64": "/wA=", "content_type": "image/png"}));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let headers =
            |text: &'static str| HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert!(retry_after(&headers("Tue, 31 Dec 2999 23:59:59 GMT")).is_some_and(|wait| wait.as_secs() > 86_400));
        assert_eq!(retry_after(&headers("soon")), None);
    }
}
