//! Asks a person to approve something before a workflow goes on.
//!
//! The call ends in a question and the run waits, for minutes or for weeks, without taking anything meanwhile. With the
//! answer the function is called again from its beginning, and `cx.ask` has the answer then.

use weir_sdk::Reply;
use weir_sdk::prelude::*;

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

/// What became of it.
#[weir_sdk::output]
struct Decision {
    /// Whether somebody said yes.
    approved: bool,
    /// What they said to it; none when they gave no answer.
    comment: Option<String>,
}

weir_sdk::plugin! {
    /// Asks a person to approve something, and answers what they decided. Nothing is approved but by a yes: who declines
    /// the question, or goes away, has not approved.
    #[tool(title = "Ask for approval", read_only, open_world = true)]
    fn approve(input: Request, cx: &Context) -> Result<Json<Decision>, ToolError> {
        let question = input.question.trim();
        if question.is_empty() {
            return Err(ToolError::invalid_arguments("/question: a person must be told what to approve"));
        }
        Ok(Json(match cx.ask::<Form>("approval", question)? {
            Reply::Accepted(form) => Decision { approved: form.approved, comment: Some(form.comment) },
            Reply::Declined | Reply::Canceled | Reply::Unanswered => Decision { approved: false, comment: None },
        }))
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
    fn a_question_says_something() {
        let error = testing::call("approve", json!({"question": " "})).unwrap_err();
        assert!(error.questions().is_empty() && error.message().contains("/question"), "{error:?}");
    }
}
