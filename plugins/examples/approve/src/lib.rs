//! Asks people to approve something before a workflow goes on.
//!
//! The call ends in a question and the run waits, for minutes or for weeks, without taking anything meanwhile. With the
//! answer the function is called again from its beginning, and `cx.ask` has the answer then.

use std::time::Duration;

use weir_sdk::prelude::*;
use weir_sdk::{Question, Reply};

/// What is to be approved.
#[weir_sdk::input]
struct Request {
    /// The question, for people, such as `Deploy version 7 to production?`.
    question: String,
}

/// The form that a person fills in.
#[weir_sdk::input]
struct Form {
    /// Whether it is approved.
    approved: bool,
    /// Why, or why not.
    comment: String,
}

/// What is to be approved, and by whom.
#[weir_sdk::input]
struct RequestToAll {
    /// The question, for people.
    question: String,
    /// Who is asked: each of them is the key of a question.
    approvers: Vec<String>,
    /// After so many seconds it goes on with the answers that came; without it, it waits for all.
    #[serde(default)]
    within_seconds: Option<f64>,
}

/// What became of it.
#[weir_sdk::output]
struct Decision {
    /// Whether somebody said yes.
    approved: bool,
    /// What they said to it; none when they gave no answer.
    comment: Option<String>,
}

/// What became of it.
#[weir_sdk::output]
struct Decisions {
    /// Whether everybody said yes.
    approved: bool,
    /// Who said yes, in the order in which they were asked.
    by: Vec<String>,
}

fn asked(question: &str) -> Result<&str, ToolError> {
    match question.trim() {
        "" => Err(ToolError::invalid_arguments("/question: a person must be told what to approve")),
        question => Ok(question),
    }
}

weir_sdk::plugin! {
    /// Asks a person to approve something, and answers what they decided. Nothing is approved but by a yes: who declines
    /// the question, or goes away, has not approved.
    #[tool(title = "Ask for approval", read_only, open_world = true)]
    fn approve(input: Request, cx: &Context) -> Result<Json<Decision>, ToolError> {
        Ok(Json(match cx.ask::<Form>("approval", asked(&input.question)?)? {
            Reply::Accepted(form) => Decision { approved: form.approved, comment: Some(form.comment) },
            Reply::Declined | Reply::Canceled | Reply::Unanswered => Decision { approved: false, comment: None },
        }))
    }

    /// Asks several people at once to approve something, and answers who did.
    #[tool(title = "Ask several for approval", read_only, open_world = true)]
    fn approve_by_all(input: RequestToAll, cx: &Context) -> Result<Json<Decisions>, ToolError> {
        let question = asked(&input.question)?;
        if input.approvers.is_empty() {
            return Err(ToolError::invalid_arguments("/approvers: somebody must be asked"));
        }
        let patience = input.within_seconds.map(Duration::try_from_secs_f64).transpose();
        let patience = patience.map_err(|error| ToolError::invalid_arguments(format!("/within_seconds: {error}")))?;
        let questions: Vec<Question> =
            input.approvers.iter().map(|name| Question::form::<Form>(name, question)).collect();
        cx.ask_within(&questions, patience)?;
        let mut by = Vec::new();
        for name in &input.approvers {
            if let Reply::Accepted(Form { approved: true, .. }) = cx.reply(name)? {
                by.push(name.clone());
            }
        }
        Ok(Json(Decisions { approved: by.len() == input.approvers.len(), by }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::QuestionBody;

    fn decided(cx: &Context) -> Option<Value> {
        testing::call_with(cx, "approve", json!({"question": "Deploy?"})).unwrap().structured
    }

    #[test]
    fn the_first_call_ends_in_the_question() {
        let asked = testing::call("approve", json!({"question": "Deploy?"})).unwrap_err();
        let [question] = asked.questions() else { panic!("one question: {asked:?}") };
        assert_eq!((question.key.as_str(), question.message.as_str()), ("approval", "Deploy?"));
        let QuestionBody::Form(form) = &question.body else { panic!("a form: {question:?}") };
        assert_eq!(form["properties"]["approved"]["type"], "boolean");
        assert_eq!(form["properties"]["comment"]["type"], "string");
        assert_eq!(form["required"], json!(["approved", "comment"]));
    }

    #[test]
    fn the_answer_is_the_decision() {
        for approved in [true, false] {
            let answer = json!({"approved": approved, "comment": "after lunch"});
            let cx = Context::fake().with_answer("approval", answer.clone());
            assert_eq!(decided(&cx), Some(answer));
        }
    }

    #[test]
    fn without_an_answer_nothing_is_approved() {
        let none = Some(json!({"approved": false, "comment": null}));
        assert_eq!(decided(&Context::fake().with_decline("approval")), none);
        assert_eq!(decided(&Context::fake().with_nothing("approval")), none);
    }

    #[test]
    fn all_are_asked_at_once_and_each_counts() {
        let arguments = json!({"question": "Deploy?", "approvers": ["Ada", "Grace"], "within_seconds": 60});
        let asked = testing::call("approve_by_all", arguments.clone()).unwrap_err();
        let keys: Vec<&str> = asked.questions().iter().map(|question| question.key.as_str()).collect();
        assert_eq!(keys, ["Ada", "Grace"]);
        let yes = json!({"approved": true, "comment": ""});
        let cx = Context::fake().with_answer("Ada", yes.clone()).with_nothing("Grace");
        let decided = testing::call_with(&cx, "approve_by_all", arguments.clone()).unwrap().structured;
        assert_eq!(decided, Some(json!({"approved": false, "by": ["Ada"]})));
        let cx = Context::fake().with_answer("Ada", yes.clone()).with_answer("Grace", yes);
        let decided = testing::call_with(&cx, "approve_by_all", arguments).unwrap().structured;
        assert_eq!(decided, Some(json!({"approved": true, "by": ["Ada", "Grace"]})));
    }

    #[test]
    fn a_question_says_something() {
        let nobody = testing::call("approve_by_all", json!({"question": "Deploy?", "approvers": []})).unwrap_err();
        assert!(nobody.message().contains("/approvers"), "{nobody:?}");
        let error = testing::call("approve", json!({"question": " "})).unwrap_err();
        assert!(error.questions().is_empty() && error.message().contains("/question"), "{error:?}");
    }
}
