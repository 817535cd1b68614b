//! How a tool says that it did not work.

use std::time::Duration;

use serde_json::Value;

use crate::HttpError;
use crate::ask::{Asking, Question};

/// Why a tool has no good answer. There are two channels.
///
/// [`ToolError::answer`] is an *answer* that says what went wrong: the step completes with `is_error`, and the workflow
/// decides what follows. Everything else *fails the call*: the step is tried again when that may help, and fails when
/// not. `?` on any error of the standard kind fails the call for good, but for an [`HttpError`] that may pass.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolError {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) code: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) details: Option<Box<Value>>,
    pub(crate) asking: Option<Box<Asking>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Answer,
    Arguments,
    UnknownTool,
    Retryable,
    Permanent,
    /// No error: the call ends in questions.
    Asks,
}

impl ToolError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, retry_after: None, details: None, asking: None }
    }

    /// An answer that says what went wrong.
    #[must_use]
    pub fn answer(message: impl Into<String>) -> Self {
        Self::new(Kind::Answer, message)
    }

    /// The arguments pass the schema and are still wrong.
    #[must_use]
    pub fn invalid_arguments(message: impl Into<String>) -> Self {
        Self::new(Kind::Arguments, message)
    }

    /// The call failed, and trying again may help.
    #[must_use]
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(Kind::Retryable, message)
    }

    /// The call failed, and trying again will not help.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, message)
    }

    pub(crate) fn unknown_tool(name: &str) -> Self {
        Self::new(Kind::UnknownTool, format!("this plugin has no tool named {name:?}"))
    }

    pub(crate) fn asking(asking: Asking) -> Self {
        Self { asking: Some(Box::new(asking)), ..Self::new(Kind::Asks, "the tool asks, and the run waits") }
    }

    /// The questions in which the call ends, if it does.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        self.asking.as_ref().map_or(&[], |asking| &asking.questions)
    }

    /// With a value for people who debug: it goes to the log.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The name of the cause.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// With a stable name of the cause, such as `rate-limited`, for machines.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Not before so long is it to be tried again. None: nothing is said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Not to be tried again before so long. Of use for [`ToolError::retryable`].
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it fails the call and another attempt may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == Kind::Retryable
    }
}

// Any error can be an `HttpError`, or have one among its sources: there is one `From` for all, and it looks.
impl<E: std::error::Error + 'static> From<E> for ToolError {
    fn from(error: E) -> Self {
        let first: &(dyn std::error::Error + 'static) = &error;
        let chain = || std::iter::successors(Some(first), |error| error.source());
        let message = chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        match chain().find_map(|error| error.downcast_ref::<HttpError>()) {
            Some(http) => http.fault(message),
            None => Self::permanent(message),
        }
    }
}
