//! One call: a fresh instance, the guest's work within its limits, and the report of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime::{Store, UpdateDeadline};

use super::GuestLimits;
use super::ask::{self, Asked, Resumption};
use super::bindings::weir::plugin::tool_types as wit;
use super::bindings::{self, PluginPre};
use super::fault::{Fault, FaultClass, classify, innermost};
use super::guest::{Guest, HANDLES_MAX, Meter};
use super::host::Shared;
use super::log::{LogLevel, LogLine, Progress};
use super::mcp::{self, Answer, Tool, json_bytes};
use super::outbound::{Outbound, Reach};
use super::tape::Tape;
use super::uses::{Denial, Uses};

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
    /// After questions: how the call goes on.
    pub resumed: Option<Resumption>,
    /// What the call may take, from when it begins to run; waiting for a turn does not count. The plugin's request and
    /// its grant may say less.
    pub timeout: Duration,
    /// What it may reach.
    pub reach: Arc<Reach>,
    /// Keeps its requests, or answers them.
    pub tape: Option<Arc<Tape>>,
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

/// What becomes of a call that did not fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The answer.
    Done(Answer),
    /// Questions: the call goes on when they are answered.
    Asked(Asked),
}

/// How a call went.
#[derive(Clone, Debug)]
pub struct Report {
    /// What became of it, or why nothing did.
    pub outcome: Result<Outcome, Fault>,
    /// What it used.
    pub used: Used,
    /// What the guest logged, within the caps.
    pub log: Vec<LogLine>,
    /// Lines beyond the caps.
    pub log_dropped: u64,
    /// How far it last said it was.
    pub progress: Option<Progress>,
    /// What it used of its rights.
    pub uses: Uses,
}

/// What a plugin offers.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The tools, in the plugin's order.
    pub tools: Vec<Tool>,
    /// What listing them used.
    pub used: Used,
}

/// What a call may reach, and its tape.
pub(super) type Way = (Arc<Reach>, Option<Arc<Tape>>);

type Places = Vec<OwnedSemaphorePermit>;

/// What a guest works on.
type Work<'s, T> = BoxFuture<'s, wasmtime::Result<T>>;

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
        let way = (Arc::default(), None);
        let (tools, used, _) = self.perform(limits, LIST_TIME, way, &[&self.shared.listings], list).await;
        let tools = tools?;
        match tools.len() {
            0 => Err(Fault::new(FaultClass::Contract, "the plugin lists no tools")),
            1..=TOOLS_MAX => Ok(Listed { tools: mcp::tools(tools)?, used }),
            n => Err(Fault::new(FaultClass::Contract, format!("the plugin lists {n} tools, more than {TOOLS_MAX}"))),
        }
    }

    /// Answers one call. Waits for a turn when too many are under way. Dropping the future gives the call up.
    pub async fn call(&self, call: Call) -> Report {
        let way = (Arc::clone(&call.reach), call.tape.clone());
        let (limits, timeout) = narrowed(self.shared.limits.guest, call.timeout, &call.reach);
        let memory_limit = whose(&call.reach, limits.memory_max_bytes);
        let request = request(Call { timeout, ..call });
        let places = [&self.turns, &self.shared.places];
        let (called, used, meter) =
            self.perform(limits, timeout, way, &places, |store, plugin| answer(store, plugin, request)).await;
        let mut log = meter.log();
        let (mut lines, progress) = (std::mem::take(&mut log.lines), log.progress.take());
        if let Ok(Err(wit::Fault { details: Some(details), .. })) = &called {
            let fields = Some(shortened(details.clone()));
            lines.push(LogLine { level: LogLevel::Info, message: "details of the fault".to_owned(), fields });
        }
        let uses = std::mem::take(&mut *meter.uses());
        let outcome = called.and_then(|called| outcome(called, &limits)).map_err(|mut fault| {
            if let Some(whose) = memory_limit.filter(|_| fault.class == FaultClass::Memory) {
                fault.message = format!("{} (`memory_max_bytes` of its {whose})", fault.message);
            }
            overruled(fault, &uses)
        });
        Report { outcome, used, log: lines, log_dropped: log.dropped, progress, uses }
    }

    /// Answers one call with nothing around it: a fresh store, instantiate, call, drop. For measurements only.
    ///
    /// # Errors
    /// How the guest failed.
    pub async fn bare(&self, call: Call) -> Result<(), Fault> {
        let limits = self.shared.limits.guest;
        let meter = Arc::new(Meter::default());
        let mut store = self.store(&meter, &limits, (Arc::clone(&call.reach), call.tape.clone()));
        store.set_epoch_deadline(u64::MAX / 2);
        let enter = async {
            store.set_fuel(limits.fuel)?;
            let plugin = self.pre.instantiate_async(&mut store).await?;
            answer(&mut store, plugin, request(call)).await
        };
        enter.await.map(|_| ()).map_err(|error| classify(&error, &meter, &limits))
    }

    fn store(&self, meter: &Arc<Meter>, limits: &GuestLimits, way: Way) -> Store<Guest> {
        let shared = &self.shared;
        let outbound = Outbound::new(Arc::clone(meter), way, shared.egress.clone(), shared.limits.outbound);
        Store::new(self.pre.engine(), Guest::new(Arc::clone(meter), limits, outbound))
    }

    async fn perform<T: Send + 'static>(
        &self,
        limits: GuestLimits,
        time: Duration,
        way: Way,
        places: &[&Arc<Semaphore>],
        ask: impl for<'s> FnOnce(&'s mut Store<Guest>, bindings::Plugin) -> Work<'s, T> + Send + 'static,
    ) -> (Result<T, Fault>, Used, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        let mut taken = Places::new();
        for place in places {
            match Arc::clone(place).acquire_owned().await {
                Ok(permit) => taken.push(permit),
                Err(_) => return (Err(Fault::new(FaultClass::Host, "the host is closed")), Used::default(), meter),
            }
        }
        let began = Instant::now();
        let store = self.store(&meter, &limits, way);
        let work = Box::pin(work(taken, self.pre.clone(), store, limits, ask));
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
        resumed: call.resumed.map(ask::resumed),
    }
}

/// The guest's part of a call: everything that it does happens in here.
///
/// It holds its places: a call that is given up gives them back when its instance is really gone.
async fn work<T>(
    _places: Places,
    pre: PluginPre<Guest>,
    mut store: Store<Guest>,
    limits: GuestLimits,
    ask: impl for<'s> FnOnce(&'s mut Store<Guest>, bindings::Plugin) -> Work<'s, T> + Send,
) -> Result<T, Fault> {
    let meter = Arc::clone(&store.data().meter);
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
    let begun = AtomicBool::new(false);
    let enter = async {
        store.set_fuel(limits.fuel)?;
        store.fuel_async_yield_interval(Some(FUEL_INTERVAL))?;
        let plugin = pre.instantiate_async(&mut store).await?;
        begun.store(true, Ordering::Relaxed);
        ask(&mut store, plugin).await
    };
    let result = enter.await;
    meter.set_fuel(limits.fuel.saturating_sub(store.get_fuel().unwrap_or_default()));
    result.map_err(|error| {
        let mut fault = classify(&error, &meter, &limits);
        // What a guest needs to begin with is refused without a trap.
        if fault.class == FaultClass::Contract && !begun.load(Ordering::Relaxed) && meter.memory_refused() {
            let most = limits.memory_max_bytes;
            fault =
                Fault::new(FaultClass::Memory, format!("the tool wanted more than {most} bytes of memory to begin"));
        }
        explained(fault, &error, &store.data().stderr.contents(), &meter)
    })
}

fn list(store: &mut Store<Guest>, plugin: bindings::Plugin) -> Work<'_, Vec<wit::ToolInfo>> {
    Box::pin(async move { plugin.weir_plugin_tools().call_list_tools(store).await })
}

fn answer(
    store: &mut Store<Guest>,
    plugin: bindings::Plugin,
    request: wit::ToolCall,
) -> Work<'_, Result<wit::Outcome, wit::Fault>> {
    Box::pin(async move { plugin.weir_plugin_tools().call_call_tool(store, &request).await })
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

fn outcome(called: Result<wit::Outcome, wit::Fault>, limits: &GuestLimits) -> Result<Outcome, Fault> {
    match called {
        Ok(wit::Outcome::Done(result)) => {
            let answer = mcp::answer(result)?;
            let bytes: usize = answer
                .content
                .iter()
                .chain(&answer.structured)
                .chain(&answer.meta)
                .map(json_bytes)
                .fold(0, usize::saturating_add);
            if bytes > limits.output_max_bytes {
                let message = format!("the answer has {bytes} bytes of JSON, more than {}", limits.output_max_bytes);
                return Err(Fault::new(FaultClass::Output, message));
            }
            Ok(Outcome::Done(answer))
        }
        Ok(wit::Outcome::Ask(questions)) => ask::asked(questions, limits.output_max_bytes).map(Outcome::Asked),
        Err(fault) => Err(reported(fault)),
    }
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
    Fault {
        class,
        message: shortened(fault.message),
        code: fault.code.map(shortened),
        retry_after: fault.retry_after_ms.map(Duration::from_millis),
    }
}

/// The limits of a call that the plugin itself or its grant keeps narrower.
fn narrowed(mut limits: GuestLimits, mut timeout: Duration, reach: &Reach) -> (GuestLimits, Duration) {
    for memory in [reach.request.memory_max_bytes, reach.grant.memory_max_bytes].into_iter().flatten() {
        limits.memory_max_bytes = limits.memory_max_bytes.min(usize::try_from(memory).unwrap_or(usize::MAX));
    }
    for seconds in [reach.request.timeout_seconds, reach.grant.timeout_seconds].into_iter().flatten() {
        timeout = timeout.min(Duration::from_secs(seconds.into()));
    }
    (limits, timeout)
}

/// Who keeps the memory of a call to `most` bytes: the grant, or the request; else every call is kept to it.
fn whose(reach: &Reach, most: usize) -> Option<&'static str> {
    let says = |memory: Option<u64>| memory.is_some_and(|memory| usize::try_from(memory) == Ok(most));
    let whose = [("grant", reach.grant.memory_max_bytes), ("request", reach.request.memory_max_bytes)];
    whose.into_iter().find(|(_, memory)| says(*memory)).map(|(whose, _)| whose)
}

/// A guest that failed after something was refused it, failed for that.
fn overruled(fault: Fault, uses: &Uses) -> Fault {
    let failed = matches!(fault.class, FaultClass::Trap | FaultClass::Reported { .. } | FaultClass::Arguments);
    match uses.denied.first().filter(|_| failed) {
        Some(Denial { wanted, why }) => {
            let message = format!("the tool wanted {wanted} and was denied ({why}); then it failed: {}", fault.message);
            Fault { class: FaultClass::Denied, message, code: fault.code, retry_after: None }
        }
        None => fault,
    }
}
