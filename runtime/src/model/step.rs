//! The kinds of steps: what each may say in a definition, and what it asks the engine to do.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::error::{Failure, FailureCode};
use super::expression::{Place, Scope};
use super::limits::Limits;
use super::reader::{Members, join, kind_of};
use super::template::{Template, plain_text};
use super::tool::ToolStep;

/// What a step does. A closed set: a new kind is a new variant, and the compiler shows every place it needs.
#[derive(Debug)]
pub enum StepKind {
    /// Calls a URL.
    Http(Box<HttpStep>),
    /// Keeps the context as it is now.
    PersistSnapshot(SnapshotStep),
    /// Calls a tool of a plugin.
    McpTool(Box<ToolStep>),
}

impl StepKind {
    /// Every value of `type`.
    pub const NAMES: [&str; 3] = ["http", "persist_snapshot", "mcp_tool"];

    /// The value of `type` in a definition.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::PersistSnapshot(_) => "persist_snapshot",
            Self::McpTool(_) => "mcp_tool",
        }
    }

    /// Longest wait for answers to what the step's tool asks; none: as long as the run may take.
    #[must_use]
    pub fn answer_timeout(&self) -> Option<Duration> {
        match self {
            Self::McpTool(step) => step.answer_timeout,
            Self::Http(_) | Self::PersistSnapshot(_) => None,
        }
    }

    /// Parses the members that belong to the kind `name`; common members have been taken already.
    pub fn parse(name: &str, members: &mut Members<'_>, place: &Place<'_>, limits: &Limits) -> Option<Self> {
        match name {
            "http" => HttpStep::parse(members, place).map(|step| Self::Http(Box::new(step))),
            "persist_snapshot" => SnapshotStep::parse(members, place).map(Self::PersistSnapshot),
            "mcp_tool" => ToolStep::parse(members, place, limits).map(|step| Self::McpTool(Box::new(step))),
            _ => {
                members.fault("type", format!("must be `http`, `persist_snapshot` or `mcp_tool`, not `{name}`"));
                None
            }
        }
    }
}

/// `persist_snapshot`: records which names its content has; the content itself is the fold of the journal.
#[derive(Debug)]
pub struct SnapshotStep {
    /// Names of steps to keep; `None` keeps all.
    pub include_keys: Option<Vec<String>>,
}

impl SnapshotStep {
    fn parse(members: &mut Members<'_>, place: &Place<'_>) -> Option<Self> {
        let Some(value) = members.take("include_keys") else {
            return Some(Self { include_keys: None });
        };
        let (pointer, faults) = (members.pointer("include_keys"), place.faults);
        let mut keys = Vec::new();
        for (index, item) in members.array("include_keys", value)?.iter().enumerate() {
            match item.as_str() {
                Some(key) if place.earlier.contains(key) => keys.push(key.to_owned()),
                Some(key) => {
                    faults.add(
                        &join(&pointer, &index.to_string()),
                        format!("no step named `{key}` comes before this one"),
                    );
                }
                None => faults.add(
                    &join(&pointer, &index.to_string()),
                    format!("must be the name of an earlier step, not {}", kind_of(item)),
                ),
            }
        }
        Some(Self { include_keys: Some(keys) })
    }
}

/// The methods an `http` step may use.
pub const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Headers that frame the message or belong to one connection: the client sets them, never a step.
const FRAMING_HEADERS: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// `http`: one request, with expressions not yet evaluated.
#[derive(Debug)]
pub struct HttpStep {
    method: &'static str,
    url: Template,
    headers: Vec<(String, Template)>,
    query: Vec<(String, Template)>,
    body: BodyTemplate,
    expect_status: Vec<RangeInclusive<u16>>,
    /// Names of the secrets that its headers and its query name.
    secrets: BTreeSet<String>,
}

#[derive(Debug)]
enum BodyTemplate {
    Empty,
    Json(Template),
    Form(Vec<(String, Template)>),
    Text(Template),
}

/// One request with every value in place.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCall {
    /// One of [`METHODS`].
    pub method: &'static str,
    /// Absolute `http` or `https` URL, `query` included.
    pub url: url::Url,
    /// Headers the definition asks for.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
    /// Statuses that count as success.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Texts in headers and query that stand for secrets, each with the secret's name.
    pub secrets: Vec<(String, String)>,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// None.
    Empty,
    /// JSON.
    Json(Value),
    /// URL-encoded fields.
    Form(Vec<(String, String)>),
    /// Plain text.
    Text(String),
}

impl HttpStep {
    fn parse(members: &mut Members<'_>, place: &Place<'_>) -> Option<Self> {
        let method = parse_method(members);
        let named = RefCell::new(BTreeSet::new());
        let open = Place { pointer: place.pointer.clone(), secrets: Some(&named), ..*place };
        let url = members.require("url").and_then(|value| {
            let text = members.string("url", value)?;
            let template = Template::parse(value, &at(members, "url", &open))?;
            if let Template::Literal(_) = template
                && let Err(message) = parse_url(text)
            {
                members.fault("url", message);
                return None;
            }
            if let Some(name) = template.secret_before_query() {
                members.fault("url", format!("the secret `{name}` can stand in the query of a URL, not before it"));
                return None;
            }
            Some(template)
        });
        let headers = parse_pairs(members, "headers", &open);
        for (name, template) in headers.iter().flatten() {
            if let Some(message) = header_fault(name, template) {
                place.faults.add(&join(&members.pointer("headers"), name), message);
            }
        }
        let query = parse_pairs(members, "query", &open);
        let body = parse_body(members, place);
        let expect_status = parse_expect_status(members);
        Some(Self {
            method: method?,
            url: url?,
            headers: headers?,
            query: query?,
            body: body?,
            expect_status: expect_status?,
            secrets: named.into_inner(),
        })
    }

    /// Evaluates every expression of the step.
    ///
    /// # Errors
    /// A permanent failure: the values come from the journal, so another attempt would see the same ones.
    pub fn render(&self, scope: &dyn Scope) -> Result<HttpCall, Failure> {
        let eval = |template: &Template| {
            template.render(scope).map_err(|message| Failure::new(FailureCode::ExpressionFailed, message))
        };
        let invalid = |message: String| Failure::new(FailureCode::InvalidRequestValues, message);
        let mut url = parse_url(&plain_text(&eval(&self.url)?)).map_err(|message| invalid(format!("url {message}")))?;
        let query = render_pairs(&self.query, &eval)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(&query);
        }
        let secrets: Vec<_> = self.secrets.iter().map(|name| (scope.secret(name), name.clone())).collect();
        let before_query = &url[..url::Position::AfterPath];
        if let Some((_, name)) = secrets.iter().find(|(text, _)| before_query.contains(text.as_str())) {
            return Err(invalid(format!("url: the secret `{name}` can stand in the query of a URL, not before it")));
        }
        let mut headers = Vec::new();
        for (name, value) in render_pairs(&self.headers, &eval)? {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| invalid(format!("the value of header `{name}` has characters that no header may have")))?;
            let name = HeaderName::try_from(&name).map_err(|_| invalid(format!("`{name}` is not a header name")))?;
            headers.push((name, value));
        }
        let body = match &self.body {
            BodyTemplate::Empty => Body::Empty,
            BodyTemplate::Json(template) => Body::Json(eval(template)?),
            BodyTemplate::Form(fields) => Body::Form(render_pairs(fields, &eval)?),
            BodyTemplate::Text(template) => Body::Text(plain_text(&eval(template)?)),
        };
        let expect_status = self.expect_status.clone();
        Ok(HttpCall { method: self.method, url, headers, body, expect_status, secrets })
    }
}

fn at<'a>(members: &Members<'_>, name: &str, place: &Place<'a>) -> Place<'a> {
    place.at(members.pointer(name))
}

fn parse_method(members: &mut Members<'_>) -> Option<&'static str> {
    let Some(value) = members.take("method") else {
        return Some("GET");
    };
    let text = members.string("method", value)?;
    let method = METHODS.into_iter().find(|method| *method == text);
    if method.is_none() {
        members.fault("method", format!("must be one of {}, not `{text}`", METHODS.join(", ")));
    }
    method
}

fn parse_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| format!("must be an absolute http or https URL: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(format!("must be an http or https URL, not `{scheme}`")),
    }
}

fn header_fault(name: &str, template: &Template) -> Option<String> {
    if HeaderName::try_from(name).is_err() {
        return Some(format!("`{name}` is not a header name"));
    }
    if FRAMING_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Some(format!("`{name}` is set by the client itself"));
    }
    match template {
        Template::Literal(value) if HeaderValue::from_str(&plain_text(value)).is_err() => {
            Some("has characters that no header value may have".to_owned())
        }
        _ => None,
    }
}

/// A map of names to scalars (or, for `query` and `form`, lists of scalars).
fn parse_pairs(members: &mut Members<'_>, name: &'static str, place: &Place<'_>) -> Option<Vec<(String, Template)>> {
    let Some(value) = members.take(name) else {
        return Some(Vec::new());
    };
    let Some(map) = value.as_object() else {
        members.fault(name, format!("must be an object, not {}", kind_of(value)));
        return None;
    };
    let here = at(members, name, place);
    let mut pairs = Vec::new();
    let mut sound = true;
    for (key, value) in map {
        let pointer = join(&here.pointer, key);
        let scalars = value.as_array().filter(|_| name != "headers").map_or(std::slice::from_ref(value), Vec::as_slice);
        if scalars.iter().any(|scalar| scalar.is_array() || scalar.is_object()) {
            place.faults.add(&pointer, format!("must be a string, a number or a boolean, not {}", kind_of(value)));
            sound = false;
            continue;
        }
        match Template::parse(value, &place.at(pointer)) {
            Some(template) => pairs.push((key.clone(), template)),
            None => sound = false,
        }
    }
    sound.then_some(pairs)
}

/// Evaluates pairs; null leaves a pair out, an array repeats it.
fn render_pairs(
    pairs: &[(String, Template)],
    eval: &impl Fn(&Template) -> Result<Value, Failure>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut rendered = Vec::with_capacity(pairs.len());
    for (name, template) in pairs {
        match eval(template)? {
            Value::Null => {}
            Value::Array(items) => {
                let items = items.iter().filter(|item| !item.is_null());
                rendered.extend(items.map(|item| (name.clone(), plain_text(item))));
            }
            value => rendered.push((name.clone(), plain_text(&value))),
        }
    }
    Ok(rendered)
}

fn parse_body(members: &mut Members<'_>, place: &Place<'_>) -> Option<BodyTemplate> {
    let json = members.take("json");
    let form_given = members.take("form").is_some();
    let text = members.take("body");
    if usize::from(json.is_some()) + usize::from(form_given) + usize::from(text.is_some()) > 1 {
        place.faults.add(&place.pointer, "has more than one of `json`, `form` and `body`");
        return None;
    }
    if let Some(value) = json {
        return Template::parse(value, &at(members, "json", place)).map(BodyTemplate::Json);
    }
    if form_given {
        return parse_pairs(members, "form", place).map(BodyTemplate::Form);
    }
    let Some(value) = text else {
        return Some(BodyTemplate::Empty);
    };
    members.string("body", value)?;
    Template::parse(value, &at(members, "body", place)).map(BodyTemplate::Text)
}

fn parse_expect_status(members: &mut Members<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let Some(value) = members.take("expect_status") else {
        return Some(vec![200..=299]);
    };
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let ranges: Option<Vec<_>> = items.iter().map(status_range).collect();
    let ranges = ranges.filter(|ranges| !ranges.is_empty());
    if ranges.is_none() {
        members.fault("expect_status", "must be a status from 200 to 599, a class such as `2xx`, or a list of these");
    }
    ranges
}

fn status_range(value: &Value) -> Option<RangeInclusive<u16>> {
    if let Some(status) = value.as_u64() {
        let status = u16::try_from(status).ok().filter(|status| (200..=599).contains(status))?;
        return Some(status..=status);
    }
    let digit = value.as_str()?.strip_suffix("xx")?;
    let class = u16::try_from(["2", "3", "4", "5"].iter().position(|class| *class == digit)? + 2).ok()?;
    Some(class * 100..=class * 100 + 99)
}
