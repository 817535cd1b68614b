//! `weir plugin test`: calls that were recorded against a real target are played when nobody is there any more, and tell
//! what a changed plugin does in another way.

use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::plugin::{asking, bytes, patched};
use weir_tests::process::run;
use weir_tests::target::Target;

const SECRET: &str = "hush-hush-hush";

/// A person's directory, with a plugin.
struct Home(TempDir);

impl Home {
    fn with(plugin: &[u8]) -> Self {
        let home = Self(TempDir::new().expect("a directory"));
        home.write("plugin.wasm", plugin);
        home.write("token.txt", format!("{SECRET}\n"));
        home
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), content).expect("written");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).expect(name)
    }

    /// `weir plugin test plugin.wasm`: its status, and what it says on both outputs.
    fn test(&self, args: &[&str]) -> (Option<i32>, String) {
        let open = ["plugin", "test", "plugin.wasm", "--set", "egress_allow=127.0.0.1"];
        outcome(&run(self.0.path(), &[&open, args].concat(), &[("HOME", &self.0.path().display().to_string())]))
    }
}

fn outcome(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

/// `misbehave`, which asks for everything on the target, with a secret and a setting.
fn fetcher(target: &Target) -> Vec<u8> {
    let rule = json!({"host": "127.0.0.1", "scheme": "http", "port": target.port(), "methods": ["GET", "POST"],
        "secrets": ["token"]});
    let request = json!({
        "name": "fetcher", "version": "1", "http": [rule], "secrets": [{"name": "token"}],
        "settings": [{"name": "colour", "default": "red"}],
    });
    asking(&bytes("misbehave"), &request)
}

// What is called answers while this waits for the command.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_recorded_once_and_played_when_nobody_is_there() {
    let target = Target::start().await;
    target.answer_with("/orders", |received| async move {
        let seen = json!({"id": 7, "authorization": received.header("authorization")});
        (axum::http::StatusCode::CREATED, [("x-echo", "7")], axum::Json(seen))
    });
    let home = Home::with(&fetcher(&target));
    let order = json!({"url": format!("{}?key=[secret]", target.url("/orders")), "method": "POST", "secret": "token",
        "headers": {"authorization": "Bearer [secret]"}, "body": "{\"n\": 1, \"by\": \"[secret]\"}"});
    let rights = ["--allow", "--secret", "token=token.txt"];
    let (status, said) =
        home.test(&[&["--record", "fetch_url", &order.to_string(), "--name", "order"][..], &rights].concat());
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("recorded order: cassettes/order.json, 1 request\n"), "{said}");
    let received = target.received("/orders");
    assert_eq!(
        (received.len(), received[0].header("authorization")),
        (1, format!("Bearer {SECRET}").as_str()),
        "the call was real"
    );

    // Everything of the call is there, and nothing of the secret, nor what stood for it.
    let text = home.read("cassettes/order.json");
    assert!(!text.contains("hush") && !text.contains("weir-secret-"), "{text}");
    let cassette: Value = serde_json::from_str(&text).expect("JSON");
    let call = &cassette["call"];
    assert_eq!(
        (&call["tool"], &call["arguments"], &cassette["secrets"]),
        (&json!("fetch_url"), &order, &json!(["token"]))
    );
    let exchange = &call["http"][0];
    assert_eq!(exchange["url"], format!("{}?key=[secret token]", target.url("/orders")));
    assert_eq!(exchange["sent"]["text"], "{\"n\": 1, \"by\": \"[secret token]\"}");
    assert_eq!(exchange["sent_headers"]["authorization"], "Bearer [secret token]");
    assert_eq!(exchange["sent_headers"]["idempotency-key"], call["idempotency_key"]);
    assert_eq!((&exchange["status"], &exchange["headers"]["x-echo"]), (&json!(201), &json!("7")));
    assert_eq!(call["outcome"]["answer"]["result"]["status"], 201);

    // Calls that fail, and that ask nobody, are calls too.
    for (name, tool, input) in [
        ("colour", "show_setting", json!({"name": "colour"})),
        ("busy", "fail_for_now", json!({})),
        ("shown", "show_secret", json!({"name": "token"})),
        ("denied", "fetch_url", json!({"url": "http://127.0.0.1:1/"})),
    ] {
        let record = ["--record", tool, &input.to_string(), "--name", name, "--setting", "colour=blue"];
        let (status, said) = home.test(&[&record[..], &rights].concat());
        assert_eq!(status, Some(0), "{said}");
    }
    assert!(home.read("cassettes/colour.json").contains("\"colour\": \"blue\""));
    assert!(home.read("cassettes/shown.json").contains("\"result\": \"[secret]\""));
    assert!(home.read("cassettes/busy.json").contains("\"code\": \"tool_failed\""));

    let count = target.count();
    target.stop().await;
    let expected = "ok busy\nok colour\nok denied\nok order\nok shown\n";
    for _ in 0..2 {
        assert_eq!(home.test(&[]), (Some(0), expected.to_owned()));
    }
    assert_eq!((home.test(&["--cassettes", "cassettes"]), count), ((Some(0), expected.to_owned()), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_recorded_is_told_with_its_place() {
    let target = Target::start().await;
    let (plugin, url) = (fetcher(&target), target.url("/a"));
    let home = Home::with(&plugin);
    let record = |name: &str, tool: &str, input: Value| {
        let (status, said) = home.test(&["--record", tool, &input.to_string(), "--name", name, "--allow"]);
        assert_eq!(status, Some(0), "{said}");
    };
    record("many", "fetch_many", json!({"url": url, "count": 3}));
    record("one", "fetch_url", json!({"url": url, "method": "POST", "body": "{\"n\": 1}"}));
    record("size", "take_memory", json!({"bytes": 10}));
    record("steps", "fetch_url", json!({"url": target.url("/moved"), "redirects": 2}));
    let (whole, count) = (home.read("cassettes/one.json"), target.count());
    target.stop().await;
    assert_eq!(home.test(&[]), (Some(0), "ok many\nok one\nok size\nok steps\n".to_owned()));

    // Another build of the plugin, which answers in other words.
    home.write("plugin.wasm", patched(&plugin, "took ", "used "));
    let (status, said) = home.test(&[]);
    assert_eq!(status, Some(1), "{said}");
    let expected = "ok many\nok one\ndifferent size\n  \
        /call/outcome/answer/result: wanted \"took 10 bytes\", got \"used 10 bytes\"\n";
    assert!(said.starts_with(expected) && said.ends_with("weir: 1 of 4 calls were not as recorded\n"), "{said}");

    // The same plugin, which asks for less: what it is denied is told.
    home.write("plugin.wasm", asking(&bytes("misbehave"), &json!({"name": "fetcher", "version": "2"})));
    let (status, said) = home.test(&[]);
    assert!(status == Some(1) && said.contains("ok size\n"), "{said}");
    assert!(said.contains(&format!("/call/http/0: wanted \"POST {url}\", got nothing\n")), "{said}");
    assert!(said.contains(&format!("denied POST {url}: the plugin does not ask for it in its request\n")), "{said}");

    // Cassettes that somebody edited: each part of a request counts, and so do their number and the rights.
    home.write("plugin.wasm", &plugin);
    let cassette: Value = serde_json::from_str(&whole).expect("JSON");
    let exchange = &cassette["call"]["http"][0];
    let edits = [
        ("/call/http/0/method", json!("PUT"), "/call/http/0/method: wanted \"PUT\", got \"POST\"".to_owned()),
        ("/call/http/0/url", json!("x"), format!("/call/http/0/url: wanted \"x\", got \"{url}\"")),
        ("/call/http/0/sent/text", json!("{\"n\": 2}"), "/call/http/0/sent/text/n: wanted 2, got 1".to_owned()),
        ("/call/http/0/status", json!(404), "/call/outcome/answer/result/status: wanted 200, got 404".to_owned()),
        ("/call/http", json!([]), format!("/call/http/0: wanted nothing, got \"POST {url}\"")),
        ("/call/http", json!([exchange, exchange]), format!("/call/http/1: wanted \"POST {url}\", got nothing")),
        ("/grant/http", json!([]), format!("/call/http/0: wanted \"POST {url}\", got nothing")),
        ("/grant/settings", json!({"size": "1"}), "/grant/settings/size: wanted \"1\", got nothing".to_owned()),
        ("/call/outcome/answer/is_error", json!(true), "/call/outcome/answer/is_error: wanted true, got".to_owned()),
        ("/call/colour", json!("red"), "cassettes/edit-9.json: unknown field `colour`".to_owned()),
    ];
    let mut wanted = Vec::new();
    for (n, (pointer, value, says)) in edits.into_iter().enumerate() {
        let mut edited = cassette.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        edited.pointer_mut(parent).expect(pointer)[name] = value;
        home.write(&format!("cassettes/edit-{n}.json"), edited.to_string());
        let word = if n == 9 { "unreadable" } else { "different" };
        wanted.push(format!("{word} edit-{n}\n  {says}"));
    }
    let (status, said) = home.test(&[]);
    assert!(status == Some(1) && said.ends_with("weir: 10 of 14 calls were not as recorded\n"), "{said}");
    for says in wanted {
        assert!(said.contains(&says), "`{says}` is not in {said}");
    }
    let denied = format!("  denied POST {url}: the plugin asks for it, and it is not granted\n");
    assert!(said.contains(&denied) && said.contains("\nok many\nok one\nok size\nok steps\n"), "{said}");
    for n in 0..10 {
        std::fs::remove_file(home.0.path().join(format!("cassettes/edit-{n}.json"))).expect("there");
    }
    // Flags take the place of what was granted.
    home.write("grant.json", json!({"http": []}).to_string());
    let (status, said) = home.test(&["--grant", "grant.json"]);
    assert!(status == Some(1) && said.contains("different one\n") && said.contains("ok size\n"), "{said}");
    assert_eq!((home.test(&["--allow"]).0, count), (Some(0), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_is_told_the_same_key_and_each_header_counts() {
    let target = Target::start().await;
    target.answer("/repos/a/b/issues", axum::Json(json!([])));
    target.answer("/repos/a/b/issues", axum::Json(json!({"number": 7, "html_url": "https://example.com/7"})));
    let rule = json!({"host": "127.0.0.1", "scheme": "http", "port": target.port(), "methods": ["GET", "POST"],
        "path_prefix": "/repos", "secrets": ["github_token"]});
    let request = json!({
        "name": "github-issue", "version": "1", "http": [rule], "secrets": [{"name": "github_token"}],
        "settings": [{"name": "default_repo"}],
    });
    // It is as long, with a port of five digits.
    let moved =
        patched(&bytes("github_issue"), "https://api.github.com", &format!("http://127.0.0.1:{:05}", target.port()));
    let plugin = asking(&moved, &request);
    let home = Home::with(&plugin);
    let rights = ["--allow", "--secret", "github_token=token.txt", "--setting", "default_repo=a/b"];
    let (status, said) = home.test(&[&["--record", "create_issue", r#"{"title": "It broke"}"#][..], &rights].concat());
    assert_eq!(status, Some(0), "{said}");
    target.stop().await;
    // The key of the call stands in the body that it sends.
    assert_eq!(home.test(&[]), (Some(0), "ok create_issue\n".to_owned()));
    home.write("plugin.wasm", patched(&plugin, "vnd.github+json", "vnd.github+text"));
    let (status, said) = home.test(&[]);
    let header = "/call/http/0/sent_headers/accept: \
                  wanted \"application/vnd.github+json\", got \"application/vnd.github+text\"";
    assert_eq!((status, said.lines().nth(1).map(str::trim)), (Some(1), Some(header)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_or_played_is_refused() {
    let target = Target::start().await;
    let home = Home::with(&fetcher(&target));
    let url = target.url("/a");
    let input = json!({"url": url}).to_string();
    home.write("short", "ab");
    for (args, status, says) in [
        (&[][..], 2, "there is no cassette in cassettes: --record TOOL ARGUMENTS makes one"),
        (&["--record", "fetch_url", "{url"], 2, "the arguments are not JSON"),
        (&["--record", "fetch_url", &input, "--name", "../x"], 2, "--name ../x: must be"),
        (&["--name", "x"], 2, "--record"),
        (&["--colour"], 2, "--colour"),
        (&["--record", "no_tool"], 1, "the plugin has no tool named `no_tool`; it has "),
        (&["--record", "fetch_url", &input, "--secret", "token=token.txt"], 1, "--secret needs --allow or --grant"),
        (
            &["--record", "fetch_url", &input, "--allow", "--secret", "token=short"],
            1,
            "--secret token=short: must be 8 to 4096 visible ASCII characters",
        ),
    ] {
        let (got, said) = home.test(args);
        assert!(got == Some(status) && said.contains(says), "{args:?}: {got:?} {said}");
    }
    let recorded = home.test(&["--record", "fetch_url", &input, "--allow"]);
    assert_eq!(recorded.0, Some(0), "{}", recorded.1);
    let first = home.read("cassettes/fetch_url.json");
    let (status, said) = home.test(&["--record", "fetch_url", &input, "--allow"]);
    assert!(status == Some(2) && said.contains("cassettes/fetch_url.json is there"), "{said}");
    let (status, said) = home.test(&["--allow", "--secret", "token=token.txt"]);
    assert!(status == Some(2) && said.contains("--secret is for --record"), "{said}");
    // A request that nobody answers cannot be played: nothing is written over what is there.
    target.stop().await;
    let (status, said) = home.test(&["--record", "fetch_url", &input, "--allow", "--replace"]);
    assert!(status == Some(1) && said.contains("nothing was written: 1 of its requests got no whole answer"), "{said}");
    assert_eq!(home.read("cassettes/fetch_url.json"), first);
    assert_eq!(home.test(&[]), (Some(0), "ok fetch_url\n".to_owned()));
    let (status, said) = outcome(&run(home.0.path(), &["plugin", "test", "--help"], &[]));
    assert!(status == Some(0) && said.contains("Examples:") && said.contains("--record greet"), "{said}");
}
