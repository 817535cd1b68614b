//! The guest's side of the contract: what the host calls, in terms of the table of tools.

use std::time::Duration;

use crate::bindings::exports::weir::plugin::tools as wit;
use crate::bindings::weir::plugin::{tool_log, tool_types};
use crate::error::Kind;
use crate::tool::{self, Tool};
use crate::{Answer, Content, Context, Level, ToolError};

/// Ties a table of tools to what the host calls, and says who the plugin is.
#[macro_export]
#[doc(hidden)]
macro_rules! export_plugin {
    ($tools:path) => {
        const _: () = {
            use $crate::bindings::exports::weir::plugin::tools as wit;

            struct Plugin;

            impl wit::Guest for Plugin {
                fn list_tools() -> Vec<wit::ToolInfo> {
                    $crate::guest::list($tools)
                }

                fn call_tool(request: wit::ToolCall) -> Result<wit::Outcome, wit::Fault> {
                    $crate::guest::call($tools, request)
                }
            }

    $crate::bindings::export!(Plugin with_types_in $crate::bindings);

            const REQUEST: &[u8] =
                concat!(r#"{"name":""#, env!("CARGO_PKG_NAME"), r#"","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#)
                    .as_bytes();

            #[used]
            #[unsafe(link_section = "weir:request")]
            static SECTION: [u8; REQUEST.len()] = {
                let mut bytes = [0; REQUEST.len()];
                bytes.copy_from_slice(REQUEST);
                bytes
            };
        };
    };
}

/// Answers `list-tools`.
pub fn list(tools: &[Tool]) -> Vec<wit::ToolInfo> {
    speak_when_panicking();
    tools.iter().map(info).collect()
}

fn info(tool: &Tool) -> wit::ToolInfo {
    let hints = tool.hints;
    tool_types::ToolInfo {
        name: tool.name.to_owned(),
        title: tool.title.map(str::to_owned),
        description: (!tool.description.is_empty()).then(|| tool.description.to_owned()),
        input_schema: (tool.input_schema)().to_string(),
        output_schema: (tool.output_schema)().map(|schema| schema.to_string()),
        hints: (!hints.are_empty()).then_some(tool_types::ToolHints {
            title: None,
            read_only: hints.read_only,
            destructive: hints.destructive,
            idempotent: hints.idempotent,
            open_world: hints.open_world,
        }),
        icons: Vec::new(),
        meta: None,
    }
}

/// Answers `call-tool`.
pub fn call(tools: &[Tool], request: wit::ToolCall) -> Result<wit::Outcome, wit::Fault> {
    speak_when_panicking();
    let context = Context {
        run_id: request.run_id,
        step: request.step,
        attempt: request.attempt,
        idempotency_key: request.idempotency_key,
        deadline: request.deadline_ms.map(Duration::from_millis),
        ..Context::fake()
    };
    match tool::call(tools, &context, &request.tool, &request.arguments) {
        Ok(answer) => Ok(wit::Outcome::Done(result(answer))),
        Err(error) => Err(fault(error)),
    }
}

fn result(answer: Answer) -> tool_types::ToolResult {
    let block = |content| {
        let body = match content {
            Content::Text(text) => tool_types::ContentBody::Text(text),
            Content::Image { data, mime_type } => tool_types::ContentBody::Image(tool_types::Media { data, mime_type }),
            Content::Audio { data, mime_type } => tool_types::ContentBody::Audio(tool_types::Media { data, mime_type }),
        };
        tool_types::Content { body, notes: None, meta: None }
    };
    tool_types::ToolResult {
        content: answer.content.into_iter().map(block).collect(),
        structured: answer.structured.map(|value| value.to_string()),
        is_error: answer.is_error,
        meta: None,
    }
}

fn fault(error: ToolError) -> wit::Fault {
    tool_types::Fault {
        kind: match error.kind {
            Kind::Arguments => tool_types::FaultKind::InvalidArguments,
            Kind::UnknownTool => tool_types::FaultKind::UnknownTool,
            Kind::Retryable => tool_types::FaultKind::Retryable,
            Kind::Permanent | Kind::Answer => tool_types::FaultKind::Permanent,
        },
        message: error.message,
        code: error.code,
        retry_after_ms: error.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        details: None,
    }
}

/// Writes a line to the host's log.
pub fn write(level: Level, message: &str, fields: Option<&str>) {
    let level = match level {
        Level::Trace => tool_log::LogLevel::Trace,
        Level::Debug => tool_log::LogLevel::Debug,
        Level::Info => tool_log::LogLevel::Info,
        Level::Warn => tool_log::LogLevel::Warn,
        Level::Error => tool_log::LogLevel::Error,
    };
    tool_log::write(level, message, fields);
}

/// A panic is a trap, and a trap says nothing: its message goes to the log before.
fn speak_when_panicking() {
    std::panic::set_hook(Box::new(|panic| write(Level::Error, &panic.to_string(), None)));
}
