//! `weir plugin rehearse`: makes the last calls of what is active on a server again with a new version, without a
//! network. Changes nothing on the server.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use weir_host::plugin::Grant;

use super::rehearsal::{Rehearsal, Rehearsed};
use super::server::Server;
use super::{cassette, operate, plugin, print, printable};
use crate::config::Config;
use crate::tools::Recorded;

/// Examples of the command.
pub(super) const EXAMPLES: &str = "\
Examples:
  weir plugin rehearse orders.wasm              against the calls of the active version of what the file is called
  weir plugin rehearse new.wasm --name orders --last 5 --json

The status is 0 when every call ended as before and nothing new is wanted, and 1 when not. A server keeps calls where its
setting `plugin_calls_kept` is not 0.";

/// What is rehearsed, and against what.
#[derive(Args)]
pub(super) struct Rehearse {
    /// The new version: a component or a core module.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Whose calls are made again: the active version of this name, NAME@VERSION, or a digest [default: the file's name].
    #[arg(long, value_name = "PLUGIN")]
    name: Option<String>,

    /// No more than so many calls, the latest [default: all that the server keeps].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: Server,
}

/// Rehearses.
///
/// # Errors
/// When the file is no plugin, the server has no calls of it or does not answer, or the new version does not do the same.
pub(super) async fn run(rehearse: &Rehearse, config: &Config) -> anyhow::Result<()> {
    let new = plugin::open(&rehearse.file, config).await?;
    let request = new.artifact.request.clone().unwrap_or_default();
    let name = rehearse.name.as_deref().unwrap_or(&request.name);
    if name.is_empty() {
        bail!("{} does not say its name: give the --name of a plugin of the server", rehearse.file.display());
    }
    let client = rehearse.server.client()?;
    let rights = operate::rights(&client, name).await?;
    let mut answer = client.get(client.url(&["plugins", &rights.digest, "calls"])?).await?;
    let against = format!("{}@{}", rights.name, rights.version);
    let calls = read(answer["items"].take()).with_context(|| format!("the calls of {against}"))?;
    if calls.is_empty() {
        bail!("the server keeps no call of {against} yet: let it be called, with the setting `plugin_calls_kept`");
    }
    let grant = rights.grant.unwrap_or_default();
    let mut rehearsal = Rehearsal::new(new.digest.to_string(), against, &request, &grant);
    let last = rehearse.last.map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX));
    for (n, recorded) in calls.iter().take(last).enumerate() {
        rehearsal.add(if recorded.unanswered > 0 {
            Rehearsed::left_out(n + 1, recorded)
        } else {
            let reach = cassette::reach(&request, grant.clone(), &secrets(&grant, recorded));
            Rehearsed::of(n + 1, recorded, &new.loaded.replay(recorded, reach).await)
        });
    }
    if rehearse.json {
        print(&format!("{:#}\n", rehearsal.document()))?;
    } else {
        print(&printable(&rehearsal.told()))?;
    }
    match rehearsal.objection() {
        Some(objection) => bail!("{} does not do the same: {objection}", rehearse.file.display()),
        None => Ok(()),
    }
}

fn read(items: Value) -> anyhow::Result<Vec<Recorded>> {
    let calls: Vec<Recorded> = serde_json::from_value(items).context("they are not as this version writes them")?;
    for (n, exchange) in calls.iter().flat_map(|call| &call.http).enumerate() {
        if let Some((pointer, message)) = exchange.fault() {
            bail!("exchange {n}: {pointer}: {message}");
        }
    }
    Ok(calls)
}

/// The secrets that a recorded call could have: what is granted, but for what it did not get.
fn secrets(grant: &Grant, recorded: &Recorded) -> Vec<String> {
    let mut names: Vec<String> = grant.http.iter().flat_map(|rule| rule.secrets.iter().cloned()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !recorded.denied.iter().any(|denied| *denied == format!("the secret `{name}`")));
    names
}
