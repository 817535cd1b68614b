//! How a call of a tool fails: a closed set of classes, each with its own meaning for whoever may try again.

use std::collections::HashSet;
use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::guest::Meter;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// The guest trapped: a panic, an `unreachable`, a division by zero, an access outside its memory, or `exit`.
    Trap,
    /// The guest used up its stack: a recursion without end.
    Stack,
    /// The guest trapped after it was refused more memory.
    Memory,
    /// The call took longer than it may.
    Deadline,
    /// The guest computed more than it may.
    Fuel,
    /// The guest handed over more than it may: an answer, or the argument of one call of the host.
    Output,
    /// The guest broke the contract of `wit/plugin.wit`: text that is not JSON, a question that nobody can answer.
    Contract,
    /// The guest wanted something that was not granted, and then failed.
    Denied,
    /// The tool itself says that the call failed.
    Reported {
        /// The tool says that trying again may help.
        retryable: bool,
    },
    /// The arguments pass the schema, and the tool says that they are wrong.
    Arguments,
    /// The host had no room for the call.
    Host,
}

/// A call without an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind of failure it is.
    pub class: FaultClass,
    /// What happened, for people.
    pub message: String,
    /// The tool's own name of the cause, for machines.
    pub code: Option<String>,
    /// The tool asks not to be tried again before so long.
    pub retry_after: Option<Duration>,
}

impl Fault {
    pub(super) fn new(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), code: None, retry_after: None }
    }

    /// Whether another attempt may end otherwise.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self.class, FaultClass::Deadline | FaultClass::Host | FaultClass::Reported { retryable: true })
    }
}

/// Frames of a trapped guest that are looked at.
pub(super) const FRAMES_SEEN: usize = 64;

/// Different functions in as many frames as are seen, when they call each other without end.
const RECURSION_MAX: usize = 8;

/// Whether the guest trapped deep in a recursion.
fn recurses(error: &wasmtime::Error) -> bool {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return false };
    let functions: HashSet<u32> = trace.frames().iter().map(wasmtime::FrameInfo::func_index).collect();
    trace.frames().len() >= FRAMES_SEEN && functions.len() <= RECURSION_MAX
}

/// The innermost functions of a trapped guest, as its compiler wrote them down.
pub(super) fn innermost(error: &wasmtime::Error, most: usize) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    for name in error.downcast_ref::<WasmBacktrace>()?.frames().iter().filter_map(wasmtime::FrameInfo::func_name) {
        let name = format!("{:#}", rustc_demangle::demangle(name));
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names.truncate(most);
    (!names.is_empty()).then(|| names.join(", called by "))
}

/// What wasmtime's error means. `meter` knows what the guest was refused before.
pub(super) fn classify(error: &wasmtime::Error, meter: &Meter, limits: &super::GuestLimits) -> Fault {
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Fault::new(FaultClass::Host, format!("the host has no room for the call: {error}"));
    }
    // The error for this has no public type (wasmtime 48, component/func/options.rs): its text is all there is, and
    // the test of the flood tool in tests/it/sandbox.rs fails when it changes.
    let text = format!("{error:#}");
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        let limit = limits.output_max_bytes;
        return Fault::new(FaultClass::Output, format!("the tool handed over more than {limit} bytes at once"));
    }
    if error.downcast_ref::<I32Exit>().is_some() {
        return Fault::new(FaultClass::Trap, "the tool ended its process instead of answering");
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        let cause = error.root_cause();
        return Fault::new(FaultClass::Contract, format!("the tool broke its contract with the host: {cause}"));
    };
    match trap {
        Trap::OutOfFuel => {
            let message = format!("the tool used up its fuel of {} units", limits.fuel);
            Fault::new(FaultClass::Fuel, message)
        }
        Trap::StackOverflow => Fault::new(FaultClass::Stack, "the tool used up its stack"),
        _ if meter.memory_refused() => {
            let message = format!("the tool wanted more than {} bytes of memory, and trapped", limits.memory_max_bytes);
            Fault::new(FaultClass::Memory, message)
        }
        // The stack that compilers keep in linear memory lies below everything else there: it ends outside of it.
        Trap::MemoryOutOfBounds if recurses(error) => Fault::new(FaultClass::Stack, "the tool used up its stack"),
        trap => Fault::new(FaultClass::Trap, format!("the tool trapped: {trap}")),
    }
}
