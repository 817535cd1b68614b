//! The commands of authors and operators, from outside: from nothing to a plugin that a server runs, with rights and secrets.

use std::io::{BufRead as _, BufReader, Lines, PipeReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::plugin::{asking, bytes, file};
use weir_tests::process::{Weir, binary};
use weir_tests::target::Target;

/// A person at work: a directory, and the `weir` of this build.
struct Person {
    home: TempDir,
    server: Option<String>,
}

impl Person {
    fn new() -> Self {
        Self { home: TempDir::new().expect("a directory"), server: None }
    }

    fn of(weir: &Weir) -> Self {
        Self { server: Some(weir.url("/")), ..Self::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("written");
    }

    /// A program, in a directory below, with tools that are here and nothing that has to be fetched.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, directory: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path(directory)).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", target().join("author"));
        command.envs(self.server.iter().map(|server| ("WEIR_SERVER", server)));
        command
    }

    /// What `weir` says on both outputs, and whether it ended well.
    fn weir(&self, args: &[&str]) -> (bool, String) {
        self.weir_with(args, "")
    }

    fn weir_with(&self, args: &[&str], input: &str) -> (bool, String) {
        let output = fed(&mut self.command(binary(), "", args), input);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).expect("text"))
    }

    /// What `weir` says when all is well.
    fn done(&self, args: &[&str]) -> String {
        let (ok, said) = self.weir(args);
        assert!(ok, "{args:?}: {said}");
        said
    }

    /// What `weir` says when it does not do it.
    fn refused(&self, args: &[&str]) -> String {
        let (ok, said) = self.weir(args);
        assert!(!ok, "{args:?}: {said}");
        said
    }
}

/// The target directory of this build.
fn target() -> PathBuf {
    file("greet").ancestors().nth(4).expect("a directory").to_owned()
}

fn fed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("taken");
    child.wait_with_output().expect("it ends")
}

fn succeeds(command: &mut Command) -> String {
    let output = fed(command, "");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// A command under way, and what it says.
struct Running {
    child: Child,
    lines: Lines<BufReader<PipeReader>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let (said, ends) = std::io::pipe().expect("a pipe");
        command.stdin(Stdio::null()).stdout(ends.try_clone().expect("a pipe")).stderr(ends);
        let child = command.spawn().expect("it starts");
        // The command holds ends of the pipe, too.
        drop(command);
        Self { child, lines: BufReader::new(said).lines() }
    }

    fn says(&mut self, text: &str) {
        let mut said = Vec::new();
        for line in &mut self.lines {
            said.push(line.expect("text"));
            if said.last().is_some_and(|line| line.contains(text)) {
                return;
            }
        }
        panic!("it ended without `{text}`: {said:#?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_new_crate_builds_passes_its_tests_and_is_built_again_when_it_changes() {
    let ada = Person::new();
    let said = ada.done(&["plugin", "new", "my-greeting"]);
    assert!(said.contains("cd my-greeting") && said.contains("weir plugin build"), "{said}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository");
    std::fs::copy(root.join("Cargo.lock"), ada.path("my-greeting/Cargo.lock")).expect("copied");
    let tested = succeeds(&mut ada.command("cargo", "my-greeting", &["test"]));
    assert!(tested.contains("greets_by_name ... ok"), "{tested}");

    // The whole loop: built and called, changed, broken, and mended.
    let args = ["plugin", "dev", "--call", "greet", r#"{"name": "Ada"}"#];
    let mut dev = Running::start(ada.command(binary(), "my-greeting", &args));
    dev.says("asks for no request to anybody");
    dev.says(r#""result": "Hello, Ada!""#);
    dev.says("waiting for a change");
    let source = std::fs::read_to_string(ada.path("my-greeting/src/lib.rs")).expect("text");
    ada.write("my-greeting/src/lib.rs", source.replace("Text(format", "Txet(format"));
    dev.says("it was not built");
    dev.says("waiting for a change");
    ada.write("my-greeting/src/lib.rs", source.replace("Hello, {}", "Good day, {}"));
    dev.says(r#""result": "Good day, Ada!""#);
    dev.says("waiting for a change");
    kill_process(Pid::from_child(&dev.child), Signal::INT).expect("signalled");
    assert!(dev.child.wait().expect("ended").success());

    let built = ada.done(&["plugin", "build", "my-greeting"]);
    assert!(built.contains("my-greeting/my-greeting.wasm\n  digest   sha256:"), "{built}");
    let inspected = ada.done(&["plugin", "inspect", "my-greeting/my-greeting.wasm"]);
    let digest = built.lines().find(|line| line.contains("digest")).expect("a digest");
    assert!(inspected.contains("my-greeting 0.1.0") && inspected.contains(digest), "{inspected}");
    let said = ada.refused(&["plugin", "new", "my-greeting"]);
    assert!(said.contains("the directory my-greeting cannot be made"), "{said}");
}

#[test]
fn what_cannot_be_made_or_built_is_told() {
    let ada = Person::new();
    for (args, says) in [
        (&["plugin", "new", "a b"][..], "the name of a plugin must be"),
        (&["plugin", "new", "1st"], "no crate can be named `1st`"),
        (&["plugin", "new", "match"], "no crate can be named `match`"),
        (&["plugin", "build"], "neither Cargo.toml nor app.py nor app.js"),
        (&["plugin", "build", "nowhere"], "nowhere"),
    ] {
        let said = ada.refused(args);
        assert!(said.contains(says), "{args:?}: {said}");
    }
    ada.done(&["plugin", "new", "1st", "--lang", "javascript"]);
    ada.write("1st/Cargo.toml", "");
    let said = ada.refused(&["plugin", "build", "1st"]);
    assert!(said.contains("has both Cargo.toml and app.js"), "{said}");
}

/// A new plugin passes its tests and builds, and what did not change is not built again, although its component is there.
fn is_made_and_built(language: &str, program: &str, tests: &[&str], passed: &str) {
    let ada = Person::new();
    let tools = target().display().to_string();
    // Not the name of a plugin that another test builds.
    let name = format!("new-in-{language}");
    ada.done(&["plugin", "new", &name, "--lang", language]);
    let tested = succeeds(&mut ada.command(program, &name, tests));
    assert!(tested.contains(passed), "{tested}");
    let build = ["plugin", "build", &name, "--target-dir", &tools];
    let built = ada.done(&build);
    assert!(built.contains(&format!("{name}.wasm\n  digest   sha256:")), "{built}");
    let again = ada.done(&build);
    assert!(!again.contains("componentize") && built.starts_with(&again), "{again}");
}

#[test]
fn a_new_plugin_in_python_passes_its_tests_and_builds() {
    is_made_and_built("python", "python3", &["-m", "unittest"], "Ran 2 tests");
}

#[test]
fn a_new_plugin_in_javascript_passes_its_tests_and_builds() {
    is_made_and_built("javascript", "node", &["--test", "--test-reporter=tap"], "# pass 2");
}

/// A plugin that asks for a request to this machine, a secret and a setting.
fn fetcher(version: &str, target: &Target, methods: &[&str]) -> Vec<u8> {
    let port: u16 = target.url("").rsplit(':').next().expect("a port").parse().expect("a number");
    let rule = json!({"host": "127.0.0.1", "scheme": "http", "port": port, "methods": methods, "secrets": ["token"]});
    let request = json!({
        "name": "fetcher", "version": version, "http": [rule], "memory_max_bytes": 33_554_432,
        "secrets": [{"name": "token", "description": "to be let in"}],
        "settings": [{"name": "colour", "description": "how it looks", "default": "red"}],
    });
    asking(&bytes("misbehave"), &request)
}

// What is called answers while this waits for the command.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_server_reaches_what_it_is_granted() {
    let (ada, target) = (Person::new(), Target::start().await);
    ada.write("fetcher.wasm", fetcher("1", &target, &["GET"]));
    let said = ada.done(&["plugin", "inspect", "fetcher.wasm"]);
    for told in [
        format!("asks for GET {}/, with the secret `token`", target.url("")),
        "secrets  token: to be let in".to_owned(),
        "settings colour: how it looks (default `red`)".to_owned(),
        "limits   no more than 32 MiB of memory".to_owned(),
        "it can make requests, as far as it asks and is granted".to_owned(),
        "wasi:http/outgoing-handler@0.2".to_owned(),
    ] {
        assert!(said.contains(&told), "`{told}` is not in {said}");
    }
    let authority = target.url("").replace("http://", "");
    let input = json!({"authority": authority}).to_string();
    let call = |more: &[&str]| {
        let open = ["--set", "egress_allow=127.0.0.1"];
        ada.weir(&[&["plugin", "call", "fetcher.wasm", "fetch", &input], &open[..], more].concat())
    };
    let (ok, said) = call(&[]);
    assert!(!ok && said.contains(&format!("denied GET http://{authority}/")), "{said}");
    assert_eq!(target.count(), 0);
    ada.write("grant.json", json!({"http": []}).to_string());
    let unknown = json!({"host": "a.example.com", "methods": ["GET"], "secrets": ["token", "key"]});
    ada.write("unknown.json", json!({"http": [unknown]}).to_string());
    ada.write("secret", "hush-hush-hush\n");
    for (name, value) in [("empty", ""), ("short", "ab\n"), ("lines", "hush-hush\nhush-hush\n")] {
        ada.write(name, value);
    }
    let (ok, said) = call(&["--grant", "grant.json", "--setting", "colour=blue"]);
    assert!(!ok && said.contains("denied GET"), "{said}");
    let (ok, said) = call(&["--allow", "--secret", "token=secret"]);
    assert!(
        ok && said.contains("status 200") && said.contains(&format!("reached http://{authority}: 1 requests")),
        "{said}"
    );
    assert_eq!(target.count(), 1);
    for (more, says) in [
        (&["--setting", "size=1"][..], "/settings/size: the plugin knows no such setting"),
        (&["--allow", "--secret", "key=secret"], "--secret key: no rule of the plugin names such a secret"),
        (&["--allow", "--secret", "token=nowhere"], "nowhere"),
        (&["--allow", "--secret", "token=empty"], "--secret token=empty: must be 8 to 4096 visible ASCII characters"),
        (&["--allow", "--secret", "token=short"], "--secret token=short: must be 8 to 4096 visible ASCII characters"),
        (&["--allow", "--secret", "token=lines"], "--secret token=lines: must be 8 to 4096 visible ASCII characters"),
        (&["--secret", "token=secret"], "--secret needs --allow or --grant"),
        (&["--allow", "--grant", "grant.json"], "cannot be used with"),
        (&["--grant", "unknown.json"], "/http/0/secrets/1: the plugin asks for no such secret"),
    ] {
        let (ok, said) = call(more);
        assert!(!ok && said.contains(says), "{more:?}: {said}");
    }
}

#[tokio::test]
async fn a_plugin_is_pushed_granted_narrowed_and_deleted() {
    let (weir, target) = (Weir::start(&[]).await, Target::start().await);
    let ada = Person::of(&weir);
    ada.write("1.wasm", fetcher("1", &target, &["GET", "POST"]));
    ada.write("2.wasm", fetcher("2", &target, &["GET", "POST", "PUT"]));
    let origin = target.url("");

    let said = ada.done(&["plugin", "push", "1.wasm"]);
    assert!(said.contains(&format!("asks for GET, POST {origin}/, with the secret `token`")), "{said}");
    assert!(said.contains("fetcher@1 is waiting"), "{said}");
    let said = ada.done(&["plugin", "grants", "fetcher@1"]);
    assert!(said.contains("granted  nothing, and nobody decided so"), "{said}");
    assert!(said.contains(&format!("missing  GET, POST {origin}/")), "{said}");
    let said = ada.refused(&["plugin", "push", "1.wasm", "--grant"]);
    assert!(said.contains("no terminal to ask on: say --yes"), "{said}");
    let said = ada.done(&["plugin", "push", "1.wasm", "--grant", "--yes"]);
    assert!(said.contains("fetcher@1 is active (it was there already)"), "{said}");

    // Used by a run, and written down.
    let step = json!([{"type": "mcp_tool", "plugin": "fetcher", "tool_name": "fetch",
        "input": {"authority": origin.replace("http://", "")}}]);
    let workflow = weir.workflow(&step).await;
    let run = weir.run(&workflow, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    weir_tests::within("the use of a right", async {
        while weir.get("/plugins/fetcher/grant").await.expect(200)["uses"] == json!([]) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let said = ada.done(&["plugin", "grants"]);
    assert!(said.contains(&format!("used     GET {origin}/: 1 time, last at ")), "{said}");
    assert!(said.contains(&format!("unused   POST {origin}/")) && said.contains("unused   secret token"), "{said}");
    let narrowed = fed(&mut ada.command(binary(), "", &["plugin", "grants", "fetcher", "--unused"]), "");
    let narrowed = String::from_utf8(narrowed.stdout).expect("text");
    let (ok, said) = ada.weir_with(&["plugin", "grant", "fetcher", "-"], &narrowed);
    assert!(ok && said.contains(&format!("granted  GET {origin}/\n")), "{said}");
    assert!(said.contains(&format!("missing  GET, POST {origin}/")), "{said}");

    // The next version wants more: what is shown is the difference, and the settings stay.
    let set = json!({"http": serde_json::from_str::<Value>(&narrowed).expect("JSON")["http"], "settings": {"colour": "blue"}});
    ada.write("grant.json", set.to_string());
    assert!(ada.done(&["plugin", "grant", "fetcher", "grant.json"]).contains("settings colour = blue"));
    let said = ada.done(&["plugin", "push", "2.wasm", "--grant", "--yes", "--no-activate"]);
    assert!(said.contains(&format!("+ GET, POST, PUT {origin}/, with the secret `token`")), "{said}");
    assert!(said.contains("fetcher@2 is inactive"), "{said}");
    assert!(ada.done(&["plugin", "grants", "fetcher@2"]).contains("settings colour = blue"));
    let said = ada.done(&["plugin", "activate", "fetcher@2", "--adopt"]);
    assert!(said.contains("fetcher@2 is active") && said.contains("follows with revision 2"), "{said}");
    let said = ada.done(&["plugin", "list"]);
    assert!(said.starts_with("fetcher@2 ") && said.contains(" active "), "{said}");
    assert!(ada.done(&["plugin", "revoke", "fetcher@2"]).contains("has no rights any more"));
    assert!(ada.done(&["plugin", "grants", "fetcher"]).contains("granted  nothing"));

    let said = ada.refused(&["plugin", "delete", "fetcher@1"]);
    assert!(said.contains("plugin_in_use: `fetcher@1` is pinned by"), "{said}");
    assert!(ada.done(&["plugin", "retire", "fetcher@1"]).contains("fetcher@1 is retired"));
    ada.write("spare.wasm", fetcher("3", &target, &["GET"]));
    ada.done(&["plugin", "push", "spare.wasm", "--no-activate"]);
    assert!(ada.done(&["plugin", "delete", "fetcher@3"]).contains("`fetcher@3` is deleted"));
    ada.write("grant.json", json!({"http": [{"host": "a.example.com", "methods": []}]}).to_string());
    let said = ada.refused(&["plugin", "grant", "fetcher", "grant.json"]);
    assert!(said.contains("weir: invalid_grant: ") && said.contains("/http/0/methods: names no method"), "{said}");
    let said = ada.refused(&["plugin", "grants", "nobody"]);
    assert!(said.contains("plugin_not_found: no plugin of this server is `nobody`"), "{said}");
    let said = ada.refused(&["plugin", "list", "--server", "http://127.0.0.1:9"]);
    assert!(said.contains("http://127.0.0.1:9/plugins"), "{said}");
}

#[tokio::test]
async fn secrets_are_set_listed_and_deleted_and_never_shown() {
    let bare = Person::new();
    let made = fed(&mut bare.command(binary(), "", &["key", "create", "ops", "--offline"]), "");
    let made = String::from_utf8(made.stdout).expect("text");
    let lines: Vec<&str> = made.lines().collect();
    let [key, hash] = lines[..] else { panic!("{made}") };
    let weir = Weir::start(&[&format!("api_key_hashes={hash}")]).await;
    let ada = Person::of(&weir);
    assert!(ada.refused(&["secret", "list"]).contains("invalid_api_key: "));
    ada.write("key", format!("{key}\n"));
    ada.write("both", &made);
    let said = ada.refused(&["secret", "list", "--api-key-file", "both"]);
    assert!(said.contains("both has more than one line: it must have the key alone"), "{said}");
    let with_key = |args: &[&str], input: &str| ada.weir_with(&[args, &["--api-key-file", "key"]].concat(), input);

    let set = ["secret", "set", "token", "--host", "api.example.com", "--host", "*.example.org"];
    let (ok, said) = with_key(&set, "hush-hush-hush\n");
    assert!(
        ok && said.contains("`token` is set; it may go to https://api.example.com, https://*.example.org"),
        "{said}"
    );
    ada.write("value", "other-hush-hush");
    let (ok, said) = with_key(&[&set[..], &["--from-file", "value"]].concat(), "");
    assert!(ok && said.contains("`token` is set anew"), "{said}");
    let listed = fed(ada.command(binary(), "", &["secret", "list"]).env("WEIR_API_KEY", key), "");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(
        listed.contains("  token  https://api.example.com, https://*.example.org\n") && !listed.contains("hush"),
        "{listed}"
    );
    for (args, input, says) in [
        (&set[..], "short\n", "invalid_request: /value: must be"),
        (&["secret", "set", "token", "--host", "a b"], "hush-hush-hush", "/hosts/0"),
        (&["secret", "set", "token", "--host", "a"], "", "there is no value on standard input"),
        (&["secret", "set", "token"], "hush-hush-hush", "--host"),
    ] {
        let (ok, said) = with_key(args, input);
        assert!(!ok && said.contains(says) && !said.contains("hush"), "{args:?}: {said}");
    }
    assert!(with_key(&["secret", "delete", "token"], "").1.contains("the secret `token` is deleted"));
    assert!(with_key(&["secret", "delete", "token"], "").1.contains("secret_not_found: "));
}
