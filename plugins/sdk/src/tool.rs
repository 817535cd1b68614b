//! The table of a plugin's tools, which `plugin!` writes, and what is done with it.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Kind;
use crate::{Answer, Context, Output, ToolError};

/// What a tool can take: a type whose JSON is an object, since the arguments of a call are one.
///
/// [`#[weir_sdk::input]`](macro@crate::input) makes a struct with named members such a type, and maps from texts are.
/// A type with a schema of its own, which is that of an object, says so with `impl weir_sdk::Arguments for ...`. Anything
/// else is refused when the crate is compiled:
///
/// ```compile_fail
/// use weir_sdk::prelude::*;
///
/// #[weir_sdk::input]
/// enum Direction {
///     Up,
///     Down,
/// }
///
/// weir_sdk::plugin! {
///     fn go(_to: Direction, _cx: &Context) -> Result<Text, ToolError> {
///         Ok(Text(String::new()))
///     }
/// }
/// # fn main() {}
/// ```
///
/// As a member of a struct it is fine:
///
/// ```
/// use weir_sdk::prelude::*;
///
/// #[weir_sdk::input]
/// enum Direction {
///     Up,
///     Down,
/// }
///
/// #[weir_sdk::input]
/// struct Go {
///     to: Direction,
/// }
///
/// weir_sdk::plugin! {
///     fn go(_input: Go, _cx: &Context) -> Result<Text, ToolError> {
///         Ok(Text(String::new()))
///     }
/// }
/// # fn main() {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the arguments of a tool: they are an object",
    label = "takes `{Self}`",
    note = "take a struct with named members and `#[weir_sdk::input]`, and put the value into one of them"
)]
pub trait Arguments: JsonSchema + DeserializeOwned {}

impl Arguments for serde_json::Map<String, Value> {}
impl<T: JsonSchema + DeserializeOwned> Arguments for BTreeMap<String, T> {}
impl<T: JsonSchema + DeserializeOwned> Arguments for HashMap<String, T> {}

/// One tool, as its function's text says.
pub struct Tool {
    /// The function's name.
    pub name: &'static str,
    /// For people.
    pub title: Option<&'static str>,
    /// The doc comment.
    pub description: &'static str,
    /// What it does to the world.
    pub hints: Hints,
    /// A picture for user interfaces.
    pub icon: Option<&'static str>,
    /// JSON Schema of the arguments.
    pub input_schema: fn() -> Value,
    /// JSON Schema of the structured content.
    pub output_schema: fn() -> Option<Value>,
    /// Answers a call. The arguments are JSON text.
    pub call: fn(&str, &Context) -> Result<Answer, ToolError>,
}

/// Hints of the Model Context Protocol; what is not said is none.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Hints {
    pub read_only: Option<bool>,
    pub destructive: Option<bool>,
    pub idempotent: Option<bool>,
    pub open_world: Option<bool>,
}

impl Hints {
    /// Whether nothing is said.
    #[must_use]
    pub fn are_empty(self) -> bool {
        [self.read_only, self.destructive, self.idempotent, self.open_world].iter().all(Option::is_none)
    }
}

/// A tool's function.
type Function<I, O> = fn(I, &Context) -> Result<O, ToolError>;

/// The schema of a function's arguments.
pub fn input_schema<I: Arguments, O>(_: Function<I, O>) -> Value {
    schemars::schema_for!(I).to_value()
}

/// The schema of a function's structured content.
pub fn output_schema<I, O: Output>(_: Function<I, O>) -> Option<Value> {
    O::schema()
}

/// Calls a function with arguments in JSON text.
///
/// # Errors
/// What the function says, or that the arguments do not fit its type.
pub fn run<I: Arguments, O: Output>(
    function: Function<I, O>,
    arguments: &str,
    context: &Context,
) -> Result<Answer, ToolError> {
    let misfit = |error: serde_json::Error| ToolError::invalid_arguments(format!("the arguments do not fit: {error}"));
    function(read(arguments).map_err(misfit)?, context)?.into_answer()
}

/// Reads a value from JSON text.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // For JSON Schema 2.0 is an integer, and an expression such as `4 / 2` gives it: for a Rust type it is none.
    let mut value = serde_json::from_str(text)?;
    make_whole(&mut value);
    serde_json::from_value(value).map_err(|_| error)
}

/// Writes numbers without a fraction as integers, where they are exact.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let exact = |float: &f64| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && exact(float)) {
                *number = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(members) => members.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// Calls a tool by its name. An error that is an answer comes back as one.
///
/// # Errors
/// How the call failed.
pub fn call(tools: &[Tool], context: &Context, name: &str, arguments: &str) -> Result<Answer, ToolError> {
    let tool = tools.iter().find(|tool| tool.name == name).ok_or_else(|| ToolError::unknown_tool(name))?;
    match (tool.call)(arguments, context) {
        Err(error) if error.kind == Kind::Answer => Ok(Answer { is_error: true, ..Answer::of_text(error.message) }),
        answered => answered,
    }
}

/// The same for a plugin that asks for `request`, in a test.
///
/// # Errors
/// How the call failed.
#[cfg(not(target_arch = "wasm32"))]
pub fn call_as(
    request: &str,
    tools: &[Tool],
    context: &Context,
    name: &str,
    arguments: &str,
) -> Result<Answer, ToolError> {
    context.know(request);
    call(tools, context, name, arguments)
}
