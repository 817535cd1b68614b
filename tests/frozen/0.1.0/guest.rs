//! The plugin in `guest.wasm` beside this file, as it was written for the contract 0.1.0. It uses everything that the
//! contract has, and no SDK. It is never built again: README.md says how it was.

wit_bindgen::generate!({ path: "wit/released/0.1.0", world: "plugin" });

use exports::weir::plugin::tools::{Fault, Guest, Outcome, ToolCall, ToolInfo};
use weir::plugin::tool_types::{
    AnswerAction, Audience, Content, ContentBody, ContentNotes, EmbeddedResource, FaultKind, Icon, IconTheme, Media,
    Question, QuestionBody, Questions, ResourceData, ResourceLink, Resumption, ToolHints, ToolResult,
};
use weir::plugin::{tool_config, tool_log, tool_progress};

const REQUEST: &[u8] = br#"{"name":"frozen","version":"0.1.0","description":"Uses all of the contract 0.1.0.","http":[{"scheme":"http","host":"127.0.0.1","port":9,"methods":["GET"],"secrets":["token"]}],"secrets":[{"name":"token"}],"settings":[{"name":"colour","default":"blue"}]}"#;

#[used]
#[unsafe(link_section = "weir:request")]
static SECTION: [u8; REQUEST.len()] = {
    let mut bytes = [0; REQUEST.len()];
    bytes.copy_from_slice(REQUEST);
    bytes
};

struct Frozen;

export!(Frozen);

impl Guest for Frozen {
    fn list_tools() -> Vec<ToolInfo> {
        let any = r#"{"type":"object"}"#;
        let kind = r#"{"type":"object","properties":{"kind":{"enum":["invalid","unknown","retryable","permanent"]}},"required":["kind"]}"#;
        let structured = r#"{"type":"object","required":["call","colour","token"]}"#;
        vec![
            ToolInfo {
                title: Some("Everything".to_owned()),
                description: Some("Uses each import once, and answers with what it saw.".to_owned()),
                output_schema: Some(structured.to_owned()),
                hints: Some(ToolHints {
                    title: Some("Every thing".to_owned()),
                    read_only: Some(true),
                    destructive: Some(false),
                    idempotent: Some(true),
                    open_world: None,
                }),
                icons: vec![icon()],
                meta: Some(r#"{"example.com/of":"tool"}"#.to_owned()),
                ..tool("everything", any)
            },
            tool("blocks", any),
            tool("tool_error", any),
            tool("fault", kind),
            tool("ask", any),
        ]
    }

    fn call_tool(call: ToolCall) -> Result<Outcome, Fault> {
        match call.tool.as_str() {
            "everything" => Ok(Outcome::Done(everything(&call))),
            "blocks" => Ok(Outcome::Done(blocks())),
            "tool_error" => Ok(Outcome::Done(ToolResult {
                content: vec![plain(ContentBody::Text("it went wrong".to_owned()))],
                structured: None,
                is_error: true,
                meta: None,
            })),
            "fault" => Err(fault(&call.arguments)),
            "ask" => Ok(match call.resumed {
                None => Outcome::Ask(questions()),
                Some(resumed) => Outcome::Done(resumed_with(&resumed)),
            }),
            other => Err(Fault { code: None, retry_after_ms: None, details: None, ..named(FaultKind::UnknownTool, other) }),
        }
    }
}

fn tool(name: &str, input_schema: &str) -> ToolInfo {
    ToolInfo {
        name: name.to_owned(),
        title: None,
        description: None,
        input_schema: input_schema.to_owned(),
        output_schema: None,
        hints: None,
        icons: Vec::new(),
        meta: None,
    }
}

fn icon() -> Icon {
    Icon {
        src: "data:image/png;base64,iVBORw0KGgo=".to_owned(),
        mime_type: Some("image/png".to_owned()),
        sizes: vec!["48x48".to_owned(), "any".to_owned()],
        theme: Some(IconTheme::Dark),
    }
}

/// Text as JSON; what it is made of needs no more than this.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for letter in text.chars() {
        if letter == '"' || letter == '\\' {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted + "\""
}

fn quoted_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), quoted)
}

fn everything(call: &ToolCall) -> ToolResult {
    use tool_log::LogLevel::{Debug, Error, Info, Trace, Warn};
    for (level, line) in [(Trace, "a trace"), (Debug, "a detail"), (Info, "a line"), (Warn, "a warning"), (Error, "an error")] {
        tool_log::write(level, line, Some(r#"{"of":"frozen"}"#));
    }
    tool_log::write(Info, "without fields", None);
    tool_progress::report(1.0, None, None);
    tool_progress::report(2.0, Some(2.0), Some("done"));
    let colour = quoted_or_null(tool_config::setting("colour").as_deref());
    let nothing = quoted_or_null(tool_config::setting("nothing").as_deref());
    let token = quoted_or_null(tool_config::secret_placeholder("token").as_deref());
    let members = [
        ("tool", quoted(&call.tool)),
        ("arguments", call.arguments.clone()),
        ("run", quoted(&call.run_id)),
        ("step", quoted(&call.step)),
        ("attempt", call.attempt.to_string()),
        ("key", quoted(&call.idempotency_key)),
        ("deadline_ms", call.deadline_ms.map_or_else(|| "null".to_owned(), |ms| ms.to_string())),
        ("resumed", call.resumed.is_some().to_string()),
    ];
    let members: Vec<String> = members.iter().map(|(name, value)| quoted(name) + ":" + value).collect();
    let call = members.join(",");
    ToolResult {
        content: vec![plain(ContentBody::Text("all of it".to_owned()))],
        structured: Some(["{\"call\":{", &call, "},\"colour\":", &colour, ",\"nothing\":", &nothing, ",\"token\":", &token, "}"].concat()),
        is_error: false,
        meta: Some(r#"{"example.com/of":"result"}"#.to_owned()),
    }
}

fn plain(body: ContentBody) -> Content {
    Content { body, notes: None, meta: None }
}

/// A block of each kind.
fn blocks() -> ToolResult {
    let embedded = |data| {
        ContentBody::Embedded(EmbeddedResource {
            uri: "file:///a".to_owned(),
            mime_type: Some("text/plain".to_owned()),
            data,
            meta: Some(r#"{"example.com/of":"resource"}"#.to_owned()),
        })
    };
    let link = ResourceLink {
        uri: "https://example.com/a".to_owned(),
        name: "a".to_owned(),
        title: Some("A".to_owned()),
        description: Some("The first.".to_owned()),
        mime_type: Some("text/plain".to_owned()),
        size: Some(1 << 40),
        icons: vec![icon()],
    };
    let content = vec![
        Content {
            body: ContentBody::Text("a text".to_owned()),
            notes: Some(ContentNotes {
                audience: vec![Audience::User, Audience::Assistant],
                priority: Some(0.5),
                last_modified: Some("2026-07-28T00:00:00Z".to_owned()),
            }),
            meta: Some(r#"{"example.com/of":"block"}"#.to_owned()),
        },
        plain(ContentBody::Image(Media { data: vec![0, 1, 254, 255], mime_type: "image/png".to_owned() })),
        plain(ContentBody::Audio(Media { data: vec![255], mime_type: "audio/wav".to_owned() })),
        plain(ContentBody::Link(link)),
        plain(embedded(ResourceData::Text("its text".to_owned()))),
        plain(embedded(ResourceData::Bytes(vec![0, 159]))),
        plain(ContentBody::Other(r#"{"type":"hologram","depth":3}"#.to_owned())),
    ];
    ToolResult { content, structured: None, is_error: false, meta: None }
}

fn named(kind: FaultKind, message: &str) -> Fault {
    Fault {
        kind,
        message: message.to_owned(),
        code: Some("as-told".to_owned()),
        retry_after_ms: Some(1),
        details: Some(r#"{"of":"fault"}"#.to_owned()),
    }
}

fn fault(arguments: &str) -> Fault {
    let kinds = [
        ("invalid", FaultKind::InvalidArguments),
        ("unknown", FaultKind::UnknownTool),
        ("retryable", FaultKind::Retryable),
        ("permanent", FaultKind::Permanent),
    ];
    let told = kinds.into_iter().find(|(word, _)| arguments.contains(word));
    let (word, kind) = told.unwrap_or(("none", FaultKind::Permanent));
    named(kind, word)
}

fn questions() -> Questions {
    let form = r#"{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}"#;
    let raw = r#"{"method":"sampling/createMessage","params":{"messages":[{"role":"user","content":{"type":"text","text":"who?"}}],"maxTokens":10}}"#;
    let question = |key: &str, message: &str, body| Question { key: key.to_owned(), message: message.to_owned(), body };
    Questions {
        asked: vec![
            question("form", "Who is it?", QuestionBody::Form(form.to_owned())),
            question("page", "Look at this.", QuestionBody::Url("https://example.com/look".to_owned())),
            question("raw", "Say something.", QuestionBody::Raw(raw.to_owned())),
        ],
        state: vec![0, 7, 255],
        resume_after_ms: Some(3_600_000),
    }
}

/// All that came, as it came.
fn resumed_with(resumed: &Resumption) -> ToolResult {
    let numbers: Vec<String> = resumed.state.iter().map(ToString::to_string).collect();
    let answers: Vec<String> = resumed
        .answers
        .iter()
        .map(|answer| {
            let action = match answer.action {
                AnswerAction::Accept => "accept",
                AnswerAction::Decline => "decline",
                AnswerAction::Cancel => "cancel",
            };
            let content = answer.content.as_deref().unwrap_or("null");
            [&quoted(&answer.key), ":{\"action\":\"", action, "\",\"content\":", content, "}"].concat()
        })
        .collect();
    let round = resumed.round.to_string();
    let structured =
        ["{\"round\":", &round, ",\"state\":[", &numbers.join(","), "],\"answers\":{", &answers.join(","), "}}"].concat();
    ToolResult { content: Vec::new(), structured: Some(structured), is_error: false, meta: None }
}
