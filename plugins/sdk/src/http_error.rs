//! Why there is no good response, and what that means for the call. Never tells more of a URL than its host.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::ToolError;

/// Why there is no good response. `?` makes a fitting [`ToolError`] of it: one that is tried again where that may help,
/// also when it is the source of another error.
///
/// It tells the host and never the path, the query or a secret. In a test one is made of its kind:
/// `HttpErrorKind::Timeout.into()`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpError {
    kind: HttpErrorKind,
    host: Option<String>,
    /// Why it was denied, where that is known.
    why: Option<String>,
}

/// What kind of [`HttpError`] it is. Each says with which code it fails the call, and whether another attempt may help.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpErrorKind {
    /// The plugin does not ask for it, nobody granted it, or its address is not public. `http_denied`, for good.
    Denied,
    /// It took too long. `http_timeout`, to be tried again.
    Timeout,
    /// The host was not found or not reached, or the connection broke. `http_connection`, to be tried again.
    Connection(String),
    /// The request is none that can be made: its URL, a header, or its size. `http_unusable`, for good.
    Unusable(String),
    /// The body is not what it should be. `http_body`, for good.
    Body(String),
    /// The status says that it did not work. `http_status`: 408, 425, 429 and 5xx to be tried again, and not before
    /// `Retry-After` says; others for good.
    Status {
        /// Which one.
        status: u16,
        /// What `Retry-After` says ([`Response::retry_after`](crate::Response::retry_after)).
        retry_after: Option<Duration>,
        /// The beginning of the body.
        body: String,
    },
}

impl From<HttpErrorKind> for HttpError {
    fn from(kind: HttpErrorKind) -> Self {
        Self::of(kind, None)
    }
}

impl HttpError {
    pub(crate) fn of(kind: HttpErrorKind, host: Option<String>) -> Self {
        Self { kind, host, why: None }
    }

    /// One that says why the request was denied.
    pub(crate) fn denied(why: String) -> Self {
        Self { kind: HttpErrorKind::Denied, host: None, why: Some(why) }
    }

    /// The same, with the host that was asked, if it has none.
    pub(crate) fn asked_of(self, host: Option<&str>) -> Self {
        Self { host: self.host.or_else(|| host.map(str::to_owned)), ..self }
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> &HttpErrorKind {
        &self.kind
    }

    /// The host that was asked, with its port where the URL names one. None: the URL has no host, or a test made it.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// What it means for a call that has no other way.
    pub(crate) fn fault(&self, message: String) -> ToolError {
        match &self.kind {
            HttpErrorKind::Denied => ToolError::permanent(message).with_code("http_denied"),
            HttpErrorKind::Timeout => ToolError::retryable(message).with_code("http_timeout"),
            HttpErrorKind::Connection(_) => ToolError::retryable(message).with_code("http_connection"),
            HttpErrorKind::Unusable(_) => ToolError::permanent(message).with_code("http_unusable"),
            HttpErrorKind::Body(_) => ToolError::permanent(message).with_code("http_body"),
            HttpErrorKind::Status { status: 408 | 425 | 429 | 500..=599, retry_after, .. } => {
                let error = ToolError::retryable(message).with_code("http_status");
                match retry_after {
                    Some(wait) => error.after(*wait),
                    None => error,
                }
            }
            HttpErrorKind::Status { .. } => ToolError::permanent(message).with_code("http_status"),
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("the service");
        match &self.kind {
            HttpErrorKind::Denied => {
                let why = self.why.as_deref().unwrap_or("it is not asked for, or not granted");
                write!(f, "the request to {host} was denied: {why}")
            }
            HttpErrorKind::Timeout => write!(f, "the request to {host} took too long"),
            HttpErrorKind::Connection(what) => write!(f, "the connection to {host} failed: {what}"),
            HttpErrorKind::Unusable(what) => write!(f, "the request to {host} cannot be made: {what}"),
            HttpErrorKind::Body(what) => write!(f, "the response of {host} is not what it should be: {what}"),
            HttpErrorKind::Status { status, body, .. } => write!(f, "{host} answered {status}: {body}"),
        }
    }
}

impl Error for HttpError {}
