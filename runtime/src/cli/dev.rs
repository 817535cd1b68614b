//! `weir plugin dev`: builds a plugin again whenever its sources change, and makes one call again, until Ctrl-C.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};
use serde_json::Value;
use tokio::sync::mpsc;

use super::build::{self, Sources};
use super::plugin;
use super::rights::Rights;
use crate::config::Config;
use crate::model::definition::STEP_TIMEOUT_DEFAULT;

/// How long nothing may change until it is built: editors and version control write many files at once.
const QUIET: Duration = Duration::from_millis(100);

/// Every source, with its length and when it was changed.
type Snapshot = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// The call that is made after each build.
pub(super) struct Call<'a> {
    pub(super) tool: &'a str,
    pub(super) arguments: Value,
    pub(super) rights: &'a Rights,
}

/// Builds and calls until Ctrl-C.
///
/// # Errors
/// When the directory cannot be watched. What fails in it is told, and waits for the next change.
pub(super) async fn run(sources: &Sources, call: Option<&Call<'_>>, config: &Config) -> anyhow::Result<()> {
    tokio::select! {
        ended = rounds(sources, call, config) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn rounds(sources: &Sources, call: Option<&Call<'_>>, config: &Config) -> anyhow::Result<()> {
    let directory = &sources.directory;
    let (changed, mut changes) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Nobody waits any more when this ends.
            let _ = changed.send(());
        }
    })?;
    loop {
        let (built, folders) = snapshot(directory).with_context(|| directory.display().to_string())?;
        for folder in folders {
            // Watched already, or gone again: then its parent tells.
            let _ = watcher.watch(&folder, RecursiveMode::NonRecursive);
        }
        if let Err(error) = round(sources, call, config).await {
            eprintln!("weir: {}", crate::telemetry::told(&error));
        }
        eprintln!("weir: waiting for a change in {} (Ctrl-C ends)", directory.display());
        while snapshot(directory).is_ok_and(|(now, _)| now == built) {
            changes.recv().await.context("the directory is watched no longer")?;
            while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {}
        }
    }
}

async fn round(sources: &Sources, call: Option<&Call<'_>>, config: &Config) -> anyhow::Result<()> {
    let built = build::build(sources, config).await?;
    eprint!("{}", built.told());
    let Some(call) = call else { return Ok(()) };
    let opened = plugin::open(&built.file, config).await?;
    let reach = call.rights.reach(opened.artifact.request.as_ref())?;
    plugin::call(&opened, call.tool, call.arguments.clone(), STEP_TIMEOUT_DEFAULT, (reach, &[])).await
}

/// The sources below a directory, and the folders that they are in: without what is hidden, or made of them.
fn snapshot(directory: &Path) -> std::io::Result<(Snapshot, Vec<PathBuf>)> {
    let (mut files, mut folders, mut open) = (Snapshot::new(), Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let made = name.starts_with('.')
                || ["node_modules", "__pycache__", "Cargo.lock"].contains(&name.as_str())
                || path.extension().is_some_and(|kind| kind == "wasm")
                || path.join("CACHEDIR.TAG").exists();
            // A file may be gone again: then it is no source.
            let Some(is) = std::fs::metadata(&path).ok().filter(|_| !made) else { continue };
            if is.is_dir() {
                open.push(path);
            } else {
                files.insert(path, (is.len(), is.modified().ok()));
            }
        }
        folders.push(folder);
    }
    Ok((files, folders))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_what_people_write() {
        let dir = tempfile::TempDir::new().expect("a directory");
        for file in
            ["src/lib.rs", "plugin.toml", "target/CACHEDIR.TAG", "target/a", ".git/b", "x.wasm", "__pycache__/c"]
        {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let (files, mut folders) = snapshot(dir.path()).expect("read");
        let names: Vec<_> = files.keys().map(|path| path.strip_prefix(dir.path()).expect("below")).collect();
        assert_eq!(names, [Path::new("plugin.toml"), Path::new("src/lib.rs")]);
        folders.sort();
        assert_eq!(folders, [dir.path().to_owned(), dir.path().join("src")]);
        std::fs::write(dir.path().join("src/lib.rs"), "x").expect("written");
        assert_ne!(snapshot(dir.path()).expect("read").0, files);
    }
}
