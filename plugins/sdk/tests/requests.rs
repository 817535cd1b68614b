//! Requests as a plugin writes them, against the host that tests have: what leaves, what is refused, and what errors mean.

use std::time::Duration;

use weir_sdk::prelude::*;
use weir_sdk::{Request, RequestBuilder, Response};

const REQUEST: &str = r#"{"name": "p", "version": "1", "secrets": [{"name": "token"}, {"name": "other"}],
    "settings": [{"name": "language", "default": "en"}, {"name": "plain"}],
    "http": [
        {"host": "api.example.com", "methods": ["GET", "POST"], "path_prefix": "/v1", "secrets": ["token"]},
        {"host": "*.example.org", "methods": ["GET"], "secrets": ["other"]},
        {"host": "127.0.0.1", "scheme": "http", "port": 8080, "methods": ["GET"]}
    ]}"#;

const URL: &str = "https://api.example.com/v1";

/// A context for any plugin, with a network that answers 204.
fn any() -> Context {
    Context::fake().with_http(|_| Ok(Response::new(204, "")))
}

/// The same, for the plugin above.
fn known() -> Context {
    let cx = any();
    cx.know(REQUEST);
    cx.with_secret("token").with_secret("other")
}

fn sent(cx: &Context) -> Request {
    cx.requests().pop().expect("a request")
}

fn kind(request: RequestBuilder<'_>) -> Option<HttpErrorKind> {
    request.send().err().map(|error| error.kind().clone())
}

#[test]
fn a_header_that_is_set_twice_is_sent_once() {
    let cx = any();
    cx.get(URL)
        .header("Accept", "a")
        .header("accept", "b")
        .append_header("x-more", "1")
        .append_header("X-More", "2")
        .send()
        .unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(sent(&cx).headers, [pair("accept", "b"), pair("x-more", "1"), pair("x-more", "2")]);
    for request in [
        cx.post(URL).header("content-type", "application/vnd.api+json").json(&1),
        cx.post(URL).json(&1).header("content-type", "application/vnd.api+json"),
    ] {
        request.send().unwrap();
        let types: Vec<_> = sent(&cx).headers.into_iter().filter(|(name, _)| name == "content-type").collect();
        assert_eq!(types, [pair("content-type", "application/vnd.api+json")]);
    }
}

#[test]
fn the_query_stands_before_the_fragment() {
    let cx = any();
    for (url, expected) in [
        ("https://a.com/b", "https://a.com/b?q=1%202"),
        ("https://a.com/b#c", "https://a.com/b?q=1%202#c"),
        ("https://a.com/b#c?d", "https://a.com/b?q=1%202#c?d"),
        ("https://a.com/b?x#c", "https://a.com/b?x&q=1%202#c"),
        ("https://a.com/b?", "https://a.com/b?q=1%202"),
        ("https://a.com", "https://a.com?q=1%202"),
    ] {
        cx.get(url).query("q", "1 2").send().unwrap();
        assert_eq!(sent(&cx).url, expected);
    }
}

#[test]
fn what_may_change_something_carries_the_key_of_the_call() {
    let cx = any();
    for (method, n) in [("POST", ""), ("PUT", ":2"), ("PATCH", ":3"), ("DELETE", ":4")] {
        cx.request(method, URL).send().unwrap();
        let key = format!("{}{n}", cx.idempotency_key());
        assert_eq!(sent(&cx).header("idempotency-key"), Some(key.as_str()), "{method}");
        cx.request(method, URL).header("Idempotency-Key", "mine").send().unwrap();
        let keys: Vec<_> = sent(&cx).headers;
        assert_eq!(keys, [("idempotency-key".to_owned(), "mine".to_owned())], "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        cx.request(method, URL).send().unwrap();
        assert_eq!(sent(&cx).header("idempotency-key"), None, "{method}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let date = "Fri, 31 Dec 1999 23:59:30 GMT";
    for (said, date, seconds) in [
        ("120", None, Some(120)),
        (" 0 ", None, Some(0)),
        ("Fri, 31 Dec 1999 23:59:59 GMT", Some(date), Some(29)),
        ("Friday, 31-Dec-99 23:59:59 GMT", Some(date), Some(29)),
        ("Fri Dec 31 23:59:59 1999", Some(date), Some(29)),
        ("Fri, 31 Dec 1999 23:59:00 GMT", Some(date), Some(0)),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None, Some(0)),
        ("-1", None, None),
        ("soon", Some(date), None),
    ] {
        let response = Response::new(503, "").with_header("Retry-After", said);
        let response = date.map_or(response.clone(), |date| response.with_header("Date", date));
        let expected = seconds.map(Duration::from_secs);
        assert_eq!(response.retry_after(), expected, "{said}");
        let error = ToolError::from(response.error_for_status().unwrap_err());
        assert_eq!((error.is_retryable(), error.retry_after()), (true, expected), "{said}");
    }
    // Held against the clock: far away, whatever it says.
    let far = Response::new(429, "").with_header("retry-after", "Fri, 31 Dec 2399 23:59:59 GMT");
    assert!(far.retry_after() > Some(Duration::from_secs(100 * 365 * 24 * 60 * 60)));
}

#[test]
fn errors_say_whether_another_attempt_may_help_and_name_the_host_alone() {
    let status = |status| HttpErrorKind::Status { status, retry_after: None, body: String::new() };
    let text = || "why".to_owned();
    for (kind, code, again) in [
        (HttpErrorKind::Denied, "http_denied", false),
        (HttpErrorKind::Timeout, "http_timeout", true),
        (HttpErrorKind::Connection(text()), "http_connection", true),
        (HttpErrorKind::Unusable(text()), "http_unusable", false),
        (HttpErrorKind::Body(text()), "http_body", false),
        (status(400), "http_status", false),
        (status(404), "http_status", false),
        (status(408), "http_status", true),
        (status(425), "http_status", true),
        (status(429), "http_status", true),
        (status(500), "http_status", true),
        (status(599), "http_status", true),
    ] {
        let cx = Context::fake().with_http(move |_| Err(kind.clone().into()));
        let failed = cx.get("https://api.example.com:444/path?key=s3cret#part").send().unwrap_err();
        assert_eq!(failed.host(), Some("api.example.com:444"));
        let told: &dyn std::error::Error = &failed;
        let message = told.to_string();
        assert!(message.contains("api.example.com:444"), "{message}");
        assert!(!["path", "key", "s3cret", "part"].iter().any(|part| message.contains(part)), "{message}");
        let error = ToolError::from(failed);
        assert_eq!((error.code(), error.is_retryable(), error.message()), (Some(code), again, message.as_str()));
    }
    let cx = Context::fake().with_http(|_| Ok(Response::new(200, "<html>")));
    let failed = cx.get("https://api.example.com/path?key=s3cret").send().unwrap().json::<Value>().unwrap_err();
    assert!(failed.to_string().starts_with("the response of api.example.com is not what it should be"), "{failed}");
}

#[test]
fn an_error_that_has_one_as_its_source_means_the_same() {
    #[derive(Debug)]
    struct Own(HttpError);
    impl std::fmt::Display for Own {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the list cannot be read")
        }
    }
    impl std::error::Error for Own {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let error = ToolError::from(Own(HttpErrorKind::Timeout.into()));
    assert_eq!(error.message(), "the list cannot be read: the request to the service took too long");
    assert_eq!((error.code(), error.is_retryable()), (Some("http_timeout"), true));
}

#[test]
fn what_no_host_can_send_is_refused() {
    let cx = any();
    let long = "x".repeat(17 * 1024);
    for request in [
        cx.get("ftp://a.com/"),
        cx.get("a.com"),
        cx.get("https://"),
        cx.get("https://a b/"),
        cx.get("https://a.com/b c"),
        cx.get("https://user:s3cret@a.com/"),
        cx.get("https://user@a.com/"),
        cx.get("https://a.com:99999/"),
        cx.request("G T", URL),
        cx.request("", URL),
        cx.get(URL).header("a b", "c"),
        cx.get(URL).header("", "c"),
        cx.get(URL).header("x", "a\nb"),
        cx.get(URL).header("x", "a\0"),
        cx.get(URL).header("Host", "b.com"),
        cx.get(URL).header("connection", "close"),
        cx.get(URL).header("transfer-encoding", "chunked"),
        cx.get(URL).header("Proxy-Authorization", "x"),
        cx.post(URL).body("abc").header("content-length", "4"),
        cx.get(URL).header("x", &long),
    ] {
        let failed = request.send().unwrap_err();
        assert!(matches!(failed.kind(), HttpErrorKind::Unusable(_)), "{failed}");
        assert!(!failed.to_string().contains("s3cret"), "{failed}");
    }
    assert_eq!(cx.requests(), []);
    for request in [cx.get(URL).header("x", "é\tü"), cx.post(URL).body("abc").header("content-length", "3")] {
        assert_eq!(kind(request), None);
    }
}

#[test]
fn what_the_plugin_does_not_ask_for_is_denied() {
    let cx = known();
    let (token, other) = (cx.secret("token").unwrap(), cx.secret("other").unwrap());
    for (request, allowed) in [
        (cx.get(URL), true),
        (cx.post("https://API.example.com:443/v1/a?b"), true),
        (cx.get("https://a.b.example.org/"), true),
        (cx.get("http://127.1:8080/"), true),
        (cx.get(URL).header("authorization", format!("Basic {}", token.as_ref())), true),
        (cx.get(URL).query("key", &token), true),
        (cx.get("https://a.example.org/").bearer(&other), true),
        (cx.delete(URL), false),
        (cx.request("get", URL), false),
        (cx.get("http://api.example.com/v1"), false),
        (cx.get("https://api.example.com:8443/v1"), false),
        (cx.get("https://api.example.com/v10"), false),
        (cx.get("https://api.example.com/v1/../v2"), false),
        (cx.get("https://api.example.com/v1/%2e%2e/v2"), false),
        (cx.get("https://api.example.com/v1//a"), false),
        (cx.get("https://example.org/"), false),
        (cx.get("https://aexample.org/"), false),
        (cx.get(URL).bearer(&other), false),
        (cx.get(URL).query("key", &other), false),
        (cx.get("https://a.example.org/").bearer(&token), false),
        (cx.get(URL).header("x", format!("é{}", token.as_ref())), false),
    ] {
        let answered = request.send();
        assert_eq!(answered.is_ok(), allowed, "{answered:?}");
        assert!(allowed || *answered.unwrap_err().kind() == HttpErrorKind::Denied);
    }
    assert_eq!(cx.requests().len(), 7);
    let denied = cx.delete(URL).send().unwrap_err().to_string();
    assert!(denied.contains("no [[http]] of plugin.toml asks for DELETE https://api.example.com/v1"), "{denied}");
    let offline = Context::fake().get(URL).send().unwrap_err();
    assert_eq!(*offline.kind(), HttpErrorKind::Denied);
}

#[test]
fn secrets_stand_in_headers_and_the_query_alone() {
    let cx = known();
    let token = cx.secret("token").unwrap();
    assert!(!token.as_ref().contains("token"), "nobody builds on what it is called");
    let body = json!({"token": token.as_ref()});
    cx.post(URL).query("key", &token).bearer(&token).json(&body).send().unwrap();
    let sent = sent(&cx);
    assert_eq!(sent.url, format!("{URL}?key=[secret token]"));
    assert_eq!(sent.header("authorization"), Some("Bearer [secret token]"));
    assert_eq!(sent.json().unwrap(), body, "no host looks into a body");
    assert_eq!(Context::fake().secret("token").unwrap_err().code(), Some("secret_missing"));
}

#[test]
fn settings_are_those_of_the_request() {
    let cx = known();
    assert_eq!((cx.setting("language").as_deref(), cx.setting("plain"), cx.setting("none")), (Some("en"), None, None));
    let cx = known().with_setting("language", "eo").with_setting("plain", "");
    assert_eq!((cx.setting("language").as_deref(), cx.setting("plain").as_deref()), (Some("eo"), Some("")));
}

#[test]
#[should_panic(expected = "the test has a setting `none` that plugin.toml does not ask for")]
fn a_setting_that_nobody_can_make_is_no_test() {
    let _ = known().with_setting("none", "");
}

#[test]
#[should_panic(expected = "the test has a secret `none` that plugin.toml does not ask for")]
fn a_secret_that_nobody_can_grant_is_no_test() {
    let _ = known().with_secret("none");
}

#[test]
#[should_panic(expected = "plugin.toml: http[0] has a method that is not in upper case")]
fn a_request_that_no_host_takes_is_no_test() {
    Context::fake().know(r#"{"http": [{"host": "a.com", "methods": ["get"]}]}"#);
}

#[test]
fn the_time_of_an_exchange_is_there_for_the_network_of_a_test() {
    let cx = any();
    cx.get(URL).timeout(Duration::from_secs(3)).send().unwrap();
    assert_eq!(sent(&cx).timeout, Some(Duration::from_secs(3)));
}
