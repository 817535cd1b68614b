//! The rules of the repository, as tests: who may call whom, how long a file may be, and that what belongs together
//! is there together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

/// Longest file that fits a sitting, in lines.
const LINES_MAX: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository").to_owned()
}

/// Every file below `dir` with the given ending, with its text.
fn files(dir: &str, ending: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.insert(name, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    found
}

fn sources() -> BTreeMap<String, String> {
    ["runtime/src", "host-api/src", "plugins", "tests"].into_iter().flat_map(|dir| files(dir, "rs")).collect()
}

/// The room of a file below `runtime/src`: its folder, or the file itself.
fn room(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("runtime/src/")?;
    Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
}

/// The code of a file without its tests and its comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or(text);
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_top_level_holds_what_belongs_there() {
    let house = [
        "CHANGELOG.md CONTRIBUTING.md Cargo.lock Cargo.toml Dockerfile LICENSE-APACHE LICENSE-MIT Makefile README.md SECURITY.md",
        "clippy.toml deny.toml docker-compose.yml docs host-api migrations plugins runtime rustfmt.toml tests wit",
    ];
    let house: BTreeSet<&str> = house.iter().flat_map(|line| line.split(' ')).collect();
    let kept = std::process::Command::new("git").args(["ls-files"]).current_dir(root()).output().expect("git");
    let kept = String::from_utf8(kept.stdout).expect("names");
    let kept: BTreeSet<&str> = kept.lines().filter_map(|file| file.split('/').next()).collect();
    let other: Vec<&&str> = kept.difference(&house).filter(|name| !name.starts_with('.')).collect();
    assert!(!kept.is_empty() && other.is_empty(), "not of the house, or the house has no repository: {other:?}");
}

#[test]
fn rooms_call_only_whom_they_may() {
    let may: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("model", &[][..]),
        ("client", &[]),
        ("clock", &["model"]),
        ("meter", &[]),
        ("vault", &["clock"]),
        ("store", &["model", "clock", "meter"]),
        ("wire", &["model"]),
        ("tools", &["store", "clock", "model", "vault", "meter"]),
        ("engine", &["store", "wire", "clock", "tools", "model", "meter"]),
        ("config", &["engine", "store", "model"]),
        ("telemetry", &["config"]),
        ("api", &["engine", "store", "tools", "model", "clock", "config", "vault", "meter"]),
    ]);
    for (file, text) in files("runtime/src", "rs") {
        let room = room(&file).expect("a room").to_owned();
        // Wiring may call everyone.
        let Some(allowed) = may.get(room.as_str()) else {
            assert!(
                ["app", "bench", "cli", "lib", "main"].contains(&room.as_str()),
                "{file} is in a room without a rule"
            );
            continue;
        };
        let code = code(&text);
        for called in code.match_indices("crate::").map(|(at, _)| &code[at + "crate::".len()..]) {
            let called: String = called.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let fine = called == room || allowed.contains(&called.as_str());
            assert!(fine, "{file} calls `crate::{called}`; `{room}` may call {allowed:?}");
        }
        assert!(!code.contains("use crate::{") || !may.contains_key(room.as_str()), "{file}: name the room you use");
    }
}

#[test]
fn a_library_has_one_user() {
    for (library, rooms) in [
        ("sqlx::", &["store"][..]),
        ("redis::", &["wire"]),
        ("prometheus_client::", &["meter"]),
        ("axum::", &["api", "app", "bench"]),
        ("utoipa", &["api"]),
        ("weir_host::", &["engine", "tools", "config", "app", "bench", "cli", "client"]),
        ("jsonschema", &["tools"]),
        ("reqwest::", &[]),
        ("ed25519_dalek", &[]),
        ("minijinja::", &["model"]),
    ] {
        for (file, text) in files("runtime/src", "rs") {
            let room = room(&file).expect("a room");
            assert!(!code(&text).contains(library) || rooms.contains(&room), "{file} uses {library}");
        }
    }
}

#[test]
fn the_sandbox_is_behind_one_door_and_guests_know_only_the_contract() {
    for (file, text) in sources() {
        let code = code(&text);
        let inside = file.starts_with("host-api/src/plugin/");
        assert!(inside || file == "tests/tidy.rs" || !code.contains("wasmtime::"), "{file} uses wasmtime");
        let guest = file.starts_with("plugins/");
        assert!(!guest || !code.contains("weir_host") && !code.contains("use weir::"), "{file} knows the server");
    }
}

#[test]
fn one_file_of_the_server_is_unsafe() {
    let word = ["un", "safe {"].concat();
    let found: Vec<String> =
        sources().into_iter().filter(|(_, text)| code(text).contains(&word)).map(|(file, _)| file).collect();
    // A guest is in a sandbox, whatever it does.
    let found: Vec<String> = found.into_iter().filter(|file| !file.starts_with("plugins/")).collect();
    assert_eq!(found, ["host-api/src/plugin/cache.rs"]);
}

#[test]
fn the_model_is_pure() {
    let impure = [
        "async ",
        ".await",
        "std::time::SystemTime",
        "std::time::Instant",
        "tokio",
        "std::fs",
        "std::env",
        "std::net",
        "rand::",
        "Mutex",
        "tracing::",
    ];
    for (file, text) in files("runtime/src/model", "rs") {
        let code = code(&text);
        for word in impure {
            assert!(!code.contains(word), "{file} has `{word}`: the model decides, everything else does");
        }
    }
}

#[test]
fn a_file_fits_a_sitting_and_says_what_it_owns() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines; the limit is {LINES_MAX}: would two rooms be clearer?");
        assert!(text.starts_with("//!"), "{file} does not begin by saying what it owns");
    }
    for (file, text) in files("plugins", "py").into_iter().chain(files("plugins", "js")) {
        assert!(text.lines().count() <= LINES_MAX, "{file} is longer than {LINES_MAX} lines");
        assert!(text.starts_with("\"\"\"") || text.starts_with("// "), "{file} does not begin by saying what it owns");
    }
}

#[test]
fn tests_neither_sleep_nor_are_ignored_nor_retried() {
    for (file, text) in files("tests", "rs").into_iter().filter(|(file, _)| file != "tests/tidy.rs") {
        for word in ["thread::sleep", "time::sleep", "#[ignore"] {
            assert!(!text.contains(word), "{file} has `{word}`: wait for a condition");
        }
    }
    let nextest = std::fs::read_to_string(root().join(".config/nextest.toml")).expect("the settings of nextest");
    assert!(!nextest.lines().any(|line| line.starts_with("retries")), "a test that fails now and then has a cause");
}

#[test]
fn every_error_page_belongs_to_a_code() {
    let problems = weir::api::ProblemCode::ALL.iter().map(|code| code.as_str());
    let codes: Vec<&str> =
        problems.chain(weir::model::error::FailureCode::ALL.iter().map(|code| code.as_str())).collect();
    let list = std::fs::read_to_string(root().join("docs/errors/README.md")).expect("the list of errors");
    for (file, text) in files("docs/errors", "md").into_iter().filter(|(file, _)| !file.ends_with("README.md")) {
        let code = file.trim_start_matches("docs/errors/").trim_end_matches(".md");
        assert!(codes.contains(&code), "{file} belongs to no code");
        assert!(text.lines().count() > 10, "{file} says too little");
        assert!(list.contains(&format!("({code}.md)")), "docs/errors/README.md does not list {code}");
    }
}

#[test]
fn every_snapshot_belongs_to_a_test() {
    let room = |code: &str| match code {
        "unavailable" => "disk",
        "invalid_api_key" => "door",
        "plugin_signature_required" => "signing",
        _ => "errors",
    };
    let problems = weir::api::ProblemCode::ALL.iter().map(|code| code.as_str());
    let failures = weir::model::error::FailureCode::ALL.iter().map(|code| code.as_str());
    let expected: BTreeSet<String> = problems
        .map(|code| format!("it__{}__{code}.snap", room(code)))
        .chain(failures.map(|code| format!("it__errors__failure_{code}.snap")))
        .chain(["it__openapi__openapi.snap".to_owned()])
        .map(|name| format!("tests/it/snapshots/{name}"))
        .collect();
    assert_eq!(files("tests/it/snapshots", "snap").into_keys().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn migrations_are_mirrored_and_numbered_without_gaps() {
    let mirrored = |dir: &str| -> Vec<String> {
        files(dir, "sql").into_keys().filter_map(|name| name.rsplit('/').next().map(str::to_owned)).collect()
    };
    assert_eq!(mirrored("migrations/sqlite"), mirrored("migrations/postgres"));
    let names: Vec<String> = files("migrations/sqlite", "sql").into_keys().collect();
    for (index, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("migrations/sqlite/{:04}_", index + 1)), "{name}");
    }
    assert!(!names.is_empty());
}

#[test]
fn every_statement_is_executed_on_both_databases() {
    let contract: String = files("tests/it/contract", "rs").into_values().collect();
    // What only a command does is tried with the command, on both databases too (import.rs, copy.rs).
    let elsewhere = ["import.rs", "original.rs", "transfer.rs", "probe.rs"];
    let stores = files("runtime/src/store", "rs");
    let methods = stores.iter().filter(|(file, _)| !elsewhere.iter().any(|name| file.ends_with(name)));
    let methods = methods.flat_map(|(_, text)| text.split("    pub async fn ").skip(1));
    let mut count = 0;
    for name in methods.filter_map(|rest| rest.split(['(', '<']).next()) {
        assert!(contract.contains(&format!("{name}(")), "no test of the contract calls Store::{name}");
        count += 1;
    }
    assert!(count > 30, "{count} methods");
}

#[test]
fn every_setting_is_documented_with_its_limits() {
    let api = std::fs::read_to_string(root().join("docs/API.md")).expect("docs/API.md");
    let settings: Vec<&str> =
        weir::config::DEFAULTS.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).collect();
    assert!(settings.len() > 20, "{settings:?}");
    for (line, before) in weir::config::DEFAULTS.lines().skip(1).zip(weir::config::DEFAULTS.lines()) {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(before.starts_with('#'), "`{line}` has no comment");
        }
    }
    for limit in settings.iter().filter_map(|line| line.split(" = ").next()).filter(|key| key.ends_with("_max_bytes")) {
        assert!(api.contains(limit), "docs/API.md does not name the limit `{limit}`");
    }
}

/// The words in a text that begin with `start`.
fn words<'t>(text: &'t str, start: &'t str) -> impl Iterator<Item = &'t str> {
    let rest = |at: usize| &text[at..];
    text.match_indices(start).map(move |(at, _)| {
        let end = rest(at).find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest(at).len());
        &rest(at)[..end]
    })
}

#[test]
fn what_is_watched_is_measured() {
    // What never happened is not shown.
    let (meter, moment) = (weir::meter::meter(), std::time::Duration::from_millis(1));
    meter.finished("SUCCEEDED", moment);
    meter.attempted("http", "ok", moment);
    meter.claimed("hint", 1);
    meter.plugin_loaded("cache");
    meter.committed("create", 1, moment);
    meter.answered("GET", 200, moment);
    meter.sampled(Some(moment), (1, 1), true);
    let measured = meter.text();
    for file in ["docs/grafana.json", "docs/alerts.yml"] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        assert!(words(&text, "weir_").count() > 5, "{file} watches nothing");
        for name in words(&text, "weir_") {
            let family = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let line = format!("# TYPE {} ", family.unwrap_or(name));
            assert!(measured.contains(&line), "{file} watches {name}, which nobody measures");
        }
    }
}

#[test]
fn images_name_settings_that_exist() {
    for file in ["docker-compose.yml", "Dockerfile"] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        for name in words(&text, "WEIR_").filter(|name| *name != "WEIR_PORT_ON_HOST") {
            let key = name.trim_start_matches("WEIR_").to_ascii_lowercase();
            let setting = format!("\n{key} = ");
            assert!(weir::config::DEFAULTS.contains(&setting), "{file} sets {name}, which is no setting");
        }
    }
}

#[test]
fn markdown_links_lead_somewhere() {
    let documents = files("docs", "md").into_iter().chain(
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
            .map(|name| (name.to_owned(), std::fs::read_to_string(root().join(name)).expect(name))),
    );
    for (file, text) in documents {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or(link);
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = root().join(&file).parent().expect("a folder").join(target);
            assert!(path.exists(), "{file} links to {link}, which is not there");
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_released_contract_never_changes() {
    // Add a line for each release; never change one.
    let released = [("0.1.0", "2c57e1c931966fefa39ae1035a288253aadbb57313f3a7ba7dd190fae5c43906")];
    let read = |path: &str| std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (version, digest) in released {
        let text = read(&format!("wit/released/{version}/plugin.wit"));
        assert_eq!(sha256(&text), digest, "the contract {version} was released, and has changed");
    }
    // A plugin of each, which must go on working (`tests/it/frozen.rs`).
    let frozen = [("0.1.0", "feead368139246288fe09e3a513ae6605d5e198a36bdacfc06500ae39da82ca1")];
    for ((version, digest), (of, _)) in frozen.into_iter().zip(released) {
        let found = sha256(&read(&format!("tests/frozen/{version}/guest.wasm")));
        assert_eq!((version, found.as_str()), (of, digest), "the plugin of the contract {version} has changed");
    }
    assert_eq!(frozen.len(), released.len(), "each released contract has a plugin in tests/frozen");
    let (latest, _) = released[released.len() - 1];
    assert_eq!(
        read("wit/plugin.wit"),
        read(&format!("wit/released/{latest}/plugin.wit")),
        "release the contract as another version"
    );
}
