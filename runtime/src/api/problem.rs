//! Refusals at the door: RFC 9457 `application/problem+json` with a closed set of codes. The only place that knows
//! HTTP status codes of errors. Every code has a page in `docs/errors/` and a snapshot in `tests/it/errors.rs`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::reader::Fault;
use crate::store::StoreError;

/// Declares the codes: text, status, title.
macro_rules! problem_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident, $title:literal;)*) => {
        /// What is wrong with a request, or with the server.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ProblemCode {
            $($(#[$doc])* $name,)*
        }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &'static [ProblemCode] = &[$(ProblemCode::$name,)*];

            /// The code as clients see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(ProblemCode::$name => $text,)* }
            }

            /// The status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(ProblemCode::$name => StatusCode::$status,)* }
            }

            /// A short summary, the same for every occurrence.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(ProblemCode::$name => $title,)* }
            }

            /// The documentation page of the code, in Markdown.
            #[must_use]
            pub fn page(self) -> &'static str {
                match self { $(ProblemCode::$name => include_str!(concat!("../../../docs/errors/", $text, ".md")),)* }
            }
        }
    };
}

problem_codes! {
    /// The body is not JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON";
    /// The body has another media type than the route takes.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The media type is not supported";
    /// The definition has faults.
    InvalidDefinition = "invalid_definition", UNPROCESSABLE_ENTITY, "The definition is not valid";
    /// A member of the body, a part of the path, a query parameter or a header has a fault.
    InvalidRequest = "invalid_request", UNPROCESSABLE_ENTITY, "The request is not valid";
    /// The body is larger than the limit.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// No workflow has this id.
    WorkflowNotFound = "workflow_not_found", NOT_FOUND, "There is no such workflow";
    /// No run has this id.
    RunNotFound = "run_not_found", NOT_FOUND, "There is no such run";
    /// No webhook endpoint has this id or path.
    EndpointNotFound = "endpoint_not_found", NOT_FOUND, "There is no such webhook endpoint";
    /// No plugin has this name, version or digest.
    PluginNotFound = "plugin_not_found", NOT_FOUND, "There is no such plugin";
    /// The bytes are not a plugin that can be used.
    InvalidPlugin = "invalid_plugin", UNPROCESSABLE_ENTITY, "The plugin is not valid";
    /// Nobody who is trusted signed the plugin.
    InvalidPluginSignature = "invalid_plugin_signature", UNPROCESSABLE_ENTITY, "The plugin's signature is not valid";
    /// The plugin is not signed, and must be.
    PluginSignatureRequired = "plugin_signature_required", FORBIDDEN, "The plugin must be signed";
    /// The version of the plugin is another component already.
    PluginVersionTaken = "plugin_version_taken", CONFLICT, "The plugin's version is taken";
    /// The version of the plugin is what its name means.
    PluginActive = "plugin_active", CONFLICT, "The plugin's version is active";
    /// Revisions of workflows pin the version of the plugin.
    PluginInUse = "plugin_in_use", CONFLICT, "The plugin's version is in use";
    /// The version wants more than anybody granted it.
    GrantRequired = "grant_required", CONFLICT, "The plugin's version needs a grant";
    /// The grant has faults.
    InvalidGrant = "invalid_grant", UNPROCESSABLE_ENTITY, "The grant is not valid";
    /// No secret has this name.
    SecretNotFound = "secret_not_found", NOT_FOUND, "There is no such secret";
    /// Nothing is at this URL.
    RouteNotFound = "route_not_found", NOT_FOUND, "There is nothing at this URL";
    /// The URL exists, and does not take this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The URL does not take this method";
    /// The workflow is switched off.
    WorkflowInactive = "workflow_inactive", CONFLICT, "The workflow is inactive";
    /// The webhook endpoint is switched off.
    EndpointInactive = "endpoint_inactive", BAD_REQUEST, "The webhook endpoint is inactive";
    /// The webhook secret is missing or wrong.
    InvalidSecret = "invalid_secret", UNAUTHORIZED, "The webhook secret is missing or wrong";
    /// The API key is missing or unknown.
    InvalidApiKey = "invalid_api_key", UNAUTHORIZED, "The API key is missing or unknown";
    /// Another endpoint has this path.
    PathTaken = "path_taken", CONFLICT, "The path is taken";
    /// The idempotency key came before with another body.
    IdempotencyConflict = "idempotency_conflict", CONFLICT, "The idempotency key belongs to another request";
    /// The run is over.
    RunFinished = "run_finished", CONFLICT, "The run is finished";
    /// The run has not failed.
    RunNotFailed = "run_not_failed", CONFLICT, "The run has not failed";
    /// Nobody asks what is answered.
    NothingAsked = "nothing_asked", CONFLICT, "Nothing of that name is asked";
    /// Another answer came before.
    AlreadyAnswered = "already_answered", CONFLICT, "The question is answered already";
    /// This version cannot read what is stored of the run.
    RunUnreadable = "run_unreadable", CONFLICT, "The run cannot be read by this version";
    /// A browser sent the request on behalf of another site.
    CrossOrigin = "cross_origin", FORBIDDEN, "The request comes from another site";
    /// The server cannot do it now.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The server cannot do this now";
    /// A defect of the server.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The server failed";
}

/// When a client should try again after `unavailable`, in seconds.
const RETRY_AFTER_SECONDS: &str = "2";

/// The request that the current task answers.
#[derive(Clone)]
pub(super) struct RequestInfo {
    pub(super) id: String,
    pub(super) path: String,
}

tokio::task_local! {
    pub(super) static REQUEST: RequestInfo;
}

/// A refusal on its way to the client, with the cause that only the log is told.
#[derive(Debug)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    faults: Vec<Fault>,
    cause: Option<String>,
}

/// The cause of a server error, carried beside the response so that it is logged once, on the request's line.
#[derive(Clone)]
pub(super) struct Cause(pub(super) String);

/// The body of a refusal (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// The page of the code, relative to this server.
    #[serde(rename = "type")]
    #[schema(example = "/docs/errors/invalid_definition")]
    kind: String,
    /// A summary of the code.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// The path of the request.
    instance: String,
    /// The code.
    code: ProblemCode,
    /// The id of the request, as in the header `x-request-id` and in the server's log.
    request_id: String,
    /// All faults of the document, where it has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FaultBody>,
}

/// One fault of a document.
#[derive(Serialize, ToSchema)]
#[schema(as = Fault)]
struct FaultBody {
    /// Where: an RFC 6901 JSON pointer into the body, or the name of a parameter.
    pointer: String,
    /// What is wrong, and what is allowed.
    message: String,
}

impl Problem {
    /// A refusal with this code; `detail` says what is wrong this time.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), faults: Vec::new(), cause: None }
    }

    /// A refusal of a document with these faults.
    #[must_use]
    pub fn faulty(code: ProblemCode, faults: Vec<Fault>) -> Self {
        let first = faults.first().map_or_else(String::new, |fault| match fault.pointer.as_str() {
            "" => fault.message.clone(),
            pointer => format!("{pointer}: {}", fault.message),
        });
        let detail = match faults.len() {
            0 | 1 => first,
            n => format!("{first} (and {} more, see `errors`)", n - 1),
        };
        Self { code, detail, faults, cause: None }
    }

    /// A refusal for a fault of one parameter.
    pub fn parameter(name: &str, message: impl Into<String>) -> Self {
        Self::faulty(ProblemCode::InvalidRequest, vec![Fault { pointer: name.to_owned(), message: message.into() }])
    }

    /// A defect; the client is told nothing but that.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let mut problem = Self::new(ProblemCode::Internal, "the server's log has the cause under this request id");
        problem.cause = Some(cause.to_string());
        problem
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                let detail = "nothing was half-written; repeat the request, with its Idempotency-Key if it has one";
                let mut problem = Self::new(ProblemCode::Unavailable, detail);
                problem.cause = Some(error.to_string());
                problem
            }
            StoreError::Refused(_) | StoreError::Unreadable(_) => Self::internal(error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let (instance, request_id) =
            REQUEST.try_with(|request| (request.path.clone(), request.id.clone())).unwrap_or_default();
        let body = ProblemBody {
            kind: format!("/docs/errors/{}", self.code.as_str()),
            title: self.code.title(),
            status: status.as_u16(),
            detail: self.detail,
            instance,
            code: self.code,
            request_id,
            errors: self
                .faults
                .into_iter()
                .map(|fault| FaultBody { pointer: fault.pointer, message: fault.message })
                .collect(),
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.code == ProblemCode::InvalidApiKey {
            // RFC 9110, section 11.6.1: a 401 says how to authenticate.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.code == ProblemCode::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}
