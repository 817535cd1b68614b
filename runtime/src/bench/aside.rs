//! What is measured on further servers of its own: runs that nobody executes, what the default limits do not let in, and
//! how soon a server that was stopped is ready again.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use url::Url;

use super::client::{Client, Hook};
use super::hooks::{http, snapshot};
use super::server::{Launch, Memory, Server};
use super::{Own, guest};
use crate::config::Config;

/// Steps of runs with longer and longer journals: each step is one append.
const JOURNALS: [usize; 4] = [10, 100, 1000, 10_000];

/// Bytes that a target answers.
const OUTPUTS: [u64; 4] = [1 << 10, 16 << 10, 64 << 10, 256 << 10];

/// Plugins that are there when a server starts again.
const PLUGINS: usize = 20;

/// How often the server is started again.
const RESTARTS: usize = 5;

/// A server that takes requests and executes nothing, on a database that no other process works on.
pub(super) struct Waiting {
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) hook: Hook,
    _launch: Launch,
}

/// A server whose limits let long runs in, and which does not leave large outputs behind in Redis.
pub(super) struct Limitless {
    _server: Server,
    pub(super) client: Client,
    /// Steps, and the workflow with as many.
    pub(super) journals: Vec<(u64, Hook)>,
    /// Bytes of the output, and the workflow that has such a one.
    pub(super) outputs: Vec<(u64, Hook)>,
    _launch: Launch,
}

impl Waiting {
    async fn start(dir: &Path, config: &Config) -> anyhow::Result<Self> {
        let launch = Launch::aside(dir, config, "waiting", &["role=api"]).await?;
        let server = launch.start().await?;
        let client = Client::new(server.url.clone())?;
        let hook = client.hook("waiting", &json!([snapshot()])).await?;
        Ok(Self { server, client, hook, _launch: launch })
    }
}

impl Limitless {
    async fn start(dir: &Path, config: &Config, target: &Url) -> anyhow::Result<Self> {
        let settings = [
            "steps_max=10000",
            "definition_max_bytes=4194304",
            "request_max_bytes=8388608",
            "run_state_ttl_seconds=60",
        ];
        let launch = Launch::aside(dir, config, "limitless", &settings).await?;
        let server = launch.start().await?;
        let client = Client::new(server.url.clone())?;
        let (mut journals, mut outputs) = (Vec::new(), Vec::new());
        for steps in JOURNALS {
            let hook = client.hook("journal", &Value::Array(vec![http(target); steps])).await?;
            journals.push((steps as u64, hook));
        }
        for bytes in OUTPUTS {
            let step = http(&target.join(&format!("/text/{bytes}"))?);
            outputs.push((bytes, client.hook("output", &json!([step, snapshot()])).await?));
        }
        Ok(Self { _server: server, client, journals, outputs, _launch: launch })
    }
}

impl Own {
    pub(super) async fn start(dir: &Path, config: &Config, target: &Url) -> anyhow::Result<Self> {
        let launch = Launch::new(dir, config)?;
        let server = launch.start().await?;
        let idle: Option<Memory> = server.memory();
        Ok(Self {
            idle: idle.map(|memory| memory.resident),
            server,
            launch,
            waiting: Waiting::start(dir, config).await?,
            limitless: Limitless::start(dir, config, target).await?,
        })
    }

    /// Uploads plugins, stops the server in order and starts it again on the same database, some times. Answers how long
    /// it took until it was ready: the median.
    pub(super) async fn restarts(self, client: &Client, bar: &ProgressBar) -> anyhow::Result<Duration> {
        let Self { mut server, launch, waiting, limitless, .. } = self;
        drop((waiting, limitless));
        for number in 1..=PLUGINS {
            client.upload(guest::named(&format!("{}-{number}", guest::NAME))?).await?;
        }
        let mut times = Vec::new();
        for _ in 0..RESTARTS {
            server.stop().await?;
            server = launch.start().await?;
            times.push(server.ready);
            bar.inc(1);
        }
        times.sort_unstable();
        Ok(times[RESTARTS / 2])
    }
}
