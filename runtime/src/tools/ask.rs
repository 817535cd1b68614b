//! What tools ask, on its way into a run, and answers, held against what was asked. A form is what the Model Context
//! Protocol (revision 2026-07-28, elicitation) says: a flat object of texts, numbers, booleans and choices.

use serde_json::{Map, Value};
use weir_host::plugin as host;

use super::schema::Schema;
use crate::model::ask::{ANSWER_MAX_BYTES, Answer, AnswerAction, Asked, Question, QuestionBody, Resumption, ToolState};
use crate::model::journal::json_size_bytes;
use crate::model::plugin::Used;
use crate::model::reader::{self, Fault, JSON_DEPTH_MAX, join, kind_of};

/// Members of a form.
const FORM: [&str; 4] = ["$schema", "type", "properties", "required"];

/// Members that every field of a form may have.
const FIELD: [&str; 4] = ["type", "title", "description", "default"];

/// Further members, by the type of the field.
const TEXT: [&str; 7] = ["minLength", "maxLength", "format", "enum", "enumNames", "oneOf", "const"];
const NUMBER: [&str; 2] = ["minimum", "maximum"];
const CHOICES: [&str; 3] = ["minItems", "maxItems", "items"];

/// Formats of texts.
const FORMATS: [&str; 4] = ["email", "uri", "date", "date-time"];

/// The questions of a tool, once each of them can be answered.
///
/// # Errors
/// Why one cannot.
pub(super) fn asked(asked: host::Asked, used: Used) -> Result<Asked, String> {
    let host::Asked { questions, state, resume_after } = asked;
    let questions = questions.into_iter().map(question).collect::<Result<_, _>>()?;
    Ok(Asked { questions, state: ToolState(state), resume_after, used })
}

fn question(question: host::Question) -> Result<Question, String> {
    let host::Question { key, message, body } = question;
    let body = match body {
        host::QuestionBody::Form(schema) => {
            let why = |why| format!("the form of the question `{key}`: {why}");
            form(&schema).and_then(|()| Schema::compile(&schema).map(drop)).map_err(why)?;
            QuestionBody::Form { schema }
        }
        host::QuestionBody::Url(url) => QuestionBody::Url { url },
        host::QuestionBody::Raw(request) if !reader::depth_fits(&request) => {
            return Err(format!("the question `{key}`: is more than {JSON_DEPTH_MAX} levels deep"));
        }
        host::QuestionBody::Raw(request) => QuestionBody::Raw { request },
    };
    Ok(Question { key, message, body })
}

/// How a call goes on, as the sandbox takes it.
pub(super) fn resumption(resumption: Resumption) -> host::Resumption {
    let Resumption { state, answers, round } = resumption;
    let answer = |answer: Answer| host::QuestionAnswer {
        key: answer.key,
        action: match answer.action {
            AnswerAction::Accept => host::AnswerAction::Accept,
            AnswerAction::Decline => host::AnswerAction::Decline,
            AnswerAction::Cancel => host::AnswerAction::Cancel,
        },
        content: answer.content,
    };
    host::Resumption { state: state.0, answers: answers.into_iter().map(answer).collect(), round }
}

/// What of an answer does not fit its question, with pointers below `root`, which is where its content is. Values are
/// not repeated.
#[must_use]
pub fn answer_faults(question: &Question, answer: &Answer, root: &str) -> Vec<Fault> {
    let fault = |message: String| vec![Fault { pointer: root.to_owned(), message }];
    let Some(content) = &answer.content else {
        let wanted = answer.action == AnswerAction::Accept && !matches!(question.body, QuestionBody::Url { .. });
        return if wanted { fault("is missing: what was accepted has a content".to_owned()) } else { Vec::new() };
    };
    if answer.action != AnswerAction::Accept {
        return fault("is for answers that `accept`".to_owned());
    }
    let Value::Object(members) = content else {
        return fault(format!("must be an object, not {}", kind_of(content)));
    };
    let size = json_size_bytes(content);
    if size > ANSWER_MAX_BYTES {
        return fault(format!("is {size} bytes long; the limit is {ANSWER_MAX_BYTES} bytes"));
    }
    match &question.body {
        QuestionBody::Url { .. } => fault("must not be there: the page has taken the answer".to_owned()),
        QuestionBody::Raw { .. } => Vec::new(),
        QuestionBody::Form { schema } => form_faults(schema, members, content, root),
    }
}

fn form_faults(schema: &Value, members: &Map<String, Value>, content: &Value, root: &str) -> Vec<Fault> {
    let fields = schema.get("properties").and_then(Value::as_object);
    let unknown = members.keys().filter(|name| fields.is_none_or(|fields| !fields.contains_key(*name)));
    let mut faults: Vec<Fault> = unknown
        .map(|name| Fault { pointer: join(root, name), message: "is not a field of the form".to_owned() })
        .collect();
    match Schema::compile(schema) {
        Ok(schema) => faults.extend(schema.faults(content, root)),
        Err(why) => faults.push(Fault { pointer: root.to_owned(), message: format!("the form cannot be read: {why}") }),
    }
    faults
}

/// Refuses what is no form.
fn form(schema: &Value) -> Result<(), String> {
    only(schema, &FORM, "")?;
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err("/type: must be `object`".to_owned());
    }
    let fields = schema.get("properties").and_then(Value::as_object).ok_or("/properties: must be an object")?;
    fields.iter().try_for_each(|(name, schema)| field(schema, &join("/properties", name)))?;
    let required = schema.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match required.iter().find(|name| name.as_str().is_none_or(|name| !fields.contains_key(name))) {
        Some(name) => Err(format!("/required: {name} is not one of the properties")),
        None => Ok(()),
    }
}

fn field(schema: &Value, at: &str) -> Result<(), String> {
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let more: &[&str] = match kind {
        "string" => &TEXT,
        "number" | "integer" => &NUMBER,
        "boolean" => &[],
        "array" => &CHOICES,
        _ => return Err(format!("{at}/type: must be string, number, integer, boolean, or array (of choices)")),
    };
    only(schema, &[&FIELD[..], more].concat(), at)?;
    if let Some(format) = schema.get("format")
        && !FORMATS.iter().any(|known| format == known)
    {
        return Err(format!("{at}/format: must be one of {}, not {format}", FORMATS.join(", ")));
    }
    if kind == "array" {
        let items = schema.get("items").ok_or_else(|| format!("{at}/items: is missing"))?;
        only(items, &["type", "enum", "anyOf"], &format!("{at}/items"))?;
        if items.get("enum").is_none() && items.get("anyOf").is_none() {
            return Err(format!("{at}/items: must have choices, `enum` or `anyOf`"));
        }
    }
    let options = ["oneOf", "anyOf"].into_iter().filter_map(|name| {
        let holder = if name == "anyOf" { schema.get("items")? } else { schema };
        Some((name, holder.get(name)?))
    });
    for (name, options) in options {
        let options = options.as_array().ok_or_else(|| format!("{at}/{name}: must be an array"))?;
        options.iter().try_for_each(|option| only(option, &["const", "title"], &format!("{at}/{name}")))?;
    }
    Ok(())
}

/// Refuses members that nobody who shows a form knows.
fn only(schema: &Value, known: &[&str], at: &str) -> Result<(), String> {
    let members = schema.as_object().ok_or_else(|| format!("{at}: must be an object, not {}", kind_of(schema)))?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{}: is not known in a form; known here: {}", join(at, name), known.join(", "))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asking(schema: &Value) -> Question {
        Question { key: "k".to_owned(), message: String::new(), body: QuestionBody::Form { schema: schema.clone() } }
    }

    #[test]
    fn forms_are_what_the_protocol_says() {
        let sound = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "title": "Name", "minLength": 1, "format": "email"},
            "count": {"type": "integer", "minimum": 0, "default": 3},
            "yes": {"type": "boolean"},
            "one": {"type": "string", "enum": ["a", "b"]},
            "titled": {"type": "string", "oneOf": [{"const": "a", "title": "A"}]},
            "many": {"type": "array", "items": {"type": "string", "enum": ["a"]}, "maxItems": 2},
        }});
        assert_eq!(form(&sound), Ok(()));
        for (schema, expected) in [
            (json!({"type": "string"}), "/type"),
            (json!({"type": "object"}), "/properties"),
            (json!({"type": "object", "properties": {}, "$defs": {}}), "/$defs"),
            (json!({"type": "object", "properties": {}, "required": ["a"]}), "/required"),
            (json!({"type": "object", "properties": {"a": {"type": "object"}}}), "/properties/a/type"),
            (json!({"type": "object", "properties": {"a": {"type": ["string", "null"]}}}), "/properties/a/type"),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}),
                "/properties/a/pattern",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "format": "ipv4"}}}),
                "/properties/a/format",
            ),
            (json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}), "/properties/a/items"),
        ] {
            let refused = form(&schema).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[test]
    fn answers_fit_what_was_asked() {
        let form = asking(&json!({"type": "object", "required": ["yes"], "properties": {"yes": {"type": "boolean"}}}));
        let page = Question { body: QuestionBody::Url { url: "https://example.com/".to_owned() }, ..form.clone() };
        let answer = |action, content| Answer { key: "k".to_owned(), action, content };
        let accept = |content| answer(AnswerAction::Accept, content);
        for (question, answer, expected) in [
            (&form, accept(Some(json!({"yes": true}))), vec![]),
            (&form, accept(None), vec!["/c"]),
            (&form, accept(Some(json!(true))), vec!["/c"]),
            (&form, accept(Some(json!({"yes": "secret", "no": 1}))), vec!["/c/no", "/c/yes"]),
            (&form, accept(Some(json!({"yes": "x".repeat(70_000)}))), vec!["/c"]),
            (&form, answer(AnswerAction::Decline, None), vec![]),
            (&form, answer(AnswerAction::Decline, Some(json!({}))), vec!["/c"]),
            (&page, accept(None), vec![]),
            (&page, accept(Some(json!({}))), vec!["/c"]),
        ] {
            let faults = answer_faults(question, &answer, "/c");
            let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
            assert_eq!(pointers, expected, "{answer:?}");
            assert!(faults.iter().all(|fault| !fault.message.contains("secret")), "{faults:?}");
        }
    }
}
