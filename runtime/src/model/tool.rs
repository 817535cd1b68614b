//! The `mcp_tool` step: which tool of which plugin it names, and what it calls it with.
//!
//! A definition names a plugin as its author does; a revision pins what the name meant when it was saved, by digest.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Failure, FailureCode};
use super::expression::{Place, Scope};
use super::reader::{Members, kind_of};
use super::template::Template;

/// Longest name of a plugin, and longest version, in bytes.
pub const PLUGIN_NAME_MAX_BYTES: usize = 64;

/// Longest name of a tool, in bytes (MCP: 1 to 128 characters).
pub const TOOL_NAME_MAX_BYTES: usize = 128;

/// What a plugin is: the SHA-256 of its component. Written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PluginDigest(pub [u8; 32]);

impl PluginDigest {
    const SCHEME: &str = "sha256:";

    /// Reads a digest as [`fmt::Display`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::SCHEME).filter(|digits| digits.len() == 64 && digits.is_ascii())?;
        let mut bytes = [0; 32];
        for (n, byte) in bytes.iter_mut().enumerate() {
            let pair = &digits[2 * n..2 * n + 2];
            *byte = u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PluginDigest> for String {
    fn from(digest: PluginDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for PluginDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is not a digest"))
    }
}

/// How somebody names a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginRef {
    /// `name`: its newest version.
    Name(String),
    /// `name@version`.
    Version(String, String),
    /// By what it is.
    Digest(PluginDigest),
}

impl PluginRef {
    /// Reads a name, a name with a version, or a digest.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(digest) = PluginDigest::parse(text) {
            return Ok(Self::Digest(digest));
        }
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        if plugin_name_fault(name).is_some() || version.is_some_and(|version| plugin_version_fault(version).is_some()) {
            let rule = "must be a plugin's name, `name@version`, or `sha256:` and 64 hexadecimal digits";
            return Err(format!("{rule}, not `{text}`"));
        }
        let name = name.to_owned();
        Ok(version.map_or(Self::Name(name.clone()), |version| Self::Version(name, version.to_owned())))
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Version(name, version) => write!(f, "{name}@{version}"),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// What is wrong with the name of a plugin, if anything.
#[must_use]
pub fn plugin_name_fault(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let sound = starts && name.len() <= PLUGIN_NAME_MAX_BYTES && name.bytes().all(fits);
    (!sound).then(|| {
        format!("must be 1 to {PLUGIN_NAME_MAX_BYTES} characters of A-Z a-z 0-9 - _, and begin with a letter or digit")
    })
}

/// What is wrong with the version of a plugin, if anything. Versions are compared by when they came, not by what they
/// say, so any text that semantic versioning could write will do.
#[must_use]
pub fn plugin_version_fault(version: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+');
    let sound = !version.is_empty() && version.len() <= PLUGIN_NAME_MAX_BYTES && version.bytes().all(fits);
    (!sound).then(|| format!("must be 1 to {PLUGIN_NAME_MAX_BYTES} characters of A-Z a-z 0-9 - . +"))
}

/// What the plugins that a revision names were when it was saved: the digest for each `mcp_tool` step, by its name.
pub type ToolLock = IndexMap<String, PluginDigest>;

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
    pub fn parse(members: &mut Members<'_>, place: &Place<'_>) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_named_in_three_ways() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(PluginRef::parse("greet"), Ok(PluginRef::Name("greet".to_owned())));
        assert_eq!(
            PluginRef::parse("a-b@1.0.0-rc.1"),
            Ok(PluginRef::Version("a-b".to_owned(), "1.0.0-rc.1".to_owned()))
        );
        assert_eq!(PluginRef::parse(&digest), Ok(PluginRef::Digest(PluginDigest([10; 32]))));
        assert_eq!(PluginDigest([10; 32]).to_string(), digest);
        for bad in ["", "-a", "a b", "greet@", "a@b@c", "sha256:12", &digest.replace("0a", "+a")] {
            assert!(PluginRef::parse(bad).is_err(), "{bad}");
        }
    }
}
