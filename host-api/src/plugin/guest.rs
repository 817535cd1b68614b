//! What one call of a guest has: its limits, its meter, and the empty world it sees. Made for the call, dropped with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::GuestLimits;
use super::log::LogBook;
use super::outbound::Outbound;
use super::stdio::Tail;
use super::uses::Uses;

/// What a guest can make the host hold for it, beside its own memory: things with a handle (streams, pollables, requests,
/// headers), the headers of one request, and random bytes of one call.
pub(super) const HANDLES_MAX: usize = 1_000;
const FIELDS_MAX_BYTES: usize = 16 * 1024;
const RANDOM_MAX_BYTES: u64 = 1024 * 1024;

/// Elements of one table of a guest.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// What a call used so far. Shared with the caller, who reads it also when the call was given up.
#[derive(Default)]
pub(super) struct Meter {
    ticks: AtomicU64,
    fuel: AtomicU64,
    memory: AtomicU64,
    peak_memory: AtomicU64,
    memory_refused: AtomicBool,
    log: Mutex<LogBook>,
    uses: Mutex<Uses>,
}

impl Meter {
    pub(super) fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Called at every tick of the epoch that the guest computes through.
    pub(super) fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fuel(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }

    pub(super) fn set_fuel(&self, used: u64) {
        self.fuel.store(used, Ordering::Relaxed);
    }

    pub(super) fn peak_memory(&self) -> u64 {
        self.peak_memory.load(Ordering::Relaxed)
    }

    pub(super) fn memory_refused(&self) -> bool {
        self.memory_refused.load(Ordering::Relaxed)
    }

    pub(super) fn log(&self) -> MutexGuard<'_, LogBook> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data of a guest's store.
pub(super) struct Guest {
    pub(super) meter: Arc<Meter>,
    memory_max: u64,
    /// Made when the guest first asks for it: most tools never do.
    wasi: Option<WasiCtx>,
    http: WasiHttpCtx,
    pub(super) outbound: Outbound,
    table: ResourceTable,
    pub(super) stderr: Tail,
}

impl Guest {
    pub(super) fn new(meter: Arc<Meter>, limits: &GuestLimits, outbound: Outbound) -> Self {
        let (mut http, mut table) = (WasiHttpCtx::new(), ResourceTable::new());
        http.set_field_size_limit(FIELDS_MAX_BYTES);
        table.set_max_capacity(HANDLES_MAX);
        Self {
            outbound,
            meter,
            memory_max: limits.memory_max_bytes as u64,
            wasi: None,
            http,
            table,
            stderr: Tail::default(),
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let stderr = &self.stderr;
        let ctx = self.wasi.get_or_insert_with(|| {
            // No files, no environment, no arguments: a builder grants nothing. It could let sockets be made that reach
            // nobody; but they are the kernel's, and would be many.
            let mut builder = WasiCtx::builder();
            builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
            builder.stdout(stderr.clone()).stderr(stderr.clone()).max_random_size(RANDOM_MAX_BYTES).build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}

impl wasmtime::ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let meter = &self.meter;
        let total = meter.memory.load(Ordering::Relaxed).saturating_add(desired.saturating_sub(current) as u64);
        if total > self.memory_max {
            meter.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        meter.memory.store(total, Ordering::Relaxed);
        meter.peak_memory.fetch_max(total, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
