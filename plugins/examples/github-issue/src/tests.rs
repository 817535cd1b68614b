//! The plugin with closures for GitHub.

use super::*;
use weir_sdk::Request;

const MARK: &str = "<!-- weir: 00000000-0000-7000-8000-000000000000:step_0 -->";

/// A context in which GitHub has these issues, a page for each list, and creates number 7.
fn github(pages: Vec<Value>) -> Context {
    Context::fake().with_secret("github_token").with_setting("default_repo", "ada/notes").with_http(move |request| {
        if request.method == "POST" {
            return Ok(Response::of_json(201, &issue(7, "")));
        }
        let (_, page) = request.url.rsplit_once("page=").expect("a page");
        let page: usize = page.parse().expect("a number");
        Ok(Response::of_json(200, pages.get(page - 1).unwrap_or(&json!([]))))
    })
}

fn issue(number: u64, body: &str) -> Value {
    json!({"number": number, "html_url": format!("https://github.com/ada/notes/issues/{number}"), "body": body})
}

fn methods(cx: &Context) -> Vec<String> {
    cx.requests().into_iter().map(|request| request.method).collect()
}

#[test]
fn an_issue_is_created_with_the_key_of_the_call() {
    let cx = github(vec![json!([issue(1, "old"), {"number": 2, "html_url": "", "body": null}])]);
    let new = json!({"title": "It leaks", "body": "Under the sink.", "labels": ["bug"]});
    let answer = testing::call_with(&cx, "create_issue", new).unwrap();
    assert_eq!(answer.structured, Some(json!({"number": 7, "url": "https://github.com/ada/notes/issues/7"})));
    let requests = cx.requests();
    let [list, post]: &[Request] = &requests else { panic!("two requests: {requests:?}") };
    assert_eq!(list.url, "https://api.github.com/repos/ada/notes/issues?state=open&per_page=100&page=1");
    assert_eq!((post.method.as_str(), post.url.as_str()), ("POST", "https://api.github.com/repos/ada/notes/issues"));
    let body = format!("Under the sink.\n\n{MARK}");
    assert_eq!(post.json().unwrap(), json!({"title": "It leaks", "body": body, "labels": ["bug"]}));
    for request in [list, post] {
        assert_eq!(request.header("authorization"), Some("Bearer [secret github_token]"));
        assert!(request.header("user-agent").is_some(), "GitHub refuses requests without one");
    }
}

#[test]
fn a_repeated_attempt_creates_no_second_one() {
    let full: Value = (1000..1100).map(|number| issue(number, "another")).collect();
    for (pages, requests) in
        [(vec![json!([issue(4, "x"), issue(3, &format!("x\n\n{MARK}"))])], 1), (vec![full, json!([issue(3, MARK)])], 2)]
    {
        let cx = github(pages);
        let answer = testing::call_with(&cx, "create_issue", json!({"title": "It leaks"})).unwrap();
        assert_eq!(answer.structured.unwrap()["number"], 3);
        assert_eq!(methods(&cx), vec!["GET"; requests]);
    }
}

#[test]
fn the_operator_says_which_repository_and_the_call_may_say_another() {
    let cx = github(vec![]);
    testing::call_with(&cx, "create_issue", json!({"title": "t", "repo": "grace/cobol"})).unwrap();
    assert_eq!(cx.requests()[1].url, "https://api.github.com/repos/grace/cobol/issues");
}

#[test]
fn a_test_is_held_to_what_the_plugin_asks_for() {
    let cx = testing::context().with_secret("github_token").with_http(|_| Ok(Response::new(204, "")));
    let secret = cx.secret("github_token").unwrap();
    let repos = "https://api.github.com/repos/a/b";
    for (request, allowed) in [
        (cx.get(repos).bearer(&secret), true),
        (cx.get(repos).query("token", &secret), true),
        (cx.put(repos), false),
        (cx.get("https://api.github.com/user"), false),
        (cx.get("https://api.github.com/repository"), false),
        (cx.get("https://api.github.com/repos/..%2fuser"), false),
        (cx.get("http://api.github.com/repos/a"), false),
        (cx.get("https://github.com/repos/a"), false),
    ] {
        let sent = request.send();
        assert_eq!(sent.is_ok(), allowed, "{sent:?}");
        assert!(allowed || *sent.unwrap_err().kind() == HttpErrorKind::Denied);
    }
    assert_eq!(cx.requests()[1].url, format!("{repos}?token=[secret github_token]"));
    assert_eq!(cx.secret("another").unwrap_err().code(), Some("secret_missing"));
}

#[test]
#[should_panic(expected = "the test has a setting `api_url` that plugin.toml does not ask for")]
fn a_test_cannot_have_what_no_operator_could_give() {
    let cx = github(vec![]).with_setting("api_url", "https://github.example/");
    let _ = testing::call_with(&cx, "create_issue", json!({"title": "t"}));
}

#[test]
fn what_makes_no_sense_is_refused_before_any_request() {
    let cx = Context::fake().with_secret("github_token");
    for (arguments, part) in [
        (json!({"title": " ", "repo": "a/b"}), "/title"),
        (json!({"title": "t"}), "`default_repo`"),
        (json!({"title": "t", "repo": "a"}), "owner/name"),
        (json!({"title": "t", "repo": "a/b/c"}), "owner/name"),
        (json!({"title": "t", "repo": "../b"}), "owner/name"),
        (json!({"title": "t", "repo": "a/b?x"}), "owner/name"),
    ] {
        let error = testing::call_with(&cx, "create_issue", arguments.clone()).unwrap_err();
        assert!(error.message().contains(part), "{arguments}: {}", error.message());
    }
    assert_eq!(cx.requests(), []);
    let error = testing::call("create_issue", json!({"title": "t", "repo": "a/b"})).unwrap_err();
    assert_eq!(error.code(), Some("secret_missing"));
}

#[test]
fn errors_say_whether_another_attempt_may_help() {
    for (response, code, again) in [
        (Response::new(401, "Bad credentials"), "http_status", false),
        (Response::new(403, "Resource not accessible"), "http_status", false),
        (Response::new(403, "").with_header("x-ratelimit-remaining", "0"), "rate_limited", true),
        (Response::new(403, "").with_header("retry-after", "5"), "rate_limited", true),
        (Response::new(301, "Moved"), "repo_moved", false),
        (Response::new(502, ""), "http_status", true),
        (Response::new(200, "<html>"), "http_body", false),
        (Response::of_json(200, &json!([{"body": MARK}])), "http_body", false),
    ] {
        let told = format!("{response:?}");
        let cx = Context::fake().with_secret("github_token").with_http(move |_| Ok(response.clone()));
        let error = testing::call_with(&cx, "create_issue", json!({"title": "t", "repo": "a/b"})).unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), (Some(code), again), "{told}");
        assert_eq!(methods(&cx), ["GET"], "nothing is created");
    }
}
