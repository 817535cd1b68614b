//! Tools and their answers as the Model Context Protocol (revision 2026-07-28) writes them in JSON.
//!
//! The mapping is one to one and loses nothing. What the contract calls JSON text is parsed here, so that a guest that
//! writes something else breaks its contract and nobody further in has to doubt it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::bindings::weir::plugin::tool_types as wit;
use super::fault::{Fault, FaultClass};

/// Bytes of a tool's name (MCP: 1 to 128 characters).
const NAME_MAX_BYTES: usize = 128;

/// Types of blocks that the contract has cases for.
const BLOCKS: [&str; 5] = ["text", "image", "audio", "resource_link", "resource"];

/// A tool as a catalogue shows it: the protocol's `Tool` object.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// 1 to 128 characters of A-Z a-z 0-9 _ - and dot, unique in the plugin.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does, for people and models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema 2020-12 of the arguments.
    pub input_schema: Value,
    /// JSON Schema 2020-12 of the structured content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Hints: `readOnlyHint` and such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
    /// Pictures for user interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icons: Vec<Value>,
    /// The protocol's `_meta`.
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Value>,
}

/// The answer of a tool: the protocol's `CallToolResult`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Content blocks, each a `ContentBlock` object of the protocol.
    pub content: Vec<Value>,
    /// Any one JSON value; `Some(Value::Null)` is the value null, `None` no value.
    pub structured: Option<Value>,
    /// The answer says what went wrong.
    pub is_error: bool,
    /// The protocol's `_meta`.
    pub meta: Option<Value>,
}

pub(super) fn contract(place: &str, what: impl std::fmt::Display) -> Fault {
    Fault::new(FaultClass::Contract, format!("the tool broke its contract with the host: {place} {what}"))
}

fn json_text(place: &str, text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| contract(place, format_args!("is not JSON: {error}")))
}

pub(super) fn object_text(place: &str, text: &str) -> Result<Value, Fault> {
    let value = json_text(place, text)?;
    if value.is_object() { Ok(value) } else { Err(contract(place, "is not a JSON object")) }
}

fn optional_object(place: &str, text: Option<&String>) -> Result<Option<Value>, Fault> {
    text.map(|text| object_text(place, text)).transpose()
}

/// The length of a value's JSON text.
pub(super) fn json_bytes(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}

/// An object of the members that are there.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The tools that a guest lists.
pub(super) fn tools(listed: Vec<wit::ToolInfo>) -> Result<Vec<Tool>, Fault> {
    let mut tools: Vec<Tool> = Vec::with_capacity(listed.len());
    for (n, info) in listed.into_iter().enumerate() {
        let place = format!("list-tools[{n}]");
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if info.name.is_empty() || info.name.len() > NAME_MAX_BYTES || !info.name.bytes().all(fits) {
            let rule = "is not a name: a name is 1 to 128 characters of A-Z a-z 0-9 _ - and dot";
            return Err(contract(&format!("{place}.name"), format_args!("{:?} {rule}", info.name)));
        }
        if tools.iter().any(|tool| tool.name == info.name) {
            return Err(contract(&format!("{place}.name"), format_args!("{:?} is there twice", info.name)));
        }
        tools.push(Tool {
            input_schema: object_text(&format!("{place}.input-schema"), &info.input_schema)?,
            output_schema: optional_object(&format!("{place}.output-schema"), info.output_schema.as_ref())?,
            annotations: info.hints.map(hints),
            icons: info.icons.into_iter().map(icon).collect(),
            meta: optional_object(&format!("{place}.meta"), info.meta.as_ref())?,
            name: info.name,
            title: info.title,
            description: info.description,
        });
    }
    Ok(tools)
}

fn hints(hints: wit::ToolHints) -> Value {
    Value::Object(object([
        ("title", hints.title.map(Value::from)),
        ("readOnlyHint", hints.read_only.map(Value::from)),
        ("destructiveHint", hints.destructive.map(Value::from)),
        ("idempotentHint", hints.idempotent.map(Value::from)),
        ("openWorldHint", hints.open_world.map(Value::from)),
    ]))
}

fn icon(icon: wit::Icon) -> Value {
    let theme = icon.theme.map(|theme| match theme {
        wit::IconTheme::Light => json!("light"),
        wit::IconTheme::Dark => json!("dark"),
    });
    Value::Object(object([
        ("src", Some(json!(icon.src))),
        ("mimeType", icon.mime_type.map(Value::from)),
        ("sizes", (!icon.sizes.is_empty()).then(|| json!(icon.sizes))),
        ("theme", theme),
    ]))
}

/// The answer that a guest gives.
pub(super) fn answer(result: wit::ToolResult) -> Result<Answer, Fault> {
    let content =
        result.content.into_iter().enumerate().map(|(n, block)| content_block(n, block)).collect::<Result<_, _>>()?;
    Ok(Answer {
        content,
        structured: result.structured.map(|text| json_text("structured", &text)).transpose()?,
        is_error: result.is_error,
        meta: optional_object("meta", result.meta.as_ref())?,
    })
}

fn content_block(n: usize, content: wit::Content) -> Result<Value, Fault> {
    let place = format!("content[{n}]");
    let media = |kind: &str, media: wit::Media| {
        object([
            ("type", Some(json!(kind))),
            ("data", Some(json!(STANDARD.encode(media.data)))),
            ("mimeType", Some(json!(media.mime_type))),
        ])
    };
    let mut block = match content.body {
        wit::ContentBody::Text(text) => object([("type", Some(json!("text"))), ("text", Some(json!(text)))]),
        wit::ContentBody::Image(image) => media("image", image),
        wit::ContentBody::Audio(audio) => media("audio", audio),
        wit::ContentBody::Link(link) => object([
            ("type", Some(json!("resource_link"))),
            ("uri", Some(json!(link.uri))),
            ("name", Some(json!(link.name))),
            ("title", link.title.map(Value::from)),
            ("description", link.description.map(Value::from)),
            ("mimeType", link.mime_type.map(Value::from)),
            ("size", link.size.map(Value::from)),
            ("icons", (!link.icons.is_empty()).then(|| link.icons.into_iter().map(icon).collect())),
        ]),
        wit::ContentBody::Embedded(resource) => {
            let resource = embedded(&place, resource)?;
            object([("type", Some(json!("resource"))), ("resource", Some(resource))])
        }
        wit::ContentBody::Other(text) => match object_text(&place, &text)? {
            Value::Object(block) => match block.get("type").and_then(Value::as_str) {
                Some(kind) if BLOCKS.contains(&kind) => {
                    return Err(contract(&place, format_args!("is of the type `{kind}`, which has a case of its own")));
                }
                Some(_) => block,
                None => return Err(contract(&place, "has no `type`")),
            },
            _ => return Err(contract(&place, "has no `type`")),
        },
    };
    let notes = content.notes.map(|notes| annotations(&place, &notes)).transpose()?;
    let meta = optional_object(&format!("{place}.meta"), content.meta.as_ref())?;
    for (name, value) in [("annotations", notes), ("_meta", meta)] {
        if let Some(value) = value
            && block.insert(name.to_owned(), value).is_some()
        {
            return Err(contract(&place, format_args!("has `{name}` twice")));
        }
    }
    Ok(Value::Object(block))
}

fn embedded(place: &str, resource: wit::EmbeddedResource) -> Result<Value, Fault> {
    let data = match resource.data {
        wit::ResourceData::Text(text) => ("text", Some(json!(text))),
        wit::ResourceData::Bytes(bytes) => ("blob", Some(json!(STANDARD.encode(bytes)))),
    };
    Ok(Value::Object(object([
        ("uri", Some(json!(resource.uri))),
        ("mimeType", resource.mime_type.map(Value::from)),
        data,
        ("_meta", optional_object(&format!("{place}.resource.meta"), resource.meta.as_ref())?),
    ])))
}

fn annotations(place: &str, notes: &wit::ContentNotes) -> Result<Value, Fault> {
    if let Some(priority) = notes.priority
        && !(0.0..=1.0).contains(&priority)
    {
        return Err(contract(&format!("{place}.notes.priority"), format_args!("is {priority}, not between 0 and 1")));
    }
    let audience = |audience: &wit::Audience| match audience {
        wit::Audience::User => json!("user"),
        wit::Audience::Assistant => json!("assistant"),
    };
    Ok(Value::Object(object([
        ("audience", (!notes.audience.is_empty()).then(|| notes.audience.iter().map(audience).collect())),
        ("priority", notes.priority.map(Value::from)),
        ("lastModified", notes.last_modified.clone().map(Value::from)),
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(body: wit::ContentBody) -> wit::Content {
        wit::Content { body, notes: None, meta: None }
    }

    #[test]
    fn every_kind_of_block_is_the_protocols() {
        let media = wit::Media { data: vec![0xff, 0], mime_type: "image/png".to_owned() };
        assert_eq!(
            content_block(0, block(wit::ContentBody::Image(media))).unwrap(),
            json!({"type": "image", "data": "/wA=", "mimeType": "image/png"})
        );
        let resource = wit::EmbeddedResource {
            uri: "file:///a".to_owned(),
            mime_type: None,
            data: wit::ResourceData::Bytes(vec![1]),
            meta: Some("{\"a\": 1}".to_owned()),
        };
        assert_eq!(
            content_block(0, block(wit::ContentBody::Embedded(resource))).unwrap(),
            json!({"type": "resource", "resource": {"uri": "file:///a", "blob": "AQ==", "_meta": {"a": 1}}})
        );
        let notes = wit::ContentNotes { audience: vec![wit::Audience::User], priority: Some(0.5), last_modified: None };
        let text = wit::Content { body: wit::ContentBody::Text("a".to_owned()), notes: Some(notes), meta: None };
        assert_eq!(
            content_block(0, text).unwrap(),
            json!({"type": "text", "text": "a", "annotations": {"audience": ["user"], "priority": 0.5}})
        );
        assert_eq!(
            content_block(0, block(wit::ContentBody::Other("{\"type\": \"new\"}".to_owned()))).unwrap(),
            json!({"type": "new"})
        );
        let other = |text: &str, meta| wit::Content {
            body: wit::ContentBody::Other(text.to_owned()),
            notes: None,
            meta: Some(meta),
        };
        for (block, expected) in [
            (other(r#"{"type": "text", "text": "a"}"#, "{}".to_owned()), "a case of its own"),
            (other(r#"{"type": "new", "_meta": {}}"#, "{}".to_owned()), "has `_meta` twice"),
            (other(r#"{"kind": "new"}"#, "{}".to_owned()), "has no `type`"),
        ] {
            let fault = content_block(0, block).unwrap_err();
            assert!(fault.class == FaultClass::Contract && fault.message.contains(expected), "{fault}");
        }
    }

    #[test]
    fn text_that_is_not_json_breaks_the_contract() {
        let result =
            wit::ToolResult { content: Vec::new(), structured: Some("{".to_owned()), is_error: false, meta: None };
        let fault = answer(result).unwrap_err();
        assert_eq!(fault.class, FaultClass::Contract);
        assert!(fault.message.contains("structured is not JSON"), "{fault}");
    }
}
