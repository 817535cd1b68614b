//! The two databases behind the store, and what opening one can come to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::migrate::MigrateError;
use sqlx::{SqlSafeStr, SqlitePool};

use super::batch::Batch;
use super::cluster::Cluster;
use super::failure::may_start;
use super::lane::Lane;
use super::sql::{On, Query};
use super::writer::{Op, Writer};
use super::{StoreError, postgres, sqlite};

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
    Migrate(#[from] MigrateError),
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

impl OpenError {
    /// Whether the database may be there a little later: it does not answer, or is starting or recovering.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Database(error) | Self::Migrate(MigrateError::Execute(error)) => may_start(error),
            Self::Store(StoreError::Unavailable(_)) => true,
            _ => false,
        }
    }
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
                Ok(Self::Postgres(Arc::new(Cluster::open(url, *connections_max).await?)))
            }
        }
    }

    /// A query that only reads.
    pub(super) fn query(&self, sql: impl SqlSafeStr) -> Query<'_> {
        match self {
            Self::Sqlite { readers, .. } => Query::Sqlite(On::Pool(readers), sqlx::query(sql)),
            Self::Postgres(cluster) => Query::Postgres(On::Pool(cluster), sqlx::query(sql)),
        }
    }

    /// Writes. What has begun is finished even when the caller goes away.
    pub(super) async fn write<O: Op>(&self, op: O) -> Result<O::Output, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => writer.run(op).await,
            Self::Postgres(cluster) => {
                let cluster = Arc::clone(cluster);
                #[expect(clippy::disallowed_methods, reason = "a transaction must not be left half-way by its caller")]
                let written = tokio::spawn(async move { cluster.write(&op).await });
                written.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
            }
        }
    }

    /// Writes together with whatever of the same kind waits at the moment: in a cluster, in a lane of it.
    pub(super) async fn write_batched<B: Batch>(
        &self,
        item: B,
        lane: impl FnOnce(&Cluster) -> &Lane<B>,
    ) -> Result<B::Output, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => writer.run_batched(item).await,
            Self::Postgres(cluster) => lane(cluster).run(item).await,
        }
    }

    pub(super) async fn close(self) {
        match self {
            Self::Sqlite { readers, writer, _lock } => {
                // The last connection to close moves the log into the database file: that must be the one that may write.
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(cluster) => cluster.close().await,
        }
    }
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
