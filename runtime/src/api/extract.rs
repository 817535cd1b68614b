//! Reads requests: paths, queries and bodies become values or a [`Problem`], never a refusal of the framework.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde_json::Value;
use uuid::Uuid;

use super::Api;
use super::problem::{Problem, ProblemCode};
use crate::model::reader::{Fault, Faults, JSON_DEPTH_MAX, Members, depth_fits};
use crate::tools::{Flaw, read_json};

/// How much of a body that is too large is taken and thrown away, and for how long.
const DISCARD_MAX_BYTES: usize = 64 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The id in the path.
pub(super) struct Id<T>(pub(super) T);

impl<T: From<Uuid>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (name, text) = path_parameter(parts, state).await?;
        parse_uuid(&text).map(|id| Self(T::from(id))).map_err(|message| Problem::parameter(&name, message))
    }
}

/// `text` as a UUID in its usual form of 36 characters.
pub(super) fn parse_uuid(text: &str) -> Result<Uuid, String> {
    let uuid = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    uuid.ok_or_else(|| "must be a UUID of 36 characters".to_owned())
}

/// The last part of the path, as text.
pub(super) struct PathText(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(path_parameter(parts, state).await?.1))
    }
}

async fn path_parameter<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<(String, String), Problem> {
    let parameters = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::parameter("path", "must be percent-encoded UTF-8"))?;
    let first = parameters.iter().next().map(|(name, text)| (name.to_owned(), text.to_owned()));
    first.ok_or_else(|| Problem::internal("a route without a parameter asked for one"))
}

/// The query, whose parameters are taken one by one; what is left is unknown and a fault.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Self { pairs, known: Vec::new(), faults: Vec::new() })
    }
}

/// No query: every parameter is unknown.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::from_request_parts(parts, state).await?.finish().map(|()| Self)
    }
}

impl Query {
    /// The parameter `name`, read by `parse`, whose error says what is allowed.
    pub(super) fn take<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.known.push(name);
        let mut given = self.pairs.iter().filter(|(key, _)| key == name);
        let (_, text) = given.next()?;
        let parsed = if given.next().is_some() { Err("is given twice".to_owned()) } else { parse(text) };
        parsed.map_err(|message| self.faults.push(Fault { pointer: name.to_owned(), message })).ok()
    }

    /// Refuses the request when a parameter was faulty or unknown.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in self.pairs.iter().filter(|(name, _)| !self.known.contains(&name.as_str())) {
            let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
            let message = format!("unknown parameter; known here: {known}");
            self.faults.push(Fault { pointer: name.clone(), message });
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::faulty(ProblemCode::InvalidRequest, self.faults)) }
    }
}

/// A JSON body; `None` when there is none, or null.
pub(super) struct JsonBody(pub(super) Option<Value>);

impl FromRequest<Api> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let body = read_json_body(request, api, |bytes| serde_json::from_slice(bytes)).await?;
        Ok(Self(body.filter(|value| !value.is_null())))
    }
}

/// A JSON body in which a member may not be twice: there it would be unclear what somebody decided.
pub(super) struct ClearBody {
    /// What it says; null when there is no body.
    pub(super) value: Value,
    /// Members that are there twice.
    pub(super) twice: Vec<Fault>,
}

impl FromRequest<Api> for ClearBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let mut twice = Vec::new();
        let read = |bytes: &[u8]| {
            let (value, flaws) = read_json(bytes)?;
            twice.extend(flaws.into_iter().map(|Flaw { pointer, message }| Fault { pointer, message }));
            Ok(value)
        };
        let value = read_json_body(request, api, read).await?.unwrap_or_default();
        Ok(Self { value, twice })
    }
}

/// The JSON of a body as `read` reads it; `None` when there is none.
async fn read_json_body(
    request: Request,
    api: &Api,
    read: impl FnOnce(&[u8]) -> serde_json::Result<Value>,
) -> Result<Option<Value>, Problem> {
    let is_json = is_json(request.headers());
    let limit = api.config.request_max_bytes;
    let bytes = read_body(request.into_body(), limit, "request_max_bytes").await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !is_json {
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, "send the body as `application/json`"));
    }
    match read(&bytes) {
        Ok(value) if !depth_fits(&value) => {
            let message = format!("arrays and objects may stand in one another {JSON_DEPTH_MAX} deep");
            Err(Problem::faulty(ProblemCode::InvalidRequest, vec![Fault { pointer: String::new(), message }]))
        }
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Problem::new(ProblemCode::MalformedJson, error.to_string())),
    }
}

/// Reads a body up to `limit` bytes.
pub(super) async fn read_body(body: Body, limit: usize, setting: &str) -> Result<Bytes, Problem> {
    let announced = usize::try_from(HttpBody::size_hint(&body).lower()).unwrap_or(usize::MAX);
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut too_large) = (BytesMut::new(), announced > limit);
    while !too_large && let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(ProblemCode::MalformedJson, "the body ended before its time"))?;
        too_large = chunk.len() > limit - bytes.len();
        bytes.extend_from_slice(&chunk);
    }
    if too_large {
        discard(chunks).await;
        let detail = format!("the body is larger than {limit} bytes (`{setting}`)");
        return Err(Problem::new(ProblemCode::PayloadTooLarge, detail));
    }
    Ok(bytes.freeze())
}

/// Takes the rest of a body that is refused, within bounds: a client that is still sending when the connection is closed
/// would be told that it broke, and not why.
async fn discard(mut chunks: BodyDataStream) {
    let mut left = DISCARD_MAX_BYTES;
    let taken = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(less) => left = less,
                None => break,
            }
        }
    };
    // Whoever sends more, or slower, is cut off.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, taken).await;
}

/// Whether a body says that it is JSON. One that says nothing is taken for JSON, as the original did.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The text `value` of the member `name`, which must have no fault.
pub(super) fn read_text(
    members: &Members<'_>,
    name: &str,
    value: &Value,
    fault: fn(&str) -> Option<String>,
) -> Option<String> {
    let text = members.string(name, value)?;
    if let Some(message) = fault(text) {
        members.fault(name, message);
        return None;
    }
    Some(text.to_owned())
}

/// Reads the members of a body with `read`, and refuses it with all faults that were found.
pub(super) fn read_members<T>(
    body: &JsonBody,
    read: impl for<'a> FnOnce(&mut Members<'a>, &Faults) -> Option<T>,
) -> Result<T, Problem> {
    let faults = Faults::default();
    let parsed = match &body.0 {
        Some(value) => Members::of(value, "", &faults).and_then(|mut members| {
            let parsed = read(&mut members, &faults);
            members.finish();
            parsed
        }),
        None => {
            faults.add("", "a JSON object is missing");
            None
        }
    };
    let faults = faults.into_vec();
    match parsed {
        Some(parsed) if faults.is_empty() => Ok(parsed),
        _ => {
            let in_definition =
                faults.iter().any(|fault| fault.pointer == "/definition" || fault.pointer.starts_with("/definition/"));
            let code = if in_definition { ProblemCode::InvalidDefinition } else { ProblemCode::InvalidRequest };
            Err(Problem::faulty(code, faults))
        }
    }
}

/// `text` as a whole number from `min` to `max`.
pub(super) fn whole_number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let number = text.parse().ok().filter(|number| digits && (min..=max).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {min} to {max}"))
}
