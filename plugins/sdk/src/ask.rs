//! Questions: a tool that needs an answer asks, the run waits for as long as it takes, and the call begins again with
//! the answer at hand.
//!
//! A call that asks ends there. When the answer is in, the function is called again from its beginning, and the same
//! question has its answer then: so everything before a question is done twice, and should be cheap, or kept by
//! [`Context::keep`].
//!
//! ```
//! use weir_sdk::prelude::*;
//! use weir_sdk::Reply;
//!
//! #[weir_sdk::input]
//! struct Approval {
//!     /// Why, or why not.
//!     comment: String,
//! }
//!
//! fn deploy(cx: &Context) -> Result<Text, ToolError> {
//!     match cx.ask::<Approval>("approval", "Deploy to production?")? {
//!         Reply::Accepted(approval) => Ok(Text(format!("deployed: {}", approval.comment))),
//!         Reply::Declined | Reply::Canceled | Reply::Unanswered => Ok(Text("left as it is".to_owned())),
//!     }
//! }
//!
//! // The first time the call ends in a question.
//! let asked = deploy(&Context::fake()).unwrap_err();
//! assert_eq!(asked.questions()[0].message, "Deploy to production?");
//! // With an answer it goes on.
//! let cx = Context::fake().with_answer("approval", json!({"comment": "go"}));
//! assert_eq!(deploy(&cx).unwrap().0, "deployed: go");
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Context, ToolError};

/// What came to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<T> {
    /// An answer.
    Accepted(T),
    /// Somebody said no.
    Declined,
    /// Somebody went away without an answer.
    Canceled,
    /// Nobody answered in time. Only for a question that has one.
    Unanswered,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Its name in this call.
    pub key: String,
    /// What is asked, for people.
    pub message: String,
    /// How it is answered.
    pub body: QuestionBody,
}

/// How a question is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum QuestionBody {
    /// By filling in a form: the JSON Schema of a flat object.
    Form(Value),
    /// By visiting a page.
    Url(String),
    /// In another way of the Model Context Protocol: `method` and `params`.
    Raw(Value),
}

impl Question {
    /// One whose answer is a `T`: a struct with `#[weir_sdk::input]` whose members are texts, numbers and booleans.
    #[must_use]
    pub fn form<T: JsonSchema>(key: &str, message: &str) -> Self {
        let schema = schemars::schema_for!(T).to_value();
        let flat: Map<String, Value> = ["type", "properties", "required"]
            .into_iter()
            .filter_map(|member| Some((member.to_owned(), schema.get(member)?.clone())))
            .collect();
        Self { key: key.to_owned(), message: message.to_owned(), body: QuestionBody::Form(Value::Object(flat)) }
    }

    /// One that a page answers: whoever comes back from it says so.
    #[must_use]
    pub fn url(key: &str, message: &str, url: &str) -> Self {
        Self { key: key.to_owned(), message: message.to_owned(), body: QuestionBody::Url(url.to_owned()) }
    }

    /// Any other request of the Model Context Protocol to whoever answers.
    #[must_use]
    pub fn raw(key: &str, message: &str, method: &str, params: &Value) -> Self {
        let body = QuestionBody::Raw(json!({"method": method, "params": params}));
        Self { key: key.to_owned(), message: message.to_owned(), body }
    }
}

/// What a call that asks hands over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asking {
    pub(crate) questions: Vec<Question>,
    pub(crate) state: Vec<u8>,
    pub(crate) resume_after: Option<Duration>,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    Accept,
    Decline,
    Cancel,
}

/// What is known from earlier rounds: travels as the state of the call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Past {
    /// Keys of questions, and names of pauses, that were asked.
    #[serde(default)]
    pub(crate) asked: Vec<String>,
    #[serde(default)]
    pub(crate) answers: BTreeMap<String, Answered>,
    #[serde(default)]
    pub(crate) kept: BTreeMap<String, Value>,
}

impl Context {
    /// Asks for a `T`, by a form.
    ///
    /// # Errors
    /// While there is no answer: pass it on with `?`, and the run waits. And when the answer is no `T`.
    pub fn ask<T: JsonSchema + DeserializeOwned>(&self, key: &str, message: &str) -> Result<Reply<T>, ToolError> {
        self.ask_all(&[Question::form::<T>(key, message)])?;
        self.reply(key)
    }

    /// Asks several questions at once. Their answers are at [`Context::reply`] afterwards.
    ///
    /// # Errors
    /// While there are no answers: pass it on with `?`, and the run waits.
    pub fn ask_all(&self, questions: &[Question]) -> Result<(), ToolError> {
        self.ask_within(questions, None)
    }

    /// The same, and goes on after `patience` with the answers that came.
    ///
    /// # Errors
    /// As [`Context::ask_all`].
    pub fn ask_within(&self, questions: &[Question], patience: Option<Duration>) -> Result<(), ToolError> {
        let mut past = self.past.borrow().clone();
        let new: Vec<Question> =
            questions.iter().filter(|question| !past.asked.contains(&question.key)).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        past.asked.extend(new.iter().map(|question| question.key.clone()));
        Err(ToolError::asking(Asking { questions: new, state: state(&past), resume_after: patience }))
    }

    /// What came to a question that was asked before.
    ///
    /// # Errors
    /// When the answer is no `T`.
    pub fn reply<T: DeserializeOwned>(&self, key: &str) -> Result<Reply<T>, ToolError> {
        let past = self.past.borrow();
        let Some(answered) = past.answers.get(key) else { return Ok(Reply::Unanswered) };
        Ok(match answered.action {
            Action::Decline => Reply::Declined,
            Action::Cancel => Reply::Canceled,
            Action::Accept => {
                let content = answered.content.clone().unwrap_or(Value::Null);
                let misfit = |error| ToolError::permanent(format!("the answer to `{key}` does not fit: {error}"));
                Reply::Accepted(serde_json::from_value(content).map_err(misfit)?)
            }
        })
    }

    /// Lets the run wait for so long, without taking anything meanwhile. Each pause of a call has a name.
    ///
    /// # Errors
    /// The first time: pass it on with `?`.
    pub fn pause(&self, name: &str, time: Duration) -> Result<(), ToolError> {
        let mut past = self.past.borrow().clone();
        if past.asked.iter().any(|asked| asked == name) {
            return Ok(());
        }
        past.asked.push(name.to_owned());
        Err(ToolError::asking(Asking { questions: Vec::new(), state: state(&past), resume_after: Some(time) }))
    }

    /// Remembers a value over the questions of this call: at most some kilobytes in all.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn keep(&self, name: &str, value: &impl Serialize) -> Result<(), ToolError> {
        let value = serde_json::to_value(value)?;
        self.past.borrow_mut().kept.insert(name.to_owned(), value);
        Ok(())
    }

    /// What was kept under this name, before the last question.
    #[must_use]
    pub fn kept<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_value(self.past.borrow().kept.get(name)?.clone()).ok()
    }

    /// A fake context in which a question has been answered.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)]
    pub fn with_answer(self, key: &str, content: Value) -> Self {
        self.answered(key, Action::Accept, Some(content))
    }

    /// A fake context in which somebody said no to a question.
    #[must_use]
    pub fn with_decline(self, key: &str) -> Self {
        self.answered(key, Action::Decline, None)
    }

    /// A fake context in which a question was asked, or a pause made, and nothing came.
    #[must_use]
    pub fn with_nothing(self, key: &str) -> Self {
        self.past.borrow_mut().asked.push(key.to_owned());
        self
    }

    fn answered(self, key: &str, action: Action, content: Option<Value>) -> Self {
        {
            let mut past = self.past.borrow_mut();
            past.asked.push(key.to_owned());
            past.answers.insert(key.to_owned(), Answered { action, content });
        }
        self
    }
}

fn state(past: &Past) -> Vec<u8> {
    // Names and values that came from JSON.
    serde_json::to_vec(past).unwrap_or_default()
}
