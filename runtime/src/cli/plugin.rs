//! `weir plugin`: what authors and operators do. What needs no server uses the host and the limits of `serve`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use weir_host::plugin::Reach;

use super::rights::{self, Rights};
use super::{ask, author, operate, print, printable, signing, words};
use crate::app;
use crate::clock::new_id;
use crate::config::Config;
use crate::model::ask::{Answer, Reply, Resumption};
use crate::model::definition::STEP_TIMEOUT_DEFAULT;
use crate::model::id::RunId;
use crate::model::tool::{OnToolError, ToolCall};
use crate::telemetry::{self, one_line};
use crate::tools::{Caller, Examined, examine};

/// What a person sees of the log beside an answer: what the tool writes, and what is wrong.
pub(super) const LOG_LEVEL: &str = "warn,weir::tool=trace";

#[derive(Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Author(author::Command),

    #[command(flatten)]
    Operate(operate::Command),

    /// Show what a plugin is: its name, its digest, what it asks for and imports, its tools and their schemas.
    ///
    /// It is tried exactly as an upload would be, and refused for the same reasons.
    Inspect {
        /// A component, or a core module as `cargo build --target wasm32-unknown-unknown` makes it.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },

    /// Call a tool of a plugin in the sandbox, and print its answer.
    ///
    /// The answer goes to standard output as JSON, what the tool logs and what the call used to standard error.
    Call {
        /// A component or a core module.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// The tool.
        #[arg(value_name = "TOOL")]
        tool: String,

        /// The arguments, as JSON.
        #[arg(value_name = "ARGUMENTS", default_value = "{}")]
        arguments: String,

        /// Longest time of the call, in seconds [default: 30].
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<f64>,

        /// What the tool is answered when it asks KEY: the content of an answer as JSON, or `accept`, `decline` or `cancel`.
        #[arg(long = "answer", value_name = "KEY=ANSWER")]
        answers: Vec<String>,

        #[command(flatten)]
        rights: Rights,
    },

    #[command(flatten)]
    Signing(signing::Command),
}

pub(super) async fn run(command: &Command, config: Config) -> anyhow::Result<()> {
    match command {
        Command::Author(command) => author::run(command, &config).await,
        Command::Operate(command) => operate::run(command, &config).await,
        Command::Inspect { file, json } => inspect(&open(file, &config).await?, file, *json),
        Command::Call { file, tool, arguments, timeout, answers, rights } => {
            telemetry::start(&Config { log_level: LOG_LEVEL.to_owned(), ..config.clone() })?;
            let arguments = serde_json::from_str(arguments).context("the arguments are not JSON")?;
            let timeout = match timeout {
                Some(seconds) => match Duration::try_from_secs_f64(*seconds) {
                    Ok(timeout) if !timeout.is_zero() && timeout <= config.limits().step_timeout_max => timeout,
                    _ => bail!("--timeout must be more than 0 and at most {} seconds", config.step_timeout_max_seconds),
                },
                None => STEP_TIMEOUT_DEFAULT,
            };
            let plugin = open(file, &config).await?;
            let reach = rights.reach(plugin.artifact.request.as_ref())?;
            let answers = ask::read_all(answers)?;
            call(&plugin, tool, arguments, timeout, (reach, &answers)).await
        }
        Command::Signing(command) => signing::run(command, &config),
    }
}

/// Finds out what a file is.
pub(super) async fn open(file: &Path, config: &Config) -> anyhow::Result<Examined> {
    let bytes = signing::read(file, config)?;
    let (_, host) = app::outside(config)?;
    let examined = examine(&host, bytes).await.map_err(|refused| anyhow::anyhow!(one_line(&refused.to_string())));
    examined.with_context(|| file.display().to_string())
}

fn inspect(plugin: &Examined, file: &Path, as_json: bool) -> anyhow::Result<()> {
    let artifact = &plugin.artifact;
    if as_json {
        let document = json!({
            "digest": plugin.digest,
            "size_bytes": artifact.component.len(),
            "imports": artifact.imports,
            "request": artifact.request,
            "tools": plugin.listed.tools,
        });
        return print(&format!("{document:#}\n"));
    }
    let said = artifact.request.as_ref().map_or_else(
        || "does not say its name: give `?name=` and `?version=` when you upload it".to_owned(),
        |request| format!("{} {}", request.name, request.version.as_deref().unwrap_or("(no version)")),
    );
    let mut text = format!("{}: {said}\n", file.display());
    text += &format!("  digest   {}\n  size     {} bytes as a component\n", plugin.digest, artifact.component.len());
    text += &artifact.request.as_ref().map(words::asked).unwrap_or_default();
    // Requests are the one way out: who cannot make any has nothing to ask for.
    let sends = artifact.imports.iter().any(|import| import.starts_with("wasi:http/outgoing-handler@"));
    let sends =
        if sends { "it can make requests, as far as it asks and is granted" } else { "none leads out of the sandbox" };
    text += &format!("  imports  ({sends})\n");
    for import in &artifact.imports {
        text += &format!("             {import}\n");
    }
    for tool in &plugin.listed.tools {
        let description = tool.description.as_deref().unwrap_or("(no description)").replace('\n', "\n           ");
        text += &format!("\n  {}\n           {description}\n           takes    {}\n", tool.name, tool.input_schema);
        if let Some(schema) = &tool.output_schema {
            text += &format!("           gives    {schema}\n");
        }
    }
    let used = plugin.listed.used;
    text += &format!(
        "\n  Listing its tools took {} units of fuel, {} KiB of memory and {:.2} ms.\n",
        used.fuel,
        used.peak_memory_bytes / 1024,
        used.time.as_secs_f64() * 1e3
    );
    print(&printable(&text))
}

/// Refuses a tool that the plugin does not offer, and names those that it does.
pub(super) fn must_offer(plugin: &Examined, tool: &str) -> anyhow::Result<()> {
    if !plugin.listed.tools.iter().any(|known| known.name == tool) {
        let names: Vec<&str> = plugin.listed.tools.iter().map(|tool| tool.name.as_str()).collect();
        bail!("the plugin has no tool named `{tool}`; it has {}", names.join(", "));
    }
    Ok(())
}

/// Calls a tool that may reach so much and is answered so, and prints its answer, or what it asks.
pub(super) async fn call(
    plugin: &Examined,
    tool: &str,
    arguments: Value,
    timeout: Duration,
    (reach, answers): (Arc<Reach>, &[Answer]),
) -> anyhow::Result<()> {
    must_offer(plugin, tool)?;
    let run = RunId(new_id());
    let call = ToolCall { tool: tool.to_owned(), arguments, on_tool_error: OnToolError::Continue };
    let (mut resumed, mut ever_asked) = (None::<Resumption>, BTreeSet::new());
    let called = loop {
        let (step, idempotency_key) = ("call".to_owned(), format!("{run}:call"));
        let round = resumed.as_ref().map_or(0, |resumed| resumed.round);
        let by = Caller { run, step, attempt: round + 1, idempotency_key, resumed: resumed.take(), timeout };
        let (called, uses) = plugin.loaded.call(&call, by, Arc::clone(&reach), None).await;
        eprint!("{}", rights::told(&uses));
        let Ok(Reply::Asked(asked)) = &called else { break called };
        ever_asked.extend(asked.questions.iter().map(|question| question.key.clone()));
        resumed = ask::resumption(asked, answers, round + 1)?;
        if resumed.is_none() {
            break called;
        }
    };
    ask::tell_unasked(answers, &ever_asked);
    let used = match &called {
        Ok(Reply::Output(output)) => output.tool.as_ref().map(|tool| tool.used.clone()),
        Ok(Reply::Asked(asked)) => Some(asked.used.clone()),
        Err(failed) => failed.used.as_deref().cloned(),
    };
    if let Some(used) = used {
        let (fuel, memory, time) = (used.fuel, used.peak_memory_bytes / 1024, Duration::from_micros(used.time_us));
        eprintln!("used {fuel} units of fuel, {memory} KiB of memory and {:.3} ms", time.as_secs_f64() * 1e3);
    }
    let reply = called.map_err(|failed| {
        let may_help = if failed.retryable { " (another attempt may help)" } else { "" };
        anyhow::anyhow!("{}: {}{may_help}", failed.failure.code.as_str(), one_line(&failed.failure.message))
    })?;
    let output = match reply {
        Reply::Output(output) => output,
        Reply::Asked(asked) => return print(&format!("{:#}\n", json!({"questions": asked.questions}))),
    };
    let answer = output.tool.context("the call gave no answer of a tool")?;
    let mut document =
        json!({"result": output.result, "content": answer.blocks(&output.result), "is_error": answer.is_error});
    if let Some(meta) = answer.meta {
        document["_meta"] = meta;
    }
    print(&format!("{document:#}\n"))
}
