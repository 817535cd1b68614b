//! The guest's side of the contract: what the host calls, in terms of the table of tools.

use std::cell::RefCell;
use std::time::Duration;

use crate::ask::{Action, Asking, Past, Question, QuestionBody};
use crate::bindings::exports::weir::plugin::tools as wit;
use crate::bindings::weir::plugin::{tool_log, tool_types};
use crate::error::Kind;
use crate::tool::{self, Tool};
use crate::{Answer, Block, Content, Context, Level, ResourceData, ToolError};

/// Ties a table of tools to what the host calls, and says who the plugin is.
#[macro_export]
#[doc(hidden)]
macro_rules! export_plugin {
    ($tools:path, $request:expr) => {
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

            const REQUEST: &[u8] = $request.as_bytes();

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
        icons: tool.icon.map(icon).into_iter().collect(),
        meta: None,
    }
}

fn icon(src: &str) -> tool_types::Icon {
    tool_types::Icon { src: src.to_owned(), mime_type: None, sizes: Vec::new(), theme: None }
}

/// Answers `call-tool`.
pub fn call(tools: &[Tool], request: wit::ToolCall) -> Result<wit::Outcome, wit::Fault> {
    speak_when_panicking();
    let past = request.resumed.map(past).transpose().map_err(fault)?.unwrap_or_default();
    let context = Context {
        run_id: request.run_id,
        step: request.step,
        attempt: request.attempt,
        idempotency_key: request.idempotency_key,
        deadline: request.deadline_ms.map(Duration::from_millis),
        past: RefCell::new(past),
        ..Context::fake()
    };
    match tool::call(tools, &context, &request.tool, &request.arguments) {
        Ok(answer) => Ok(wit::Outcome::Done(result(answer))),
        Err(ToolError { asking: Some(asking), .. }) => Ok(wit::Outcome::Ask(questions(*asking))),
        Err(error) => Err(fault(error)),
    }
}

/// What is known from earlier rounds, with what came in the last one.
fn past(resumed: tool_types::Resumption) -> Result<Past, ToolError> {
    let mut past = Past::read(&resumed.state)?;
    for answer in resumed.answers {
        let action = match answer.action {
            tool_types::AnswerAction::Accept => Action::Accept,
            tool_types::AnswerAction::Decline => Action::Decline,
            tool_types::AnswerAction::Cancel => Action::Cancel,
        };
        past.answer(answer.key, action, answer.content.as_deref())?;
    }
    Ok(past)
}

fn questions(asking: Asking) -> tool_types::Questions {
    let question = |question: Question| tool_types::Question {
        key: question.key,
        message: question.message,
        body: match question.body {
            QuestionBody::Form(schema) => tool_types::QuestionBody::Form(schema.to_string()),
            QuestionBody::Url(url) => tool_types::QuestionBody::Url(url),
            QuestionBody::Raw(request) => tool_types::QuestionBody::Raw(request.to_string()),
        },
    };
    tool_types::Questions {
        asked: asking.questions.into_iter().map(question).collect(),
        state: asking.state,
        resume_after_ms: asking.resume_after.map(millis),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn result(answer: Answer) -> tool_types::ToolResult {
    tool_types::ToolResult {
        content: answer.content.into_iter().map(content).collect(),
        structured: answer.structured.map(|value| value.to_string()),
        is_error: answer.is_error,
        meta: answer.meta.map(|meta| meta.to_string()),
    }
}

fn content(content: Content) -> tool_types::Content {
    let body = match content.block {
        Block::Text(text) => tool_types::ContentBody::Text(text),
        Block::Image { data, mime_type } => tool_types::ContentBody::Image(tool_types::Media { data, mime_type }),
        Block::Audio { data, mime_type } => tool_types::ContentBody::Audio(tool_types::Media { data, mime_type }),
        Block::Link(link) => tool_types::ContentBody::Link(tool_types::ResourceLink {
            uri: link.uri,
            name: link.name,
            title: link.title,
            description: link.description,
            mime_type: link.mime_type,
            size: link.size,
            icons: Vec::new(),
        }),
        Block::Resource(resource) => tool_types::ContentBody::Embedded(tool_types::EmbeddedResource {
            uri: resource.uri,
            mime_type: resource.mime_type,
            data: match resource.data {
                ResourceData::Text(text) => tool_types::ResourceData::Text(text),
                ResourceData::Bytes(bytes) => tool_types::ResourceData::Bytes(bytes),
            },
            meta: resource.meta.map(|meta| meta.to_string()),
        }),
        Block::Other(block) => tool_types::ContentBody::Other(block.to_string()),
    };
    let notes = content.notes.map(|notes| {
        let audience =
            [(notes.for_user, tool_types::Audience::User), (notes.for_assistant, tool_types::Audience::Assistant)];
        tool_types::ContentNotes {
            audience: audience.into_iter().filter_map(|(is, audience)| is.then_some(audience)).collect(),
            priority: notes.priority,
            last_modified: notes.last_modified,
        }
    });
    tool_types::Content { body, notes, meta: content.meta.map(|meta| meta.to_string()) }
}

fn fault(error: ToolError) -> wit::Fault {
    tool_types::Fault {
        kind: match error.kind {
            Kind::Arguments => tool_types::FaultKind::InvalidArguments,
            Kind::UnknownTool => tool_types::FaultKind::UnknownTool,
            Kind::Retryable => tool_types::FaultKind::Retryable,
            Kind::Permanent | Kind::Answer | Kind::Asks => tool_types::FaultKind::Permanent,
        },
        message: error.message,
        code: error.code,
        retry_after_ms: error.retry_after.map(millis),
        details: error.details.map(|details| details.to_string()),
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
