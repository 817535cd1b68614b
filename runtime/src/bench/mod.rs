//! `weir bench`: measures a server, and in the same run what the machine could do at most, so that every user knows what
//! his machine gives. Speeds differ from machine to machine and from hour to hour; the ratios do so much less.
//!
//! Everything is measured in two rounds, limits and workloads in turns, and bounded in count and time.

mod client;
mod guest;
mod load;
mod report;
mod samples;
mod sandbox;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use url::Url;

use client::{Client, Hook};
use load::{Sample, closed_loop};
use report::Report;
use samples::{Samples, claims};
use sandbox::Sandbox;
use server::Server;

pub use guest::module;

use crate::config::Config;
use crate::store::Location;
use crate::store::probe::{Place, commit_rows};

/// Connections of a workload, and writers of the limit beside it.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
const MANY: usize = 64;

/// Rows of one transaction, where rows are written in batches: as many as Weir's writer takes.
const BATCH: usize = 256;

/// Rounds over everything.
const ROUNDS: u32 = 2;

/// How long one limit of the disk is measured in a round.
const PROBE: Duration = Duration::from_secs(2);

/// Steps of the long run.
const LONG_RUN: usize = 100;

/// What to measure.
pub struct Options {
    /// A running server; without one, a server of its own is started.
    pub url: Option<Url>,
    /// Runs of each workload.
    pub runs: u64,
    /// Where the server's own state and the probes of the disk go.
    pub dir: PathBuf,
}

/// Measures, and answers a table or JSON.
///
/// # Errors
/// When the server cannot be started or refuses what is asked of it.
pub async fn run(options: &Options, config: &Config, as_json: bool) -> anyhow::Result<String> {
    let report = Bench::start(options, config).await?.measure().await?;
    Ok(if as_json { serde_json::to_string_pretty(&report)? + "\n" } else { report.table() })
}

struct Bench {
    /// Runs of each workload.
    runs: u64,
    server: Option<Server>,
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

struct Hooks {
    nothing: Hook,
    http: Hook,
    tool: Hook,
    long: Hook,
    misbehaving: Vec<Hook>,
    bare: Hook,
}

impl Bench {
    async fn start(options: &Options, config: &Config) -> anyhow::Result<Self> {
        if let Some(url) = &options.url
            && !["127.0.0.1", "localhost", "[::1]"].contains(&url.host_str().unwrap_or_default())
        {
            bail!("{url}: the load generator only talks to this machine");
        }
        let dir = server::scratch(&options.dir)?;
        let server = options.url.is_none().then(|| Server::start(dir.path(), config)).transpose()?;
        let url = server.as_ref().map(|server| server.url.clone()).or_else(|| options.url.clone());
        let url = url.context("a server")?;
        let mut tasks = JoinSet::new();
        let handler = server::bare_handler(&mut tasks).await?;
        let (client, bare) = (Client::new(url.clone(), MANY)?, Client::new(handler.clone(), MANY)?);
        let plugin = module()?;
        client.upload(plugin.clone()).await?;
        let hooks = Hooks::make(&client, &handler).await?;
        let style = ProgressStyle::with_template("{msg:<46} {wide_bar} {pos:>6}/{len} {elapsed}")?;
        let name = match (&server, config.location()?) {
            (None, _) => url.to_string(),
            (Some(_), Location::Embedded { .. }) => "a server of its own, embedded".to_owned(),
            (Some(_), Location::Cluster { .. }) => "a server of its own, on Postgres and Redis".to_owned(),
        };
        Ok(Self {
            runs: options.runs,
            sandbox: Sandbox::new(config, &plugin).await?,
            server,
            client,
            bare,
            dir,
            postgres: match config.location()? {
                Location::Cluster { url, .. } => Some(url),
                Location::Embedded { .. } => None,
            },
            bar: ProgressBar::new(0).with_style(style),
            hooks,
            name,
            _tasks: tasks,
        })
    }

    fn part(&self, what: &str, total: u64) -> &ProgressBar {
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
        &self.bar
    }

    async fn measure(self) -> anyhow::Result<Report> {
        let mut samples = Samples::new()?;
        let memory = self.memory().await?;
        for _ in 0..ROUNDS {
            self.limits(&mut samples).await?;
            self.triggers(&mut samples).await?;
            self.runs(&mut samples).await?;
            self.beside(&mut samples).await?;
        }
        self.part("the sandbox", 0);
        let cost = self.sandbox.cost(ROUNDS).await?;
        for hook in self.hooks.all() {
            self.client.retire(hook).await?;
        }
        self.bar.finish_and_clear();
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            server: self.name,
            optimized: !cfg!(debug_assertions),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            claims: claims(&samples, &cost, memory),
            measured: samples.rows(&cost),
        })
    }

    /// What the disk and the network stack give, without Weir.
    async fn limits(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let probes = [
            ("one-row commits, 1 writer", 1, 1, &mut samples.commits_one),
            ("one-row commits, 64 writers", MANY, 1, &mut samples.commits_many),
            ("rows in batches", 1, BATCH, &mut samples.rows),
        ];
        let place = self.postgres.as_deref().map_or(Place::Directory(self.dir.path()), Place::Postgres);
        for (what, writers, batch, (rows, time)) in probes {
            self.part(what, 0);
            let committed = commit_rows(place, writers, batch, PROBE).await?;
            *rows += committed.rows;
            *time += committed.time;
        }
        for (connections, sample) in CONNECTIONS.into_iter().zip(&mut samples.bare) {
            let total = self.share(connections);
            let bar = self.part(&format!("bare HTTP handler, {connections} connections"), total);
            sample.add(&load(Until::Acknowledged, &self.bare, &self.hooks.bare, connections, total, bar).await?)?;
        }
        Ok(())
    }

    /// Acknowledged triggers. What they start is executed meanwhile, and waited for afterwards.
    async fn triggers(&self, samples: &mut Samples) -> anyhow::Result<()> {
        for (connections, sample) in CONNECTIONS.into_iter().zip(&mut samples.triggers) {
            let total = self.share(connections);
            let bar = self.part(&format!("triggers, {connections} connections"), total);
            sample
                .add(&load(Until::Acknowledged, &self.client, &self.hooks.nothing, connections, total, bar).await?)?;
            // The last one is executed last, or about so.
            self.client.complete(&self.hooks.nothing).await?;
        }
        Ok(())
    }

    /// Runs from their trigger to their end.
    async fn runs(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let workloads = [
            ("http + snapshot", &self.hooks.http, &mut samples.http),
            ("tool + snapshot", &self.hooks.tool, &mut samples.tool),
        ];
        for (name, hook, samples) in workloads {
            for (connections, sample) in [MANY, 1].into_iter().zip(samples) {
                let total = self.share(connections);
                let bar = self.part(&format!("{name}, {connections} at a time"), total);
                sample.add(&load(Until::Complete, &self.client, hook, connections, total, bar).await?)?;
            }
        }
        let total = self.runs.div_ceil(400);
        let bar = self.part(&format!("runs of {LONG_RUN} snapshots"), total);
        samples.long.add(&load(Until::Complete, &self.client, &self.hooks.long, 1, total, bar).await?)
    }

    /// The tool workload alone, and beside tools that misbehave: four that never end, and of the others twenty a second.
    async fn beside(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let total = self.runs.div_ceil(4);
        let bar = self.part("tools alone", total);
        samples.alone.add(&load(Until::Complete, &self.client, &self.hooks.tool, MANY, total, bar).await?)?;
        let mut endless = Vec::new();
        for _ in 0..4 {
            endless.push(self.client.trigger(&self.hooks.misbehaving[0]).await?);
        }
        let mut others = JoinSet::new();
        let (client, hooks) = (self.client.clone(), self.hooks.misbehaving[1..].to_vec());
        others.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for hook in hooks.iter().cycle() {
                pace.tick().await;
                client.trigger(hook).await?;
            }
            anyhow::Ok(())
        });
        let bar = self.part("tools beside misbehaving ones", total);
        samples.beside.add(&load(Until::Complete, &self.client, &self.hooks.tool, MANY, total, bar).await?)?;
        others.shutdown().await;
        for run in endless {
            self.client.cancel(&run).await?;
        }
        Ok(())
    }

    /// Resident memory after 100 sequential calls and after 1,000 more, where it can be known.
    async fn memory(&self) -> anyhow::Result<Option<(u64, u64)>> {
        let Some(server) = &self.server else { return Ok(None) };
        let resident = || server.usage().map(|(_, resident)| resident);
        load(Until::Complete, &self.client, &self.hooks.tool, 1, 100, self.part("warming up", 100)).await?;
        let before = resident();
        load(Until::Complete, &self.client, &self.hooks.tool, 1, 1000, self.part("1,000 sequential calls", 1000))
            .await?;
        Ok(before.zip(resident()))
    }

    /// Runs of one round over so many connections: fewer come one after the other.
    fn share(&self, connections: usize) -> u64 {
        let runs = self.runs / u64::from(ROUNDS);
        if connections == 1 { runs.div_ceil(10) } else { runs.max(1) }
    }
}

impl Hooks {
    async fn make(client: &Client, target: &Url) -> anyhow::Result<Self> {
        let snapshot = json!({"type": "persist_snapshot"});
        let tool = |tool: &str, input: Value| json!({"type": "mcp_tool", "plugin": "weir-bench", "tool_name": tool, "input": input});
        let http = json!({"type": "http", "url": target.as_str()});
        let mut misbehaving = Vec::new();
        for name in guest::MISBEHAVING {
            let mut step = tool(name, json!({}));
            step["timeout_seconds"] = json!(600);
            step["retry"] = json!({"max_attempts": 1});
            misbehaving.push(client.hook(name, &json!([step])).await?);
        }
        Ok(Self {
            nothing: client.hook("triggers", &json!([snapshot])).await?,
            http: client.hook("http + snapshot", &json!([http, snapshot])).await?,
            tool: client.hook("tool + snapshot", &json!([tool("echo", sandbox::arguments()), snapshot])).await?,
            long: client.hook("snapshots", &Value::Array(vec![snapshot; LONG_RUN])).await?,
            misbehaving,
            bare: Hook::bare(target),
        })
    }

    /// What was made on the server.
    fn all(&self) -> impl Iterator<Item = &Hook> {
        [&self.nothing, &self.http, &self.tool, &self.long].into_iter().chain(&self.misbehaving)
    }
}

/// What a request of a workload waits for.
#[derive(Clone, Copy)]
enum Until {
    Acknowledged,
    Complete,
}

async fn load(
    until: Until,
    client: &Client,
    hook: &Hook,
    connections: usize,
    total: u64,
    bar: &ProgressBar,
) -> anyhow::Result<Sample> {
    let (client, hook) = (client.clone(), hook.clone());
    let work = move || {
        let (client, hook) = (client.clone(), hook.clone());
        async move {
            match until {
                Until::Acknowledged => client.trigger(&hook).await.map(|_| ()),
                Until::Complete => client.complete(&hook).await,
            }
        }
    };
    closed_loop(connections, total, bar, work).await
}
