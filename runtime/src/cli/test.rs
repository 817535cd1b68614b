//! `weir plugin test`: makes recorded calls again, without a network, and tells what is different; and records them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use weir_host::plugin::Tape;

use super::build::{self, Sources};
use super::cassette::{self, Cassette};
use super::rights::{self, Rights};
use super::{Misused, difference, plugin, print, printable};
use crate::clock::new_id;
use crate::config::Config;
use crate::model::definition::STEP_TIMEOUT_DEFAULT;
use crate::model::id::RunId;
use crate::model::tool::{OnToolError, ToolCall};
use crate::telemetry;
use crate::tools::{Caller, Examined, Recorded, Told};

/// Examples of the command.
pub(super) const EXAMPLES: &str = "\
Examples:
  weir plugin test --record greet '{\"name\": \"Ada\"}'    calls greet, and writes cassettes/greet.json
  weir plugin test                                     builds the plugin here, and plays every cassette
  weir plugin test orders.wasm --record find '{\"id\": 7}' --name found --allow --secret token=token.txt
  weir plugin test orders.wasm --cassettes tests/cassettes

The status is 0 when every call was as recorded, 1 when one was not, and 2 when the command was used in a wrong way.";

/// What is tested, or recorded.
#[derive(Args)]
pub(super) struct Test {
    /// A component or a core module; or the directory of a plugin's sources, which is built first.
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    plugin: PathBuf,

    /// Call this tool for real, with these arguments as JSON, and write the call to a cassette.
    #[arg(long, num_args = 1..=2, value_names = ["TOOL", "ARGUMENTS"])]
    record: Vec<String>,

    /// What the cassette is called [default: as the tool].
    #[arg(long, value_name = "NAME", requires = "record")]
    name: Option<String>,

    /// Record it in place of the cassette that is there.
    #[arg(long, requires = "record")]
    replace: bool,

    /// The folder of the cassettes [default: `cassettes` beside FILE, or in DIR].
    #[arg(long, value_name = "DIR")]
    cassettes: Option<PathBuf>,

    /// Where a plugin's sources are built, as for `weir plugin build`.
    #[arg(long, value_name = "DIR", env = "CARGO_TARGET_DIR")]
    target_dir: Option<PathBuf>,

    #[command(flatten)]
    rights: Rights,
}

/// A call that is to be recorded.
struct Recording<'a> {
    tool: &'a str,
    arguments: Value,
    name: String,
    file: PathBuf,
    replace: bool,
}

/// Tests, or records.
///
/// # Errors
/// [`Misused`], or when the plugin cannot be used, a call cannot be recorded, or one was not as recorded.
pub(super) async fn run(test: &Test, config: &Config) -> anyhow::Result<()> {
    let is_sources = test.plugin.is_dir();
    let home = if is_sources { Some(test.plugin.as_path()) } else { test.plugin.parent() };
    let beside = home.map_or_else(|| PathBuf::from("cassettes"), |home| home.join("cassettes"));
    let folder = test.cassettes.clone().unwrap_or(beside);
    let recording = test.recording(&folder)?;
    let cassettes = if recording.is_some() { Vec::new() } else { found(&folder)? };
    if recording.is_none() && test.rights.brings_secrets() {
        return Err(Misused("--secret is for --record: what is played needs no secret".to_owned()).into());
    }
    let file = if is_sources {
        let built = build::build(&Sources::new(test.plugin.clone(), test.target_dir.clone()), config).await?;
        eprint!("{}", built.told());
        built.file
    } else {
        test.plugin.clone()
    };
    match recording {
        Some(recording) => {
            telemetry::start(&Config { log_level: plugin::LOG_LEVEL.to_owned(), ..config.clone() })?;
            record(&plugin::open(&file, config).await?, recording, &test.rights).await
        }
        None => play(&plugin::open(&file, config).await?, &cassettes, &test.rights).await,
    }
}

/// The cassettes of a folder that must have some: a test of nothing passes for no good reason.
fn found(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cassettes = cassette::list(folder)?;
    if cassettes.is_empty() {
        let message = format!("there is no cassette in {}: --record TOOL ARGUMENTS makes one", folder.display());
        return Err(Misused(message).into());
    }
    Ok(cassettes)
}

impl Test {
    fn recording(&self, folder: &Path) -> anyhow::Result<Option<Recording<'_>>> {
        let (tool, arguments) = match &self.record[..] {
            [] => return Ok(None),
            [tool] => (tool, "{}"),
            [tool, arguments, ..] => (tool, arguments.as_str()),
        };
        let arguments = serde_json::from_str(arguments);
        let arguments = arguments.map_err(|error| Misused(format!("the arguments are not JSON: {error}")))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = match &self.name {
            Some(name) if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) => {
                let message = format!("--name {name}: must be of A-Z a-z 0-9 - _ and dot, and not begin with a dot");
                return Err(Misused(message).into());
            }
            Some(name) => name.clone(),
            None => tool.chars().map(|c| if fits(c) { c } else { '_' }).collect(),
        };
        let file = folder.join(format!("{name}.json"));
        if file.exists() && !self.replace {
            let message = format!("{} is there: give another --name, or --replace it", file.display());
            return Err(Misused(message).into());
        }
        Ok(Some(Recording { tool, arguments, name, file, replace: self.replace }))
    }
}

/// Makes one call for real, and writes its cassette.
async fn record(plugin: &Examined, recording: Recording<'_>, rights: &Rights) -> anyhow::Result<()> {
    plugin::must_offer(plugin, recording.tool)?;
    let reach = rights.reach(plugin.artifact.request.as_ref())?;
    let run = RunId(new_id());
    let by = Caller {
        run,
        step: "test".to_owned(),
        attempt: 1,
        idempotency_key: format!("{run}:test"),
        resumed: None,
        timeout: STEP_TIMEOUT_DEFAULT,
    };
    let call = ToolCall {
        tool: recording.tool.to_owned(),
        arguments: recording.arguments,
        on_tool_error: OnToolError::Continue,
    };
    let (told, tape) = (Told::of(&by), Arc::new(Tape::recording_headers()));
    let (result, uses) = plugin.loaded.call(&call, by, Arc::clone(&reach), Some(Arc::clone(&tape))).await;
    eprint!("{}", rights::told(&uses));
    // What it took differs from machine to machine, and is not held against anything.
    let call = Recorded { fuel: 0, ..Recorded::of(&call, told, (&tape, &uses), &result) };
    if call.unanswered > 0 {
        bail!(
            "nothing was written: {} of its requests got no whole answer, one of more than 4 MiB, or a header that is no \
             text, and cannot be played",
            call.unanswered
        );
    }
    let secrets = reach.secrets.iter().map(|secret| secret.name().to_owned()).collect();
    let (requests, outcome) = (call.http.len(), serde_json::to_string_pretty(&call.outcome)?);
    Cassette { call, grant: reach.grant.clone(), secrets }.write(&recording.file, recording.replace)?;
    let (name, file) = (&recording.name, recording.file.display());
    let requests = if requests == 1 { "1 request".to_owned() } else { format!("{requests} requests") };
    print(&printable(&format!("recorded {name}: {file}, {requests}\n{outcome}\n")))
}

/// Plays every cassette, and tells what was not as recorded.
async fn play(plugin: &Examined, cassettes: &[PathBuf], rights: &Rights) -> anyhow::Result<()> {
    let request = plugin.artifact.request.clone().unwrap_or_default();
    let mut wrong = 0;
    for file in cassettes {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let told = match Cassette::read(file) {
            Ok(cassette) => {
                let grant = rights.grant(&request, cassette.grant.clone())?;
                let findings = cassette.play(&plugin.loaded, &request, grant).await;
                if findings.differences.is_empty() {
                    format!("ok {name}\n")
                } else {
                    let denied = findings.denied.iter().map(|line| format!("  {}\n", telemetry::one_line(line)));
                    let denied: String = denied.collect();
                    format!("different {name}\n{}{denied}", difference::told(&findings.differences))
                }
            }
            Err(error) => format!("unreadable {name}\n  {}: {}\n", file.display(), telemetry::told(&error)),
        };
        wrong += usize::from(!told.starts_with("ok "));
        print(&printable(&told))?;
    }
    if wrong > 0 {
        bail!("{wrong} of {} calls were not as recorded", cassettes.len());
    }
    Ok(())
}
