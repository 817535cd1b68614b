//! Wiring: makes the rooms from the configuration, joins them, and takes them down in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::ServiceExt;
use axum::extract::Request;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_host::egress::Egress;
use weir_host::plugin::PluginHost;

use crate::api::{self, Api, Door, Known, Parts};
use crate::clock::{Clock, SharedClock, SystemClock, random_bytes};
use crate::config::{Config, Role};
use crate::engine::steps::Performer;
use crate::engine::{Engine, Workbench};
use crate::store::{Location, MASTER_KEY, OpenError, Store, StoreError};
use crate::telemetry;
use crate::tools::Tools;
use crate::vault::Vault;
use crate::wire::{LocalWire, RedisSettings, RedisWire, Wire};

/// How long open connections may take to end after everything else has.
const CONNECTIONS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a start waits for a database on Postgres that is not there, and how long between two tries.
const DATABASE_PATIENCE: Duration = Duration::from_secs(60);
const DATABASE_PAUSE: Duration = Duration::from_millis(500);

/// How often the time of a shared database is asked for, and how long its answer may take to be of use.
const TIME_EVERY: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How often it is asked for at the start, when answers take too long.
const FIRST_TRIES: usize = 5;

/// Serves until SIGTERM or SIGINT, then shuts down in order: no new requests, no new attempts, attempts under way
/// finished or released, everything written.
///
/// # Errors
/// When the server cannot start, or its listener fails.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut stop = stop_signal()?;
    let location = config.location()?;
    let base = tokio::select! {
        base = base_when_there(&config, &location) => base?,
        _ = stop.recv() => return Ok(()),
    };
    let Base { store, clock, keeping_time, door, vault } = base;
    let listener = if config.listens { Some(listen(&config, &door).await?) } else { None };
    let wire = wire(&config, &location)?;
    let (egress, host) = outside(&config)?;
    let tools = Tools::new(store.clone(), host, Arc::clone(&vault), config.plugin_trust()?);
    let tools = tools.keeping(config.plugin_calls_kept);
    let performer = Performer::new(egress, config.http_calls_max, tools.clone());
    let bench = Workbench::new(store.clone(), clock, performer, config.limits(), Arc::clone(&wire));
    let engine = Engine::new(Arc::new(bench), config.engine());
    let dispatcher = engine.start();
    if config.role == Role::Api && matches!(location, Location::Embedded { .. }) {
        tracing::warn!("the role `api` executes no run: runs wait until a process with the role `all` is started");
    }
    let mut background = JoinSet::new();
    background.spawn(keeping_time);
    background.spawn({
        let tools = tools.clone();
        async move { tools.warm().await }
    });
    background.spawn({
        let tools = tools.clone();
        async move { tools.keep_book().await }
    });
    if let Some(listener) = listener {
        let address = listener.local_addr()?;
        let role = config.role;
        let (store, engine, known) = (store.clone(), engine.clone(), Known::default());
        let tools = tools.clone();
        let api = Api::new(Parts { store, engine: engine.clone(), tools, vault, door, known, config });
        let service = if role == Role::Worker {
            tracing::info!(%address, "executing runs, with health and metrics on http://{address}");
            api::worker_service(api)
        } else {
            tracing::info!(%address, "listening on http://{address}, documentation at http://{address}/docs");
            api::service(api)
        };
        answer(listener, service, &engine, stop).await?;
    } else {
        tracing::info!("executing runs, without a listener");
        stop.recv().await;
    }
    background.shutdown().await;
    tracing::info!("stopping: attempts under way are finished or released");
    engine.stop();
    dispatcher.await.context("the dispatcher")?;
    drop(engine);
    tools.write_book().await;
    drop(tools);
    wire.close().await;
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// What everything else stands on.
struct Base {
    store: Store,
    clock: Arc<dyn Clock>,
    keeping_time: BoxFuture<'static, ()>,
    door: Door,
    vault: Arc<Vault>,
}

/// Opens what is in the database. One on Postgres may be about to start, or to recover: it is waited for a while.
async fn base_when_there(config: &Config, location: &Location) -> anyhow::Result<Base> {
    let patient_until = Instant::now() + DATABASE_PATIENCE;
    loop {
        let error = match Box::pin(base(config, location)).await {
            Ok(base) => return Ok(base),
            Err(error) => error,
        };
        let passes = |cause: &(dyn std::error::Error + 'static)| {
            let open = cause.downcast_ref::<OpenError>().is_some_and(OpenError::may_pass);
            open || matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Unavailable(_)))
        };
        let shared = matches!(location, Location::Cluster { .. });
        if !shared || Instant::now() >= patient_until || !error.chain().any(passes) {
            return Err(error);
        }
        tracing::warn!(error = telemetry::told(&error), "the database is not there yet: waiting for it");
        tokio::time::sleep(DATABASE_PAUSE).await;
    }
}

async fn base(config: &Config, location: &Location) -> anyhow::Result<Base> {
    let (store, clock, keeping_time) = open(location).await?;
    let door = door(config, &store).await?;
    let vault = Arc::new(vault(config, location, &store).await?);
    Ok(Base { store, clock, keeping_time, door, vault })
}

/// Opens the database, with the clock that all its processes go by, and what keeps that clock right.
///
/// # Errors
/// When it cannot be opened, or does not say what time it is.
pub(crate) async fn open(location: &Location) -> anyhow::Result<(Store, Arc<dyn Clock>, BoxFuture<'static, ()>)> {
    if let Location::Embedded { .. } = location {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        return Ok((Store::open(location, Arc::clone(&clock)).await?, clock, Box::pin(std::future::ready(()))));
    }
    let clock = SharedClock::default();
    let store = Store::open(location, Arc::new(clock.clone())).await?;
    for _ in 0..FIRST_TRIES {
        if take_time(&store, &clock).await? {
            break;
        }
    }
    let (kept, source) = (clock.clone(), store.clone());
    let keeping_time = async move {
        loop {
            tokio::time::sleep(TIME_EVERY).await;
            if let Err(error) = take_time(&source, &kept).await {
                tracing::debug!(%error, "the time of the database is not known now");
            }
        }
    };
    Ok((store, Arc::new(clock), Box::pin(keeping_time)))
}

/// Takes over the time of the database, as of the middle of the question and its answer. An answer that took long says
/// little, and is left out.
async fn take_time(store: &Store, clock: &SharedClock) -> Result<bool, StoreError> {
    let asked = clock.now();
    let time = store.time().await?;
    let took = clock.now().since(asked);
    let Some(time) = time.filter(|_| took < ANSWER_MAX) else { return Ok(false) };
    clock.set(time.plus(took / 2));
    Ok(true)
}

/// The one way out, and the sandbox whose tools take it too.
///
/// # Errors
/// When the configuration or this machine does not allow it.
pub(crate) fn outside(config: &Config) -> anyhow::Result<(Egress, PluginHost)> {
    let egress = Egress::new(config.egress()?).context("the http client")?;
    let host = PluginHost::with_cache(config.plugins(), egress.clone(), config.plugin_cache(random_bytes))?;
    Ok((egress, host))
}

fn wire(config: &Config, location: &Location) -> anyhow::Result<Arc<dyn Wire>> {
    Ok(match location {
        Location::Embedded { .. } => Arc::new(LocalWire::default()),
        Location::Cluster { .. } => Arc::new(RedisWire::start(RedisSettings {
            url: config.redis_url.clone(),
            prefix: config.redis_prefix.clone(),
            state_ttl: Duration::from_secs(config.run_state_ttl_seconds.into()),
        })?),
    })
}

/// The vault with the configured master key, which must be the one of the database.
///
/// # Errors
/// When there is no such key, or the secrets of the database are sealed with another one.
pub(crate) async fn vault(config: &Config, location: &Location, store: &Store) -> anyhow::Result<Vault> {
    let vault = open_vault(config, location)?;
    if let Location::Cluster { .. } = location {
        check_master_key(store, &vault).await?;
    }
    Ok(vault)
}

fn open_vault(config: &Config, location: &Location) -> anyhow::Result<Vault> {
    let mut vault = current_vault(config, location)?;
    for (n, key) in config.master_keys_accepted.iter().enumerate() {
        vault = vault.accepting(Vault::new(key, &format!("`master_keys_accepted`, entry {}", n + 1))?);
    }
    Ok(vault)
}

fn current_vault(config: &Config, location: &Location) -> anyhow::Result<Vault> {
    if !config.master_key.is_empty() {
        return Vault::new(&config.master_key, "`master_key`");
    }
    let embedded = matches!(location, Location::Embedded { .. });
    Vault::open(&config.master_key_path(), embedded).context(
        "every process of a cluster needs the same master key: 32 random bytes in base64 (`openssl rand -base64 32`), in \
         WEIR_MASTER_KEY or in `master_key_file`",
    )
}

/// Refuses a master key that is not the one of this database: its secrets would not open, and new ones only here.
async fn check_master_key(store: &Store, vault: &Vault) -> anyhow::Result<()> {
    let known = store.fact(MASTER_KEY, vault.seal(MASTER_KEY.as_bytes(), MASTER_KEY)).await?;
    if vault.open_sealed(MASTER_KEY.as_bytes(), &known).is_err() {
        bail!(
            "the master key is not the one that the secrets in this database are sealed with. If that one is lost, \
             `DELETE FROM facts WHERE name = 'master_key'`, and give every webhook endpoint a new secret"
        );
    }
    Ok(())
}

/// The door with its keys: locked when there is one.
async fn door(config: &Config, store: &Store) -> anyhow::Result<Door> {
    let (any, _) = store.knows_api_key(&[0; 32]).await?;
    Ok(Door::new(config.api_key_hashes()?, any, config.requests_max))
}

async fn listen(config: &Config, door: &Door) -> anyhow::Result<TcpListener> {
    let address = config.listen;
    if !address.ip().is_loopback() && !config.insecure && !door.is_locked() {
        bail!(
            "{address} can be reached from other machines, and there is no API key: whoever reaches it could define and \
             start workflows. Make a key with `weir key create`, listen on 127.0.0.1, or say --insecure if something in \
             front of it authenticates"
        );
    }
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Answers requests until a signal comes, and lets those under way end.
async fn answer(
    listener: TcpListener,
    service: api::Service,
    engine: &Engine,
    mut stop: tokio::sync::mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let (stopping, mut stopped) = tokio::sync::watch::channel(());
    let engine = engine.clone();
    let signal = async move {
        stop.recv().await;
        // Requests that wait for the end of a run answer now.
        engine.stop();
        drop(stopping);
    };
    let service = ServiceExt::<Request>::into_make_service(service);
    let serving = axum::serve(listener, service).with_graceful_shutdown(signal).into_future();
    let out_of_time = async {
        // The sender is dropped, never used: an error is the signal.
        let _ = stopped.changed().await;
        tokio::time::sleep(CONNECTIONS_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => served.context("the listener"),
        () = out_of_time => {
            tracing::warn!("connections that are still open are cut");
            Ok(())
        }
    }
}

/// Receives once when the process is asked to stop. A second signal ends it at once.
#[expect(clippy::disallowed_methods, reason = "signals are waited for as long as the process lives")]
fn stop_signal() -> anyhow::Result<tokio::sync::mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                let _ = sender.send(()).await;
            } else {
                tracing::warn!("asked a second time: ending at once; the next start goes on with every run");
                std::process::exit(1);
            }
        }
    });
    Ok(receiver)
}
