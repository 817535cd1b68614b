//! `weir plugin push`: a component goes to a server, and is granted what it asks for when somebody says so.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use http::StatusCode;
use serde_json::json;
use weir_host::plugin::{Artifact, Grant, Request, Signature};

use super::operate::{Rights, rights, set};
use super::server::{Server, text};
use super::{print, printable, signing, words};
use crate::client::{Client, Refused};
use crate::config::Config;
use crate::model::plugin::PluginDigest;
use crate::telemetry::one_line;

/// What is sent, and what is to become of it.
#[derive(Args)]
pub(super) struct Push {
    /// A component, or a core module, that says its name.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Grant it everything that it asks for, after a question on the terminal. Its settings stay.
    #[arg(long)]
    grant: bool,

    /// Ask nothing: yes.
    #[arg(long, requires = "grant")]
    yes: bool,

    /// Keep the version that is active now.
    #[arg(long)]
    no_activate: bool,

    /// The file of its signature [default: FILE.sig, where that is there].
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,

    #[command(flatten)]
    server: Server,
}

impl Push {
    /// The signature to send along, and the file that it is from: the one that is named, or the one beside the plugin.
    fn signature(&self) -> anyhow::Result<Option<(Signature, PathBuf)>> {
        let file = match &self.signature {
            Some(file) => file.clone(),
            None => match signing::beside(&self.file) {
                file if file.try_exists().with_context(|| file.display().to_string())? => file,
                _ => return Ok(None),
            },
        };
        let signature = Signature::parse(&signing::line(&file)?);
        Ok(Some((signature.with_context(|| file.display().to_string())?, file)))
    }
}

/// Sends it.
///
/// # Errors
/// When it is no plugin, somebody said no, or the server refuses it.
pub(super) async fn run(push: &Push, config: &Config) -> anyhow::Result<()> {
    let bytes = signing::read(&push.file, config)?;
    let admitted = tokio::task::spawn_blocking(move || Artifact::admit(&bytes)).await?;
    let artifact = admitted.map_err(|refused| anyhow::anyhow!(one_line(&refused.to_string())))?;
    let digest = PluginDigest(artifact.digest).to_string();
    let Some(request) = &artifact.request else {
        bail!("{} does not say its name: send it with `POST /plugins?name=...&version=...`", push.file.display());
    };
    let signature = push.signature()?;
    let client = push.server.client()?;
    let before = active(&client, &request.name).await?.and_then(|rights| rights.grant);
    let version = request.version.as_deref().unwrap_or("(no version)");
    let mut shown = format!("{} {version}\n  digest   {digest}\n", request.name);
    shown += &format!("  size     {} bytes\n{}", artifact.component.len(), words::asked(request));
    if let Some((_, file)) = &signature {
        shown += &format!("  signed   as {} says\n", file.display());
    }
    if let Some(before) = &before {
        let difference = words::difference(request, before);
        shown += &match difference.as_str() {
            "" => "Nothing that the active version is not granted.\n".to_owned(),
            difference => format!("Against what the active version is granted:\n{difference}"),
        };
    }
    print(&printable(&shown))?;
    let grants = push.grant && !request.http.is_empty();
    if grants && !push.yes && !agreed()? {
        bail!("nothing was sent");
    }
    let mut url = client.url(&["plugins"])?;
    if push.no_activate {
        url.set_query(Some("activate=false"));
    }
    let sent = client.upload(url, artifact.component, signature.as_ref().map(|(text, _)| text.to_string())).await;
    let (status, mut stored) = sent.map_err(|error| misfit(error, signature.as_ref(), push))?;
    // Granted is what was shown, whatever was uploaded meanwhile.
    if grants {
        let grant = whole(request, before.unwrap_or_default());
        set(&client, &digest, &json!(grant)).await?;
        stored = client.get(client.url(&["plugins", &digest])?).await?;
    }
    let named = format!("{}@{}", text(&stored, "name"), text(&stored, "version"));
    let was = if status == StatusCode::CREATED { "" } else { " (it was there already)" };
    let status = text(&stored, "status");
    let mut told = format!("{named} is {status}{was}\n");
    if let Some(by) = stored["signed_by"].as_str() {
        told += &format!("It is signed by {by}\n");
    }
    if status == "waiting" {
        told += &format!(
            "It becomes active when it is granted something: `weir plugin grant {named} FILE`, or push it with --grant.\n"
        );
    }
    print(&printable(&told))
}

/// Says which file a signature that the server does not take is from, and what to do.
fn misfit(error: anyhow::Error, signature: Option<&(Signature, PathBuf)>, push: &Push) -> anyhow::Error {
    let refused = error.downcast_ref::<Refused>().is_some_and(|it| it.code() == "invalid_plugin_signature");
    match signature.filter(|_| refused) {
        Some((_, file)) => error.context(format!(
            "{} is not a signature of {} by a key that the server trusts (if it is an old one, \
             sign the plugin again; where that file is gone, the plugin is sent without a signature)",
            file.display(),
            push.file.display()
        )),
        None => error,
    }
}

/// The rights of the version that a name means, if it means one.
async fn active(client: &Client, name: &str) -> anyhow::Result<Option<Rights>> {
    match rights(client, name).await {
        Ok(rights) => Ok(Some(rights)),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.code() == "plugin_not_found" => Ok(None),
            _ => Err(error),
        },
    }
}

/// Everything that is asked for, with the settings and the limits that somebody chose before.
fn whole(request: &Request, before: Grant) -> Grant {
    Grant { http: request.http.clone(), ..before }.fitted(request)
}

/// Asks on the terminal.
fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask on: say --yes, once you have read what it asks for");
    }
    eprint!("Grant all of this? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
