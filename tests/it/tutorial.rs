//! The tutorial of docs/PLUGINS.md, followed word by word: every command of its first part is run as it stands there, and in
//! the end a run has used the new tool.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use weir_tests::plugin::file;
use weir_tests::process::{Weir, binary};

const TUTORIAL: &str = include_str!("../../docs/PLUGINS.md");

/// Ends the output of a block with what the shell then knows.
const MARK: &str = "--- and now:";

/// A new author: a directory, a shell, and the server that is said to run.
struct Author {
    home: TempDir,
    server: String,
    /// Where the shell is, and the variables that the author has set.
    directory: String,
    variables: Vec<(String, String)>,
}

impl Author {
    /// Runs the block of the tutorial that begins with this line, and answers what it prints.
    fn follows(&mut self, first: &str) -> String {
        let block = blocks("sh").find(|block| format!("{block}\n").starts_with(first)).expect(first);
        // The one thing that is not as written: the server of a test listens where there is room.
        let block = block.replace("http://127.0.0.1:8000", &self.server);
        self.types(&block)
    }

    fn types(&mut self, commands: &str) -> String {
        let binaries = binary().parent().expect("a directory").display().to_string();
        let script = format!("set -e\nPATH={binaries}:$PATH\n{commands}\necho '{MARK}'\npwd\necho \"${{WEIR:-}}\"");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&self.directory)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("WEIR_SERVER", &self.server)
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_TARGET_DIR", target().join("author"))
            .env("XDG_CACHE_HOME", self.home.path().join("cache"))
            .output()
            .expect("bash");
        let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{commands}\n{printed}\n{said}");
        let (printed, after) = printed.rsplit_once(MARK).expect("the end of the script");
        let mut after = after.trim_start().lines();
        self.directory = after.next().expect("a directory").to_owned();
        self.set("WEIR", after.next().unwrap_or_default());
        format!("{printed}{said}")
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// A member of the JSON that a command printed.
    fn read(printed: &str, member: &str) -> String {
        let value: Value = serde_json::from_str(printed.trim()).unwrap_or_else(|error| panic!("{error}: {printed}"));
        value[member].as_str().unwrap_or_else(|| panic!("no {member}: {printed}")).to_owned()
    }
}

fn target() -> std::path::PathBuf {
    file("greet").ancestors().nth(4).expect("a directory").to_owned()
}

/// The blocks of the tutorial in this language.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let start = format!("{language}\n");
    let tutorial = TUTORIAL.split("\n## In Rust\n").next().expect("a first part");
    tutorial.split("\n```").filter_map(move |part| part.strip_prefix(&start))
}

#[tokio::test]
async fn the_tutorial_followed_word_by_word_ends_in_a_run_that_used_the_new_tool() {
    let weir = Weir::start(&[]).await;
    let home = TempDir::new().expect("a directory");
    let directory = home.path().display().to_string();
    let server = weir.url("").trim_end_matches('/').to_owned();
    let mut ada = Author { home, server, directory, variables: Vec::new() };
    let tutorial = move || {
        ada.follows("weir plugin new hello\ncd hello");
        // The block has a line for each language.
        let tests = blocks("sh").find(|block| block.contains("# Rust")).expect("the tests");
        let rust = tests.lines().find(|line| line.ends_with("# Rust")).expect("the line for Rust");
        assert!(ada.types(rust).contains("test result: ok"));
        ada.follows("weir plugin build");
        let called = ada.follows("weir plugin inspect hello.wasm");
        assert!(called.contains("Hello, Ada!"), "{called}");
        let pushed = ada.follows("weir plugin push hello.wasm\nweir plugin list");
        assert!(pushed.contains("hello@0.1.0"), "{pushed}");
        let workflow = Author::read(&ada.follows("WEIR="), "id");
        ada.set("WORKFLOW", &workflow);
        let run = Author::read(&ada.follows("curl -s $WEIR/workflows/$WORKFLOW/runs"), "run_id");
        ada.set("RUN", &run);
        let shown = ada.follows("curl -s \"$WEIR/runs/$RUN?wait=30s\"");
        assert!(shown.contains(r#""status":"SUCCEEDED""#) && shown.contains(r#""result":"Hello, Ada!""#), "{shown}");

        // The second half: rights.
        let wishes = blocks("toml").find(|block| block.starts_with("[[http]]")).expect("what it asks for");
        ada.types(&format!("cat >> plugin.toml <<'END'\n{wishes}\nEND"));
        ada.types("sed -i 's/^version = \"0.1.0\"/version = \"0.2.0\"/' Cargo.toml");
        ada.follows("weir plugin build");
        ada.types("echo s3cret-token > token.txt");
        let called = ada.follows("weir plugin call hello.wasm greet '{\"name\": \"Ada\"}' --allow");
        assert!(called.contains("Hello, Ada!"), "{called}");
        // What is typed on a terminal comes from standard input here, and `--yes` is for those who have read it.
        let block = blocks("sh").find(|block| block.starts_with("weir secret set")).expect("the secret");
        let block =
            block.replacen("weir secret set", "cat token.txt | weir secret set", 1).replace("--grant", "--grant --yes");
        let shown = ada.types(&block);
        assert!(shown.contains("api.example.com"), "{shown}");
        ada.follows("weir plugin grants hello --unused |");

        // What was made is kept: as a cassette, and by the server.
        let recorded = ada.follows("weir plugin test --record");
        assert!(recorded.contains("recorded greet: "), "{recorded}");
        let played = ada.follows("weir plugin test\n");
        assert!(played.contains("ok greet"), "{played}");
    };
    // The server of the test answers meanwhile.
    tokio::task::spawn_blocking(tutorial).await.expect("followed");
    let plugin = weir.get("/plugins/hello").await.expect(200);
    assert_eq!(plugin["version"], "0.2.0");
}
