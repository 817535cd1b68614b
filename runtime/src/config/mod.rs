//! The configuration: embedded commented defaults, then a file, then the environment, then flags.
//!
//! `default.toml` is the documentation of every setting. Each layer is checked by itself, so that an error names the
//! place where the value was given.

mod layers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use weir_host::egress::{EgressSettings, Policy};
use weir_host::plugin::{CacheSettings, GuestLimits, HostLimits, OutboundLimits, Trust};

pub use layers::Layers;

use crate::engine::EngineSettings;
use crate::model::limits::Limits;
use crate::model::plugin::PluginDigest;
use crate::store::Location;

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../default.toml");

/// An embedded process owns its database file: its claims last as long as the process does.
const LEASE_EMBEDDED: Duration = Duration::MAX;

/// A configuration that cannot be used. The text names the place and what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// What this process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes requests and executes runs.
    All,
    /// Takes requests only.
    Api,
    /// Executes runs only.
    Worker,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Every setting. `default.toml` says what each means.
#[expect(missing_docs, reason = "default.toml documents the settings, and is what users read")]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    /// Whether somebody said where to listen.
    #[serde(skip)]
    pub listens: bool,
    pub role: Role,
    pub insecure: bool,
    pub data_dir: PathBuf,
    pub database_url: String,
    pub database_connections_max: u32,
    pub redis_url: String,
    pub redis_prefix: String,
    pub run_state_ttl_seconds: u32,
    pub master_key: String,
    pub master_key_file: PathBuf,
    pub master_keys_accepted: Vec<String>,
    pub retention_days: u32,
    pub api_key_hashes: Vec<String>,
    pub log_format: LogFormat,
    pub log_level: String,
    pub concurrent_runs_max: usize,
    pub http_calls_max: usize,
    pub lease_seconds: u32,
    pub shutdown_timeout_seconds: u32,
    pub egress_allow: Vec<String>,
    pub connect_timeout_seconds: u32,
    pub response_max_bytes: usize,
    pub redirects_max: u32,
    pub idle_connections_max: usize,
    pub plugin_max_bytes: usize,
    pub plugin_cache_path: String,
    pub plugin_cache_max_bytes: u32,
    pub plugin_trusted_keys: Vec<String>,
    pub plugin_signature_required: bool,
    /// Where this user keeps what can be made again, if anywhere.
    #[serde(skip)]
    pub cache_home: Option<PathBuf>,
    pub tool_memory_max_bytes: usize,
    pub tool_fuel_max_millions: u32,
    pub tool_calls_max: u32,
    pub tool_calls_per_plugin_max: u32,
    pub tool_requests_max: u32,
    pub tool_requests_at_once_max: u32,
    pub tool_request_max_bytes: usize,
    pub plugin_calls_kept: u32,
    pub requests_max: usize,
    pub request_max_bytes: usize,
    pub webhook_max_bytes: usize,
    pub wait_max_seconds: u32,
    pub secret_grace_seconds: u32,
    pub definition_max_bytes: usize,
    pub steps_max: usize,
    pub attempts_max: u32,
    pub step_timeout_max_seconds: u32,
    pub run_timeout_max_seconds: u32,
    pub step_output_max_bytes: usize,
    pub context_max_bytes: usize,
}

impl Config {
    /// Where the database is.
    ///
    /// # Errors
    /// [`ConfigError`] for anything but an SQLite file, or Postgres together with Redis.
    pub fn location(&self) -> Result<Location, ConfigError> {
        let location = self.database("DATABASE_URL", &self.database_url)?;
        let redis = ["redis://", "rediss://"].iter().any(|scheme| self.redis_url.starts_with(scheme));
        let why = match &location {
            Location::Cluster { .. } if !redis => {
                "a database on Postgres needs Redis beside it: set REDIS_URL to `redis://...` or `rediss://...`"
            }
            Location::Embedded { .. } if !self.redis_url.is_empty() => {
                "REDIS_URL is set, but the database is an embedded one: set DATABASE_URL to `postgres://...` too"
            }
            _ => return Ok(location),
        };
        Err(ConfigError(why.to_owned()))
    }

    /// Where the database is that `url` names; an error calls it `name`.
    ///
    /// # Errors
    /// [`ConfigError`] for anything but an SQLite file or Postgres.
    pub fn database(&self, name: &str, url: &str) -> Result<Location, ConfigError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Location::Cluster { url: url.to_owned(), connections_max: self.database_connections_max });
        }
        let Some(file) = url.strip_prefix("sqlite:") else {
            let scheme = url.split(':').next().unwrap_or_default();
            return Err(ConfigError(format!(
                "{name} begins with `{scheme}:`; it must be `sqlite:` and a file, or `postgres://...`"
            )));
        };
        let file = file.strip_prefix("//").unwrap_or(file);
        if file.is_empty() || file.starts_with(':') || file.contains('?') {
            return Err(ConfigError(format!("{name} `{url}` does not name a file after `sqlite:`")));
        }
        Ok(Location::Embedded { path: self.data_dir.join(file) })
    }

    /// Where the master key is.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        self.data_dir.join(&self.master_key_file)
    }

    /// SHA-256 of the API keys that the configuration knows.
    ///
    /// # Errors
    /// [`ConfigError`] where an entry is no such digest.
    pub fn api_key_hashes(&self) -> Result<Vec<[u8; 32]>, ConfigError> {
        let parse = |text: &String| {
            let hash = PluginDigest::parse(text).map(|digest| digest.0);
            hash.ok_or_else(|| {
                ConfigError(format!("api_key_hashes: `{text}` is not `sha256:` and 64 hexadecimal digits"))
            })
        };
        self.api_key_hashes.iter().map(parse).collect()
    }

    /// What http steps are held to.
    ///
    /// # Errors
    /// [`ConfigError`] where an entry of the allow-list cannot be read.
    pub fn egress(&self) -> Result<EgressSettings, ConfigError> {
        let policy =
            Policy::parse(&self.egress_allow).map_err(|error| ConfigError(format!("egress_allow: {error}")))?;
        Ok(EgressSettings {
            policy,
            connect_timeout: Duration::from_secs(self.connect_timeout_seconds.into()),
            response_max_bytes: self.response_max_bytes,
            redirects_max: self.redirects_max,
            idle_connections_max: self.idle_connections_max,
        })
    }

    /// What plugins are held to.
    #[must_use]
    pub fn plugins(&self) -> HostLimits {
        HostLimits {
            guest: GuestLimits {
                memory_max_bytes: self.tool_memory_max_bytes,
                fuel: u64::from(self.tool_fuel_max_millions) * 1_000_000,
                output_max_bytes: self.step_output_max_bytes,
            },
            outbound: OutboundLimits {
                requests_max: self.tool_requests_max,
                requests_at_once_max: self.tool_requests_at_once_max,
                request_max_bytes: self.tool_request_max_bytes,
            },
            calls: self.tool_calls_max,
            calls_per_plugin: self.tool_calls_per_plugin_max.min(self.tool_calls_max),
        }
    }

    /// Where compiled plugins are kept, if anywhere, under a key that `fresh_key` makes.
    #[must_use]
    pub fn plugin_cache(&self, fresh_key: fn() -> [u8; 32]) -> Option<CacheSettings> {
        let dir = match self.plugin_cache_path.as_str() {
            "" | "off" => return None,
            "auto" => match self.location() {
                // A command without a server leaves nothing where it is called.
                Ok(Location::Embedded { path }) if path.exists() => path.parent()?.join("plugin-cache"),
                _ => self.cache_home.as_ref()?.join("weir/plugins"),
            },
            path => self.data_dir.join(path),
        };
        Some(CacheSettings { dir, max_bytes: self.plugin_cache_max_bytes.into(), fresh_key })
    }

    /// Whose plugins are used.
    ///
    /// # Errors
    /// [`ConfigError`] where an entry is no key, or a signature is required and no key trusted.
    pub fn plugin_trust(&self) -> Result<Trust, ConfigError> {
        let trust = Trust::parse(&self.plugin_trusted_keys, self.plugin_signature_required);
        trust.map_err(|error| ConfigError(format!("plugin_trusted_keys: {error}")))
    }

    /// What definitions and runs are held to.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            definition_max_bytes: self.definition_max_bytes,
            steps_max: self.steps_max,
            attempts_max: self.attempts_max,
            step_timeout_max: Duration::from_secs(self.step_timeout_max_seconds.into()),
            run_timeout_max: Duration::from_secs(self.run_timeout_max_seconds.into()),
            step_output_max_bytes: self.step_output_max_bytes,
            context_max_bytes: self.context_max_bytes,
        }
    }

    /// What the engine is held to.
    #[must_use]
    pub fn engine(&self) -> EngineSettings {
        EngineSettings {
            executes: self.role != Role::Api,
            concurrent_runs_max: self.concurrent_runs_max,
            lease: match self.location() {
                Ok(Location::Cluster { .. }) => Duration::from_secs(self.lease_seconds.into()),
                _ => LEASE_EMBEDDED,
            },
            retention: (self.retention_days > 0).then(|| Duration::from_secs(u64::from(self.retention_days) * 86_400)),
            shutdown_timeout: Duration::from_secs(self.shutdown_timeout_seconds.into()),
        }
    }
}
