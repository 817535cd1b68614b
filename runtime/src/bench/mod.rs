//! `weir bench`: measures a server, and in the same run what the machine could do at most, so that every user knows what
//! his machine gives. Speeds differ from machine to machine and from hour to hour; the ratios do so much less.
//!
//! Everything is measured in two rounds, limits and workloads in turns, and bounded in count and time.

mod aside;
mod client;
mod goals;
mod guest;
mod hooks;
mod load;
mod report;
mod samples;
mod sandbox;
mod server;
mod stored;
mod target;
mod workloads;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use url::Url;

use aside::{Limitless, Waiting};
use client::Client;
use goals::claims;
use hooks::Hooks;
use report::Report;
use samples::{Facts, Samples};
use sandbox::Sandbox;
use server::{Launch, Server};

pub use guest::module;

use crate::config::Config;
use crate::store::Location;

/// Connections of a workload of triggers.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Connections of other workloads, and writers of the limit beside them.
const MANY: usize = 64;

/// Runs under way at once, to see how the server scales.
const CONCURRENT: [usize; 3] = [10, 100, 1000];

/// Rows of one transaction, where rows are written in batches: as many as Weir's writer takes.
const BATCH: usize = 256;

/// Rounds over everything.
const ROUNDS: u32 = 2;

/// Steps of the long run.
const LONG_RUN: usize = 100;

/// Files that may be open: a thousand connections and what else a process has.
const FILES: u64 = 4096;

/// What to measure.
pub struct Options {
    /// A running server; without one, a server of its own is started.
    pub url: Option<Url>,
    /// Runs of each workload.
    pub runs: u64,
    /// Where the server's own state and the probes of the disk go.
    pub dir: PathBuf,
    /// The component that the cache of compiled plugins is measured with, if any.
    pub component: Option<PathBuf>,
}

/// Measures, and answers a table or JSON.
///
/// # Errors
/// When the server cannot be started or refuses what is asked of it.
pub async fn run(options: &Options, config: &Config, as_json: bool) -> anyhow::Result<String> {
    let bench = Box::pin(Bench::start(options, config)).await?;
    let report = Box::pin(bench.measure(options.component.as_deref(), config)).await?;
    Ok(if as_json { serde_json::to_string_pretty(&report)? + "\n" } else { report.table() })
}

struct Bench {
    /// Runs of each workload.
    runs: u64,
    own: Option<Own>,
    client: Client,
    bare: Client,
    sandbox: Sandbox,
    dir: tempfile::TempDir,
    /// The database of a cluster, where that is what is measured.
    postgres: Option<String>,
    bar: ProgressBar,
    hooks: Hooks,
    name: String,
    _tasks: JoinSet<()>,
}

/// What there is where a server of its own is measured.
struct Own {
    server: Server,
    launch: Launch,
    waiting: Waiting,
    limitless: Limitless,
    /// Resident memory right after the start, in bytes.
    idle: Option<u64>,
}

impl Bench {
    async fn start(options: &Options, config: &Config) -> anyhow::Result<Self> {
        if let Some(url) = &options.url
            && !["127.0.0.1", "localhost", "[::1]"].contains(&url.host_str().unwrap_or_default())
        {
            bail!("{url}: the load generator only talks to this machine");
        }
        allow_files();
        let dir = server::scratch(&options.dir)?;
        let mut tasks = JoinSet::new();
        let handler = target::bare_handler(&mut tasks).await?;
        let own = match &options.url {
            None => Some(Own::start(dir.path(), config, &handler).await?),
            Some(_) => None,
        };
        let url = own.as_ref().map(|own| own.server.url.clone()).or_else(|| options.url.clone());
        let url = url.context("a server")?;
        let (client, bare) = (Client::new(url.clone())?, Client::new(handler.clone())?);
        client.upload(module()?).await?;
        let hooks = Hooks::make(&client, &handler).await?;
        let style = ProgressStyle::with_template("{msg:<46} {wide_bar} {pos:>6}/{len} {elapsed}")?;
        let (postgres, name) = match config.location()? {
            Location::Cluster { url, .. } => (Some(url), "a server of its own, on Postgres and Redis"),
            Location::Embedded { .. } => (None, "a server of its own, embedded"),
        };
        Ok(Self {
            runs: options.runs,
            name: if own.is_some() { name.to_owned() } else { url.to_string() },
            own,
            sandbox: Sandbox::new(config, dir.path()).await?,
            client,
            bare,
            dir,
            postgres,
            bar: ProgressBar::new(0).with_style(style),
            hooks,
            _tasks: tasks,
        })
    }

    fn part(&self, what: &str, total: u64) -> &ProgressBar {
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
        &self.bar
    }

    async fn measure(mut self, component: Option<&Path>, config: &Config) -> anyhow::Result<Report> {
        let (mut samples, mut facts) = (Samples::new()?, Facts::default());
        facts.idle = self.own.as_ref().and_then(|own| own.idle);
        facts.sequential = self.sequential().await?;
        for _ in 0..ROUNDS {
            self.limits(&mut samples).await?;
            self.waiting(&mut samples, &mut facts).await?;
            self.triggers(&mut samples).await?;
            self.runs(&mut samples).await?;
        }
        facts.peak = self.own.as_ref().and_then(|own| own.server.memory()).map(|memory| memory.peak);
        for _ in 0..ROUNDS {
            self.scaling(&mut samples).await?;
            self.sizes(&mut samples).await?;
            self.beside(&mut samples).await?;
        }
        self.part("the sandbox", 0);
        let costs = self.sandbox.costs(ROUNDS).await?;
        for hook in self.hooks.all() {
            self.client.retire(hook).await?;
        }
        if let Some(own) = self.own.take() {
            let bar = self.part("starting again", 0);
            facts.ready = Some(own.restarts(&self.client, bar).await?);
        }
        if let Some(component) = component {
            self.part("compiling a component, and loading it", 0);
            facts.stored = Some(stored::measure(component, self.dir.path(), config).await?);
        }
        self.bar.finish_and_clear();
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            server: self.name,
            optimized: !cfg!(debug_assertions),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            claims: claims(&samples, &facts, &costs, self.postgres.is_some()),
            measured: samples.rows(&costs.plain),
        })
    }
}

/// Lets this process, and those that it starts, open as many files as are needed, as far as the system lets it.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |maximum| maximum.min(FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // Without it, the workload with the most connections fails and says why.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}
