//! The command line.

mod ask;
mod author;
mod build;
mod cassette;
mod copy;
mod create;
mod dev;
mod difference;
mod healthcheck;
mod import;
mod key;
mod kit;
mod operate;
mod plugin;
mod push;
mod rehearsal;
mod rehearse;
mod rights;
mod secret;
mod server;
mod signing;
mod test;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};

use crate::clock::SystemClock;
use crate::config::{Config, DEFAULTS, Layers, Role};
use crate::store::{self, Location, Store};
use crate::{api, app, bench, telemetry};

/// A durable workflow runtime: JSON workflows, triggered by webhooks, that survive any crash.
#[derive(Parser)]
#[command(
    name = "weir",
    version,
    about,
    after_help = "\
Start here:
  weir serve                        listens on 127.0.0.1:8000, keeps its state in ./weir-data
  open http://127.0.0.1:8000/docs   every route, to read and to try

  curl -X POST http://127.0.0.1:8000/workflows/ -H 'Content-Type: application/json' \\
       -d '{\"name\": \"first\", \"definition\": {\"version\": \"1.0\", \"steps\": [
             {\"type\": \"http\", \"url\": \"https://example.com\"}, {\"type\": \"persist_snapshot\"}]}}'"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct Settings {
    /// Configuration file; `weir.toml` in the current directory is read without being named.
    #[arg(long, global = true, env = "WEIR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory of the database and the master key.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,

    /// `sqlite:` and a file, relative to the data directory, or `postgres://...`.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,

    /// Any setting, as `weir config` lists them. Can be given more than once.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Take requests and execute runs.
    ///
    /// SIGTERM or Ctrl-C shuts down in order; after anything worse the next start goes on with every run.
    Serve {
        /// Address and port of the HTTP API [default: 127.0.0.1:8000].
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,

        /// What this process does [default: all].
        #[arg(long)]
        role: Option<Role>,

        /// Listen on an address that is not loopback although there is no API key.
        #[arg(long)]
        insecure: bool,
    },

    /// Bring the database schema up to date and say what is in force. `serve` does it by itself.
    Migrate,

    /// Write a consistent copy of the database, also while a server works on it.
    ///
    /// The copy needs the master key to be of use for webhooks and for requests with secrets; keep a copy of that file in
    /// another place.
    Backup {
        /// The copy; must not exist yet.
        #[arg(value_name = "FILE")]
        target: PathBuf,
    },

    /// Make, list and delete API keys.
    #[command(subcommand)]
    Key(key::Command),

    /// Ask the process that listens on the configured address whether it is ready; the status is 0 when it is.
    Healthcheck,

    /// Bring workflows, webhook endpoints and the history of runs from the original system.
    ///
    /// Only reads there. What is here already stays as it is, so it can be run again for what is new: once while the
    /// original works, and once more after it has stopped. Says what was not taken, and why.
    Import {
        /// The original's database: `postgres://...`, or `postgresql+asyncpg://...` as it has it itself.
        #[arg(long, value_name = "URL")]
        from: String,
    },

    /// Copy a whole database into an empty one, also from SQLite to Postgres and back.
    ///
    /// No process may work on either of them. The target holds everything in the end, or nothing. The master key is not
    /// in the database: take it along.
    Copy {
        /// The source: `sqlite:` and a file, relative to the data directory, or `postgres://...`.
        #[arg(long, value_name = "URL")]
        from: String,

        /// The target, which must be empty or not exist yet: as for the source.
        #[arg(long, value_name = "URL")]
        to: String,
    },

    /// Show the settings in force and where each is from.
    Config {
        /// Show the defaults instead, with what each means: a file to start from.
        #[arg(long)]
        defaults: bool,
    },

    /// Write, build, look at, call and sign plugins, without a server; and push them to a server, and grant them rights there.
    #[command(subcommand)]
    Plugin(plugin::Command),

    /// Set, list and delete the secrets that requests of tools and steps may carry, on a server.
    #[command(subcommand)]
    Secret(secret::Command),

    /// Measure a server, and what the machine could do at most.
    ///
    /// Starts a server of its own, or loads one that runs on this machine: it must let http steps call 127.0.0.1
    /// (`egress_allow`), and keeps the runs. A server of its own has its state in a directory that goes away, or, with
    /// DATABASE_URL and REDIS_URL, in that database, which should be one to throw away, and in two beside it, which are
    /// made and deleted. Takes some minutes.
    Bench {
        /// A running server on this machine.
        #[arg(long, value_name = "URL")]
        url: Option<url::Url>,

        /// Runs of each workload.
        #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
        runs: u64,

        /// Where the state of the server and the probes of the disk go: on the disk that is to be measured.
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,

        /// A plugin, the larger the better: how long it takes to compile, and to load from the cache of compiled plugins.
        #[arg(long, value_name = "FILE")]
        component: Option<PathBuf>,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },

    /// Print the OpenAPI document.
    Openapi,
}

/// A command was used in a way that makes no sense, as only the command itself could see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misused(String);

/// Does what the command line says.
///
/// # Errors
/// What went wrong, for a person; the process then ends with status 1, or 2 when it is [`Misused`].
pub fn main() -> anyhow::Result<()> {
    // What speaks TLS to Redis takes the one that the process has chosen. Nobody has chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Err(error) = dotenvy::from_path(".env")
        && !error.not_found()
    {
        bail!("the file .env: {error}");
    }
    let cli = Cli::parse();
    let layers = || layers(&cli);
    match &cli.command {
        Command::Config { defaults: true } => print(DEFAULTS),
        Command::Config { defaults: false } => print(&layers()?.describe()),
        Command::Openapi => print(&(api::document().to_pretty_json()? + "\n")),
        Command::Serve { .. } => {
            let config = layers()?.config()?;
            telemetry::start(&config)?;
            runtime()?.block_on(app::serve(config))
        }
        Command::Key(command) => {
            let config = layers()?.config()?;
            runtime()?.block_on(key::run(command, &config))
        }
        Command::Healthcheck => {
            let config = layers()?.config()?;
            runtime()?.block_on(healthcheck::run(config.listen))
        }
        Command::Plugin(command) => {
            let config = layers()?.config()?;
            runtime()?.block_on(plugin::run(command, config))
        }
        Command::Secret(command) => runtime()?.block_on(secret::run(command)),
        Command::Import { from } => {
            let config = layers()?.config()?;
            runtime()?.block_on(import::run(from, &config))
        }
        Command::Copy { from, to } => {
            let config = layers()?.config()?;
            runtime()?.block_on(copy::run(from, to, &config))
        }
        Command::Bench { url, runs, dir, component, json } => {
            let config = layers()?.config()?;
            let (url, dir, component) = (url.clone(), dir.clone(), component.clone());
            let options = bench::Options { url, runs: *runs, dir, component };
            let measured = async {
                // What was started ends with this future, and its directory goes away.
                tokio::select! {
                    report = bench::run(&options, &config, *json) => report,
                    _ = tokio::signal::ctrl_c() => bail!("interrupted"),
                }
            };
            print(&runtime()?.block_on(measured)?)
        }
        Command::Migrate => {
            let location = layers()?.config()?.location()?;
            runtime()?.block_on(migrate(&location))
        }
        Command::Backup { target } => {
            let config = layers()?.config()?;
            runtime()?.block_on(backup(&config, target))
        }
    }
}

/// Writes to standard output; whoever reads it may stop reading.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What a stranger wrote, without what would move a cursor or change a terminal.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

#[expect(clippy::disallowed_methods, reason = "this is where the environment comes in")]
fn layers(cli: &Cli) -> anyhow::Result<Layers> {
    let settings = &cli.settings;
    let mut flags = settings.set.clone();
    let mut flag = |key: &str, value: &Option<String>| flags.extend(value.iter().map(|value| format!("{key}={value}")));
    flag("data_dir", &settings.data_dir);
    flag("database_url", &settings.database_url);
    if let Command::Serve { listen, role, insecure } = &cli.command {
        flag("listen", listen);
        flag("role", &role.map(|role| format!("{role:?}").to_ascii_lowercase()));
        flag("insecure", &insecure.then(|| "true".to_owned()));
    }
    let env: Vec<_> = std::env::vars().collect();
    Ok(Layers::read(settings.config.as_deref(), &env, &flags)?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime")
}

async fn migrate(location: &Location) -> anyhow::Result<()> {
    let migrations = store::migrate(location).await?;
    // Opening it whole proves that this version can use what it finds.
    Store::open(location, Arc::new(SystemClock)).await?.close().await;
    print(&format!("the schema is up to date: {}\n", migrations.join(", ")))
}

async fn backup(config: &Config, target: &Path) -> anyhow::Result<()> {
    if target.exists() {
        bail!("{} exists already: a backup never overwrites", target.display());
    }
    store::backup(&config.location()?, target).await?;
    print(&format!(
        "{} holds the database as it is now.\nThe secrets of endpoints and of requests in it are sealed with {}: keep a copy of that file in \
         another place.\n",
        target.display(),
        config.master_key_path().display()
    ))
}
