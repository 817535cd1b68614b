//! The layers of the configuration: embedded defaults, a file, the environment, flags. Each is checked by itself, so that an
//! error names the place where the value was given.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULTS, Role};

/// The configuration file that is read when none is named.
const FILE: &str = "weir.toml";

/// The source of a setting that nobody gave.
const DEFAULT: &str = "default";

/// Whether a variable is no setting although it begins with `WEIR_`: one names the file, two are for commands that talk to
/// a server, the others are set by Kubernetes for every container beside a service named `weir`.
fn is_no_setting(name: &str) -> bool {
    ["WEIR_CONFIG", "WEIR_SERVER", "WEIR_API_KEY", "WEIR_PORT"].contains(&name)
        || name.starts_with("WEIR_PORT_")
        || name.starts_with("WEIR_SERVICE_")
}

/// Settings that may be nothing: zero turns them off. Every other number must be at least 1.
const MAY_BE_ZERO: [&str; 6] = [
    "plugin_calls_kept",
    "redirects_max",
    "idle_connections_max",
    "secret_grace_seconds",
    "shutdown_timeout_seconds",
    "retention_days",
];

/// Settings whose values nobody is shown.
const SECRET: [&str; 2] = ["master_key", "master_keys_accepted"];

/// Settings that are also variables of another name, which is what the original system and most platforms call them.
const VARIABLES: [(&str, &str); 3] =
    [("DATABASE_URL", "database_url"), ("REDIS_URL", "redis_url"), ("RUN_STATE_TTL_SECONDS", "run_state_ttl_seconds")];

/// The layers of the configuration, merged, with where each value is from.
pub struct Layers {
    values: Table,
    sources: Vec<(String, String)>,
    cache_home: Option<PathBuf>,
}

impl Layers {
    /// Merges defaults, the file, the environment and `flags` (`key=value`).
    ///
    /// # Errors
    /// [`ConfigError`] at the first value that is no setting or has the wrong type.
    pub fn read(file: Option<&Path>, env: &[(String, String)], flags: &[String]) -> Result<Self, ConfigError> {
        let values = DEFAULTS.parse::<Table>().map_err(|error| ConfigError(format!("default.toml: {error}")))?;
        let mut layers = Self { values, sources: Vec::new(), cache_home: cache_home(env) };
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
            // As `weir config` shows it.
            Some(Value::Array(_)) if is_toml_list(text) => toml_list(text).ok_or_else(|| {
                // The text may have a key in it that somebody took for another one.
                let forms = "`first,second` or `[\"first\", \"second\"]`";
                ConfigError(format!("{place}: `{key}` must be a list of texts, written as {forms}"))
            })?,
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
        self.sources.iter().find(|(known, _)| known == key).map_or(DEFAULT, |(_, place)| place)
    }

    /// The settings in force, as TOML that names where each is from; a password in a URL is left out.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.values {
            let source = self.source(key);
            let is_empty = value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty);
            let shown = match value.as_str() {
                _ if SECRET.contains(&key.as_str()) && !is_empty => Value::String("***".to_owned()),
                Some(url) if url.contains("://") => Value::String(without_password(url)),
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
        let mut config: Config = serde_path_to_error::deserialize(self.values.clone()).map_err(|error| {
            let key = error.path().to_string();
            ConfigError(format!("{}: `{key}`: {}", self.source(&key), error.inner().message()))
        })?;
        config.listens = config.role != Role::Worker || self.source("listen") != DEFAULT;
        config.cache_home.clone_from(&self.cache_home);
        config.location()?;
        config.egress()?;
        config.api_key_hashes()?;
        config.plugin_trust()?;
        Ok(config)
    }
}

/// Whether a list is written as TOML does it. (An address in brackets begins in another way.)
fn is_toml_list(text: &str) -> bool {
    text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['"', '\'', ']']))
}

/// A list of texts as TOML writes it.
fn toml_list(text: &str) -> Option<Value> {
    let table = format!("list = {text}").parse::<Table>().ok().filter(|table| table.len() == 1)?;
    let list = table.get("list")?;
    list.as_array()?.iter().all(Value::is_str).then(|| list.clone())
}

/// The directory for what can be made again (XDG Base Directory Specification). What is not absolute is ignored there.
fn cache_home(env: &[(String, String)]) -> Option<PathBuf> {
    let dir = |variable: &str| {
        let value = env.iter().find(|(name, _)| name == variable).map(|(_, value)| PathBuf::from(value));
        value.filter(|path| path.is_absolute())
    };
    dir("XDG_CACHE_HOME").or_else(|| Some(dir("HOME")?.join(".cache")))
}

/// A URL as it may be shown. What is no URL, or has more in it than one can have, shows its scheme.
fn without_password(text: &str) -> String {
    let scheme = text.split("://").next().unwrap_or_default();
    let hidden = format!("{scheme}://***");
    let Ok(mut url) = url::Url::parse(text) else { return hidden };
    if url.password().is_some() {
        // A URL that has a password also can have another one.
        let _ = url.set_password(Some("***"));
    }
    if url.query_pairs().any(|(name, _)| name.contains("password")) {
        url.set_query(Some("***"));
    }
    // A password that was not escaped goes on behind the part that was taken for it.
    let rest = [
        url.host_str().unwrap_or_default(),
        url.path(),
        url.query().unwrap_or_default(),
        url.fragment().unwrap_or_default(),
    ];
    if rest.iter().any(|part| part.contains('@')) { hidden } else { url.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Location;

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
        for list in [r#"["127.0.0.1:9000", '[::1]:80']"#, "127.0.0.1:9000,[::1]:80"] {
            let config = read(&[], &[&format!("egress_allow={list}")]).expect("sound");
            assert_eq!(config.egress_allow, ["127.0.0.1:9000", "[::1]:80"], "{list}");
        }
        assert!(
            read(&[("WEIR_EGRESS_ALLOW", "[]")], &["egress_allow=[::1]"]).is_ok_and(|it| it.egress_allow.len() == 1)
        );
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://weir:hush@h/w", "postgres://weir:***@h/w"),
            ("postgres://h/w?sslmode=require", "postgres://h/w?sslmode=require"),
            ("postgres://h/w?user=weir&password=hush", "postgres://h/w?***"),
            ("postgres://weir:hush@h/w?password=hush", "postgres://weir:***@h/w?***"),
            ("postgres://h/w?sslpassword=hush", "postgres://h/w?***"),
            ("redis://user:red/hu#sh@h", "redis://***"),
            ("postgres://weir:hush@[::1/a", "postgres://***"),
            ("postgres://weir:pa@ss/hush@h/w", "postgres://***"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn errors_name_the_place() {
        for (env, says) in [
            (("WEIR_STEP_MAX", "1"), "the variable WEIR_STEP_MAX: `step_max` is not a setting"),
            (("WEIR_STEPS_MAX", "many"), "`steps_max` must be a whole number"),
            (("WEIR_STEPS_MAX", "0"), "must be from 1"),
            (
                ("WEIR_PLUGIN_TRUSTED_KEYS", "[\"a\", 1]"),
                "`plugin_trusted_keys` must be a list of texts, written as `first,",
            ),
            (
                ("WEIR_PLUGIN_TRUSTED_KEYS", "a=weir-ed25519-secret:AAAA"),
                "a secret key (`weir-ed25519-secret:...`) stands",
            ),
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
