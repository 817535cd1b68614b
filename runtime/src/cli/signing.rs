//! `weir plugin keygen`, `sign` and `verify`: who vouches for a plugin. All of it works offline.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use weir_host::plugin::{Artifact, PublicKey, SecretKey, Signature, SignedText};

use super::print;
use crate::clock::random_bytes;
use crate::config::Config;
use crate::model::plugin::PluginDigest;

/// Most bytes of a file with a key or a signature.
const LINE_MAX_BYTES: u64 = 1024;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a key that signs plugins, and print the public key that verifies what it signs.
    ///
    /// The public key goes into `plugin_trusted_keys` of the servers that shall take these plugins.
    Keygen {
        /// The file of the secret key; must not exist yet.
        #[arg(long, value_name = "FILE", default_value = "weir-signing.key")]
        out: PathBuf,
    },

    /// Sign a plugin: writes the signature to a file beside it, with the ending `.sig`.
    ///
    /// Signed is the component as a server of this version stores it.
    Sign {
        /// A component or a core module.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// The file of the secret key, as `weir plugin keygen` makes it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },

    /// Find the key that signed a plugin; the status is 0 when it is one of those named.
    Verify {
        /// A component or a core module.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// The file of the signature [default: FILE.sig].
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,

        /// A public key, as `weir plugin keygen` prints it. Can be given more than once.
        #[arg(long, value_name = "KEY", required = true)]
        key: Vec<String>,
    },
}

pub(super) fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    match command {
        Command::Keygen { out } => keygen(out),
        Command::Sign { file, key } => sign(file, key, config),
        Command::Verify { file, signature, key } => {
            let signature = signature.clone().unwrap_or_else(|| beside(file));
            verify(file, &signature, key, config)
        }
    }
}

/// Reads a plugin up to the limit of uploads.
pub(super) fn read(file: &Path, config: &Config) -> anyhow::Result<Vec<u8>> {
    let limit = config.plugin_max_bytes;
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let read = opened.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| file.display().to_string())?;
    if bytes.len() > limit {
        bail!("{} has more than {limit} bytes (`plugin_max_bytes`)", file.display());
    }
    Ok(bytes)
}

fn keygen(out: &Path) -> anyhow::Result<()> {
    let key = SecretKey::from_random(&random_bytes());
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let mut file = made.with_context(|| format!("the secret key {}", out.display()))?;
    let written = writeln!(file, "{}", key.to_text()).and_then(|()| file.sync_all());
    written.with_context(|| format!("the secret key {}", out.display()))?;
    eprintln!("{} holds the secret key: keep it where only those who sign can read it. The public key:", out.display());
    print(&format!("{}\n", key.public()))
}

fn sign(file: &Path, key: &Path, config: &Config) -> anyhow::Result<()> {
    let mode = std::fs::metadata(key).with_context(|| key.display().to_string())?.mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("{} can be read by others (mode {mode:03o}): `chmod 600` it", key.display());
    }
    let secret = SecretKey::parse(&line(key)?).with_context(|| key.display().to_string())?;
    let (text, digest) = admitted(file, config)?;
    let (signature, target) = (secret.sign(&text), beside(file));
    std::fs::write(&target, format!("{signature}\n")).with_context(|| target.display().to_string())?;
    print(&format!("{} is the signature of {digest} by {}\n", target.display(), secret.public()))
}

fn verify(file: &Path, signature: &Path, keys: &[String], config: &Config) -> anyhow::Result<()> {
    let keys = keys.iter().map(|key| PublicKey::parse(key)).collect::<Result<Vec<_>, _>>()?;
    let given = Signature::parse(&line(signature)?).with_context(|| signature.display().to_string())?;
    let (text, digest) = admitted(file, config)?;
    match keys.iter().find(|key| key.signed(&text, &given)) {
        Some(key) => print(&format!("{digest} is signed by {key}\n")),
        None => bail!("{} is not a signature of {digest} by one of these keys", signature.display()),
    }
}

/// What of a plugin is signed, and its digest.
fn admitted(file: &Path, config: &Config) -> anyhow::Result<(SignedText, PluginDigest)> {
    let artifact = Artifact::admit(&read(file, config)?).with_context(|| file.display().to_string())?;
    Ok((SignedText::of(&artifact.component)?, PluginDigest(artifact.digest)))
}

/// Where the signature of a plugin is when nobody says otherwise.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The text of a file that has one line.
pub(super) fn line(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    opened.take(LINE_MAX_BYTES).read_to_string(&mut text).with_context(|| file.display().to_string())?;
    Ok(text)
}
