//! The two databases behind the store, and what opening one can come to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::{SqlSafeStr, SqlitePool};

use super::lane::{Batch, One};
use super::postgres::{self, Cluster};
use super::sql::{Connection, On, Query, in_time};
use super::writer::{Op, Writer};
use super::{StoreError, sqlite};

/// How often a transaction on Postgres that collided with another one is repeated.
pub(super) const COLLISIONS_MAX: u32 = 10;

/// Where the database is.
#[derive(Clone, Debug)]
pub enum Location {
    /// One SQLite file, opened by one process.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// A Postgres database, shared by any number of processes.
    Cluster {
        /// Its URL, which may hold a password.
        url: String,
        /// Most connections of this process, beside the seven that claims and group commits have.
        connections_max: u32,
    },
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{path} is open in another weir process{pid}: one process at a time can use an embedded database")]
    Locked {
        /// The database file.
        path: PathBuf,
        /// The other process, where it is known: ` (pid 123)`.
        pid: String,
    },
    /// The directory or the lock file cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The schema is newer than this binary, or a migration failed.
    #[error("the database schema cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database itself refused, or does not answer.
    #[error("the database cannot be opened: {0}")]
    Database(#[from] sqlx::Error),
    /// Another program's database, or an empty one.
    #[error("the database holds no tables of Weir")]
    NoTables,
    /// A first write failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is none for which there is a copy in one file.
    #[error("this works on an embedded database only; a database on Postgres is backed up with pg_dump")]
    NotEmbedded,
}

/// A database, open. Cheap to clone.
#[derive(Clone)]
pub(super) enum Db {
    Sqlite {
        readers: SqlitePool,
        writer: Writer,
        /// Held as long as any clone lives; a second process is refused by it.
        _lock: Arc<Option<sqlite::Lock>>,
    },
    Postgres(Arc<Cluster>),
}

impl Db {
    pub(super) async fn open(location: &Location, beside: bool) -> Result<Self, OpenError> {
        match location {
            Location::Embedded { path } => {
                let (lock, connection, readers) = sqlite::open(path, beside).await?;
                Ok(Self::Sqlite { readers, writer: Writer::start(connection), _lock: Arc::new(lock) })
            }
            Location::Cluster { url, connections_max } => {
                Ok(Self::Postgres(Arc::new(postgres::open(url, *connections_max).await?)))
            }
        }
    }

    /// A query that only reads.
    pub(super) fn query(&self, sql: impl SqlSafeStr) -> Query<'_> {
        match self {
            Self::Sqlite { readers, .. } => Query::Sqlite(On::Pool(readers), sqlx::query(sql)),
            Self::Postgres(cluster) => Query::Postgres(On::Pool(&cluster.pool), sqlx::query(sql)),
        }
    }

    /// Writes. What has begun is finished even when the caller goes away.
    pub(super) async fn write<O: Op>(&self, op: O) -> Result<O::Output, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => writer.run(op).await,
            Self::Postgres(cluster) => {
                let cluster = Arc::clone(cluster);
                #[expect(clippy::disallowed_methods, reason = "a transaction must not be left half-way by its caller")]
                let written = tokio::spawn(async move { write_on(&cluster, &op).await });
                written.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
            }
        }
    }

    /// Writes together with whatever of the same kind waits at the moment.
    pub(super) async fn write_batched<B: Batch>(&self, item: B) -> Result<B::Output, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => writer.run(One(item)).await,
            Self::Postgres(cluster) => B::lane(&item, cluster).run(item).await,
        }
    }

    pub(super) async fn close(self) {
        match self {
            Self::Sqlite { readers, writer, _lock } => {
                // The last connection to close moves the log into the database file: that must be the one that may write.
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(cluster) => {
                cluster.creations.close().await;
                cluster.appends.close().await;
                cluster.notes.close().await;
                cluster.pool.close().await;
                cluster.soft.close().await;
            }
        }
    }
}

async fn write_on<O: Op>(cluster: &Cluster, op: &O) -> Result<O::Output, StoreError> {
    let (mut collisions, mut reconnected) = (0, false);
    loop {
        let mut committing = false;
        let error = match write_once(cluster, op, &mut committing).await {
            Ok(output) => return Ok(output),
            Err(error) => error,
        };
        if postgres::collided(&error) && collisions < COLLISIONS_MAX {
            collisions += 1;
        } else if postgres::is_broken(&error) && !reconnected && !committing {
            // The connection was cut in the pool, by a restart for example: nothing happened.
            reconnected = true;
        } else {
            return Err(error.into());
        }
    }
}

/// What need not be durable is one statement, which needs no transaction around it.
async fn write_once<O: Op>(cluster: &Cluster, op: &O, committing: &mut bool) -> Result<O::Output, sqlx::Error> {
    let pool = if op.durable() { &cluster.pool } else { &cluster.soft };
    let mut connection = pool.acquire().await?;
    let written = async {
        if !op.durable() {
            return op.perform(&mut Connection::Postgres(&mut connection)).await;
        }
        let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
        let output = op.perform(&mut Connection::Postgres(&mut transaction)).await?;
        *committing = true;
        transaction.commit().await?;
        Ok(output)
    };
    let written = in_time(written).await;
    if written.as_ref().is_err_and(|error| matches!(error, sqlx::Error::Io(_)) || postgres::is_broken(error)) {
        connection.close_on_drop();
    }
    written
}

/// Brings the schema up to date and names the migrations in force.
///
/// # Errors
/// As for opening: a server that runs on an embedded database holds its lock.
pub async fn migrate(location: &Location) -> Result<Vec<String>, OpenError> {
    Db::open(location, false).await?.close().await;
    let known = match location {
        Location::Embedded { .. } => sqlite::migrations(),
        Location::Cluster { .. } => postgres::migrations(),
    };
    Ok(known.iter().map(|migration| format!("{:04} {}", migration.version, migration.description)).collect())
}

/// Writes a consistent copy of an embedded database to `target`, which must not exist. A server may go on working
/// meanwhile.
///
/// # Errors
/// When the database does not exist or the copy cannot be written.
pub async fn backup(location: &Location, target: &Path) -> Result<(), OpenError> {
    match location {
        Location::Embedded { path } => sqlite::backup(path, target).await,
        Location::Cluster { .. } => Err(OpenError::NotEmbedded),
    }
}

/// Whether an error may pass by itself: full disk, IO, locks, exhausted pools, a database that restarts. Everything else
/// is permanent.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
                postgres::may_pass(&code)
            } else {
                sqlite::may_pass(&code)
            }
        }
        _ => false,
    }
}
