//! Whether the mapping between the contract and the Model Context Protocol loses nothing: it is read back here, as a client
//! of the protocol would, and compared. Only for tests: the host itself maps in one direction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::bindings::weir::plugin::tool_types as wit;
use super::mcp::{self, Answer, Tool};

/// The members of an object, taken one by one; in the end nothing may be left.
struct Members(Map<String, Value>);

impl Members {
    fn of(value: Value) -> Self {
        match value {
            Value::Object(members) => Self(members),
            other => panic!("not an object: {other}"),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|value| value.as_str().expect("a text").to_owned())
    }

    fn need(&mut self, name: &str) -> String {
        self.text(name).expect(name)
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        self.take(name).map(|value| value.as_bool().expect("a boolean"))
    }

    fn list<T>(&mut self, name: &str, read: impl Fn(Value) -> T) -> Vec<T> {
        let Some(Value::Array(items)) = self.take(name) else { return Vec::new() };
        items.into_iter().map(read).collect()
    }

    fn json(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|value| value.to_string())
    }

    fn bytes(&mut self, name: &str) -> Vec<u8> {
        STANDARD.decode(self.need(name)).expect("base64")
    }

    fn end<T>(self, value: T) -> T {
        assert_eq!(self.0, Map::new(), "members that nobody knows");
        value
    }
}

fn icon(value: Value) -> wit::Icon {
    let mut icon = Members::of(value);
    let read = wit::Icon {
        src: icon.need("src"),
        mime_type: icon.text("mimeType"),
        sizes: icon.list("sizes", |size| size.as_str().expect("a size").to_owned()),
        theme: icon.text("theme").map(|theme| match theme.as_str() {
            "light" => wit::IconTheme::Light,
            _ => wit::IconTheme::Dark,
        }),
    };
    icon.end(read)
}

fn tool(tool: Tool) -> wit::ToolInfo {
    let hints = tool.annotations.map(|hints| {
        let mut hints = Members::of(hints);
        let read = wit::ToolHints {
            title: hints.text("title"),
            read_only: hints.flag("readOnlyHint"),
            destructive: hints.flag("destructiveHint"),
            idempotent: hints.flag("idempotentHint"),
            open_world: hints.flag("openWorldHint"),
        };
        hints.end(read)
    });
    wit::ToolInfo {
        name: tool.name,
        title: tool.title,
        description: tool.description,
        input_schema: tool.input_schema.to_string(),
        output_schema: tool.output_schema.map(|schema| schema.to_string()),
        hints,
        icons: tool.icons.into_iter().map(icon).collect(),
        meta: tool.meta.map(|meta| meta.to_string()),
    }
}

fn media(block: &mut Members) -> wit::Media {
    wit::Media { data: block.bytes("data"), mime_type: block.need("mimeType") }
}

fn content(value: Value) -> wit::Content {
    let known = ["text", "image", "audio", "resource_link", "resource"];
    let kind = value["type"].as_str().expect("a type").to_owned();
    let mut block = Members::of(value);
    let notes = block.take("annotations").map(|notes| {
        let mut notes = Members::of(notes);
        let read = wit::ContentNotes {
            audience: notes.list("audience", |audience| match audience.as_str() {
                Some("user") => wit::Audience::User,
                _ => wit::Audience::Assistant,
            }),
            priority: notes.take("priority").map(|priority| priority.as_f64().expect("a number")),
            last_modified: notes.text("lastModified"),
        };
        notes.end(read)
    });
    let meta = block.json("_meta");
    if !known.contains(&kind.as_str()) {
        return wit::Content { body: wit::ContentBody::Other(Value::Object(block.0).to_string()), notes, meta };
    }
    block.take("type");
    let body = match kind.as_str() {
        "text" => wit::ContentBody::Text(block.need("text")),
        "image" => wit::ContentBody::Image(media(&mut block)),
        "audio" => wit::ContentBody::Audio(media(&mut block)),
        "resource_link" => wit::ContentBody::Link(wit::ResourceLink {
            uri: block.need("uri"),
            name: block.need("name"),
            title: block.text("title"),
            description: block.text("description"),
            mime_type: block.text("mimeType"),
            size: block.take("size").map(|size| size.as_u64().expect("a size")),
            icons: block.list("icons", icon),
        }),
        _ => {
            let mut resource = Members::of(block.take("resource").expect("a resource"));
            let data = match resource.text("text") {
                Some(text) => wit::ResourceData::Text(text),
                None => wit::ResourceData::Bytes(resource.bytes("blob")),
            };
            let (uri, mime_type, meta) = (resource.need("uri"), resource.text("mimeType"), resource.json("_meta"));
            wit::ContentBody::Embedded(resource.end(wit::EmbeddedResource { uri, mime_type, data, meta }))
        }
    };
    block.end(wit::Content { body, notes, meta })
}

fn result(answer: Answer) -> wit::ToolResult {
    wit::ToolResult {
        content: answer.content.into_iter().map(content).collect(),
        structured: answer.structured.map(|value| value.to_string()),
        is_error: answer.is_error,
        meta: answer.meta.map(|meta| meta.to_string()),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no other numbers", |n| n.is_finite()).prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any::<String>().prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((any::<String>(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object_text() -> impl Strategy<Value = String> {
    vec((any::<String>(), any_json()), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()).to_string())
}

fn any_icon() -> impl Strategy<Value = wit::Icon> {
    let theme = of(prop_oneof![Just(wit::IconTheme::Light), Just(wit::IconTheme::Dark)]);
    (any::<String>(), of(any::<String>()), vec(any::<String>(), 0..3), theme)
        .prop_map(|(src, mime_type, sizes, theme)| wit::Icon { src, mime_type, sizes, theme })
}

fn any_hints() -> impl Strategy<Value = wit::ToolHints> {
    let flag = of(any::<bool>());
    (of(any::<String>()), flag.clone(), flag.clone(), flag.clone(), flag).prop_map(
        |(title, read_only, destructive, idempotent, open_world)| wit::ToolHints {
            title,
            read_only,
            destructive,
            idempotent,
            open_world,
        },
    )
}

fn any_tool() -> impl Strategy<Value = wit::ToolInfo> {
    let texts = ("[A-Za-z0-9_.-]{1,128}", of(any::<String>()), of(any::<String>()));
    (texts, object_text(), of(object_text()), of(any_hints()), vec(any_icon(), 0..3), of(object_text())).prop_map(
        |((name, title, description), input_schema, output_schema, hints, icons, meta)| wit::ToolInfo {
            name,
            title,
            description,
            input_schema,
            output_schema,
            hints,
            icons,
            meta,
        },
    )
}

fn any_body() -> impl Strategy<Value = wit::ContentBody> {
    let media =
        || (vec(any::<u8>(), 0..40), any::<String>()).prop_map(|(data, mime_type)| wit::Media { data, mime_type });
    let texts = (any::<String>(), any::<String>(), of(any::<String>()), of(any::<String>()), of(any::<String>()));
    let link = (texts, of(any::<u64>()), vec(any_icon(), 0..2)).prop_map(
        |((uri, name, title, description, mime_type), size, icons)| wit::ResourceLink {
            uri,
            name,
            title,
            description,
            mime_type,
            size,
            icons,
        },
    );
    let data = prop_oneof![
        any::<String>().prop_map(wit::ResourceData::Text),
        vec(any::<u8>(), 0..40).prop_map(wit::ResourceData::Bytes),
    ];
    let embedded = (any::<String>(), of(any::<String>()), data, of(object_text()))
        .prop_map(|(uri, mime_type, data, meta)| wit::EmbeddedResource { uri, mime_type, data, meta });
    // A kind that the protocol may have one day, with members that no other block has.
    let other = ("x-[a-z]{1,8}", any_json()).prop_map(|(kind, value)| {
        wit::ContentBody::Other(serde_json::json!({"type": kind, "value": value}).to_string())
    });
    prop_oneof![
        any::<String>().prop_map(wit::ContentBody::Text),
        media().prop_map(wit::ContentBody::Image),
        media().prop_map(wit::ContentBody::Audio),
        link.prop_map(wit::ContentBody::Link),
        embedded.prop_map(wit::ContentBody::Embedded),
        other,
    ]
}

fn any_content() -> impl Strategy<Value = wit::Content> {
    let audience = vec(prop_oneof![Just(wit::Audience::User), Just(wit::Audience::Assistant)], 0..3);
    let notes = (audience, of(0.0..=1.0_f64), of(any::<String>()))
        .prop_map(|(audience, priority, last_modified)| wit::ContentNotes { audience, priority, last_modified });
    (any_body(), of(notes), of(object_text())).prop_map(|(body, notes, meta)| wit::Content { body, notes, meta })
}

fn any_result() -> impl Strategy<Value = wit::ToolResult> {
    let structured = of(any_json().prop_map(|value| value.to_string()));
    (vec(any_content(), 0..4), structured, any::<bool>(), of(object_text()))
        .prop_map(|(content, structured, is_error, meta)| wit::ToolResult { content, structured, is_error, meta })
}

proptest! {
    #[test]
    fn every_fact_of_a_tool_comes_back(listed in any_tool()) {
        let mapped = mcp::tools(vec![listed.clone()]).expect("a tool");
        // Over the wire and through the database, as catalogues are.
        let text = serde_json::to_string(&mapped).expect("JSON");
        let read: Vec<Tool> = serde_json::from_str(&text).expect("a catalogue");
        prop_assert_eq!(&read, &mapped);
        let back = tool(read.into_iter().next().expect("one"));
        prop_assert_eq!(format!("{back:?}"), format!("{listed:?}"));
    }

    #[test]
    fn every_fact_of_an_answer_comes_back(given in any_result()) {
        let mapped = mcp::answer(given.clone()).expect("an answer");
        let text = serde_json::to_string(&mapped.content).expect("JSON");
        let over_the_wire: Vec<Value> = serde_json::from_str(&text).expect("blocks");
        prop_assert_eq!(&over_the_wire, &mapped.content);
        let again = mcp::answer(result(mapped.clone())).expect("an answer");
        prop_assert_eq!(&again, &mapped);
        prop_assert_eq!(format!("{:?}", result(mapped)), format!("{given:?}"));
    }
}
