//! The one binary, as a person meets it.

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::plugin;
use weir_tests::process::{Weir, answer, run};
use weir_tests::target::Target;

fn weir(args: &[&str], env: &[(&str, &str)]) -> (bool, String) {
    let dir = TempDir::new().expect("a directory");
    let output = run(dir.path(), args, env);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn help_teaches() {
    let (ok, text) = weir(&["--help"], &[]);
    assert!(ok);
    for taught in [
        "serve",
        "migrate",
        "backup",
        "import",
        "copy",
        "config",
        "openapi",
        "plugin",
        "bench",
        "curl -X POST",
        "/docs",
        "--data-dir",
    ] {
        assert!(text.contains(taught), "{taught} is not in:\n{text}");
    }
    let (ok, text) = weir(&["serve", "--help"], &[]);
    assert!(ok && text.contains("--role") && text.contains("127.0.0.1:8000"), "{text}");
}

#[test]
fn a_plugin_is_looked_at_and_called_without_a_server() {
    let (greet, misbehave) = (plugin::file("greet"), plugin::file("misbehave"));
    let (greet, misbehave) = (greet.to_str().expect("text"), misbehave.to_str().expect("text"));
    let (ok, text) = weir(&["plugin", "inspect", greet], &[]);
    assert!(ok && text.contains("greet 0.1.0") && text.contains("Greets a person by name."), "{text}");
    assert!(
        text.contains("sha256:") && text.contains("weir:plugin/tool-log@0.1.0") && text.contains("\"name\""),
        "{text}"
    );
    let dir = TempDir::new().expect("a directory");
    let inspected = run(dir.path(), &["plugin", "inspect", "--json", greet], &[]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
    assert_eq!(inspected["tools"][0]["inputSchema"]["required"], json!(["name"]));
    let called = run(dir.path(), &["plugin", "call", greet, "greet", r#"{"name": "Ada"}"#], &[]);
    let answer: Value = serde_json::from_slice(&called.stdout).expect("JSON");
    assert_eq!((&answer["result"], &answer["is_error"]), (&json!("Hello, Ada!"), &json!(false)));
    assert!(String::from_utf8_lossy(&called.stderr).contains("units of fuel"), "{called:?}");
    for (args, says) in [
        (vec![greet, "greet", r#"{"name": 1}"#], "invalid_tool_arguments: "),
        (vec![greet, "greet", "{name"], "the arguments are not JSON"),
        (vec![greet, "great"], "the plugin has no tool named `great`; it has greet"),
        (vec![misbehave, "panic"], "this tool always panics"),
        (vec![misbehave, "endless_loop", "{}", "--timeout", "0.1"], "step_timeout: "),
        (vec![misbehave, "endless_loop", "{}", "--set", "tool_fuel_max_millions=1"], "tool_fuel_exhausted: "),
        (vec!["nowhere.wasm", "greet"], "nowhere.wasm"),
        (vec!["/dev/zero", "greet"], "more than 33554432 bytes (`plugin_max_bytes`)"),
        (vec![greet, "greet", "{}", "--timeout", "0"], "--timeout must be more than 0 and at most 3600 seconds"),
        (vec![greet, "greet", "{}", "--set", "plugin_max_bytes=9"], "more than 9 bytes (`plugin_max_bytes`)"),
    ] {
        let (ok, text) = weir(&[vec!["plugin", "call"], args.clone()].concat(), &[]);
        assert!(!ok && text.contains(says), "{args:?}: {text}");
    }
}

#[test]
fn what_a_guest_says_stays_on_its_line() {
    let dir = TempDir::new().expect("a directory");
    let forging = plugin::patched(&plugin::bytes("misbehave"), "line ", "\nINFO");
    let forging = plugin::patched(&forging, "this tool always panics", "this tool\nINFO forged\r!");
    std::fs::write(dir.path().join("forging.wasm"), forging).expect("written");
    let secret = json!({"name": "x\nINFO forged"}).to_string();
    for (tool, input, says) in [
        ("log_flood", r#"{"bytes": 1}"#, r"\nINFO0"),
        ("panic", "{}", r"this tool\nINFO forged\r!"),
        ("show_secret", secret.as_str(), r"denied the secret `x\nINFO forged`"),
    ] {
        let args = ["plugin", "call", "forging.wasm", tool, input, "--set", "log_format=human"];
        let said = String::from_utf8(run(dir.path(), &args, &[]).stderr).expect("text");
        assert!(said.contains(says) && !said.contains('\r'), "{tool}: {said}");
        assert!(!said.lines().any(|line| line.starts_with("INFO")), "{tool}: {said}");
    }
}

#[test]
fn answers_that_nobody_asked_for_are_told() {
    let approve = plugin::file("approve");
    let approve = approve.to_str().expect("text");
    let call = |answers: &[&str]| {
        let asks = ["plugin", "call", approve, "approve", r#"{"question": "Deploy?"}"#];
        let answers = answers.iter().flat_map(|answer| ["--answer", *answer]);
        weir(&asks.into_iter().chain(answers).collect::<Vec<_>>(), &[])
    };
    let approved = r#"approval={"approved": true, "comment": "go"}"#;
    let (ok, text) = call(&[approved, "aproval=decline"]);
    assert!(
        ok && text.contains("--answer aproval: the tool never asked this") && !text.contains("--answer approval"),
        "{text}"
    );
    let (ok, text) = call(&[approved, "approval=decline"]);
    assert!(!ok && text.contains("--answer approval: there are two answers for this key"), "{text}");
    let (ok, text) = call(&["approval=accept"]);
    assert!(!ok && text.contains("--answer approval: ") && !text.contains(":  "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_weir_is_not_taken_for_one() {
    let target = Target::start().await;
    for (path, answered) in
        [("/plugins", json!({"status": "ok"})), ("/plugins", json!([])), ("/secrets", json!({"items": []}))]
    {
        target.answer(path, axum::Json(answered));
        let (ok, text) = weir(&[&path[1..path.len() - 1], "list", "--server", &target.url("/")], &[]);
        assert!(!ok && text.contains("not as a server of Weir does"), "{text}");
    }
    let (ok, text) = weir(&["plugin", "revoke", "--help"], &[]);
    assert!(ok && text.contains("<PLUGIN>") && !text.contains("<NAME@VERSION>"), "{text}");
}

#[test]
fn a_bench_measures_everything_it_names() {
    let dir = TempDir::new().expect("a directory");
    let component = plugin::file("greet");
    let component = component.to_str().expect("text");
    let output = run(dir.path(), &["bench", "--runs", "60", "--json", "--component", component], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let measured = report["measured"].as_array().expect("measurements");
    assert_eq!(measured.len(), 20);
    for row in measured {
        for member in ["count", "per_second"] {
            assert!(row[member].as_f64() > Some(0.0), "{row}");
        }
        // Where only the whole was measured, nothing is known of each.
        let whole = row["name"].as_str().is_some_and(|name| name.ends_with("all at once"));
        for member in ["p50_ms", "p99_ms"] {
            assert!(whole && row[member].is_null() || row[member].as_f64() > Some(0.0), "{row}");
        }
        let limits = row["limits"].as_array().expect("limits");
        assert!(!limits.is_empty() && limits.iter().all(|limit| limit["ratio"].as_f64() > Some(0.0)), "{row}");
    }
    let claims = report["claims"].as_array().expect("claims");
    assert_eq!(claims.len(), 17);
    for claim in claims {
        let goal = claim["goal"].as_f64();
        assert!(claim["value"].is_number() && goal > Some(0.0) && claim["holds"].is_boolean(), "{claim}");
        assert!(claim["limit"].is_null() || claim["limit"]["ratio"].as_f64() > Some(0.0), "{claim}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing is left behind");
    let (ok, text) = weir(&["bench", "--url", "http://example.com/"], &[]);
    assert!(!ok && text.contains("only talks to this machine"), "{text}");
}

#[test]
fn settings_come_from_defaults_file_environment_and_flags_in_this_order() {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(
        dir.path().join("weir.toml"),
        "steps_max = 1\nattempts_max = 1\nredirects_max = 1\nlog_level = \"warn\"\n",
    )
    .expect("written");
    std::fs::write(dir.path().join(".env"), "WEIR_REDIRECTS_MAX=2\n").expect("written");
    let output =
        run(dir.path(), &["config", "--set", "steps_max=3"], &[("WEIR_STEPS_MAX", "2"), ("WEIR_ATTEMPTS_MAX", "2")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |key: &str| text.lines().find(|line| line.starts_with(&format!("{key} = "))).expect(key).to_owned();
    for (key, value, source) in [
        ("steps_max", "3", "a flag"),
        ("attempts_max", "2", "the variable WEIR_ATTEMPTS_MAX"),
        ("redirects_max", "2", "the variable WEIR_REDIRECTS_MAX"),
        ("log_level", "\"warn\"", "weir.toml"),
        ("context_max_bytes", "8388608", "default"),
    ] {
        let line = line(key);
        assert!(line.contains(&format!("= {value} ")) && line.ends_with(&format!("# {source}")), "{line}");
    }
}

#[test]
fn the_commented_defaults_are_a_configuration_file() {
    let dir = TempDir::new().expect("a directory");
    let defaults = run(dir.path(), &["config", "--defaults"], &[]);
    std::fs::write(dir.path().join("mine.toml"), &defaults.stdout).expect("written");
    let output = run(dir.path(), &["config", "--config", "mine.toml"], &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("# mine.toml"));
}

#[test]
fn what_is_no_setting_is_refused_where_it_stands() {
    for (args, env, says) in [
        (&["serve", "--set", "step_max=1"][..], &[][..], "a flag: `step_max` is not a setting"),
        (&["serve"], &[("WEIR_STEP_MAX", "1")], "the variable WEIR_STEP_MAX: `step_max` is not a setting"),
        (&["serve"], &[("WEIR_LISTEN", "nonsense")], "listen"),
        (&["serve"], &[("DATABASE_URL", "mysql://u:p@h/d")], "DATABASE_URL begins with `mysql:`"),
        (&["serve"], &[("DATABASE_URL", "postgres://u:p@h/d")], "a database on Postgres needs Redis beside it"),
        (&["serve"], &[("WEIR_EGRESS_ALLOW", "http://x")], "egress_allow: `http://x`"),
        (&["serve", "--config", "none.toml"], &[], "none.toml"),
        (&["serve", "--role", "boss"], &[], "possible values: all, api, worker"),
        (&["serve", "--set", "log_level=loud"], &[], "log_level: `loud` is not a level"),
    ] {
        let (ok, text) = weir(args, env);
        assert!(!ok && text.contains(says), "{args:?} {env:?}:\n{text}");
    }
    let (_, text) = weir(&["config"], &[("DATABASE_URL", "sqlite://u:hush@x.db")]);
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn an_address_that_others_reach_needs_a_word() {
    let (ok, text) = weir(&["serve", "--listen", "0.0.0.0:0"], &[]);
    assert!(!ok && text.contains("--insecure") && text.contains("there is no API key"), "{text}");
}

#[tokio::test]
async fn with_the_word_it_listens_everywhere() {
    let weir = Weir::start(&["listen=0.0.0.0:0", "insecure=true"]).await;
    assert_eq!(weir.get("/health").await.status, 200);
}

#[test]
fn migrate_says_what_is_in_force() {
    let dir = TempDir::new().expect("a directory");
    for _ in 0..2 {
        let output = run(dir.path(), &["migrate"], &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("0001 first"), "{text} {output:?}");
    }
    assert!(dir.path().join("weir-data/weir.db").exists());
}

#[test]
fn openapi_is_what_the_server_says() {
    let (ok, text) = weir(&["openapi"], &[]);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert!(ok && document["openapi"] == "3.1.0", "{text}");
}

#[tokio::test]
async fn log_lines_are_json_with_the_run_in_its_span_and_without_bodies() {
    let weir = Weir::start(&[]).await;
    let run_id = weir.run(&weir.workflow(&json!([])).await, &json!("body-4711")).await;
    weir.finished(&run_id).await;
    let line: Value = serde_json::from_str(&weir.line_with("the run is over").await).expect("JSON");
    assert_eq!((&line["span"]["run.id"], &line["outcome"]), (&json!(run_id), &json!("SUCCEEDED")));
    for line in weir.log() {
        let parsed: Value = serde_json::from_str(&line).expect("every line is JSON");
        assert!(parsed["timestamp"].is_string(), "{line}");
        assert!(!line.contains("4711"), "{line}");
    }
}

#[tokio::test]
async fn the_database_url_names_the_file() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("elsewhere.db");
    let weir = Weir::start(&[&format!("database_url=sqlite://{}", path.display())]).await;
    assert!(path.exists());
    assert_eq!(answer(weir.request(Method::GET, "/health")).await.status, 200);
}
