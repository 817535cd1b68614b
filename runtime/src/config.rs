//! The configuration: embedded commented defaults, then a file, then the environment, then flags.
//!
//! `default.toml` is the documentation of every setting. Each layer is checked by itself, so that an error names the
//! place where the value was given.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};
use weir_host::egress::{EgressSettings, Policy};
use weir_host::plugin::{GuestLimits, HostLimits};

use crate::engine::EngineSettings;
use crate::model::limits::Limits;
use crate::store::Location;

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("default.toml");

/// The configuration file that is read when none is named.
const FILE: &str = "weir.toml";

/// Whether a variable is no setting although it begins with `WEIR_`: one names the file, the others are set by
/// Kubernetes for every container beside a service named `weir`.
fn is_no_setting(name: &str) -> bool {
    ["WEIR_CONFIG", "WEIR_PORT"].contains(&name) || name.starts_with("WEIR_PORT_") || name.starts_with("WEIR_SERVICE_")
}

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
    pub retention_days: u32,
    pub api_key_hashes: Vec<String>,
    pub log_format: LogFormat,
    pub log_level: String,
    pub concurrent_runs_max: usize,
    pub lease_seconds: u32,
    pub shutdown_timeout_seconds: u32,
    pub egress_allow: Vec<String>,
    pub connect_timeout_seconds: u32,
    pub response_max_bytes: usize,
    pub redirects_max: u32,
    pub idle_connections_max: usize,
    pub plugin_max_bytes: usize,
    pub tool_memory_max_bytes: usize,
    pub tool_fuel_max_millions: u32,
    pub tool_calls_max: u32,
    pub tool_calls_per_plugin_max: u32,
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

/// Settings that may be nothing: zero turns them off. Every other number must be at least 1.
const MAY_BE_ZERO: [&str; 5] =
    ["redirects_max", "idle_connections_max", "secret_grace_seconds", "shutdown_timeout_seconds", "retention_days"];

/// Settings whose values nobody is shown.
const SECRET: [&str; 1] = ["master_key"];

/// Settings that are also variables of another name, which is what the original system and most platforms call them.
const VARIABLES: [(&str, &str); 3] =
    [("DATABASE_URL", "database_url"), ("REDIS_URL", "redis_url"), ("RUN_STATE_TTL_SECONDS", "run_state_ttl_seconds")];

/// The layers of the configuration, merged, with where each value is from.
pub struct Layers {
    values: Table,
    sources: Vec<(String, String)>,
}

impl Layers {
    /// Merges defaults, the file, the environment and `flags` (`key=value`).
    ///
    /// # Errors
    /// [`ConfigError`] at the first value that is no setting or has the wrong type.
    pub fn read(file: Option<&Path>, env: &[(String, String)], flags: &[String]) -> Result<Self, ConfigError> {
        let values = DEFAULTS.parse::<Table>().map_err(|error| ConfigError(format!("default.toml: {error}")))?;
        let mut layers = Self { values, sources: Vec::new() };
        let default_file = Path::new(FILE);
        if let Some(path) = file.or_else(|| default_file.exists().then_some(default_file)) {
            layers.merge_file(path)?;
        }
        for (name, text) in env {
            let known = VARIABLES.iter().find(|(variable, _)| variable == name).map(|(_, key)| (*key).to_owned());
            let own = || name.strip_prefix("WEIR_").filter(|_| !is_no_setting(name)).map(str::to_ascii_lowercase);
            let Some(key) = known.or_else(own) else { continue };
            layers.set_text(&key, text, &format!("the variable {name}"))?;
        }
        for flag in flags {
            let (key, text) = flag
                .split_once('=')
                .ok_or_else(|| ConfigError(format!("`{flag}`: a setting is given as `key=value`")))?;
            layers.set_text(key.trim(), text.trim(), "a flag")?;
        }
        Ok(layers)
    }

    fn merge_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError(format!("{place}: {error}")))?;
        let table = text.parse::<Table>().map_err(|error| ConfigError(format!("{place}: {error}")))?;
        for (key, value) in table {
            self.set(&key, value, &place)?;
        }
        Ok(())
    }

    /// A value that came as text takes the type that its default has.
    fn set_text(&mut self, key: &str, text: &str, place: &str) -> Result<(), ConfigError> {
        let wrong = |what: &str| ConfigError(format!("{place}: `{key}` must be {what}, not `{text}`"));
        let value = match self.values.get(key) {
            Some(Value::Integer(_)) => Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?),
            Some(Value::Boolean(_)) => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            _ => Value::String(text.to_owned()),
        };
        self.set(key, value, place)
    }

    fn set(&mut self, key: &str, value: Value, place: &str) -> Result<(), ConfigError> {
        let Some(current) = self.values.get(key) else {
            let known: Vec<&str> = self.values.keys().map(String::as_str).collect();
            return Err(ConfigError(format!("{place}: `{key}` is not a setting; settings are {}", known.join(", "))));
        };
        if current.type_str() != value.type_str() {
            let (wanted, found) = (current.type_str(), value.type_str());
            return Err(ConfigError(format!("{place}: `{key}` must be of type {wanted}, not {found}")));
        }
        if let Value::Integer(number) = value {
            let least = i64::from(!MAY_BE_ZERO.contains(&key));
            if number < least || number > i64::from(u32::MAX) {
                return Err(ConfigError(format!(
                    "{place}: `{key}` must be from {least} to {}, not {number}",
                    u32::MAX
                )));
            }
        }
        self.sources.retain(|(earlier, _)| earlier != key);
        self.sources.push((key.to_owned(), place.to_owned()));
        self.values.insert(key.to_owned(), value);
        Ok(())
    }

    fn source(&self, key: &str) -> &str {
        self.sources.iter().find(|(known, _)| known == key).map_or("default", |(_, place)| place)
    }

    /// The settings in force, as TOML that names where each is from; a password in a URL is left out.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.values {
            let source = self.source(key);
            let shown = match value.as_str().and_then(|text| url::Url::parse(text).ok()) {
                _ if SECRET.contains(&key.as_str()) && value.as_str() != Some("") => Value::String("***".to_owned()),
                Some(mut url) if url.password().is_some() => {
                    // A URL that has a password also can have another one.
                    let _ = url.set_password(Some("***"));
                    Value::String(url.to_string())
                }
                _ => value.clone(),
            };
            let _ = writeln!(text, "{:<48} # {source}", format!("{key} = {shown}"));
        }
        text
    }

    /// The typed settings.
    ///
    /// # Errors
    /// [`ConfigError`] where a text is not one of those allowed.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let config: Config = serde_path_to_error::deserialize(self.values.clone()).map_err(|error| {
            let key = error.path().to_string();
            ConfigError(format!("{}: `{key}`: {}", self.source(&key), error.inner().message()))
        })?;
        config.location()?;
        config.egress()?;
        Ok(config)
    }
}

impl Config {
    /// Where the database is.
    ///
    /// # Errors
    /// [`ConfigError`] for anything but an SQLite file, or Postgres together with Redis.
    pub fn location(&self) -> Result<Location, ConfigError> {
        let url = &self.database_url;
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            if !["redis://", "rediss://"].iter().any(|scheme| self.redis_url.starts_with(scheme)) {
                let why =
                    "a database on Postgres needs Redis beside it: set REDIS_URL to `redis://...` or `rediss://...`";
                return Err(ConfigError(why.to_owned()));
            }
            return Ok(Location::Cluster { url: url.clone(), connections_max: self.database_connections_max });
        }
        let Some(file) = url.strip_prefix("sqlite:") else {
            let scheme = url.split(':').next().unwrap_or_default();
            return Err(ConfigError(format!(
                "DATABASE_URL begins with `{scheme}:`; it must be `sqlite:` and a file, or `postgres://...`"
            )));
        };
        let file = file.strip_prefix("//").unwrap_or(file);
        if file.is_empty() || file.starts_with(':') || file.contains('?') {
            return Err(ConfigError(format!("DATABASE_URL `{url}` does not name a file after `sqlite:`")));
        }
        if !self.redis_url.is_empty() {
            let why = "REDIS_URL is set, but the database is an embedded one: set DATABASE_URL to `postgres://...` too";
            return Err(ConfigError(why.to_owned()));
        }
        Ok(Location::Embedded { path: self.data_dir.join(file) })
    }

    /// Where the master key is.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        self.data_dir.join(&self.master_key_file)
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
            calls: self.tool_calls_max,
            calls_per_plugin: self.tool_calls_per_plugin_max.min(self.tool_calls_max),
        }
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
            shutdown_timeout: Duration::from_secs(self.shutdown_timeout_seconds.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Layers::read(None, &env, &flags).and_then(|layers| layers.config()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_hold_and_later_layers_win() {
        let config = read(&[], &[]).expect("the defaults are a configuration");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        let config = read(&[("WEIR_STEPS_MAX", "7"), ("DATABASE_URL", "sqlite:///x/y.db")], &["steps_max=9"]);
        let config = config.expect("sound");
        assert_eq!(config.steps_max, 9);
        assert!(matches!(config.location(), Ok(Location::Embedded { path }) if path == Path::new("/x/y.db")));
        let cluster =
            [("DATABASE_URL", "postgres://h/weir"), ("REDIS_URL", "redis://h"), ("RUN_STATE_TTL_SECONDS", "60")];
        let config = read(&cluster, &[]).expect("sound");
        assert!(matches!(config.location(), Ok(Location::Cluster { url, .. }) if url == "postgres://h/weir"));
        assert_eq!(config.run_state_ttl_seconds, 60);
        let config = read(&[("WEIR_EGRESS_ALLOW", "127.0.0.1:9000, [::1]:80")], &[]).expect("sound");
        assert_eq!(config.egress_allow, ["127.0.0.1:9000", "[::1]:80"]);
    }

    #[test]
    fn errors_name_the_place() {
        for (env, says) in [
            (("WEIR_STEP_MAX", "1"), "the variable WEIR_STEP_MAX: `step_max` is not a setting"),
            (("WEIR_STEPS_MAX", "many"), "`steps_max` must be a whole number"),
            (("WEIR_STEPS_MAX", "0"), "must be from 1"),
            (("WEIR_EGRESS_ALLOW", "http://x"), "egress_allow: `http://x`"),
            (("DATABASE_URL", "mysql://x/y"), "DATABASE_URL begins with `mysql:`"),
            (("DATABASE_URL", "postgres://x/y"), "needs Redis beside it"),
            (("REDIS_URL", "redis://x"), "the database is an embedded one"),
        ] {
            let error = read(&[env], &[]).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
