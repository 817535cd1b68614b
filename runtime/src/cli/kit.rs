//! What the binary carries for authors of plugins: the SDK, the templates, and the scripts that build.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use etcetera::BaseStrategy as _;
use rust_embed::{EmbeddedFile, RustEmbed};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

/// `plugins/`, as far as authors need it.
#[derive(RustEmbed)]
#[folder = "../plugins"]
#[include = "build.sh"]
#[include = "build-guest.sh"]
#[include = "request.py"]
#[include = "sdk/Cargo.toml"]
#[include = "sdk/src/**"]
#[include = "sdk-macros/Cargo.toml"]
#[include = "sdk-macros/src/**"]
#[include = "python/weir.py"]
#[include = "python/requirements.txt"]
#[include = "javascript/componentize.js"]
#[include = "javascript/main.js"]
#[include = "javascript/package-lock.json"]
#[include = "javascript/package.json"]
#[include = "javascript/weir.js"]
#[include = "template/**"]
#[exclude = "**/__pycache__/**"]
#[exclude = "**/target/**"]
struct Plugins;

/// `wit/`: the contract.
#[derive(RustEmbed)]
#[folder = "../wit"]
#[include = "**/*.wit"]
struct Wit;

/// The manifest from which the SDK inherits.
const WORKSPACE: &str = include_str!("../../../Cargo.toml");

/// Files, each with its path in the kit.
pub(super) type Files = Vec<(String, Vec<u8>)>;

fn read(prefix: &str, names: impl Iterator<Item = impl AsRef<str>>, get: fn(&str) -> Option<EmbeddedFile>) -> Files {
    let file = |name: &str| Some((format!("{prefix}{name}"), get(name)?.data.into_owned()));
    names.filter_map(|name| file(name.as_ref())).collect()
}

/// Everything, as it lies in the repository.
fn all() -> Files {
    let mut files = read("plugins/", Plugins::iter(), Plugins::get);
    files.extend(read("wit/", Wit::iter(), Wit::get));
    files.sort();
    files
}

/// The files below a directory of `plugins/`, with their paths from there.
pub(super) fn below(directory: &str) -> Files {
    let inside = |(path, bytes): (String, Vec<u8>)| {
        let inside = path.strip_prefix("plugins/")?.strip_prefix(directory)?.strip_prefix('/')?;
        Some((inside.to_owned(), bytes))
    };
    all().into_iter().filter_map(inside).collect()
}

/// What a crate outside of the repository needs to depend on `plugins/sdk`: the crates of the SDK and the contract, with
/// manifests that inherit nothing.
///
/// # Errors
/// When the SDK inherits what the workspace does not have; never once tests have passed.
pub(super) fn sdk() -> anyhow::Result<Files> {
    let needed = |path: &str| ["plugins/sdk/", "plugins/sdk-macros/", "wit/"].iter().any(|dir| path.starts_with(dir));
    let mut files: Files = all().into_iter().filter(|(path, _)| needed(path)).collect();
    for (path, bytes) in files.iter_mut().filter(|(path, _)| path.ends_with("Cargo.toml")) {
        let text = std::str::from_utf8(bytes).with_context(|| path.clone())?;
        *bytes = alone(text, WORKSPACE).with_context(|| path.clone())?.into_bytes();
    }
    Ok(files)
}

/// A manifest that inherits nothing from the workspace: what it inherits is written out. Lints and what is for tests
/// alone are left out.
fn alone(manifest: &str, workspace: &str) -> anyhow::Result<String> {
    let mut manifest: Table = manifest.parse()?;
    let workspace: Table = workspace.parse()?;
    let inherited = |table: &str, key: &str| {
        let found = workspace.get("workspace").and_then(|all| all.get(table)).and_then(|table| table.get(key));
        found.cloned().with_context(|| format!("the workspace has no {table}.{key}"))
    };
    for unneeded in ["lints", "dev-dependencies"] {
        manifest.remove(unneeded);
    }
    for (key, value) in tables(&mut manifest, &["package"]).into_iter().flatten() {
        if inherits(value) {
            *value = inherited("package", key)?;
        }
    }
    let mut dependencies = tables(&mut manifest, &["dependencies", "build-dependencies"]);
    dependencies.retain(|table| !table.is_empty());
    for (name, value) in dependencies.into_iter().flatten().filter(|(_, value)| inherits(value)) {
        let mut whole = match inherited("dependencies", name)? {
            Value::String(version) => Table::from_iter([("version".to_owned(), Value::String(version))]),
            Value::Table(table) => table,
            other => bail!("the workspace's dependency {name} is {other}"),
        };
        if let Some(Value::String(path)) = whole.get_mut("path") {
            *path = path.replacen("plugins/", "../", 1);
        }
        for (key, added) in value.as_table().into_iter().flatten().filter(|(key, _)| *key != "workspace") {
            match (whole.get_mut(key), added) {
                (Some(Value::Array(features)), Value::Array(more)) => features.extend(more.iter().cloned()),
                _ => drop(whole.insert(key.clone(), added.clone())),
            }
        }
        *value = Value::Table(whole);
    }
    Ok(manifest.to_string())
}

/// The tables of these names: at the top, and for single targets.
fn tables<'m>(manifest: &'m mut Table, names: &[&str]) -> Vec<&'m mut Table> {
    let mut found = Vec::new();
    for (key, value) in manifest.iter_mut() {
        let Some(table) = value.as_table_mut() else { continue };
        if key == "target" {
            let targets = table.iter_mut().filter_map(|(_, target)| target.as_table_mut());
            found.extend(targets.flat_map(|target| tables(target, names)));
        } else if names.contains(&key.as_str()) {
            found.push(table);
        }
    }
    found
}

fn inherits(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// Writes files below a directory.
///
/// # Errors
/// Names the file that cannot be written.
pub(super) fn write(files: &Files, below: &Path) -> anyhow::Result<()> {
    for (path, bytes) in files {
        let path = below.join(path);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
        written.with_context(|| path.display().to_string())?;
        if path.extension().is_some_and(|kind| kind == "sh") {
            make_executable(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Where this user's things are that can be made again.
///
/// # Errors
/// When nobody says where this user is at home.
pub(super) fn cache() -> anyhow::Result<PathBuf> {
    let strategy = etcetera::choose_base_strategy().context("set HOME, or XDG_CACHE_HOME")?;
    Ok(strategy.cache_dir().join("weir"))
}

/// The directory with what builds plugins, below the user's cache. It is written once for each content that a binary has.
///
/// # Errors
/// When it cannot be written.
pub(super) fn unpacked() -> anyhow::Result<PathBuf> {
    let files = all();
    let mut digest = Sha256::new();
    for (path, bytes) in &files {
        digest.update((path.len() as u64).to_le_bytes());
        digest.update(path);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let kits = cache()?.join("kits");
    let kit = kits.join(format!("{}-{digest}", env!("CARGO_PKG_VERSION")));
    if kit.exists() {
        return Ok(kit);
    }
    let unwritable = || format!("{} cannot be written", kits.display());
    std::fs::create_dir_all(&kits).with_context(unwritable)?;
    let half = tempfile::TempDir::new_in(&kits).with_context(unwritable)?;
    write(&files, half.path())?;
    match std::fs::rename(half.path(), &kit) {
        // Somebody was quicker, with the same.
        Err(_) if kit.exists() => Ok(kit),
        done => done.with_context(unwritable).map(|()| kit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_inherits_nothing_and_is_whole() {
        let files = sdk().expect("the SDK");
        let text = |path: &str| {
            let found = files.iter().find(|(found, _)| found == path);
            String::from_utf8(found.unwrap_or_else(|| panic!("{path}")).1.clone()).expect("text")
        };
        for path in ["plugins/sdk/Cargo.toml", "plugins/sdk-macros/Cargo.toml"] {
            let manifest = text(path);
            assert!(!manifest.contains("workspace") && !manifest.contains("lints"), "{manifest}");
            assert!(manifest.contains("edition = \"2024\""), "{manifest}");
        }
        assert!(text("plugins/sdk/Cargo.toml").contains("path = \"../sdk-macros\""));
        for path in
            ["plugins/sdk/src/lib.rs", "plugins/sdk-macros/src/plugin.rs", "wit/plugin.wit", "wit/deps/http.wit"]
        {
            assert!(!text(path).is_empty());
        }
    }

    #[test]
    fn what_is_inherited_is_written_out() {
        let workspace = r#"
            [workspace.package]
            version = "1.2.3"
            [workspace.dependencies]
            plain = "1.0"
            rich = { version = "2", default-features = false, features = ["a"] }
            near = { path = "plugins/near" }
        "#;
        let manifest = r#"
            [package]
            name = "x"
            version.workspace = true
            [dependencies]
            plain.workspace = true
            near.workspace = true
            own = "3"
            [target.'cfg(a)'.dependencies]
            rich = { workspace = true, features = ["b"], optional = true }
            [dev-dependencies]
            none.workspace = true
        "#;
        let expected: Table = r#"
            [package]
            name = "x"
            version = "1.2.3"
            [dependencies]
            plain = { version = "1.0" }
            near = { path = "../near" }
            own = "3"
            [target.'cfg(a)'.dependencies]
            rich = { version = "2", default-features = false, features = ["a", "b"], optional = true }
        "#
        .parse()
        .expect("TOML");
        let alone = alone(manifest, workspace).expect("sound").parse::<Table>().expect("TOML");
        assert_eq!(alone, expected);
        let error = super::alone("[dependencies]\nnone.workspace = true", workspace).expect_err("unknown");
        assert_eq!(error.to_string(), "the workspace has no dependencies.none");
    }
}
