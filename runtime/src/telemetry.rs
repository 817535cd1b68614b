//! Logs: one line an event, for people or for machines, on standard error.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Config, LogFormat};

/// Begins to log as `config` says.
///
/// # Errors
/// When `log_level` is not a filter.
pub fn start(config: &Config) -> anyhow::Result<()> {
    // The library takes a mistyped level for the name of a module that never logs.
    for part in config.log_level.split(',').filter(|part| !part.contains('=')) {
        part.trim().parse::<LevelFilter>().with_context(|| format!("log_level: `{part}` is not a level"))?;
    }
    let filter = EnvFilter::builder()
        .parse(&config.log_level)
        .with_context(|| format!("log_level `{}` is neither a level nor a filter", config.log_level))?;
    // What a guest makes the library complain of is for whoever debugs the library, and a guest could do it for ever.
    let filter = filter.add_directive("wasmtime_wasi_http=error".parse()?);
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        lines.json().flatten_event(true).with_span_list(false).init();
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).init();
    }
    Ok(())
}
