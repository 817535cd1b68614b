//! The engine that compiles and runs guests, and what it offers them.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use wasmtime::component::{Component, HasSelf, Linker, Resource};
use wasmtime::{Config, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, StoreContextMut};
use wasmtime_wasi::WasiView as _;

use super::artifact::Refused;
use super::bindings::{self, PluginPre};
use super::cache::{Cache, CacheSettings};
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

/// Plugins that are loaded from the cache at once: each is in memory twice meanwhile.
const LOADS: usize = 2;

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

/// Where the code of a plugin came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeFrom {
    /// It was compiled before.
    Cache,
    /// It was compiled now.
    Compiler,
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
    loads: Arc<Semaphore>,
    cache: Option<Cache>,
}

impl PluginHost {
    /// A host with nothing in it, whose guests reach the outside through `egress`, and which compiles everything.
    ///
    /// # Errors
    /// Says what this machine does not give: address space, threads.
    pub fn new(limits: HostLimits, egress: Egress) -> Result<Self, Refused> {
        Self::with_cache(limits, egress, None)
    }

    /// A host with nothing in it, which keeps what it compiled in `cache`.
    ///
    /// # Errors
    /// As for [`PluginHost::new`].
    pub fn with_cache(limits: HostLimits, egress: Egress, cache: Option<CacheSettings>) -> Result<Self, Refused> {
        let refused = |error: wasmtime::Error| Refused(format!("the sandbox cannot be set up: {error:#}"));
        let engine = Engine::new(&config(&limits)).map_err(refused)?;
        let mut linker = Linker::new(&engine);
        // All of WASI 0.2, and nothing in it: what a guest finds there is what `Guest` puts there.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(refused)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(refused)?;
        tell_errors_plainly(&mut linker).map_err(refused)?;
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
            loads: Arc::new(Semaphore::new(LOADS)),
            cache: cache.map(Cache::new),
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

    /// Makes an admitted component ready: takes its code from the cache, or compiles it, in the background and at the
    /// lowest priority, which may take seconds.
    ///
    /// # Errors
    /// Says what in the component is not what `digest` says, cannot be compiled, or does not fit the contract.
    pub async fn compile(&self, digest: [u8; 32], component: Arc<[u8]>) -> Result<(Plugin, CodeFrom), Refused> {
        let refused = |error: wasmtime::Error| Refused(format!("the component cannot be used: {error:#}"));
        let (component, origin) = match self.cached(digest, Arc::clone(&component)).await? {
            Some(component) => (component, CodeFrom::Cache),
            None => (self.compiled(digest, component).await?.map_err(refused)?, CodeFrom::Compiler),
        };
        let pre = self.shared.linker.instantiate_pre(&component).and_then(PluginPre::new).map_err(refused)?;
        Ok((Plugin::new(Arc::clone(&self.shared), pre), origin))
    }

    /// Holds a component against its digest, and looks for its code. Neither waits for a compilation.
    async fn cached(&self, digest: [u8; 32], component: Arc<[u8]>) -> Result<Option<Component>, Refused> {
        let turn = Arc::clone(&self.shared.loads).acquire_owned().await;
        let shared = Arc::clone(&self.shared);
        let load = move || {
            let _turn = turn;
            if <[u8; 32]>::from(Sha256::digest(&component)) != digest {
                return Err(Refused("the component is not what its digest says".to_owned()));
            }
            Ok(shared.cache.as_ref().and_then(|cache| cache.take(&shared.engine, &digest)))
        };
        tokio::task::spawn_blocking(load).await.unwrap_or_else(|_| Err(Refused("the host gave up".to_owned())))
    }

    async fn compiled(&self, digest: [u8; 32], component: Arc<[u8]>) -> Result<wasmtime::Result<Component>, Refused> {
        // The turn is given back when the compilation is over, also when nobody waits for it any more.
        let turn = Arc::clone(&self.shared.compiler).acquire_owned().await;
        let shared = Arc::clone(&self.shared);
        let compile = move || {
            let _turn = turn;
            let compiled = Component::from_binary(&shared.engine, &component)?;
            if let Some(cache) = &shared.cache {
                cache.put(&shared.engine, &digest, &compiled);
            }
            Ok(compiled)
        };
        self.in_background(compile).await
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

/// Lets guests read what broke a stream in words. The library's own way adds, where the environment asks for backtraces, one
/// of this program.
fn tell_errors_plainly(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Error = Resource<wasmtime::Error>;
    linker.allow_shadowing(true);
    linker.instance("wasi:io/error@0.2.12")?.func_wrap(
        "[method]error.to-debug-string",
        |mut store: StoreContextMut<'_, Guest>, (error,): (Error,)| {
            Ok((format!("{:#}", store.data_mut().ctx().table.get(&error)?),))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
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
