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
use serde_json::{Value, json};

use crate::{Context, ToolError, form, tool};

/// What a call may remember over its questions, in bytes.
const STATE_MAX_BYTES: usize = 64 * 1024;

/// Questions at once, and bytes of a question's key.
const QUESTIONS_MAX: usize = 32;
const KEY_MAX_BYTES: usize = 128;

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
    /// Why it cannot be asked, if it cannot: said by whoever asks it.
    pub(crate) fault: Option<String>,
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
    /// One whose answer is a `T`: a struct with `#[weir_sdk::input]` whose members are texts (also dates and the like, by
    /// their format), numbers, booleans, enums of plain names, and lists of such an enum. An `Option` may be left out. The
    /// doc comments of members are shown with them, those of an enum's variants in place of their names.
    ///
    /// The Model Context Protocol knows no other forms. A type that is none is refused when the question is asked, with
    /// the code `form_unusable`: the first test that asks it finds out.
    #[must_use]
    pub fn form<T: JsonSchema>(key: &str, message: &str) -> Self {
        let (form, fault) = match form::form::<T>() {
            Ok(form) => (form, None),
            Err(fault) => (Value::Null, Some(fault)),
        };
        Self { fault, ..Self::new(key, message, QuestionBody::Form(form)) }
    }

    fn new(key: &str, message: &str, body: QuestionBody) -> Self {
        Self { key: key.to_owned(), message: message.to_owned(), body, fault: None }
    }

    /// One that a page answers: whoever comes back from it says so.
    #[must_use]
    pub fn url(key: &str, message: &str, url: &str) -> Self {
        Self::new(key, message, QuestionBody::Url(url.to_owned()))
    }

    /// Any other request of the Model Context Protocol to whoever answers.
    #[must_use]
    pub fn raw(key: &str, message: &str, method: &str, params: &Value) -> Self {
        Self::new(key, message, QuestionBody::Raw(json!({"method": method, "params": params})))
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

impl Past {
    /// What an earlier round left.
    ///
    /// # Errors
    /// When this version of the plugin cannot read it. To go on as if nothing had been asked would do things twice.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    pub(crate) fn read(state: &[u8]) -> Result<Self, ToolError> {
        serde_json::from_slice(state).map_err(|error| {
            let message = format!("what the call knew before its questions cannot be read: {error}");
            ToolError::permanent(message).with_code("state_unreadable")
        })
    }

    /// With an answer: its content is JSON text.
    ///
    /// # Errors
    /// When that cannot be read.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    pub(crate) fn answer(&mut self, key: String, action: Action, content: Option<&str>) -> Result<(), ToolError> {
        let content = content.map(serde_json::from_str).transpose().map_err(|error| {
            let message = format!("the answer to `{key}` cannot be read: {error}");
            ToolError::permanent(message).with_code("state_unreadable")
        })?;
        self.answers.insert(key, Answered { action, content });
        Ok(())
    }

    /// As it travels to the next round.
    fn write(&self) -> Result<Vec<u8>, ToolError> {
        let state = serde_json::to_vec(self)?;
        if state.len() > STATE_MAX_BYTES {
            let message = format!(
                "answers and what is kept take {} bytes, more than the {STATE_MAX_BYTES} that a call may remember",
                state.len()
            );
            return Err(ToolError::permanent(message).with_code("state_too_large"));
        }
        Ok(state)
    }
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
        if let Some(fault) = new.iter().find_map(|question| question.fault.as_ref()) {
            return Err(ToolError::permanent(fault.clone()).with_code("form_unusable"));
        }
        let fits = |question: &Question| (1..=KEY_MAX_BYTES).contains(&question.key.len());
        if new.len() > QUESTIONS_MAX || !new.iter().all(fits) {
            return Err(ToolError::permanent(format!(
                "a tool asks at most {QUESTIONS_MAX} questions at once, and their keys have 1 to {KEY_MAX_BYTES} bytes"
            )));
        }
        for question in &new {
            if past.asked.contains(&question.key) {
                return Err(ToolError::permanent(format!("two questions have the key `{}`", question.key)));
            }
            past.asked.push(question.key.clone());
        }
        Err(ToolError::asking(Asking { questions: new, state: past.write()?, resume_after: patience }))
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
                let content = answered.content.clone().unwrap_or(Value::Null).to_string();
                let misfit = |error| ToolError::permanent(format!("the answer to `{key}` does not fit: {error}"));
                Reply::Accepted(tool::read(&content).map_err(misfit)?)
            }
        })
    }

    /// Lets the run wait for so long, without taking anything meanwhile. Each pause of a call has a name. After it the
    /// function is called again from its beginning, as after a question.
    ///
    /// ```
    /// use std::time::Duration;
    /// use weir_sdk::prelude::*;
    ///
    /// fn remind(cx: &Context) -> Result<Text, ToolError> {
    ///     cx.pause("a day", Duration::from_secs(24 * 60 * 60))?;
    ///     Ok(Text("it has been a day".to_owned()))
    /// }
    ///
    /// // The first time the call ends in the pause, without a question.
    /// let paused = remind(&Context::fake()).unwrap_err();
    /// assert!(paused.questions().is_empty());
    /// // When it is resumed, the pause is over.
    /// let resumed = Context::fake().with_nothing("a day");
    /// assert_eq!(remind(&resumed).unwrap().0, "it has been a day");
    /// ```
    ///
    /// # Errors
    /// The first time: pass it on with `?`.
    pub fn pause(&self, name: &str, time: Duration) -> Result<(), ToolError> {
        let mut past = self.past.borrow().clone();
        if past.asked.iter().any(|asked| asked == name) {
            return Ok(());
        }
        past.asked.push(name.to_owned());
        Err(ToolError::asking(Asking { questions: Vec::new(), state: past.write()?, resume_after: Some(time) }))
    }

    /// Remembers a value over the questions and pauses of this call: 64 KiB in all, with the answers.
    ///
    /// ```
    /// use weir_sdk::prelude::*;
    ///
    /// fn order(cx: &Context) -> Result<String, ToolError> {
    ///     if let Some(number) = cx.kept("number")? {
    ///         return Ok(number);
    ///     }
    ///     let number = "made once".to_owned();
    ///     cx.keep("number", &number)?;
    ///     Ok(number)
    /// }
    ///
    /// let cx = Context::fake();
    /// assert_eq!(order(&cx).unwrap(), order(&cx).unwrap());
    /// ```
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn keep(&self, name: &str, value: &impl Serialize) -> Result<(), ToolError> {
        let value = serde_json::to_value(value)?;
        self.past.borrow_mut().kept.insert(name.to_owned(), value);
        Ok(())
    }

    /// What was kept under this name. None: nothing was.
    ///
    /// # Errors
    /// When it is no `T`: a failure for good, with the code `state_unreadable`.
    pub fn kept<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ToolError> {
        let Some(value) = self.past.borrow().kept.get(name).cloned() else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| {
            ToolError::permanent(format!("what was kept as `{name}` cannot be read: {error}"))
                .with_code("state_unreadable")
        })
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

#[cfg(test)]
mod tests;
