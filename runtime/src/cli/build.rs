//! `weir plugin build`: from the sources of a plugin, in any of the languages, to the component that a server would keep.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::process::Command;
use weir_host::plugin::Artifact;

use super::{kit, print, printable, words};
use crate::config::Config;
use crate::model::plugin::PluginDigest;

/// What to build.
#[derive(Args)]
pub(super) struct Sources {
    /// The directory with `Cargo.toml`, `app.py` or `app.js`.
    #[arg(value_name = "DIR", default_value = ".")]
    pub(super) directory: PathBuf,

    /// Where it is built, and the tools for Python and JavaScript are kept.
    ///
    /// By default the crate's own target directory; for Python and JavaScript one below the user's cache.
    #[arg(long, value_name = "DIR", env = "CARGO_TARGET_DIR")]
    target_dir: Option<PathBuf>,
}

impl Sources {
    /// The sources in a directory, which are built in another one.
    pub(super) fn new(directory: PathBuf, target_dir: Option<PathBuf>) -> Self {
        Self { directory, target_dir }
    }
}

/// A plugin that was built.
pub(super) struct Built {
    /// The component.
    pub(super) file: PathBuf,
    artifact: Artifact,
}

impl Built {
    /// What came out, for a person.
    pub(super) fn told(&self) -> String {
        let (file, size) = (self.file.display(), self.artifact.component.len());
        let mut text = format!("{file}\n  digest   {}\n  size     {size} bytes\n", PluginDigest(self.artifact.digest));
        match &self.artifact.request {
            Some(request) => text += &words::asked(request),
            None => text += "  does not say its name: give `?name=` and `?version=` when you upload it\n",
        }
        printable(&text)
    }
}

/// Builds a plugin, and says what came out.
///
/// # Errors
/// When the sources are no plugin's, or cannot be built; what builds them said why on standard error.
pub(super) async fn run(sources: &Sources, config: &Config) -> anyhow::Result<()> {
    print(&build(sources, config).await?.told())
}

/// Builds a plugin, and writes its component beside its sources.
///
/// # Errors
/// As [`run`].
pub(super) async fn build(sources: &Sources, config: &Config) -> anyhow::Result<Built> {
    let directory = &sources.directory;
    let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
    let output = match language(&directory)? {
        "Cargo.toml" => build_crate(sources, &directory).await?,
        _ => build_guest(sources, &directory).await?,
    };
    let bytes = std::fs::read(&output).with_context(|| output.display().to_string())?;
    let admitted = tokio::task::spawn_blocking(move || Artifact::admit(&bytes)).await?;
    let artifact = admitted.with_context(|| output.display().to_string())?;
    let (size, limit) = (artifact.component.len(), config.plugin_max_bytes);
    if size > limit {
        bail!("the component has {size} bytes, more than {limit} (`plugin_max_bytes`)");
    }
    let name = artifact.request.as_ref().map(|request| request.name.as_str());
    let stem = output.file_stem().and_then(OsStr::to_str).unwrap_or("plugin");
    let file = sources.directory.join(format!("{}.wasm", name.unwrap_or(stem)));
    std::fs::write(&file, &artifact.component).with_context(|| file.display().to_string())?;
    Ok(Built { file, artifact })
}

/// The one file that says in which language the plugin is written.
fn language(directory: &Path) -> anyhow::Result<&'static str> {
    let mut found = ["Cargo.toml", "app.py", "app.js"].into_iter().filter(|name| directory.join(name).is_file());
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => bail!("{} has both {one} and {other}", directory.display()),
        _ => bail!("{} has neither Cargo.toml nor app.py nor app.js", directory.display()),
    }
}

async fn build_crate(sources: &Sources, directory: &Path) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(kit::unpacked()?.join("plugins/build.sh"));
    command.arg("--quiet").current_dir(directory);
    if let Some(target) = &sources.target_dir {
        command.env("CARGO_TARGET_DIR", absolute(target)?);
    }
    outputs(command).await
}

async fn build_guest(sources: &Sources, directory: &Path) -> anyhow::Result<PathBuf> {
    let target = match &sources.target_dir {
        Some(target) => absolute(target)?,
        None => kit::cache()?.join("build"),
    };
    std::fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    // Tools are installed, and plugins of one name are built, in one place.
    let place = target.join("guests.lock");
    let lock = std::fs::File::create(&place).with_context(|| place.display().to_string())?;
    let locked = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await?;
    let _locked = locked.with_context(|| place.display().to_string())?;
    let mut command = Command::new(kit::unpacked()?.join("plugins/build-guest.sh"));
    command.arg(directory).env("CARGO_TARGET_DIR", target);
    outputs(command).await
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// Runs a script to its end, and answers the one file that it names.
async fn outputs(mut command: Command) -> anyhow::Result<PathBuf> {
    let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let output = child.context("the script that builds cannot be started")?.wait_with_output().await?;
    if !output.status.success() {
        bail!("it was not built: {}", output.status);
    }
    let named = String::from_utf8_lossy(&output.stdout);
    match named.lines().collect::<Vec<_>>()[..] {
        [file] => Ok(PathBuf::from(file)),
        ref files => bail!("{} plugins were built: name the directory of one of them", files.len()),
    }
}
