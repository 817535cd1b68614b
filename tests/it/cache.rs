//! The cache of compiled plugins: a start compiles nothing twice, and whatever lies in the cache, calls answer right.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use weir_host::plugin::Artifact;
use weir_tests::plugin::{bytes, file, patched};
use weir_tests::process::{Weir, run};

/// `greet` under another name, which makes it another plugin.
fn named(name: &str) -> Vec<u8> {
    renamed(&bytes("greet"), name)
}

/// The component of a plugin under another name.
fn renamed(plugin: &[u8], name: &str) -> Vec<u8> {
    let mut component = Artifact::admit(&patched(plugin, "weir:request", "other:sectio")).expect("sound").component;
    let request = json!({"name": name, "version": "1"}).to_string();
    let section = wasm_encoder::CustomSection { name: "weir:request".into(), data: request.as_bytes().into() };
    wasm_encoder::ComponentSection::append_to_component(&section, &mut component);
    component
}

/// Where an embedded server keeps compiled plugins.
fn cache(weir: &Weir) -> PathBuf {
    weir.dir().join("data/plugin-cache")
}

/// The files of compiled code, those that were used last at the end.
fn compiled(cache: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache).expect("a cache").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "cwasm")).collect();
    let used = |path: &PathBuf| {
        let data = std::fs::symlink_metadata(path).expect("a file");
        (data.mtime(), data.mtime_nsec())
    };
    files.sort_by_key(used);
    files
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

/// What a tool of the plugin answers, called by a run.
async fn says(weir: &Weir, plugin: &str) -> Value {
    let input = json!({"name": "Ada"});
    let steps = json!([{"type": "mcp_tool", "name": "call", "plugin": plugin, "tool_name": "greet", "input": input}]);
    let run = weir.run(&weir.workflow(&steps).await, &Value::Null).await;
    weir.finished(&run).await;
    weir.steps(&run).await[0]["result"].clone()
}

/// Starts again, and says how many plugins came from the cache and how many were compiled.
async fn again(weir: &mut Weir) -> (u64, u64) {
    weir.kill();
    weir.restart().await;
    let line = weir.line_with("plugins ready: ").await;
    let count = |after: &str| {
        let (before, _) = line.split_once(after).expect("a count");
        before.rsplit(' ').next().expect("a word").parse::<u64>().expect("a number")
    };
    (count(" from the cache"), count(" compiled"))
}

#[tokio::test]
async fn a_start_with_fifty_plugins_compiles_none() {
    let mut weir = Weir::start(&[]).await;
    let small = weir::bench::module().expect("a plugin");
    for n in 0..49 {
        weir.upload(renamed(&small, &format!("p{n}"))).await.expect(201);
    }
    weir.upload(named("p49")).await.expect(201);
    assert_eq!(compiled(&cache(&weir)).len(), 50);
    assert_eq!(again(&mut weir).await, (50, 0));
    let metrics = weir.get("/metrics").await.text_body();
    assert!(metrics.contains("weir_plugins_loaded_total{from=\"cache\"} 50"), "{metrics}");
    assert!(!metrics.contains("from=\"compiler\""), "{metrics}");
    assert_eq!(says(&weir, "p49").await, "Hello, Ada!");
    // Without it everything is compiled, and right as well.
    weir.set("plugin_cache_path=off");
    assert_eq!(again(&mut weir).await, (0, 50));
    assert_eq!(says(&weir, "p49").await, "Hello, Ada!");
}

/// What somebody makes of a file of the cache, with what is said of it then.
const ATTACKS: [(&str, &str); 17] = [
    ("empty", "fill whole buffer"),
    ("a piece of the code", "fill whole buffer"),
    ("half", "is not what was written"),
    ("one byte less", "is not what was written"),
    ("one byte more", "is not what was written"),
    ("the first bit", "is not what was written"),
    ("the end of the code", "is not what was written"),
    ("the header", "is not what was written"),
    ("machine code", "is not what was written"),
    ("the middle", "is not what was written"),
    ("the end", "is not what was written"),
    ("another plugin's", "is not what was written"),
    ("a link", "is a link"),
    ("a pipe", "is not a file"),
    ("a directory", "is not a file"),
    ("huge", "more than all files"),
    ("open to others", "is open to others (mode 666)"),
];

/// Does it, to the file `victim` with the content `sound`, beside the file of another plugin.
fn attack(what: &str, victim: &Path, sound: &[u8], other: &Path) {
    let last = sound.len() - 1;
    let gone = || std::fs::remove_file(victim).expect("deleted");
    let flipped = |at: usize| {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let written = match what {
        "empty" => Vec::new(),
        "a piece of the code" => sound[..20].to_vec(),
        "half" => sound[..sound.len() / 2].to_vec(),
        "one byte less" => sound[..last].to_vec(),
        "one byte more" => [sound, &[0]].concat(),
        "the first bit" => flipped(0),
        "the end of the code" => flipped(31),
        "the header" => flipped(32),
        "machine code" => flipped(sound.len() / 3),
        "the middle" => flipped(sound.len() / 2),
        "the end" => flipped(last),
        "another plugin's" => std::fs::read(other).expect("read"),
        "a link" => {
            // To what would be right.
            let aside = victim.with_extension("aside");
            std::fs::rename(victim, &aside).expect("moved");
            return symlink(&aside, victim).expect("linked");
        }
        "a pipe" => {
            gone();
            let made = std::process::Command::new("mkfifo").arg(victim).status().expect("mkfifo");
            return assert!(made.success());
        }
        "a directory" => {
            gone();
            return std::fs::create_dir_all(victim.join("deep")).expect("made");
        }
        "huge" => {
            let file = std::fs::File::options().write(true).open(victim).expect("opened");
            return file.set_len(1 << 40).expect("grown");
        }
        "open to others" => return chmod(victim, 0o666),
        what => panic!("{what}"),
    };
    std::fs::write(victim, written).expect("written");
}

#[tokio::test]
async fn what_is_doubtful_is_compiled_again() {
    let mut weir = Weir::start(&[]).await;
    weir.upload(named("a")).await.expect(201);
    let cache = cache(&weir);
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let victim = compiled(&cache).remove(0);
    assert_eq!((mode(&cache), mode(&cache.join("cache.key")), mode(&victim)), (0o700, 0o600, 0o600));
    weir.upload(named("b")).await.expect(201);
    let other = compiled(&cache).into_iter().find(|path| *path != victim).expect("another file");
    assert_eq!(again(&mut weir).await, (2, 0));
    let sound = std::fs::read(&victim).expect("read");
    for (what, doubt) in ATTACKS {
        attack(what, &victim, &sound, &other);
        assert_eq!(again(&mut weir).await, (1, 1), "{what}");
        let line = weir.line_with("it is compiled again").await;
        assert!(line.contains(doubt), "{what}: {line}");
        assert_eq!(says(&weir, "a").await, "Hello, Ada!", "{what}");
        let kept = std::fs::symlink_metadata(&victim).expect("there");
        assert!(kept.is_file() && kept.permissions().mode() & 0o777 == 0o600, "{what}");
        assert_eq!(kept.len(), sound.len() as u64, "{what}: it was written anew");
    }
    assert_eq!(again(&mut weir).await, (2, 0));
}

#[tokio::test]
async fn a_cache_that_is_not_ours_alone_is_not_used() {
    let mut weir = Weir::start(&[]).await;
    weir.upload(named("a")).await.expect(201);
    let cache = cache(&weir);
    let key = cache.join("cache.key");
    for (path, bad, good, doubt) in [
        (&cache, 0o777, 0o700, "the directory is open to others (mode 777)"),
        (&cache, 0o730, 0o700, "the directory is open to others (mode 730)"),
        (&key, 0o644, 0o600, "the key is open to others (mode 644)"),
    ] {
        chmod(path, bad);
        let before = compiled(&cache);
        assert_eq!(again(&mut weir).await, (0, 1), "{doubt}");
        assert!(weir.line_with("the cache of compiled plugins is not used").await.contains(doubt));
        assert_eq!(says(&weir, "a").await, "Hello, Ada!");
        let warnings = weir.log().into_iter().filter(|line| line.contains("is not used")).count();
        assert_eq!((warnings, compiled(&cache)), (1, before), "said once, and nothing was written");
        chmod(path, good);
        assert_eq!(again(&mut weir).await, (1, 0));
    }
    // The key of another cache makes everything here doubtful, and is used from then on.
    std::fs::write(&key, [7; 32]).expect("written");
    assert_eq!(again(&mut weir).await, (0, 1));
    assert_eq!(again(&mut weir).await, (1, 0));
    std::fs::write(&key, [7; 31]).expect("written");
    assert_eq!(again(&mut weir).await, (0, 1));
    assert!(weir.line_with("is not used").await.contains("the key does not have 32 bytes"));
    // A directory that leads elsewhere is no directory of ours.
    let elsewhere = weir.dir().join("elsewhere");
    std::fs::rename(&cache, &elsewhere).expect("moved");
    symlink(&elsewhere, &cache).expect("linked");
    assert_eq!(again(&mut weir).await, (0, 1));
    assert_eq!(says(&weir, "a").await, "Hello, Ada!");
    weir.set("plugin_cache_path=/proc/nowhere");
    assert_eq!(again(&mut weir).await, (0, 1));
    assert!(weir.line_with("is not used").await.contains("the directory cannot be made"));
}

#[tokio::test]
async fn a_cache_may_vanish_and_is_bounded_and_shared() {
    let mut weir = Weir::start(&[]).await;
    let cache = cache(&weir);
    weir.upload(named("a")).await.expect(201);
    std::fs::remove_dir_all(&cache).expect("deleted");
    assert_eq!(says(&weir, "a").await, "Hello, Ada!");
    weir.upload(named("b")).await.expect(201);
    assert_eq!(says(&weir, "b").await, "Hello, Ada!");
    assert_eq!(again(&mut weir).await, (1, 1), "the first one went with the directory");
    // Another server, with the same cache.
    let setting = format!("plugin_cache_path={}", cache.display());
    let second = Weir::start(&[&setting]).await;
    second.upload(named("b")).await.expect(201);
    let metrics = second.get("/metrics").await.text_body();
    assert!(metrics.contains("weir_plugins_loaded_total{from=\"cache\"} 1"), "{metrics}");
    assert!(
        !cache.with_file_name("plugin-cache").join("x").exists() && !second.dir().join("data/plugin-cache").exists()
    );
    // Room for two: what was not used for longest goes.
    let size = std::fs::metadata(&compiled(&cache)[0]).expect("a file").len();
    let room = format!("plugin_cache_max_bytes={}", size * 5 / 2);
    let dir = Arc::new(TempDir::new().expect("a directory"));
    let mut small = Weir::start_in(dir, &[&room], &[]).await;
    for name in ["a", "b", "c"] {
        small.upload(named(name)).await.expect(201);
    }
    let kept = compiled(&self::cache(&small));
    assert_eq!(kept.len(), 2);
    // `a` was deleted for `c`. At the start `c` is used first, `b` next, and `a` is compiled: `c` makes room.
    assert_eq!(again(&mut small).await, (2, 1));
    assert!(kept[0].exists() && !kept[1].exists());
    let stranger = self::cache(&small).join("notes.txt");
    std::fs::write(&stranger, vec![0; 1 << 20]).expect("written");
    small.set("plugin_cache_max_bytes=1000");
    small.kill();
    std::fs::remove_file(&compiled(&self::cache(&small))[0]).expect("deleted");
    small.restart().await;
    assert!(small.line_with("is not kept").await.contains("more than `plugin_cache_max_bytes`"));
    assert_eq!(says(&small, "a").await, "Hello, Ada!");
    assert!(stranger.exists(), "what is not ours stays");
}

#[test]
fn a_second_call_from_the_command_line_is_quick() {
    let (dir, home) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let (greet, at) = (file("greet").display().to_string(), home.path().display().to_string());
    let call = || {
        let args = ["plugin", "call", &greet, "greet", r#"{"name": "Ada"}"#];
        let output = run(dir.path(), &args, &[("HOME", &at)]);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Hello, Ada!"), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    call();
    let cache = home.path().join(".cache/weir/plugins");
    let [kept] = &compiled(&cache)[..] else { panic!("one plugin is kept") };
    let inode = std::fs::metadata(kept).expect("a file").ino();
    assert!(!call().contains("compiled again"));
    assert_eq!(std::fs::metadata(kept).expect("a file").ino(), inode, "nothing was compiled");
    let mut broken = std::fs::read(kept).expect("read");
    broken[100] ^= 1;
    std::fs::write(kept, broken).expect("written");
    assert!(call().contains("it is compiled again"));
    assert!(!call().contains("compiled again"));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing is left where it was called");
}
