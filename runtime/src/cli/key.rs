//! `weir key`: API keys. A key is shown once; what is kept is its digest.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use sha2::{Digest as _, Sha256};

use super::print;
use crate::app;
use crate::clock::{SystemClock, random_bytes};
use crate::config::Config;
use crate::store::{KeyHash, MASTER_KEY, SealedAt, Store};
use crate::tools::owner;
use crate::vault::Vault;

/// Begins every key, so that scanners for leaked secrets know one when they see it.
const BEGINS: &str = "weir_";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a key and show it, once. From then on every route but webhooks, health and documentation asks for a key.
    ///
    /// Works beside a running server, which knows the key at once. Standard output has the key alone, for a file.
    Create {
        /// What to call it, for example who uses it.
        #[arg(value_name = "NAME")]
        name: String,

        /// Leave the database alone and show the digest too, in the last line, for the setting `api_key_hashes`.
        #[arg(long)]
        offline: bool,
    },

    /// Show the names of the keys in the database.
    List,

    /// Delete a key from the database. It opens nothing from then on.
    Delete {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },

    /// Seal every secret in the database anew with the master key: the last step of a change of that key.
    ///
    /// The key before stands in `master_keys_accepted`. Works beside running servers that know both.
    Reseal,
}

/// Does what the command says.
pub(super) async fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    if let Command::Create { name, .. } = command
        && (name.is_empty() || name.chars().any(char::is_control) || name.len() > 100)
    {
        bail!("a key's name has 1 to 100 bytes and no control characters");
    }
    if let Command::Create { name, offline: true } = command {
        let (key, hash) = make();
        let digest = crate::model::plugin::PluginDigest(hash);
        // What is no key and no digest goes to the other output: a file that is made of this has nothing else in it.
        print(&format!("{key}\n"))?;
        eprintln!("\nThis is the key `{name}`. Add its digest to `api_key_hashes`:");
        return print(&format!("{digest}\n"));
    }
    let location = config.location()?;
    let store = Store::open_beside(&location, Arc::new(SystemClock)).await?;
    let done = match command {
        Command::Reseal => match app::vault(config, &location, &store).await {
            Ok(vault) => reseal(&store, &vault).await,
            Err(error) => Err(error),
        },
        _ => within(command, &store).await,
    };
    store.close().await;
    done
}

/// Seals everything anew. What changes meanwhile is sealed by whoever changes it.
async fn reseal(store: &Store, vault: &Vault) -> anyhow::Result<()> {
    let (mut done, mut foreign) = (0, Vec::new());
    for (at, sealed) in store.sealed().await? {
        let owner = match &at {
            SealedAt::Endpoint(id) | SealedAt::EndpointBefore(id) => id.0.as_bytes().to_vec(),
            SealedAt::Secret(name) => owner(name),
            SealedAt::Fact => MASTER_KEY.as_bytes().to_vec(),
        };
        match vault.open_sealed(&owner, &sealed) {
            Ok(secret) => {
                let secret = String::from_utf8(secret).context("a secret that is not text")?;
                done += u32::from(store.reseal(at, sealed, vault.seal(&owner, &secret)).await?);
            }
            Err(_) => foreign.push(format!("{at:?}")),
        }
    }
    print(&format!("sealed anew: {done}\n"))?;
    if !foreign.is_empty() {
        bail!("sealed with a key that is not known here, and left as they are: {}", foreign.join(", "));
    }
    Ok(())
}

async fn within(command: &Command, store: &Store) -> anyhow::Result<()> {
    match command {
        Command::Reseal => bail!("needs the master key"),
        Command::Create { name, .. } => {
            let (key, hash) = make();
            if !store.add_api_key(name.clone(), hash).await? {
                bail!("there is a key `{name}` already; delete it first, or choose another name");
            }
            print(&format!("{key}\n"))?;
            eprintln!("\nThis is the key `{name}`. It is shown this once: keep it in a safe place.");
            Ok(())
        }
        Command::List => {
            let keys = store.api_keys().await?;
            let line = |key: &crate::store::ApiKey| format!("{}  {}\n", key.created_at, key.name);
            print(&keys.iter().map(line).collect::<String>())
        }
        Command::Delete { name } => {
            if !store.delete_api_key(name.clone()).await? {
                bail!("there is no key `{name}` in the database");
            }
            print(&format!("the key `{name}` is deleted\n"))
        }
    }
}

fn make() -> (String, KeyHash) {
    let key = format!("{BEGINS}{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()));
    let hash = Sha256::digest(&key).into();
    (key, hash)
}
