//! How the definition language looks in the OpenAPI document. Only schemas: `model::definition` reads definitions.

#![expect(dead_code, reason = "these types are never made; their schemas are what is used")]

use std::collections::HashMap;

use serde_json::Value;
use utoipa::ToSchema;

/// What a workflow executes. Values of steps may hold `{{ expression }}`.
#[derive(ToSchema)]
#[schema(as = Definition)]
#[serde(deny_unknown_fields)]
pub(super) struct DefinitionSchema {
    /// Version of the definition language.
    #[schema(pattern = "^1\\.0$", example = "1.0")]
    version: Option<String>,
    /// Longest time from the start of a run to its end; at most, and by default, the server's limit.
    #[schema(minimum = 0.001)]
    timeout_seconds: Option<f64>,
    /// The steps, in order.
    steps: Vec<StepSchema>,
}

/// One step.
#[derive(ToSchema)]
#[schema(as = Step)]
#[serde(untagged)]
enum StepSchema {
    Http(HttpStepSchema),
    PersistSnapshot(SnapshotStepSchema),
    McpTool(ToolStepSchema),
}

/// Calls a URL.
#[derive(ToSchema)]
#[schema(as = HttpStep)]
#[serde(deny_unknown_fields)]
struct HttpStepSchema {
    #[schema(inline)]
    r#type: HttpType,
    #[schema(inline)]
    method: Option<Method>,
    /// Absolute http or https URL.
    url: String,
    /// Header values are strings, numbers or booleans.
    headers: Option<HashMap<String, Value>>,
    /// Added to the URL; a list repeats its name.
    query: Option<HashMap<String, Value>>,
    /// A JSON body.
    json: Option<Value>,
    /// A URL-encoded body.
    form: Option<HashMap<String, Value>>,
    /// A text body.
    body: Option<String>,
    /// Statuses that count as success: a status, a class such as `2xx`, or a list of these. Default `2xx`.
    expect_status: Option<Value>,
    /// Default `step_<index>`.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// Longest time of one attempt. Default 30.
    #[schema(minimum = 0.001)]
    timeout_seconds: Option<f64>,
    retry: Option<RetrySchema>,
    /// An expression; the step is skipped when it is false.
    r#if: Option<String>,
    #[schema(inline)]
    on_interrupt: Option<OnInterrupt>,
}

/// Keeps the context as it is now.
#[derive(ToSchema)]
#[schema(as = PersistSnapshotStep)]
#[serde(deny_unknown_fields)]
struct SnapshotStepSchema {
    #[schema(inline)]
    r#type: SnapshotType,
    /// Names of earlier steps to keep; null keeps all.
    include_keys: Option<Vec<String>>,
    /// Default `step_<index>`.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    #[schema(minimum = 0.001)]
    timeout_seconds: Option<f64>,
    retry: Option<RetrySchema>,
    /// An expression; the step is skipped when it is false.
    r#if: Option<String>,
    #[schema(inline)]
    on_interrupt: Option<OnInterrupt>,
}

/// Calls a tool of a plugin. A definition that names a tool which no plugin of this server offers is refused.
#[derive(ToSchema)]
#[schema(as = McpToolStep)]
#[serde(deny_unknown_fields)]
struct ToolStepSchema {
    #[schema(inline)]
    r#type: ToolType,
    /// The tool.
    tool_name: String,
    /// Its arguments: an object, or one expression that gives one.
    input: Option<Value>,
    /// The plugin: a name, optionally with `@version`, or a digest. What it means now is pinned with the revision.
    /// Without it the tool is looked for in all plugins.
    plugin: Option<String>,
    #[schema(inline)]
    on_tool_error: Option<OnToolError>,
    /// Longest wait for answers to what the tool asks, where it does not say itself when it goes on; then the step fails.
    /// By default as long as the run may take.
    #[schema(minimum = 0.001)]
    answer_timeout_seconds: Option<f64>,
    /// Default `step_<index>`.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    #[schema(minimum = 0.001)]
    timeout_seconds: Option<f64>,
    retry: Option<RetrySchema>,
    /// An expression; the step is skipped when it is false.
    r#if: Option<String>,
    #[schema(inline)]
    on_interrupt: Option<OnInterrupt>,
}

/// How failures that may pass are tried again: exponential backoff with full jitter.
#[derive(ToSchema)]
#[schema(as = Retry)]
#[serde(deny_unknown_fields)]
struct RetrySchema {
    /// Attempts in all, the first one included. Default 5.
    #[schema(minimum = 1)]
    max_attempts: Option<u32>,
    /// Upper bound of the delay before the second attempt. Default 0.5.
    #[schema(minimum = 0, maximum = 86400)]
    initial_delay_seconds: Option<f64>,
    /// Upper bound of any delay. Default 60.
    #[schema(minimum = 0, maximum = 86400)]
    max_delay_seconds: Option<f64>,
    /// Factor from one bound to the next. Default 2.
    #[schema(minimum = 1, maximum = 100)]
    multiplier: Option<f64>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum HttpType {
    Http,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum SnapshotType {
    PersistSnapshot,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum ToolType {
    McpTool,
}

/// Default GET.
#[derive(ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// What follows an answer that says what went wrong (`isError`): by default it is the step's output like any other,
/// and later steps see `is_error`.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum OnToolError {
    Continue,
    Fail,
}

/// What to do when a crash interrupted an attempt. Default `retry`.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum OnInterrupt {
    Retry,
    Fail,
}
