//! Logs: one line an event, for people or for machines, on standard error; and what they say of an error.

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
        let coloured = std::io::stderr().is_terminal();
        lines.with_ansi(coloured).with_writer(move || Lines { coloured }).init();
    }
    Ok(())
}

/// Standard error for people: each event is one line, whatever is said in it. (JSON has escapes of its own.)
struct Lines {
    coloured: bool,
}

impl std::io::Write for Lines {
    /// Takes an event, which comes whole.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        // The colours are ours: in what is said the library escapes what begins one.
        let ours: &[char] = if self.coloured { &['\u{1b}'] } else { &[] };
        let line = escaped(text.strip_suffix('\n').unwrap_or(&text), ours);
        std::io::stderr().write_all((line + "\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// A text on one line: what would begin another one, move a cursor or change a terminal is escaped.
#[must_use]
pub fn one_line(text: &str) -> String {
    escaped(text, &[])
}

fn escaped(text: &str, kept: &[char]) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !kept.contains(&c) {
            line.extend(c.escape_debug());
        } else {
            line.push(c);
        }
    }
    line
}

/// What an error says, and what caused it. The text of many errors ends with that of their cause: it is told once. It may
/// have several lines; of anything else that a terminal would obey it has nothing.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.ends_with(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    escaped(&told, &['\n', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_stays_on_its_line() {
        assert_eq!(
            one_line("a\nb\r\n\tc\u{1b}[2J\u{9b}0\u{7f} \\n \"é\""),
            "a\\nb\\r\\n\\tc\\u{1b}[2J\\u{9b}0\\u{7f} \\n \"é\""
        );
        assert_eq!(escaped("\u{1b}[31mred\u{1b}[0m\n", &['\u{1b}']), "\u{1b}[31mred\u{1b}[0m\\n");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("it cannot be opened: {0}")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_cause_is_told_once() {
        let error = Outer(std::io::Error::other("no such place"));
        assert_eq!(
            format!("{:#}", anyhow::Error::new(Outer(std::io::Error::other("no")))),
            "it cannot be opened: no: no"
        );
        let error = anyhow::Error::new(error).context("at the start");
        assert_eq!(told(&error), "at the start: it cannot be opened: no such place");
    }
}
