//! Questions of tools: what a guest asks instead of answering, held against the contract, and how its call goes on. Does
//! not know who answers, or when.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::bindings::weir::plugin::tool_types as wit;
use super::fault::Fault;
use super::mcp::{contract, json_bytes, object_text};

/// What a tool may remember over its questions, in bytes (`wit/plugin.wit`, `questions`).
const STATE_MAX_BYTES: usize = 64 * 1024;

/// Questions at once.
const QUESTIONS_MAX: usize = 32;

/// Bytes of a question's key.
const KEY_MAX_BYTES: usize = 128;

/// What a tool asks instead of answering: the call ends, and is resumed later.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The questions. May be none: then there is a time.
    pub questions: Vec<Question>,
    /// What the tool wants to know when it is resumed, at most 64 KiB. Nobody else is to see it.
    pub state: Vec<u8>,
    /// Resume at the latest after so long, with the answers that came.
    pub resume_after: Option<Duration>,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Its name, unique in the call.
    pub key: String,
    /// What is asked, for people.
    pub message: String,
    /// How it is answered.
    pub body: QuestionBody,
}

/// How a question is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum QuestionBody {
    /// By a form: a JSON Schema, which nobody looked at yet.
    Form(Value),
    /// By a visit to a page, http or https.
    Url(String),
    /// In another way of the Model Context Protocol: an object with `method` and `params`.
    Raw(Value),
}

/// What somebody did with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerAction {
    /// Answered it.
    Accept,
    /// Said no.
    Decline,
    /// Went away without an answer.
    Cancel,
}

/// What came to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct QuestionAnswer {
    /// The question's key.
    pub key: String,
    /// What was done with it.
    pub action: AnswerAction,
    /// An object, for what was accepted with content.
    pub content: Option<Value>,
}

/// How a call goes on after questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumption {
    /// As the tool left it.
    pub state: Vec<u8>,
    /// What came to the questions of the last round.
    pub answers: Vec<QuestionAnswer>,
    /// 1 for the first resumption.
    pub round: u32,
}

/// The questions of a guest, of at most `most` bytes.
pub(super) fn asked(questions: wit::Questions, most: usize) -> Result<Asked, Fault> {
    let wit::Questions { asked, state, resume_after_ms } = questions;
    if asked.is_empty() && resume_after_ms.is_none() {
        return Err(contract("asked", "is empty, and there is no `resume-after-ms`: the call would never go on"));
    }
    if asked.len() > QUESTIONS_MAX {
        return Err(contract("asked", format_args!("has {} questions, more than {QUESTIONS_MAX}", asked.len())));
    }
    if state.len() > STATE_MAX_BYTES {
        return Err(contract("state", format_args!("has {} bytes, more than {STATE_MAX_BYTES}", state.len())));
    }
    let questions =
        asked.into_iter().enumerate().map(|(n, asked)| question(n, asked)).collect::<Result<Vec<_>, _>>()?;
    let mut keys = HashSet::new();
    if let Some(twice) = questions.iter().find(|question| !keys.insert(&question.key)) {
        return Err(contract("asked", format_args!("has the key {:?} twice", twice.key)));
    }
    let bytes = questions.iter().map(Question::bytes).fold(0, usize::saturating_add);
    if bytes > most {
        return Err(contract("asked", format_args!("has {bytes} bytes, more than {most}")));
    }
    Ok(Asked { questions, state, resume_after: resume_after_ms.map(Duration::from_millis) })
}

fn question(n: usize, question: wit::Question) -> Result<Question, Fault> {
    let place = format!("asked[{n}]");
    let wit::Question { key, message, body } = question;
    if key.is_empty() || key.len() > KEY_MAX_BYTES {
        return Err(contract(&format!("{place}.key"), format_args!("must have 1 to {KEY_MAX_BYTES} bytes")));
    }
    let body = match body {
        wit::QuestionBody::Form(schema) => QuestionBody::Form(object_text(&format!("{place}.form"), &schema)?),
        wit::QuestionBody::Url(text) => match url::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => QuestionBody::Url(text),
            _ => return Err(contract(&format!("{place}.url"), "is not an http or https URL")),
        },
        wit::QuestionBody::Raw(text) => {
            let place = format!("{place}.raw");
            let request = object_text(&place, &text)?;
            if !request["method"].is_string() || !request["params"].is_object() {
                return Err(contract(&place, "must have `method`, a text, and `params`, an object"));
            }
            QuestionBody::Raw(request)
        }
    };
    Ok(Question { key, message, body })
}

impl Question {
    fn bytes(&self) -> usize {
        let body = match &self.body {
            QuestionBody::Form(value) | QuestionBody::Raw(value) => json_bytes(value),
            QuestionBody::Url(url) => url.len(),
        };
        self.key.len().saturating_add(self.message.len()).saturating_add(body)
    }
}

/// How a call goes on, as the contract writes it.
pub(super) fn resumed(resumption: Resumption) -> wit::Resumption {
    let answer = |answer: QuestionAnswer| wit::Answer {
        key: answer.key,
        action: match answer.action {
            AnswerAction::Accept => wit::AnswerAction::Accept,
            AnswerAction::Decline => wit::AnswerAction::Decline,
            AnswerAction::Cancel => wit::AnswerAction::Cancel,
        },
        content: answer.content.map(|content| content.to_string()),
    };
    let Resumption { state, answers, round } = resumption;
    wit::Resumption { state, answers: answers.into_iter().map(answer).collect(), round }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(key: &str, body: wit::QuestionBody) -> wit::Question {
        wit::Question { key: key.to_owned(), message: "Why?".to_owned(), body }
    }

    fn refused(questions: Vec<wit::Question>, state: usize, resume_after_ms: Option<u64>) -> String {
        let questions = wit::Questions { asked: questions, state: vec![0; state], resume_after_ms };
        asked(questions, 1000).map_or_else(|fault| fault.message, |asked| format!("{asked:?}"))
    }

    #[test]
    fn what_cannot_be_asked_names_its_place() {
        let url = |text: &str| wit::QuestionBody::Url(text.to_owned());
        let form = |text: &str| wit::QuestionBody::Form(text.to_owned());
        let raw = |text: &str| wit::QuestionBody::Raw(text.to_owned());
        let good = || ask("a", url("https://example.com/sign"));
        for (questions, state, expected) in [
            (vec![], 0, "asked is empty"),
            ((0..33).map(|n| ask(&n.to_string(), url("http://x/"))).collect(), 0, "more than 32"),
            (vec![good()], 65_537, "more than 65536"),
            (vec![good(), good()], 0, "the key \"a\" twice"),
            (vec![good(), ask("", url("http://x/"))], 0, "asked[1].key must have"),
            (vec![ask("a", url("javascript:alert(1)"))], 0, "asked[0].url is not an http or https URL"),
            (vec![ask("a", form("[]"))], 0, "asked[0].form is not a JSON object"),
            (vec![ask("a", raw(r#"{"method": "x"}"#))], 0, "asked[0].raw must have"),
            (vec![ask("a", form(&format!("{{\"title\": \"{}\"}}", "x".repeat(1000))))], 0, "more than 1000"),
        ] {
            let message = refused(questions, state, None);
            assert!(message.contains(expected), "{message}");
        }
        assert!(refused(vec![], 0, Some(5)).contains("5ms"), "a pause asks nothing");
        assert!(refused(vec![good()], 65_536, None).contains("sign"));
    }
}
