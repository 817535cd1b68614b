//! The database of a cluster: connections to Postgres, and the schema on it.
//!
//! Two kinds of connections: those that wait for the disk, and those that do not (`synchronous_commit = off`), for what
//! may be lost with a crash of Postgres: claims, renewals, notes that an attempt begins. The log of Postgres is written in
//! order, so a commit that waits for the disk takes all earlier ones with it, whoever made them.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::Instant;

use super::OpenError;
use super::sql::{STATEMENT_TIMEOUT, in_time};

/// The schema, in steps. A step that a newer version made is none of ours, and does not hinder us.
pub(super) fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations/postgres");
    migrations.set_ignore_missing(true);
    migrations
}

/// How long a request waits for a free connection before the database counts as away.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// A connection that was used so recently is taken to be alive without asking, while no other one is found broken.
const FRESH: Duration = Duration::from_millis(100);

/// How this program connects.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?;
    // A statement that nobody waits for any more must not hold its locks. A statement of the server itself that is
    // stuck ends a little later than the patience of whoever sent it.
    let timeout = STATEMENT_TIMEOUT.as_millis() + 2_000;
    Ok(options
        .application_name("weir")
        .options([
            ("statement_timeout", timeout.to_string()),
            ("idle_in_transaction_session_timeout", timeout.to_string()),
            // That a table exists already is no news.
            ("client_min_messages", "warning".to_owned()),
        ])
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Off, Duration::MAX))
}

/// The same for statements that find every row by an index. Postgres keeps the plan of a statement that is used often, until
/// the table is analyzed: one that was made for a small table would read all of a large one for minutes.
pub(super) fn by_index(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off")])
}

/// The same without waiting for the disk.
pub(super) fn soft(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("synchronous_commit", "off")])
}

/// When a connection of this process was last found broken: what was used before may lead to the same dead server.
#[derive(Clone, Default)]
pub(super) struct Distrust(Arc<Mutex<Option<Instant>>>);

impl Distrust {
    /// Says that a connection was found broken now.
    pub(super) fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a connection that was used last so long ago may be gone.
    fn covers(&self, idle: Duration) -> bool {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|found| found.elapsed());
        idle > FRESH || since.is_some_and(|since| idle >= since)
    }
}

/// Up to `most` connections, made when they are needed.
pub(super) fn pool(most: u32, options: PgConnectOptions, distrust: Distrust) -> PgPool {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(CONNECTION_WAIT)
        .test_before_acquire(false)
        .before_acquire(move |connection, met| {
            let asks = distrust.covers(met.idle_for);
            Box::pin(async move {
                if asks {
                    in_time(connection.ping()).await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// Brings the schema up to date, one process at a time.
pub(super) async fn migrate(options: &PgConnectOptions) -> Result<(), OpenError> {
    let mut connection = connect_patiently(options).await?;
    // An advisory lock makes processes that start at once wait for the first of them.
    migrations().run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// A connection whose statements may take as long as they need.
async fn connect_patiently(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let patient = [("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];
    in_time(options.clone().options(patient).connect()).await
}

/// A single connection for work on the whole database, with the schema brought up to date. Without `make`, the tables of
/// Weir must be there.
pub(super) async fn open_whole(url: &str, make: bool) -> Result<PgConnection, OpenError> {
    let mut connection = connect_patiently(&options(url)?).await?;
    if !make {
        let there = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
        if !sqlx::query_scalar::<_, bool>(there).fetch_one(&mut connection).await? {
            return Err(OpenError::NoTables);
        }
    }
    migrations().run(&mut connection).await?;
    Ok(connection)
}

/// A single connection that only reads, to a database of somebody else.
pub(super) async fn open_to_read(url: &str) -> Result<PgConnection, sqlx::Error> {
    connect_patiently(&options(url)?.options([("default_transaction_read_only", "on")])).await
}

/// Opens a connection outside the pools.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    in_time(options.connect()).await
}
