//! One call of a tool by a step: arguments held against the schema, the sandbox, and what its report means for a run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weir_host::plugin::{Answer, Call, Denial, Fault, FaultClass, LogLevel, Outcome, Reach, Report, Tape, Uses};

use super::Tools;
use super::ask;
use super::loaded::{Loaded, Schemas, Unready};
use super::recorded::{Recorded, Told};
use super::schema::Schema;
use crate::model::ask::{Reply, Resumption};
use crate::model::error::{AttemptFailure, FailureCode};
use crate::model::id::RunId;
use crate::model::journal::{Output, ToolOutput};
use crate::model::plugin::{HostUse, PluginDigest, Used};
use crate::model::reader;
use crate::model::tool::{OnToolError, ToolCall};

/// Most faults of arguments that a failure's message names.
const FAULTS_TOLD: usize = 5;

/// The target of log lines that tools write.
const LOG_TARGET: &str = "weir::tool";

/// Who calls: what the tool is told of the run, and its time.
pub struct Caller {
    /// The run.
    pub run: RunId,
    /// The step's path.
    pub step: String,
    /// Which attempt.
    pub attempt: u32,
    /// The same for all attempts of the step.
    pub idempotency_key: String,
    /// After questions: how the call goes on.
    pub resumed: Option<Resumption>,
    /// Longest time of the call, from when it begins to run.
    pub timeout: Duration,
}

impl Tools {
    /// Calls a tool. Dropping the future gives the call up.
    ///
    /// # Errors
    /// How the call failed, and whether another one may help.
    pub async fn call(&self, digest: PluginDigest, call: &ToolCall, by: Caller) -> Result<Reply, AttemptFailure> {
        let unready = |error: Unready| unready(digest, &error);
        let plugin = self.load(digest).await.map_err(unready)?;
        let reach = self.reach(&plugin).await.map_err(unready)?;
        // What a resumed call does depends on the state that the tool left, which nobody is shown.
        let wanted = by.resumed.is_none() && self.book.wants_call(digest);
        let tape = wanted.then(|| (Arc::new(Tape::recording()), Told::of(&by)));
        let (result, uses) = plugin.call(call, by, reach, tape.as_ref().map(|(tape, _)| Arc::clone(tape))).await;
        self.book.note(digest, &uses);
        if let Some((tape, told)) = tape {
            self.book.keep(digest, Recorded::of(call, told, (&tape, &uses), &result));
        }
        result
    }
}

impl Loaded {
    /// Calls a tool of this plugin, which may reach so much. Dropping the future gives the call up. Answers the step's
    /// output or the tool's questions, or how the call failed and whether another one may help; and what was used of the
    /// rights.
    pub async fn call(
        &self,
        call: &ToolCall,
        by: Caller,
        reach: Arc<Reach>,
        tape: Option<Arc<Tape>>,
    ) -> (Result<Reply, AttemptFailure>, Uses) {
        let mut uses = Uses::default();
        (self.call_noting(call, by, (reach, tape), &mut uses).await, uses)
    }

    async fn call_noting(
        &self,
        call: &ToolCall,
        by: Caller,
        (reach, tape): (Arc<Reach>, Option<Arc<Tape>>),
        uses: &mut Uses,
    ) -> Result<Reply, AttemptFailure> {
        let digest = self.digest;
        let Some(schemas) = self.tools.get(&call.tool) else {
            let message = format!("the plugin {digest} has no tool named `{}`", call.tool);
            return Err(AttemptFailure::permanent(FailureCode::PluginUnusable, message));
        };
        let faults =
            self.faults(schemas, |schemas| Some(&schemas.input), &call.arguments, "/input", by.timeout).await?;
        if !faults.is_empty() {
            let message = format!("the arguments do not fit the tool's schema: {}", told(&faults));
            return Err(AttemptFailure::permanent(FailureCode::InvalidToolArguments, message));
        }
        let (run, step, timeout) = (by.run, by.step.clone(), by.timeout);
        let narrower = narrower(&reach, timeout);
        let report = self
            .plugin
            .call(Call {
                tool: call.tool.clone(),
                arguments: call.arguments.to_string(),
                run_id: by.run.to_string(),
                step: by.step,
                attempt: by.attempt,
                idempotency_key: by.idempotency_key,
                resumed: by.resumed.map(ask::resumption),
                timeout: by.timeout,
                reach,
                tape,
            })
            .await;
        *uses = report.uses.clone();
        log(&report, run, &step, digest, &call.tool);
        let used = Used {
            fuel: report.used.fuel,
            peak_memory_bytes: report.used.peak_memory_bytes,
            time_us: u64::try_from(report.used.time.as_micros()).unwrap_or(u64::MAX),
            hosts: report.uses.hosts.iter().map(|(origin, used)| (origin.clone(), host_use(*used))).collect(),
            secrets: report.uses.secrets.iter().cloned().collect(),
        };
        let checked = async {
            match report.outcome.map_err(|fault| failure(&timed(fault, narrower)))? {
                Outcome::Done(answer) => {
                    self.check(&answer, schemas, timeout).await?;
                    output(answer, call, digest, used.clone()).map(Reply::Output)
                }
                Outcome::Asked(asked) => {
                    let broken = |message| AttemptFailure::permanent(FailureCode::ToolContractBroken, message);
                    ask::asked(asked, used.clone()).map(Reply::Asked).map_err(broken)
                }
            }
        };
        checked.await.map_err(|failed| AttemptFailure { used: Some(Box::new(used.clone())), ..failed })
    }

    /// What of a value does not fit a schema. What may take long goes on in the background, and is waited for as long as
    /// the step may take.
    async fn faults(
        &self,
        schemas: &Arc<Schemas>,
        which: fn(&Schemas) -> Option<&Schema>,
        value: &Value,
        root: &'static str,
        timeout: Duration,
    ) -> Result<Vec<reader::Fault>, AttemptFailure> {
        let Some(schema) = which(schemas) else { return Ok(Vec::new()) };
        if schema.is_quick(value) {
            return Ok(schema.faults(value, root));
        }
        let (schemas, value) = (Arc::clone(schemas), value.clone());
        let hold = move || which(&schemas).map_or_else(Vec::new, |schema| schema.faults(&value, root));
        match tokio::time::timeout(timeout, self.host.in_background(hold)).await {
            Ok(held) => held.map_err(|error| unready(self.digest, &error.into())),
            Err(_) => {
                let seconds = timeout.as_secs_f64();
                let message =
                    format!("{root}: holding it against the tool's schema took longer than {seconds} seconds");
                Err(AttemptFailure::permanent(FailureCode::StepTimeout, message))
            }
        }
    }

    /// A structured answer fits the schema that the tool promised (MCP: servers MUST provide results that conform).
    async fn check(&self, answer: &Answer, schemas: &Arc<Schemas>, timeout: Duration) -> Result<(), AttemptFailure> {
        let broken = |message: String| Err(AttemptFailure::permanent(FailureCode::ToolContractBroken, message));
        if !answer.content.iter().chain(&answer.structured).chain(&answer.meta).all(reader::depth_fits) {
            return broken(format!("the tool's answer is more than {} levels deep", reader::JSON_DEPTH_MAX));
        }
        if answer.is_error || schemas.output.is_none() {
            return Ok(());
        }
        let Some(value) = &answer.structured else {
            return broken("the tool has an output schema and its answer has no structured content".to_owned());
        };
        let faults =
            self.faults(schemas, |schemas| schemas.output.as_ref(), value, "/structuredContent", timeout).await?;
        if faults.is_empty() {
            return Ok(());
        }
        broken(format!("the tool's answer does not fit its own output schema: {}", told(&faults)))
    }

    /// A call with nothing around it: what `weir bench` compares with.
    ///
    /// # Errors
    /// Whatever the engine says.
    pub async fn bare(&self, call: Call) -> Result<(), Fault> {
        self.plugin.bare(call).await
    }
}

fn host_use(used: weir_host::plugin::HostUse) -> HostUse {
    HostUse { requests: used.requests, sent_bytes: used.sent_bytes, received_bytes: used.received_bytes }
}

fn told(faults: &[reader::Fault]) -> String {
    let fault = |fault: &reader::Fault| format!("{}: {}", fault.pointer, fault.message);
    let mut told: Vec<String> = faults.iter().take(FAULTS_TOLD).map(fault).collect();
    if faults.len() > FAULTS_TOLD {
        told.push("and more".to_owned());
    }
    told.join("; ")
}

fn unready(digest: PluginDigest, error: &Unready) -> AttemptFailure {
    let message = format!("the plugin {digest} cannot be run: {error}");
    match error {
        Unready::Store(_) => AttemptFailure::retryable(FailureCode::PluginUnusable, message),
        _ => AttemptFailure::permanent(FailureCode::PluginUnusable, message),
    }
}

/// The result is the structured content; without one the text; without that, the blocks.
fn output(answer: Answer, call: &ToolCall, plugin: PluginDigest, used: Used) -> Result<Output, AttemptFailure> {
    let text = |block: &Value| Some(block.get("text").filter(|_| block["type"] == "text")?.as_str()?.to_owned());
    let texts: Option<Vec<String>> = answer.content.iter().map(text).collect();
    if answer.is_error && call.on_tool_error == OnToolError::Fail {
        let said = texts.map(|texts| texts.join("\n")).filter(|text| !text.is_empty());
        let message = said.unwrap_or_else(|| "the tool's answer says that it did not work".to_owned());
        return Err(AttemptFailure::permanent(FailureCode::ToolError, message));
    }
    let result = match (answer.structured, texts) {
        (Some(value), _) => value,
        (None, Some(texts)) if !texts.is_empty() => Value::String(texts.join("\n")),
        (None, Some(_)) => Value::Null,
        (None, None) => Value::Array(answer.content.clone()),
    };
    let content = ToolOutput::stored(answer.content, &result);
    let tool = ToolOutput { plugin, content, is_error: answer.is_error, meta: answer.meta, used };
    Ok(Output { tool: Some(Box::new(tool)), ..Output::of(result) })
}

/// Who gives a call less time than `timeout`, which is the step's: the grant, or the request.
fn narrower(reach: &Reach, timeout: Duration) -> Option<&'static str> {
    let both = [("grant", reach.grant.timeout_seconds), ("request", reach.request.timeout_seconds)];
    let said = both.into_iter().filter_map(|(whose, seconds)| Some((Duration::from_secs(seconds?.into()), whose)));
    said.min_by_key(|(time, _)| *time).filter(|(time, _)| *time < timeout).map(|(_, whose)| whose)
}

/// Says whose time it was that a call used up, where it was not the step's.
fn timed(mut fault: Fault, narrower: Option<&'static str>) -> Fault {
    if let Some(whose) = narrower.filter(|_| fault.class == FaultClass::Deadline) {
        fault.message = format!("{} (`timeout_seconds` of its {whose})", fault.message);
    }
    fault
}

fn failure(fault: &Fault) -> AttemptFailure {
    let code = match fault.class {
        FaultClass::Trap => FailureCode::ToolTrapped,
        FaultClass::Stack => FailureCode::ToolStackExhausted,
        FaultClass::Memory => FailureCode::ToolMemoryExceeded,
        FaultClass::Deadline => FailureCode::StepTimeout,
        FaultClass::Fuel => FailureCode::ToolFuelExhausted,
        FaultClass::Output => FailureCode::ToolOutputTooLarge,
        FaultClass::Contract => FailureCode::ToolContractBroken,
        FaultClass::Denied => FailureCode::ToolAccessDenied,
        FaultClass::Reported { .. } => FailureCode::ToolFailed,
        FaultClass::Arguments => FailureCode::InvalidToolArguments,
        FaultClass::Host => FailureCode::PluginUnusable,
    };
    let message = match &fault.code {
        Some(code) => format!("{} ({code})", fault.message),
        None => fault.message.clone(),
    };
    let mut failed = AttemptFailure::permanent(code, message);
    failed.retryable = fault.retryable();
    failed.retry_after = fault.retry_after;
    failed
}

/// What the tool said goes to the log, under its run and step.
fn log(report: &Report, run: RunId, step: &str, plugin: PluginDigest, tool: &str) {
    for line in &report.log {
        let (message, fields) = (&line.message, line.fields.as_deref());
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(target: LOG_TARGET, { run.id = %run, step.path = step, plugin.digest = %plugin, tool, fields }, "{message}")
            };
        }
        match line.level {
            LogLevel::Trace => emit!(trace),
            LogLevel::Debug => emit!(debug),
            LogLevel::Info => emit!(info),
            LogLevel::Warn => emit!(warn),
            LogLevel::Error => emit!(error),
        }
    }
    if let Some(progress) = &report.progress {
        let (done, total, message) = (progress.done, progress.total, progress.message.as_deref());
        tracing::debug!(target: LOG_TARGET, { run.id = %run, step.path = step, tool, done, total, message }, "progress");
    }
    for Denial { wanted, why } in &report.uses.denied {
        tracing::warn!(target: LOG_TARGET, { run.id = %run, step.path = step, plugin.digest = %plugin, tool, why }, "denied: {wanted}");
    }
    if report.log_dropped > 0 {
        let dropped = report.log_dropped;
        tracing::warn!(target: LOG_TARGET, { run.id = %run, step.path = step, tool, dropped }, "lines of the tool were dropped");
    }
}
