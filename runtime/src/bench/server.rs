//! What is measured against: servers of its own, each in a directory that goes away (in a cluster: on Postgres and Redis),
//! or one that runs already.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use url::Url;

use super::client::Client;
use crate::clock::{new_id, random_bytes};
use crate::config::Config;
use crate::store::Location;
use crate::store::probe::{create_database, drop_database};

/// How long a server may take until it is ready, and until it has ended in order.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server of the load generator's own is started, as often as it is.
pub(super) struct Launch {
    dir: PathBuf,
    /// What only this process may know: arguments can be read by everybody on the machine.
    secrets: Vec<(&'static str, String)>,
    settings: Vec<String>,
    /// A database that goes away with this; without one, the one that the configuration names.
    database: Option<Database>,
}

/// A server of the load generator's own.
pub(super) struct Server {
    child: Child,
    pub(super) url: Url,
    log: PathBuf,
    /// From the start of the process to the first answer that it is ready.
    pub(super) ready: Duration,
}

/// What a process has in memory, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// Now.
    pub(super) resident: u64,
    /// At most since it was started.
    pub(super) peak: u64,
}

impl Launch {
    /// On a database of its own in `dir`, or on the cluster's that `config` names.
    pub(super) fn new(dir: &Path, config: &Config) -> anyhow::Result<Self> {
        let mut secrets = Vec::new();
        if let Location::Cluster { url, .. } = config.location()? {
            let key = if config.master_key.is_empty() {
                STANDARD.encode(random_bytes::<32>())
            } else {
                config.master_key.clone()
            };
            secrets.extend([
                ("DATABASE_URL", url),
                ("REDIS_URL", config.redis_url.clone()),
                ("WEIR_MASTER_KEY", key),
                ("WEIR_REDIS_PREFIX", config.redis_prefix.clone()),
            ]);
        }
        let settings = [
            "listen=127.0.0.1:0",
            "egress_allow=127.0.0.1",
            "log_format=json",
            // The default, whatever the environment says.
            "log_level=info",
        ];
        let mut settings = settings.map(str::to_owned).to_vec();
        // Beside an embedded database, and in a cluster not at home.
        settings.push(format!("plugin_cache_path={}", std::path::absolute(dir)?.join("plugin-cache").display()));
        Ok(Self { dir: dir.to_owned(), secrets, settings, database: None })
    }

    /// The same beside it: with a database of its own, in a cluster too, and with further settings.
    pub(super) async fn aside(dir: &Path, config: &Config, name: &str, settings: &[&str]) -> anyhow::Result<Self> {
        let mut launch = Self::new(&dir.join(name), config)?;
        launch.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        if let Location::Cluster { url, .. } = config.location()? {
            let database = Database::create(url).await?;
            let own = |(name, value): (&'static str, String)| match name {
                "DATABASE_URL" => (name, database.own.clone()),
                "WEIR_REDIS_PREFIX" => (name, format!("{value}-{}", database.name)),
                _ => (name, value),
            };
            launch.secrets = launch.secrets.into_iter().map(own).collect();
            launch.database = Some(database);
        }
        Ok(launch)
    }

    /// Starts this very program on a free port, and waits until it is ready.
    pub(super) async fn start(&self) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(format!("--data-dir={}", self.dir.display()));
        command.args(self.settings.iter().map(|setting| format!("--set={setting}")));
        if self.secrets.is_empty() {
            command.env_remove("DATABASE_URL").env_remove("WEIR_DATABASE_URL");
        }
        command.envs(self.secrets.iter().map(|(name, value)| (name, value)));
        let began = Instant::now();
        // Into a file: reading a pipe as well would be work for the processors that are measured.
        std::fs::create_dir_all(&self.dir)?;
        let log = self.dir.join("weir.log");
        let mut child = command.stdout(Stdio::null()).stderr(File::create(&log)?).spawn().context("weir serve")?;
        let address = loop {
            let ended = child.try_wait()?.is_some();
            let seen = std::fs::read_to_string(&log)?;
            let parsed = |line: &str| serde_json::from_str(line).unwrap_or(Value::Null);
            let mut addresses = seen.lines().map(parsed).filter_map(|line| line["address"].as_str().map(str::to_owned));
            if let Some(address) = addresses.next() {
                break address;
            }
            if ended || began.elapsed() > PATIENCE {
                bail!("weir serve did not start: {seen}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let url = Url::parse(&format!("http://{address}"))?;
        let mut server = Server { child, url, log, ready: Duration::ZERO };
        let client = Client::new(server.url.clone())?;
        while let Err(error) = client.get("/health/ready").await {
            if began.elapsed() > PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.ready = began.elapsed();
        Ok(server)
    }
}

/// Shows what a log has that is worse than usual.
fn show_warnings(log: &Path) -> std::io::Result<()> {
    for line in BufReader::new(File::open(log)?).lines() {
        let line = line?;
        if line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#) {
            eprintln!("{line}");
        }
    }
    Ok(())
}

impl Server {
    /// Only where there is a `/proc`.
    pub(super) fn memory(&self) -> Option<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
        };
        Some(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                bail!("weir serve does not end");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its directory goes away: there is nothing to end in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Err(error) = show_warnings(&self.log) {
            eprintln!("{}: {error}", self.log.display());
        }
    }
}

/// A database beside the one that is measured on, which goes away with this.
struct Database {
    /// The URL of the one that is measured on.
    beside: String,
    name: String,
    /// The URL of this one.
    own: String,
}

impl Database {
    async fn create(beside: String) -> anyhow::Result<Self> {
        let name = format!("weir_bench_{}", new_id().simple());
        create_database(&beside, &name).await?;
        let mut own = Url::parse(&beside)?;
        own.set_path(&name);
        Ok(Self { beside, name, own: own.into() })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (beside, name) = (self.beside.clone(), self.name.clone());
        // Also where the whole measurement was given up: on a thread of its own, which may block.
        let deleted = std::thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(drop_database(&beside, &name))?)
        });
        if !deleted.join().is_ok_and(|deleted| deleted.is_ok()) {
            eprintln!("the database {} could not be deleted", self.name);
        }
    }
}

/// A directory on the disk that is to be measured.
pub(super) fn scratch(parent: &Path) -> anyhow::Result<TempDir> {
    let made = tempfile::Builder::new().prefix("weir-bench-").tempdir_in(parent);
    made.with_context(|| format!("a directory in {}", parent.display()))
}
