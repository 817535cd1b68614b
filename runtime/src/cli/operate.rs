//! `weir plugin push` and what follows on a server: versions, grants, and what plugins did with them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use weir_host::plugin::{Grant, Request};

use super::push::{self, Push};
use super::rehearse::{self, Rehearse};
use super::server::{Server, all, text};
use super::{print, printable, words};
use crate::client::Client;
use crate::config::Config;
use crate::telemetry::one_line;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Send a plugin to a server.
    ///
    /// Shows what it is, what it asks for, and how that differs from what the active version is granted. A version that
    /// asks for no more than that takes over the grant; one that asks for more waits until somebody grants it.
    Push(Push),

    /// Make the last calls of what is active on a server again with a new version, without a network.
    ///
    /// What was recorded on the server answers its requests, and it has the rights of the active version. Tells which
    /// calls end in another way, fail, or want what the recorded ones did not have; what the new version asks for beyond
    /// the grant; and how its fuel changes. Changes nothing on the server.
    #[command(after_help = rehearse::EXAMPLES)]
    Rehearse(Rehearse),

    /// Show the plugins of a server: each name with its active version, or its newest where none is active.
    List {
        #[command(flatten)]
        server: Server,
    },

    /// Show what plugins ask for, are granted, did with it, and never used.
    Grants {
        /// One plugin: its name (the active version), NAME@VERSION, or its digest.
        #[arg(value_name = "PLUGIN")]
        plugin: Option<String>,

        /// Print the grant without what was never used: JSON, ready for `weir plugin grant`.
        #[arg(long, requires = "plugin")]
        unused: bool,

        #[command(flatten)]
        server: Server,
    },

    /// Grant a plugin what it may do, in place of what it was granted before.
    Grant {
        /// The plugin: its name (the active version), NAME@VERSION, or its digest.
        #[arg(value_name = "PLUGIN")]
        plugin: String,

        /// JSON, as `PUT /plugins/{plugin}/grant` takes it; `-` is standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        server: Server,
    },

    /// Take every right from a plugin. Its calls go on, and are denied what they were granted.
    Revoke {
        /// The plugin: its name (the active version), NAME@VERSION, or its digest.
        #[arg(value_name = "PLUGIN")]
        plugin: String,

        #[command(flatten)]
        server: Server,
    },

    /// Make a version what its name means.
    Activate {
        #[command(flatten)]
        named: Named,

        /// Let every workflow that names the plugin without a version follow, with a new revision.
        #[arg(long)]
        adopt: bool,
    },

    /// Let no definition name a version any more. Workflows that use it go on.
    Retire(Named),

    /// Delete a version that is not active, and that no workflow uses.
    Delete(Named),
}

/// A version of a plugin on a server.
#[derive(clap::Args)]
pub(super) struct Named {
    /// The version: NAME@VERSION, or its digest.
    #[arg(value_name = "NAME@VERSION")]
    plugin: String,

    #[command(flatten)]
    server: Server,
}

/// What a server says of a plugin's rights.
#[derive(Deserialize)]
pub(super) struct Rights {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) digest: String,
    status: String,
    request: Request,
    pub(super) grant: Option<Grant>,
    missing: Vec<String>,
    unused: Vec<String>,
    uses: Vec<Use>,
}

/// Something that a plugin did, or was denied.
#[derive(Deserialize)]
struct Use {
    what: String,
    count: u64,
    last_at: String,
}

pub(super) async fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    match command {
        Command::Push(push) => push::run(push, config).await,
        Command::Rehearse(rehearse) => rehearse::run(rehearse, config).await,
        Command::List { server } => list(&server.client()?).await,
        Command::Grants { plugin, unused, server } => {
            let client = server.client()?;
            let Some(plugin) = plugin else { return grants(&client).await };
            let rights = rights(&client, plugin).await?;
            if *unused { narrowed(&rights) } else { print(&printable(&told(&rights))) }
        }
        Command::Grant { plugin, file, server } => {
            let body = read(file).with_context(|| file.display().to_string())?;
            let client = server.client()?;
            let rights = set(&client, plugin, &body).await?;
            let mut told = told(&rights);
            if rights.status == "waiting" {
                let named = format!("{}@{}", rights.name, rights.version);
                told += &format!("It goes on waiting: `weir plugin activate {named}` activates it, or says why not.\n");
            }
            print(&printable(&told))
        }
        Command::Revoke { plugin, server } => {
            let client = server.client()?;
            client.delete(client.url(&["plugins", plugin, "grant"])?).await?;
            print(&printable(&format!("`{plugin}` has no rights any more\n")))
        }
        Command::Activate { named, adopt } => activate(named, *adopt).await,
        Command::Retire(Named { plugin, server }) => {
            let client = server.client()?;
            let url = client.url(&["plugins", plugin, "retire"])?;
            let (_, retired) = client.json(Method::POST, url, &Value::Null).await?;
            let (name, version) = (text(&retired, "name"), text(&retired, "version"));
            print(&printable(&format!("{name}@{version} is retired\n")))
        }
        Command::Delete(Named { plugin, server }) => {
            let client = server.client()?;
            client.delete(client.url(&["plugins", plugin])?).await?;
            print(&printable(&format!("`{plugin}` is deleted\n")))
        }
    }
}

async fn list(client: &Client) -> anyhow::Result<()> {
    let plugins = all(client, "plugins").await?;
    let line = |plugin: &Value| {
        let named = format!("{}@{}", text(plugin, "name"), text(plugin, "version"));
        let asks = plugin["asks"].as_array().map_or(0, Vec::len);
        let asks = if asks == 0 { "asks for nothing".to_owned() } else { format!("asks for {asks} kinds of requests") };
        format!("{named:<32} {:<8} {}  {asks}\n", text(plugin, "status"), text(plugin, "digest"))
    };
    print(&printable(&plugins.iter().map(line).collect::<String>()))
}

async fn grants(client: &Client) -> anyhow::Result<()> {
    let mut texts = Vec::new();
    for plugin in all(client, "plugins").await? {
        texts.push(told(&rights(client, text(&plugin, "digest")).await?));
    }
    print(&printable(&texts.join("\n")))
}

/// What a plugin asks for, is granted and used.
pub(super) async fn rights(client: &Client, plugin: &str) -> anyhow::Result<Rights> {
    let rights = client.get(client.url(&["plugins", plugin, "grant"])?).await?;
    serde_json::from_value(rights).context("the server's answer is not one of this version")
}

/// Grants a plugin what it may do.
pub(super) async fn set(client: &Client, plugin: &str, grant: &Value) -> anyhow::Result<Rights> {
    let (_, rights) = client.json(Method::PUT, client.url(&["plugins", plugin, "grant"])?, grant).await?;
    serde_json::from_value(rights).context("the server's answer is not one of this version")
}

fn read(file: &PathBuf) -> anyhow::Result<Value> {
    let mut json = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut json)?;
    } else {
        json = std::fs::read(file)?;
    }
    super::rights::clear(&json)
}

/// Everything about the rights of a plugin, in words.
fn told(rights: &Rights) -> String {
    let mut told = format!("{}@{} is {} ({})\n", rights.name, rights.version, rights.status, rights.digest);
    told += &words::asked(&rights.request);
    told += &words::granted(rights.grant.as_ref());
    for missing in &rights.missing {
        told += &format!("  missing  {missing}\n");
    }
    for one in &rights.uses {
        let what = one.what.strip_prefix("rule ").unwrap_or(&one.what);
        let times = if one.count == 1 { "time" } else { "times" };
        told += &format!("  used     {}: {} {times}, last at {}\n", one_line(what), one.count, one.last_at);
    }
    for unused in &rights.unused {
        told += &format!("  unused   {}\n", unused.strip_prefix("rule ").unwrap_or(unused));
    }
    told
}

/// Prints a grant without what was never used.
fn narrowed(rights: &Rights) -> anyhow::Result<()> {
    let Some(grant) = &rights.grant else { anyhow::bail!("{}@{} is granted nothing", rights.name, rights.version) };
    for unused in &rights.unused {
        eprintln!("never used: {}", one_line(unused.strip_prefix("rule ").unwrap_or(unused)));
    }
    if rights.unused.is_empty() {
        eprintln!("everything was used: this is the grant as it is");
    }
    let unused: BTreeSet<&str> = rights.unused.iter().map(String::as_str).collect();
    print(&format!("{:#}\n", json!(without(grant, &unused))))
}

/// What is left of a grant: rules lose methods and secrets, and go with their last method.
fn without(grant: &Grant, unused: &BTreeSet<&str>) -> Grant {
    let mut left = grant.clone();
    for rule in &mut left.http {
        let whole = rule.clone();
        rule.methods.retain(|method| !unused.contains(format!("rule {}", whole.exercise(method)).as_str()));
        rule.secrets.retain(|name| !unused.contains(format!("secret {name}").as_str()));
    }
    left.http.retain(|rule| !rule.methods.is_empty());
    left.settings.retain(|name, _| !unused.contains(format!("setting {name}").as_str()));
    left
}

async fn activate(named: &Named, adopt: bool) -> anyhow::Result<()> {
    let client = named.server.client()?;
    let mut url = client.url(&["plugins", &named.plugin, "activate"])?;
    if adopt {
        url.set_query(Some("adopt=true"));
    }
    let (_, done) = client.json(Method::POST, url, &Value::Null).await?;
    let mut told = format!("{}@{} is active\n", text(&done["plugin"], "name"), text(&done["plugin"], "version"));
    for workflow in done["adopted"].as_array().into_iter().flatten() {
        let (name, id) = (text(workflow, "name"), text(workflow, "workflow_id"));
        match workflow["revision"].as_u64() {
            Some(revision) => told += &format!("  {name} ({id}) follows with revision {revision}\n"),
            None => {
                told += &format!("  {name} ({id}) keeps its revision:\n");
                let faults = workflow["faults"].as_array().into_iter().flatten().filter_map(Value::as_str);
                told += &faults.map(|fault| format!("    {fault}\n")).collect::<String>();
            }
        }
    }
    print(&printable(&told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrower_grant_has_what_was_used() {
        let grant = |http: Value, settings: Value| -> Grant {
            serde_json::from_value(json!({"http": http, "settings": settings, "timeout_seconds": 3})).expect("a grant")
        };
        let whole = grant(
            json!([{"host": "a.example.com", "methods": ["GET", "POST"], "secrets": ["s", "t"]},
                {"host": "b.example.com", "methods": ["GET"]}]),
            json!({"x": "1", "y": "2"}),
        );
        let unused = ["rule POST https://a.example.com/", "rule GET https://b.example.com/", "secret t", "setting y"];
        let left = grant(json!([{"host": "a.example.com", "methods": ["GET"], "secrets": ["s"]}]), json!({"x": "1"}));
        assert_eq!(without(&whole, &BTreeSet::from(unused)), left);
        assert_eq!(without(&whole, &BTreeSet::new()), whole);
    }
}
