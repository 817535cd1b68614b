//! What is measured against: a server of its own in a directory that goes away, or one that runs already; and a bare
//! HTTP handler, which is the target of http steps and the limit of what a server can answer.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use axum::Router;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::clock::random_bytes;
use crate::config::Config;
use crate::store::Location;

/// A server of the load generator's own.
pub(super) struct Server {
    child: Child,
    pub(super) url: Url,
}

impl Server {
    /// Starts this very program on a free port: on a database of its own in `dir`, or on the cluster's that `config` names.
    pub(super) fn start(dir: &Path, config: &Config) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--listen=127.0.0.1:0", "--set=egress_allow=127.0.0.1", "--set=log_format=json"]);
        command.arg("--set=log_level=warn,weir::app=info").arg(format!("--data-dir={}", dir.display()));
        if let Location::Cluster { url, .. } = config.location()? {
            // By way of the environment: arguments can be read by everybody on the machine.
            let key = if config.master_key.is_empty() {
                STANDARD.encode(random_bytes::<32>())
            } else {
                config.master_key.clone()
            };
            command.env("DATABASE_URL", url).env("REDIS_URL", &config.redis_url).env("WEIR_MASTER_KEY", key);
        } else {
            command.env_remove("DATABASE_URL").env_remove("WEIR_DATABASE_URL");
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("weir serve")?;
        let stderr = child.stderr.take().context("weir serve")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut seen = Vec::new();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
            seen.push(line);
            parsed["address"].as_str().map(str::to_owned)
        });
        let Some(address) = address else {
            bail!("weir serve did not start: {}", seen.join("\n"));
        };
        // What it says later is shown, and a full pipe stops nobody.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Ok(Self { child, url: Url::parse(&format!("http://{address}"))? })
    }

    /// Processor time so far, in seconds, and resident memory, in bytes. Only where there is a `/proc`.
    pub(super) fn usage(&self) -> Option<(f64, u64)> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = std::fs::read_to_string(proc.join("stat")).ok()?;
        // Fields 14 and 15 (proc(5)); the second may have blanks inside and ends with a bracket.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks: u32 = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
        let status = std::fs::read_to_string(proc.join("status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
        Some((f64::from(ticks) / TICKS_PER_SECOND, kib * 1024))
    }
}

/// `USER_HZ`: what Linux counts processor time in, on every architecture that Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

impl Drop for Server {
    fn drop(&mut self) {
        // Its directory goes away: there is nothing to end in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory on the disk that is to be measured.
pub(super) fn scratch(parent: &Path) -> anyhow::Result<TempDir> {
    let made = tempfile::Builder::new().prefix("weir-bench-").tempdir_in(parent);
    made.with_context(|| format!("a directory in {}", parent.display()))
}

/// The bare handler: answers a small JSON document to whatever is asked.
pub(super) async fn bare_handler(tasks: &mut JoinSet<()>) -> anyhow::Result<Url> {
    let answer = || async { axum::Json(json!({"run_id": "01a217dd-f8a1-7c21-9f3c-6c1d5f2f7b11", "total": 99.5})) };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
    let app = Router::new().route("/", get(answer)).route("/webhooks/{path}", post(answer));
    tasks.spawn(async move {
        // It serves until the measurement is over and this task is dropped.
        let _ = axum::serve(listener, app).await;
    });
    Ok(url)
}
