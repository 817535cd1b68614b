//! Requests to other services. They travel as standard `wasi:http`, and only where the plugin asks to go (`plugin.toml`)
//! and an operator lets it.
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! fn stars(cx: &Context) -> Result<u64, ToolError> {
//!     let response = cx
//!         .get("https://api.github.com/repos/rust-lang/rust")
//!         .bearer(cx.secret("github_token")?)
//!         .send()?
//!         .error_for_status()?;
//!     let repository: Value = response.json()?;
//!     Ok(repository["stargazers_count"].as_u64().unwrap_or_default())
//! }
//!
//! // In a test a closure is the network.
//! let cx = Context::fake()
//!     .with_secret("github_token")
//!     .with_http(|_| Ok(weir_sdk::Response::of_json(200, &json!({"stargazers_count": 7}))));
//! assert_eq!(stars(&cx).unwrap(), 7);
//! assert_eq!(cx.requests()[0].header("authorization"), Some("Bearer [secret github_token]"));
//! ```

use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Context, ToolError};

/// What may stand in a query as it is (RFC 3986, section 2.3).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes of a body that an error tells.
const TOLD_MAX_BYTES: usize = 500;

/// A secret of the operator: a text that stands for it. The host puts the secret in its place when a request leaves
/// for a host that may have it, in a header or in the query. The secret itself is never here.
#[derive(Clone)]
pub struct Secret {
    pub(crate) name: String,
    pub(crate) placeholder: String,
}

impl AsRef<str> for Secret {
    fn as_ref(&self) -> &str {
        &self.placeholder
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// A request that is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A response, for tests.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A response with JSON in it, for tests.
    #[must_use]
    pub fn of_json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string()).with_header("content-type", "application/json")
    }

    /// With a header, for tests.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`HttpError::Body`] when it is none, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| HttpError::Body(error.to_string()))
    }

    /// The response, if its status is below 400.
    ///
    /// # Errors
    /// [`HttpError::Status`].
    pub fn error_for_status(self) -> Result<Self, HttpError> {
        if self.status < 400 {
            return Ok(self);
        }
        let wait = self.header("retry-after").and_then(|wait| wait.trim().parse().ok()).map(Duration::from_secs);
        let mut body = self.text();
        body.truncate(body.floor_char_boundary(TOLD_MAX_BYTES));
        Err(HttpError::Status { status: self.status, retry_after: wait, body })
    }
}

/// Why there is no good response. `?` makes a fitting [`ToolError`] of it: one that is tried again where that may help.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpError {
    /// The plugin does not ask for it, or nobody granted it.
    Denied,
    /// It took too long.
    Timeout,
    /// There was no connection, or it broke.
    Connection(String),
    /// The request is none that can be made: its URL, a header, or its size.
    Unusable(String),
    /// The body is not what it should be.
    Body(String),
    /// The status says that it did not work.
    Status {
        /// Which one.
        status: u16,
        /// What `Retry-After` says.
        retry_after: Option<Duration>,
        /// The beginning of the body.
        body: String,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("the request was denied: it is not granted"),
            Self::Timeout => f.write_str("the request took too long"),
            Self::Connection(what) => write!(f, "the connection failed: {what}"),
            Self::Unusable(what) => write!(f, "the request cannot be made: {what}"),
            Self::Body(what) => write!(f, "the response is not what it should be: {what}"),
            Self::Status { status, body, .. } => write!(f, "the service answered {status}: {body}"),
        }
    }
}

// `HttpError` is no `std::error::Error`, so that `?` can do better than for any error.
impl From<HttpError> for ToolError {
    fn from(error: HttpError) -> Self {
        let message = error.to_string();
        match error {
            HttpError::Denied => Self::permanent(message).with_code("http_denied"),
            HttpError::Timeout => Self::retryable(message).with_code("http_timeout"),
            HttpError::Connection(_) => Self::retryable(message).with_code("http_connection"),
            HttpError::Unusable(_) => Self::permanent(message).with_code("http_unusable"),
            HttpError::Body(_) => Self::permanent(message).with_code("http_body"),
            HttpError::Status { status: 408 | 425 | 429 | 500..=599, retry_after, .. } => {
                let error = Self::retryable(message).with_code("http_status");
                retry_after.map_or(error.clone(), |wait| error.after(wait))
            }
            HttpError::Status { .. } => Self::permanent(message).with_code("http_status"),
        }
    }
}

/// A request that is being written.
#[must_use = "a request is made by `send`"]
pub struct RequestBuilder<'c> {
    context: &'c Context,
    request: Request,
    timeout: Option<Duration>,
    fault: Option<HttpError>,
}

impl Context {
    /// A request with any method.
    pub fn request(&self, method: &str, url: &str) -> RequestBuilder<'_> {
        let request = Request { method: method.to_owned(), url: url.to_owned(), headers: Vec::new(), body: Vec::new() };
        RequestBuilder { context: self, request, timeout: None, fault: None }
    }

    /// A GET request.
    pub fn get(&self, url: &str) -> RequestBuilder<'_> {
        self.request("GET", url)
    }

    /// A POST request.
    pub fn post(&self, url: &str) -> RequestBuilder<'_> {
        self.request("POST", url)
    }

    /// A PUT request.
    pub fn put(&self, url: &str) -> RequestBuilder<'_> {
        self.request("PUT", url)
    }

    /// A PATCH request.
    pub fn patch(&self, url: &str) -> RequestBuilder<'_> {
        self.request("PATCH", url)
    }

    /// A DELETE request.
    pub fn delete(&self, url: &str) -> RequestBuilder<'_> {
        self.request("DELETE", url)
    }
}

impl RequestBuilder<'_> {
    /// With a header. Its value may be a [`Secret`], or text with one in it.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.request.headers.push((name.to_ascii_lowercase(), value.as_ref().to_owned()));
        self
    }

    /// With a parameter in the query. Its value may be a [`Secret`].
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let mark = if self.request.url.contains('?') { '&' } else { '?' };
        let (name, value) = (utf8_percent_encode(name, QUERY), utf8_percent_encode(value.as_ref(), QUERY));
        self.request.url.push_str(&format!("{mark}{name}={value}"));
        self
    }

    /// With `Authorization: Bearer ...`.
    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        let value = format!("Bearer {}", token.as_ref());
        self.header("authorization", value)
    }

    /// With a JSON body.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => self.request.body = body,
            Err(error) => self.fault = Some(HttpError::Unusable(error.to_string())),
        }
        self.header("content-type", "application/json")
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = body.into();
        self
    }

    /// To be given up when there is no response for so long. The call has a deadline of its own.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes the request and reads the whole response. Redirects are responses like others.
    ///
    /// Requests that change something carry the call's idempotency key, unless they have one.
    ///
    /// # Errors
    /// [`HttpError`]; a status that says that it did not work is no error here.
    pub fn send(mut self) -> Result<Response, HttpError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let changes = ["POST", "PUT", "PATCH", "DELETE"].contains(&self.request.method.as_str());
        if changes && self.request.header("idempotency-key").is_none() {
            let key = self.context.idempotency_key().to_owned();
            self.request.headers.push(("idempotency-key".to_owned(), key));
        }
        self.context.exchange(self.request, self.timeout)
    }
}
