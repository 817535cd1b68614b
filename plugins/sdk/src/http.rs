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

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Context;
use crate::http_error::{HttpError, HttpErrorKind};
use crate::idn::to_ascii;

/// What may stand in a query as it is (RFC 3986, section 2.3).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes of a body that an error tells.
const TOLD_MAX_BYTES: usize = 500;

/// Methods that may change something.
const UNSAFE: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];

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
    /// What the whole exchange may take; none: what is left of the call.
    pub timeout: Option<Duration>,
}

impl Request {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Scheme, authority, and path with query, as the host takes them; a fragment stays here.
    pub(crate) fn parts(&self) -> Result<(&str, Cow<'_, str>, String), HttpErrorKind> {
        let none = || HttpErrorKind::Unusable("it is no http or https URL".to_owned());
        let (scheme, rest) = self.url.split_once("://").ok_or_else(none)?;
        if !["http", "https"].contains(&scheme) {
            return Err(none());
        }
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok((scheme, to_ascii(authority), path))
    }

    /// The host, and the port if there is one: what an error may tell of a URL.
    pub(crate) fn host(&self) -> Option<&str> {
        let (_, rest) = self.url.split_once("://")?;
        let authority = rest.split(['/', '?', '#', '\\']).next()?;
        authority.rsplit('@').next().filter(|host| !host.is_empty())
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
    /// Who sent it.
    pub(crate) host: Option<String>,
}

impl Response {
    /// A response, for tests.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), host: None }
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

    /// What `Retry-After` says, in seconds or as a date: how long to wait. A date is held against the response's own
    /// `Date`, and against the clock where there is none; one that has passed is no wait at all. None: it says nothing
    /// that can be read.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let said = self.header("retry-after")?.trim();
        if let Ok(seconds) = said.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = httpdate::parse_http_date(said).ok()?;
        let date = self.header("date").and_then(|date| httpdate::parse_http_date(date.trim()).ok());
        Some(until.duration_since(date.unwrap_or_else(now)).unwrap_or_default())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`HttpErrorKind::Body`] when it is none, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let misfit = |error: serde_json::Error| HttpErrorKind::Body(error.to_string());
        serde_json::from_slice(&self.body).map_err(|error| HttpError::of(misfit(error), self.host.clone()))
    }

    /// The response, if its status is below 400.
    ///
    /// # Errors
    /// [`HttpErrorKind::Status`].
    pub fn error_for_status(self) -> Result<Self, HttpError> {
        if self.status < 400 {
            return Ok(self);
        }
        let mut body = self.text();
        body.truncate(body.floor_char_boundary(TOLD_MAX_BYTES));
        let kind = HttpErrorKind::Status { status: self.status, retry_after: self.retry_after(), body };
        Err(HttpError::of(kind, self.host))
    }
}

#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::disallowed_methods, reason = "a test of a plugin has no other clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(target_arch = "wasm32")]
fn now() -> SystemTime {
    let now = wasip2::clocks::wall_clock::now();
    SystemTime::UNIX_EPOCH + Duration::new(now.seconds, now.nanoseconds)
}

/// A request that is being written.
#[must_use = "a request is made by `send`"]
pub struct RequestBuilder<'c> {
    context: &'c Context,
    request: Request,
    fault: Option<HttpErrorKind>,
}

impl Context {
    /// A request with any method.
    pub fn request(&self, method: &str, url: &str) -> RequestBuilder<'_> {
        let (method, url) = (method.to_owned(), url.to_owned());
        let request = Request { method, url, headers: Vec::new(), body: Vec::new(), timeout: None };
        RequestBuilder { context: self, request, fault: None }
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
    /// With a header, in place of any of this name. Its value may be a [`Secret`], or text with one in it.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.request.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.append_header(name, value)
    }

    /// With a header beside those of this name that are there: for the few that may come more than once.
    pub fn append_header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.request.headers.push((name.to_ascii_lowercase(), value.as_ref().to_owned()));
        self
    }

    /// With a parameter in the query, after those that are there. Its value may be a [`Secret`].
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let url = &mut self.request.url;
        let end = url.find('#').unwrap_or(url.len());
        let mark = match url[..end].split_once('?') {
            None => "?",
            Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
            Some(_) => "&",
        };
        let (name, value) = (utf8_percent_encode(name, QUERY), utf8_percent_encode(value.as_ref(), QUERY));
        url.insert_str(end, &format!("{mark}{name}={value}"));
        self
    }

    /// With `Authorization: Bearer ...`.
    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        let value = format!("Bearer {}", token.as_ref());
        self.header("authorization", value)
    }

    /// With a JSON body, and `Content-Type: application/json` where no other was set.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => self.request.body = body,
            Err(error) => self.fault = Some(HttpErrorKind::Unusable(error.to_string())),
        }
        match self.request.header("content-type") {
            Some(_) => self,
            None => self.header("content-type", "application/json"),
        }
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = body.into();
        self
    }

    /// To be given up after so long, with [`HttpErrorKind::Timeout`]. It bounds the whole exchange, on a clock that only
    /// goes forward: from [`RequestBuilder::send`] on, waiting for a place among the requests of the call, finding and
    /// reaching the host, sending the body, and the response until its last byte, however steadily it comes. Without it
    /// only the call's own deadline holds, which ends the call.
    ///
    /// In a test nothing is measured; the closure finds it in [`Request::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Makes the request and reads the whole response. Redirects are responses like others.
    ///
    /// Requests that may change something (POST, PUT, PATCH and DELETE) carry the call's idempotency key, unless they
    /// have one: the first of a call the key itself, the second `KEY:2` and so on, so that no service takes one for a
    /// repeat of another. A tool that may leave out a request when it is tried again gives its requests keys of their
    /// own, such as `.header("idempotency-key", format!("{}:invoice", cx.idempotency_key()))`.
    ///
    /// # Errors
    /// [`HttpError`]; a status that says that it did not work is no error here.
    pub fn send(mut self) -> Result<Response, HttpError> {
        let host = self.request.host().map(str::to_owned);
        if let Some(fault) = self.fault {
            return Err(HttpError::of(fault, host));
        }
        if UNSAFE.contains(&self.request.method.as_str()) && self.request.header("idempotency-key").is_none() {
            let n = self.context.keyed.get() + 1;
            self.context.keyed.set(n);
            let key = self.context.idempotency_key();
            let key = if n == 1 { key.to_owned() } else { format!("{key}:{n}") };
            self.request.headers.push(("idempotency-key".to_owned(), key));
        }
        let answered = self.context.exchange(self.request);
        let response = answered.map_err(|error| error.asked_of(host.as_deref()))?;
        Ok(Response { host, ..response })
    }
}
