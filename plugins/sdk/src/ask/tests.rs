//! Questions that are asked and those that are not, and what is remembered over them.

use super::*;

#[derive(JsonSchema, Deserialize, Debug, PartialEq)]
struct Many {
    count: i32,
    lines: Vec<String>,
}

#[derive(JsonSchema, Deserialize, Debug, PartialEq)]
struct One {
    count: i32,
}

fn code<T: std::fmt::Debug>(result: Result<T, ToolError>) -> Option<String> {
    result.expect_err("an error").code().map(str::to_owned)
}

#[test]
fn what_cannot_be_a_form_is_not_asked() {
    let refused = Context::fake().ask::<Many>("k", "How many?").unwrap_err();
    assert!(refused.questions().is_empty() && !refused.is_retryable());
    assert_eq!(refused.code(), Some("form_unusable"));
    assert!(refused.message().contains("`Many` cannot be a form: its member `lines`"), "{}", refused.message());
    assert_eq!(Context::fake().ask::<One>("k", "How many?").unwrap_err().questions().len(), 1);
}

#[test]
fn questions_are_what_a_host_takes() {
    let cx = Context::fake();
    let one = |key: &str| Question::url(key, "m", "https://example.com/");
    let many: Vec<Question> = (0..33).map(|n| one(&n.to_string())).collect();
    for questions in [&[one("")][..], &[one(&"k".repeat(129))], &[one("a"), one("a")], &many] {
        assert!(cx.ask_all(questions).unwrap_err().questions().is_empty());
    }
    assert_eq!(cx.ask_all(&many[..32]).unwrap_err().questions().len(), 32);
}

#[test]
fn a_state_is_read_or_an_error() {
    let cx = Context::fake();
    cx.keep("n", &7).unwrap();
    let asking = cx.pause("p", Duration::from_secs(1)).unwrap_err().asking.expect("a pause");
    let past = Past::read(&asking.state).unwrap();
    assert_eq!((&past.asked[..], &past.kept["n"]), (&["p".to_owned()][..], &json!(7)));
    for state in [&b""[..], b"null", b"[]x", b"{\"asked\": 1}", b"\xff"] {
        assert_eq!(code(Past::read(state)).as_deref(), Some("state_unreadable"));
    }
    let mut past = Past::default();
    assert_eq!(code(past.answer("k".to_owned(), Action::Accept, Some("{"))).as_deref(), Some("state_unreadable"));
    past.answer("k".to_owned(), Action::Accept, Some("{\"count\": 2.0}")).unwrap();
    assert_eq!(past.answers["k"].content, Some(json!({"count": 2.0})));
}

#[test]
fn what_is_kept_is_read_or_an_error() {
    let cx = Context::fake();
    assert_eq!(cx.kept::<u8>("n"), Ok(None));
    cx.keep("n", &"seven").unwrap();
    assert_eq!(cx.kept::<String>("n"), Ok(Some("seven".to_owned())));
    assert_eq!(code(cx.kept::<u8>("n")).as_deref(), Some("state_unreadable"));
    cx.keep("n", &"x".repeat(STATE_MAX_BYTES)).unwrap();
    assert_eq!(code(cx.pause("p", Duration::ZERO)).as_deref(), Some("state_too_large"));
}

#[test]
fn whole_numbers_of_answers_are_integers() {
    let cx = Context::fake().with_answer("k", json!({"count": 2.0}));
    assert_eq!(cx.reply("k"), Ok(Reply::Accepted(One { count: 2 })));
}
