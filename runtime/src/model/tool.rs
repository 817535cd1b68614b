//! The `mcp_tool` step: which tool of which plugin it names, and what it calls it with.

use std::time::Duration;

use serde_json::{Map, Value};

use super::definition::SHORTEST;
use super::error::{Failure, FailureCode};
use super::expression::{Place, Scope};
use super::limits::Limits;
use super::plugin::PluginRef;
use super::reader::{Members, kind_of};
use super::template::Template;

/// Longest name of a tool, in bytes (MCP: 1 to 128 characters).
pub const TOOL_NAME_MAX_BYTES: usize = 128;

/// What follows an answer that says what went wrong (`isError` of MCP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnToolError {
    /// It is the step's output like any other answer; later steps see `is_error`.
    Continue,
    /// The step fails.
    Fail,
}

/// `mcp_tool`: one call of a tool, with expressions not yet evaluated.
#[derive(Debug)]
pub struct ToolStep {
    /// The tool's name.
    pub tool: String,
    /// The plugin; `None` is whichever one offers such a tool.
    pub plugin: Option<PluginRef>,
    on_tool_error: OnToolError,
    /// Longest wait for answers to what the tool asks; none: as long as the run may take.
    pub answer_timeout: Option<Duration>,
    input: Template,
}

/// One call with every value in place.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The tool's name.
    pub tool: String,
    /// Its arguments: an object.
    pub arguments: Value,
    /// What follows an answer that says what went wrong.
    pub on_tool_error: OnToolError,
}

impl ToolStep {
    /// Parses the members of an `mcp_tool` step.
    pub fn parse(members: &mut Members<'_>, place: &Place<'_>, limits: &Limits) -> Option<Self> {
        let tool = members.require("tool_name").and_then(|value| {
            let name = members.string("tool_name", value)?;
            if name.is_empty() || name.len() > TOOL_NAME_MAX_BYTES {
                members.fault("tool_name", format!("must be 1 to {TOOL_NAME_MAX_BYTES} characters"));
                return None;
            }
            Some(name.to_owned())
        });
        let plugin = members.take("plugin").map(|value| {
            let parsed = PluginRef::parse(members.string("plugin", value)?);
            parsed.map_err(|message| members.fault("plugin", message)).ok()
        });
        let on_tool_error = members.take("on_tool_error").map(|value| match value.as_str() {
            Some("continue") => Some(OnToolError::Continue),
            Some("fail") => Some(OnToolError::Fail),
            _ => {
                members.fault("on_tool_error", "must be `continue` or `fail`");
                None
            }
        });
        let answer_timeout = members.seconds("answer_timeout_seconds", SHORTEST, limits.run_timeout_max);
        let input = match members.take("input") {
            None => Some(Template::Literal(Value::Object(Map::new()))),
            Some(value) => {
                let template = Template::parse(value, &place.at(members.pointer("input")));
                let may_be_object = !matches!(&template, Some(Template::Literal(value)) if !value.is_object())
                    && !matches!(&template, Some(Template::Text(_) | Template::Array(_)));
                if !may_be_object {
                    let message =
                        format!("must be an object, or one expression that gives one, not {}", kind_of(value));
                    members.fault("input", message);
                }
                template.filter(|_| may_be_object)
            }
        };
        Some(Self {
            tool: tool?,
            plugin: match plugin {
                None => None,
                Some(plugin) => Some(plugin?),
            },
            on_tool_error: on_tool_error.unwrap_or(Some(OnToolError::Continue))?,
            answer_timeout,
            input: input?,
        })
    }

    /// The arguments, where no expression is in them.
    #[must_use]
    pub fn literal_input(&self) -> Option<&Value> {
        match &self.input {
            Template::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// Evaluates every expression of the step.
    ///
    /// # Errors
    /// A permanent failure: the values come from the journal, so another attempt would see the same ones.
    pub fn render(&self, scope: &dyn Scope) -> Result<ToolCall, Failure> {
        let arguments =
            self.input.render(scope).map_err(|message| Failure::new(FailureCode::ExpressionFailed, message))?;
        if !arguments.is_object() {
            let message = format!("/input: must be an object, not {}", kind_of(&arguments));
            return Err(Failure::new(FailureCode::InvalidToolArguments, message));
        }
        Ok(ToolCall { tool: self.tool.clone(), arguments, on_tool_error: self.on_tool_error })
    }
}
