//! A cluster's database, as one process uses it: connections for requests, connections for claims, and a lane for each kind
//! of write that comes often.

use sqlx::postgres::PgPool;

use super::creations::CreateOp;
use super::journal::AppendOp;
use super::lane::Lane;
use super::postgres::Distrust;
use super::sql::{Connection, in_time};
use super::writer::Op;
use super::{OpenError, StoreError, failure, postgres};

/// Connections for claims, renewals and releases.
const SOFT_MAX: u32 = 4;

/// A cluster's database, as one process uses it: `connections_max` for everything else, four for claims, and three for
/// the lanes.
pub(super) struct Cluster {
    /// Reads, and writes that wait for the disk.
    pub(super) pool: PgPool,
    /// Writes that do not.
    pub(super) soft: PgPool,
    /// What both know of connections that broke.
    pub(super) distrust: Distrust,
    /// Runs that are created.
    pub(super) creations: Lane<CreateOp>,
    /// Appends that must be on disk.
    pub(super) appends: Lane<AppendOp>,
    /// Appends that need not be on disk.
    pub(super) notes: Lane<AppendOp>,
}

impl Cluster {
    /// Brings the schema up to date, one process at a time, and opens the connections.
    ///
    /// A schema that is newer than this version is used as it is: versions that follow each other work side by side, because
    /// a migration only adds what the version before does not mind.
    pub(super) async fn open(url: &str, connections_max: u32) -> Result<Self, OpenError> {
        let options = postgres::options(url)?;
        postgres::migrate(&options).await?;
        let options = postgres::by_index(options);
        let (distrust, soft) = (Distrust::default(), postgres::soft(options.clone()));
        Ok(Self {
            pool: postgres::pool(connections_max, options.clone(), distrust.clone()),
            soft: postgres::pool(SOFT_MAX, soft.clone(), distrust.clone()),
            distrust,
            creations: Lane::start("create", options.clone()),
            appends: Lane::start("append", options),
            notes: Lane::start("note", soft),
        })
    }

    /// Waits until everything handed in is written, and closes the connections.
    pub(super) async fn close(&self) {
        self.creations.close().await;
        self.appends.close().await;
        self.notes.close().await;
        self.pool.close().await;
        self.soft.close().await;
    }

    /// Writes. Whoever calls this must not be cancelled half-way.
    pub(super) async fn write<O: Op>(&self, op: &O) -> Result<O::Output, StoreError> {
        let (mut collisions, mut reconnected) = (0, false);
        loop {
            let mut committing = false;
            let error = match self.write_once(op, &mut committing).await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            if failure::collided(&error) && collisions < failure::COLLISIONS_MAX {
                collisions += 1;
            } else if failure::is_broken(&error) && !reconnected && !committing {
                // The connection was cut in the pool, by a restart for example: nothing happened.
                reconnected = true;
            } else {
                return Err(error.into());
            }
        }
    }

    /// What need not be durable is one statement, which needs no transaction around it.
    async fn write_once<O: Op>(&self, op: &O, committing: &mut bool) -> Result<O::Output, sqlx::Error> {
        let pool = if op.durable() { &self.pool } else { &self.soft };
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
        if written.as_ref().is_err_and(failure::may_pass) {
            // What is wrong may be this connection, or the server that it leads to.
            self.distrust.begin();
            connection.close_on_drop();
        }
        written
    }
}
