//! One call: a fresh instance, the guest's work within its limits, and the report of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime::{Store, UpdateDeadline};

use super::GuestLimits;
use super::bindings::PluginPre;
use super::bindings::weir::plugin::tool_types as wit;
use super::fault::{Fault, FaultClass, classify, innermost};
use super::guest::{Guest, HANDLES_MAX, Meter};
use super::host::Shared;
use super::log::{LogLine, Progress};
use super::mcp::{self, Answer, Tool};

/// What `list-tools` may use: it is asked once, and needs little.
const LIST_FUEL: u64 = 500_000_000;
const LIST_TIME: Duration = Duration::from_secs(1);

/// Fuel that a guest is given at once: a call that was given up is known to have used so much less than it did.
const FUEL_INTERVAL: u64 = 50_000_000;

/// Tools of one plugin.
const TOOLS_MAX: usize = 100;

/// What the host copies beside the bytes of an answer: the frames of its lists and records.
const COPY_SLACK_BYTES: usize = 64 * 1024;

/// Bytes of a tool's own message about a failure.
const MESSAGE_MAX_BYTES: usize = 4096;

/// Bytes of a trapped guest's last words in a fault's message.
const LAST_WORDS_MAX_BYTES: usize = 1024;

/// Functions of a trapped guest that a fault's message names.
const FRAMES_TOLD: usize = 4;

/// A compiled component that is ready for calls. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    shared: Arc<Shared>,
    pre: PluginPre<Guest>,
    turns: Arc<Semaphore>,
}

/// One call of one tool.
#[derive(Clone, Debug)]
pub struct Call {
    /// The tool's name.
    pub tool: String,
    /// JSON object text that has passed the tool's input schema.
    pub arguments: String,
    /// The run that calls.
    pub run_id: String,
    /// The step that calls.
    pub step: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The same for all attempts of the step.
    pub idempotency_key: String,
    /// What the call may take, from when it begins to run; waiting for a turn does not count.
    pub timeout: Duration,
}

/// What a call really used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Units of fuel. Of a call that was given up it is known to the last 50 million.
    pub fuel: u64,
    /// Most linear memory at any time, in bytes.
    pub peak_memory_bytes: u64,
    /// From the call's begin to its end.
    pub time: Duration,
}

/// How a call went.
#[derive(Clone, Debug)]
pub struct Report {
    /// The tool's answer, or why there is none.
    pub outcome: Result<Answer, Fault>,
    /// What it used.
    pub used: Used,
    /// What the guest logged, within the caps.
    pub log: Vec<LogLine>,
    /// Lines beyond the caps.
    pub log_dropped: u64,
    /// How far it last said it was.
    pub progress: Option<Progress>,
}

/// What a plugin offers.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The tools, in the plugin's order.
    pub tools: Vec<Tool>,
    /// What listing them used.
    pub used: Used,
}

type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);

enum Job {
    List,
    Call(Box<wit::ToolCall>),
}

enum Done {
    Listed(Vec<wit::ToolInfo>),
    Called(Result<wit::Outcome, wit::Fault>),
}

impl Plugin {
    pub(super) fn new(shared: Arc<Shared>, pre: PluginPre<Guest>) -> Self {
        let turns = Arc::new(Semaphore::new(shared.limits.calls_per_plugin as usize));
        Self { shared, pre, turns }
    }

    /// Asks the plugin for its tools, in a sandbox with little fuel and one second.
    ///
    /// # Errors
    /// How the guest failed, or what in its answer is not as the contract says.
    pub async fn list_tools(&self) -> Result<Listed, Fault> {
        let limits = GuestLimits { fuel: LIST_FUEL, ..self.shared.limits.guest };
        let (result, used, _) = self.perform(Job::List, limits, LIST_TIME).await;
        let Done::Listed(tools) = result? else {
            return Err(Fault::new(FaultClass::Host, "the host mixed up its answers"));
        };
        match tools.len() {
            0 => Err(Fault::new(FaultClass::Contract, "the plugin lists no tools")),
            1..=TOOLS_MAX => Ok(Listed { tools: mcp::tools(tools)?, used }),
            n => Err(Fault::new(FaultClass::Contract, format!("the plugin lists {n} tools, more than {TOOLS_MAX}"))),
        }
    }

    /// Answers one call. Waits for a turn when too many are under way. Dropping the future gives the call up.
    pub async fn call(&self, call: Call) -> Report {
        let limits = self.shared.limits.guest;
        let timeout = call.timeout;
        let (result, used, meter) = self.perform(Job::Call(Box::new(request(call))), limits, timeout).await;
        let mut log = meter.log();
        let (lines, progress) = (std::mem::take(&mut log.lines), log.progress.take());
        let outcome = result.and_then(|done| outcome(done, &limits)).map_err(|fault| overruled(fault, &meter));
        Report { outcome, used, log: lines, log_dropped: log.dropped, progress }
    }

    /// Answers one call with nothing around it: a fresh store, instantiate, call, drop. For measurements only.
    ///
    /// # Errors
    /// How the guest failed.
    pub async fn bare(&self, call: Call) -> Result<(), Fault> {
        let limits = self.shared.limits.guest;
        let meter = Arc::new(Meter::default());
        let mut store = Store::new(self.pre.engine(), Guest::new(Arc::clone(&meter), &limits));
        store.set_epoch_deadline(u64::MAX / 2);
        let fueled = store.set_fuel(limits.fuel);
        let entered = match fueled {
            Ok(()) => enter(&self.pre, Job::Call(Box::new(request(call))), &mut store).await,
            Err(error) => Err(error),
        };
        entered.map(|_| ()).map_err(|error| classify(&error, &meter, &limits))
    }

    async fn perform(&self, job: Job, limits: GuestLimits, time: Duration) -> (Result<Done, Fault>, Used, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        let places =
            (Arc::clone(&self.turns).acquire_owned().await, Arc::clone(&self.shared.places).acquire_owned().await);
        let (Ok(turn), Ok(place)) = places else {
            return (Err(Fault::new(FaultClass::Host, "the host is closed")), Used::default(), meter);
        };
        let began = Instant::now();
        let work = Box::pin(work((turn, place), self.pre.clone(), job, Arc::clone(&meter), limits));
        let ended = tokio::time::timeout(time, self.shared.lane.run(work, || meter.ticks())).await;
        let result = match ended {
            Ok(Some(result)) => result,
            Ok(None) => Err(Fault::new(FaultClass::Host, "the host gave the call up")),
            Err(_) => {
                let message = format!("the tool took longer than {} seconds", time.as_secs_f64());
                Err(Fault::new(FaultClass::Deadline, message))
            }
        };
        let used = Used { fuel: meter.fuel(), peak_memory_bytes: meter.peak_memory(), time: began.elapsed() };
        (result, used, meter)
    }
}

/// A call as the contract writes it.
fn request(call: Call) -> wit::ToolCall {
    wit::ToolCall {
        tool: call.tool,
        arguments: call.arguments,
        run_id: call.run_id,
        step: call.step,
        attempt: call.attempt,
        idempotency_key: call.idempotency_key,
        deadline_ms: Some(u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX)),
        meta: None,
        resumed: None,
    }
}

/// The guest's part of a call: everything that it does happens in here.
///
/// It holds its places: a call that is given up gives them back when its instance is really gone.
async fn work(
    _places: Places,
    pre: PluginPre<Guest>,
    job: Job,
    meter: Arc<Meter>,
    limits: GuestLimits,
) -> Result<Done, Fault> {
    let mut store = Store::new(pre.engine(), Guest::new(Arc::clone(&meter), &limits));
    store.limiter(|guest| guest);
    store.set_hostcall_fuel(limits.output_max_bytes.saturating_add(COPY_SLACK_BYTES));
    store.set_max_component_handles(HANDLES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |context| {
        let left = context.get_fuel().unwrap_or(limits.fuel);
        let meter = &context.data().meter;
        meter.tick();
        meter.set_fuel(limits.fuel.saturating_sub(left));
        Ok(UpdateDeadline::Yield(1))
    });
    let fueled = store.set_fuel(limits.fuel).and_then(|()| store.fuel_async_yield_interval(Some(FUEL_INTERVAL)));
    let result = match fueled {
        Ok(()) => enter(&pre, job, &mut store).await,
        Err(error) => Err(error),
    };
    meter.set_fuel(limits.fuel.saturating_sub(store.get_fuel().unwrap_or_default()));
    result.map_err(|error| {
        let fault = classify(&error, &meter, &limits);
        explained(fault, &error, &store.data().stderr.contents(), &meter)
    })
}

async fn enter(pre: &PluginPre<Guest>, job: Job, store: &mut Store<Guest>) -> wasmtime::Result<Done> {
    let plugin = pre.instantiate_async(&mut *store).await?;
    let tools = plugin.weir_plugin_tools();
    Ok(match job {
        Job::List => Done::Listed(tools.call_list_tools(store).await?),
        Job::Call(request) => Done::Called(tools.call_call_tool(store, &request).await?),
    })
}

/// A trap says where it happened, and what the guest last said.
fn explained(mut fault: Fault, error: &wasmtime::Error, stderr: &[u8], meter: &Meter) -> Fault {
    if !matches!(fault.class, FaultClass::Trap | FaultClass::Stack | FaultClass::Memory) {
        return fault;
    }
    let said = match stderr {
        [] => meter.log().last_error().unwrap_or_default().to_owned(),
        stderr => String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(LAST_WORDS_MAX_BYTES)..]).into_owned(),
    };
    let said = said.trim();
    let end = said.floor_char_boundary(LAST_WORDS_MAX_BYTES);
    if !said.is_empty() {
        fault.message = format!("{}; its last words: {}", fault.message, &said[..end]);
    } else if fault.class != FaultClass::Memory
        && let Some(names) = innermost(error, FRAMES_TOLD)
    {
        fault.message = format!("{}; in {names}", fault.message);
    }
    fault
}

fn outcome(done: Done, limits: &GuestLimits) -> Result<Answer, Fault> {
    let Done::Called(called) = done else {
        return Err(Fault::new(FaultClass::Host, "the host mixed up its answers"));
    };
    match called {
        Ok(wit::Outcome::Done(result)) => {
            let answer = mcp::answer(result)?;
            let bytes: usize =
                answer.content.iter().chain(&answer.structured).chain(&answer.meta).map(json_bytes).sum();
            if bytes > limits.output_max_bytes {
                let message = format!("the answer has {bytes} bytes of JSON, more than {}", limits.output_max_bytes);
                return Err(Fault::new(FaultClass::Output, message));
            }
            Ok(answer)
        }
        Ok(wit::Outcome::Ask(_)) => Err(Fault::new(
            FaultClass::Contract,
            "the tool asks a question, and nobody can answer it: a run cannot wait for that",
        )),
        Err(fault) => Err(reported(fault)),
    }
}

/// The length of a value's JSON text.
fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Nothing here can fail: a value is JSON, and the counter takes everything.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// What a guest says about its failure ends up in journals and logs.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_MAX_BYTES));
    text
}

fn reported(fault: wit::Fault) -> Fault {
    let class = match fault.kind {
        wit::FaultKind::InvalidArguments => FaultClass::Arguments,
        wit::FaultKind::Retryable => FaultClass::Reported { retryable: true },
        wit::FaultKind::UnknownTool | wit::FaultKind::Permanent => FaultClass::Reported { retryable: false },
    };
    if let Some(details) = &fault.details {
        tracing::info!(%details, "a tool's fault has details");
    }
    Fault {
        class,
        message: shortened(fault.message),
        code: fault.code.map(shortened),
        retry_after: fault.retry_after_ms.map(Duration::from_millis),
    }
}

/// A guest that failed after something was refused it, failed for that.
fn overruled(fault: Fault, meter: &Meter) -> Fault {
    let failed = matches!(fault.class, FaultClass::Trap | FaultClass::Reported { .. } | FaultClass::Arguments);
    match meter.denied().filter(|_| failed) {
        Some(wanted) => {
            let message = format!("the tool wanted {wanted}, which is not granted, and failed: {}", fault.message);
            Fault { class: FaultClass::Denied, message, code: fault.code, retry_after: None }
        }
        None => fault,
    }
}
