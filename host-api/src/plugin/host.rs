//! The engine that compiles and runs guests, and what it offers them.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::artifact::Refused;
use super::bindings::{self, PluginPre};
use super::call::Plugin;
use super::fault::FRAMES_SEEN;
use super::guest::{Guest, TABLE_ELEMENTS_MAX};
use super::lane::SlowLane;
use crate::egress::Egress;

/// How often a guest that computes gives way, and is looked at.
const EPOCH: Duration = Duration::from_millis(10);

/// Bytes of a linear memory that stay with its slot between calls. Without it every call returns its pages to the
/// kernel, and threads wait for each other there.
const KEEP_RESIDENT_BYTES: usize = 512 * 1024;

/// Plugins that are asked for their tools at once.
const LISTINGS: u32 = 2;

/// Core instances, memories and tables of one component. A Rust guest has three instances (itself and the two that
/// tie it to its imports) and one memory.
const INSTANCES_PER_GUEST: u32 = 24;
const MEMORIES_PER_GUEST: u32 = 2;
const TABLES_PER_GUEST: u32 = 8;

/// What one call of a guest may use.
#[derive(Clone, Copy, Debug)]
pub struct GuestLimits {
    /// Linear memory, all memories of the guest together, in bytes.
    pub memory_max_bytes: usize,
    /// Units of fuel: about one for each instruction.
    pub fuel: u64,
    /// The answer, in bytes of its JSON.
    pub output_max_bytes: usize,
}

/// What one call of a guest may send to hosts that are granted. What a response may have is a matter of the [`Egress`].
#[derive(Clone, Copy, Debug)]
pub struct OutboundLimits {
    /// Requests of one call.
    pub requests_max: u32,
    /// Requests of one call at once. Further ones wait.
    pub requests_at_once_max: u32,
    /// The body of a request, in bytes.
    pub request_max_bytes: usize,
}

/// What all guests of a process may use.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits {
    /// What one call may use.
    pub guest: GuestLimits,
    /// What one call may send.
    pub outbound: OutboundLimits,
    /// Calls at once, over all plugins. Further ones wait.
    pub calls: u32,
    /// Calls at once of one plugin. Further ones wait.
    pub calls_per_plugin: u32,
}

/// Compiles and runs plugins. Cheap to clone.
#[derive(Clone)]
pub struct PluginHost {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) engine: Engine,
    linker: Linker<Guest>,
    pub(super) lane: SlowLane,
    pub(super) limits: HostLimits,
    /// The way out, for what is granted.
    pub(super) egress: Egress,
    /// As many as the pool has places.
    pub(super) places: Arc<Semaphore>,
    /// Places of plugins that are asked for their tools: tools that take their time keep no upload waiting.
    pub(super) listings: Arc<Semaphore>,
    /// One compilation at a time.
    compiler: Arc<Semaphore>,
}

impl PluginHost {
    /// A host with nothing in it, whose guests reach the outside through `egress`.
    ///
    /// # Errors
    /// Says what this machine does not give: address space, threads.
    pub fn new(limits: HostLimits, egress: Egress) -> Result<Self, Refused> {
        let refused = |error: wasmtime::Error| Refused(format!("the sandbox cannot be set up: {error:#}"));
        let engine = Engine::new(&config(&limits)).map_err(refused)?;
        let mut linker = Linker::new(&engine);
        // All of WASI 0.2, and nothing in it: what a guest finds there is what `Guest` puts there.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(refused)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(refused)?;
        bindings::Plugin::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest).map_err(refused)?;
        let thread = |error: std::io::Error| Refused(format!("the sandbox cannot be set up: {error}"));
        let ticking = engine.weak();
        std::thread::Builder::new().name("weir-epoch".to_owned()).spawn(move || tick(&ticking)).map_err(thread)?;
        let shared = Shared {
            lane: SlowLane::new().map_err(thread)?,
            engine,
            linker,
            listings: Arc::new(Semaphore::new(LISTINGS as usize)),
            places: Arc::new(Semaphore::new(limits.calls as usize)),
            limits,
            egress,
            compiler: Arc::new(Semaphore::new(1)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Does work on what a stranger sent that blocks and may take long, at the lowest priority.
    ///
    /// # Errors
    /// When the work panicked, which is a defect.
    pub async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let done = self.shared.lane.run_blocking(work).await;
        done.ok_or_else(|| Refused("the host gave up".to_owned()))
    }

    /// Compiles an admitted component, in the background and at the lowest priority: it may take seconds.
    ///
    /// # Errors
    /// Says what in the component cannot be compiled or does not fit the contract.
    pub async fn compile(&self, component: Arc<[u8]>) -> Result<Plugin, Refused> {
        // The turn is given back when the compilation is over, also when nobody waits for it any more.
        let turn = Arc::clone(&self.shared.compiler).acquire_owned().await;
        let engine = self.shared.engine.clone();
        let compile = move || {
            let _turn = turn;
            Component::from_binary(&engine, &component)
        };
        let compiled = self.in_background(compile).await?;
        let refused = |error: wasmtime::Error| Refused(format!("the component cannot be used: {error:#}"));
        let component = compiled.map_err(refused)?;
        let pre = self.shared.linker.instantiate_pre(&component).and_then(PluginPre::new).map_err(refused)?;
        Ok(Plugin::new(Arc::clone(&self.shared), pre))
    }
}

fn config(limits: &HostLimits) -> Config {
    let calls = limits.calls.saturating_add(LISTINGS);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(INSTANCES_PER_GUEST))
        .total_memories(calls.saturating_mul(MEMORIES_PER_GUEST))
        .total_tables(calls.saturating_mul(TABLES_PER_GUEST))
        .total_stacks(calls)
        .max_core_instances_per_component(INSTANCES_PER_GUEST)
        .max_memories_per_component(MEMORIES_PER_GUEST)
        .max_tables_per_component(TABLES_PER_GUEST)
        .max_tables_per_module(TABLES_PER_GUEST)
        .max_memory_size(limits.guest.memory_max_bytes)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(NonZero::new(FRAMES_SEEN))
        .consume_fuel(true);
    config
}

/// Advances the epoch for as long as the engine lives.
fn tick(engine: &EngineWeak) {
    loop {
        std::thread::sleep(EPOCH);
        match engine.upgrade() {
            Some(engine) => engine.increment_epoch(),
            None => return,
        }
    }
}
