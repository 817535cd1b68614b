//! Why a step or a run failed: a closed set of codes, each with a page in `docs/errors/`.
//!
//! These are the outcomes of work that was accepted. Refusals at the door are problems and live in `api/problem.rs`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::path::StepPath;
use super::plugin::Used;

/// Declares the failure codes with their snake_case text and their page.
macro_rules! failure_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a step, and with it a run, failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FailureCode {
            $($(#[$doc])* $name,)*
        }

        impl FailureCode {
            /// Every code.
            pub const ALL: &'static [FailureCode] = &[$(FailureCode::$name,)*];

            /// The code as clients see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(FailureCode::$name => $text,)* }
            }

            /// The documentation page of the code, in Markdown.
            #[must_use]
            pub fn page(self) -> &'static str {
                match self { $(FailureCode::$name => include_str!(concat!("../../../docs/errors/", $text, ".md")),)* }
            }
        }
    };
}

failure_codes! {
    /// The target answered with a status that the step does not accept.
    HttpStatus = "http_status",
    /// No connection, or it broke before the whole answer was here.
    ConnectionFailed = "connection_failed",
    /// The attempt took longer than the step's `timeout_seconds`.
    StepTimeout = "step_timeout",
    /// The answer is larger than the cap on responses.
    ResponseTooLarge = "response_too_large",
    /// The target redirected more often than allowed.
    TooManyRedirects = "too_many_redirects",
    /// The egress guard does not let this server call that address.
    EgressDenied = "egress_denied",
    /// A secret that the step names is not set, may not go where the request goes, or cannot be opened.
    SecretUnavailable = "secret_unavailable",
    /// The values of the step do not make a valid request.
    InvalidRequestValues = "invalid_request_values",
    /// An expression of the step could not be evaluated.
    ExpressionFailed = "expression_failed",
    /// The step's output is larger than the limit.
    StepOutputTooLarge = "step_output_too_large",
    /// The outputs of the run's steps together are larger than the limit.
    ContextTooLarge = "context_too_large",
    /// The arguments of the tool do not fit its input schema, or the tool refuses them.
    InvalidToolArguments = "invalid_tool_arguments",
    /// The tool trapped.
    ToolTrapped = "tool_trapped",
    /// The tool used up its stack.
    ToolStackExhausted = "tool_stack_exhausted",
    /// The tool wanted more memory than it may have.
    ToolMemoryExceeded = "tool_memory_exceeded",
    /// The tool computed more than it may.
    ToolFuelExhausted = "tool_fuel_exhausted",
    /// The tool handed over more than it may.
    ToolOutputTooLarge = "tool_output_too_large",
    /// The tool broke the contract between plugins and Weir.
    ToolContractBroken = "tool_contract_broken",
    /// The tool wanted what was not granted, and failed.
    ToolAccessDenied = "tool_access_denied",
    /// The tool says that its call failed.
    ToolFailed = "tool_failed",
    /// The tool's answer says what went wrong, and the step says `on_tool_error: fail`.
    ToolError = "tool_error",
    /// Nobody answered what the tool asked, for longer than the step's `answer_timeout_seconds`.
    AnswerTimeout = "answer_timeout",
    /// The plugin that the revision pins cannot be run here.
    PluginUnusable = "plugin_unusable",
    /// The process ended during the attempt and the step says `on_interrupt: fail`.
    Interrupted = "interrupted",
    /// The run took longer than its `timeout_seconds`.
    RunTimeout = "run_timeout",
    /// The run was interrupted again and again while it was the only suspect that ran.
    Quarantined = "quarantined",
    /// The run failed in the system that it was imported from.
    Imported = "imported",
    /// The stored revision or journal cannot be read by this version of Weir.
    Unreadable = "unreadable",
}

/// What went wrong with a step or a run, as the journal and the API tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub code: FailureCode,
    /// What happened, for a person; never a secret, never a body.
    pub message: String,
    /// The step that failed, unless the run failed as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
}

impl Failure {
    /// A failure that belongs to no step (yet).
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), step: None }
    }

    /// The same failure, of the step at `path`.
    #[must_use]
    pub fn at(mut self, path: &StepPath) -> Self {
        self.step = Some(path.clone());
        self
    }
}

/// How one attempt of a step failed, and whether trying again may help.
#[derive(Clone, Debug)]
pub struct AttemptFailure {
    /// What went wrong.
    pub failure: Failure,
    /// Whether another attempt may end better.
    pub retryable: bool,
    /// The earliest time for another attempt, where the target named one (`Retry-After`, RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
    /// `mcp_tool`: what the attempt used.
    pub used: Option<Box<Used>>,
}

impl AttemptFailure {
    /// A failure that no further attempt will mend.
    #[must_use]
    pub fn permanent(code: FailureCode, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(code, message), retryable: false, retry_after: None, used: None }
    }

    /// A failure that may pass.
    #[must_use]
    pub fn retryable(code: FailureCode, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(code, message), retryable: true, retry_after: None, used: None }
    }
}
