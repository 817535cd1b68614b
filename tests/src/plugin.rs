//! Real plugins: the examples of this repository, as `plugins/build.sh` and `plugins/build-guest.sh` build them, and what
//! tests make of them.

use std::path::PathBuf;

/// The examples, as `cargo` names their files.
pub const EXAMPLES: [&str; 4] = ["greet", "transform", "misbehave", "misbehave_listing"];

/// The file of an example plugin.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn file(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let target = test.ancestors().nth(3).expect("a target directory");
    let languages = ["python", "javascript"];
    let path = if languages.iter().any(|language| name.ends_with(language)) {
        target.join(format!("guests/{name}.wasm"))
    } else {
        target.join(format!("wasm/wasm32-unknown-unknown/release/{name}.wasm"))
    };
    assert!(path.exists(), "{} is missing: `make plugins` builds it", path.display());
    path
}

/// The bytes of an example plugin.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).expect("a plugin")
}

/// `plugin` with every `from` replaced by `to`, which is as long: another plugin, which nobody had to compile.
///
/// # Panics
/// When `from` is not there.
#[must_use]
pub fn patched(plugin: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "a patch moves nothing");
    let (mut patched, mut at, mut found) = (plugin.to_vec(), 0, 0);
    while let Some(next) = patched[at..].windows(from.len()).position(|window| window == from.as_bytes()) {
        patched[at + next..at + next + to.len()].copy_from_slice(to.as_bytes());
        at += next + to.len();
        found += 1;
    }
    assert!(found > 0, "`{from}` is not in the plugin");
    patched
}
