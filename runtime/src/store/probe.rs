//! What the disk can do: rows of the width of a run, committed durably, with nothing of Weir in between. `weir bench`
//! shows it beside what Weir does.

use std::path::Path;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::failure::may_pass;
use super::{OpenError, StoreError, postgres, sqlite};
use crate::clock::new_id;

/// Bytes of a row beside its keys: what the creation of a run by a webhook writes.
const ROW_BYTES: usize = 320;

/// Where rows are committed.
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// In an SQLite file in this directory.
    Directory(&'p Path),
    /// In a table of this Postgres database, which goes away afterwards.
    Postgres(&'p str),
}

/// Rows committed, and how long that took.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Rows.
    pub rows: u64,
    /// From the first statement to the last commit.
    pub time: Duration,
    /// How long each transaction took, from its first statement until it was on disk.
    pub transactions: Vec<Duration>,
}

/// Makes an empty database beside the one at `url`.
///
/// # Errors
/// When the server refuses, as it does without the privilege.
pub async fn create_database(url: &str, name: &str) -> Result<(), OpenError> {
    alone(url, format!("CREATE DATABASE {name}")).await
}

/// Deletes a database beside the one at `url`, whoever is connected to it.
///
/// # Errors
/// When the server refuses.
pub async fn drop_database(url: &str, name: &str) -> Result<(), OpenError> {
    alone(url, format!("DROP DATABASE {name} WITH (FORCE)")).await
}

/// One statement in a connection of its own.
async fn alone(url: &str, sql: String) -> Result<(), OpenError> {
    let mut connection = postgres::connect(&postgres::options(url)?).await?;
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Commits rows into a scratch table for about `time`: `writers` connections, each with `batch` rows in a transaction.
/// Durable, with the settings of the real database, and prepared.
///
/// # Errors
/// When there is no room for the table.
pub async fn commit_rows(
    place: Place<'_>,
    writers: usize,
    batch: usize,
    time: Duration,
) -> Result<Committed, OpenError> {
    let name = format!("probe_{}", new_id().simple());
    let mut writing = JoinSet::new();
    let began;
    let transactions = match place {
        Place::Directory(dir) => {
            let path = dir.join(format!("{name}.db"));
            let mut first = sqlite::scratch(&path).await?;
            let table = "CREATE TABLE rows (id BLOB NOT NULL PRIMARY KEY, workflow_id BLOB NOT NULL, \
                         content BLOB NOT NULL) WITHOUT ROWID";
            sqlx::query(table).execute(&mut first).await?;
            let mut connections = vec![first];
            for _ in 1..writers {
                connections.push(sqlite::scratch(&path).await?);
            }
            began = Instant::now();
            for connection in connections {
                writing.spawn(write_sqlite(connection, batch, began + time));
            }
            all(&mut writing).await?
        }
        Place::Postgres(url) => {
            let options = postgres::options(url)?;
            let mut first = postgres::connect(&options).await?;
            let table = "(id uuid NOT NULL PRIMARY KEY, workflow_id uuid NOT NULL, content bytea NOT NULL)";
            sqlx::query(AssertSqlSafe(format!("CREATE TABLE {name} {table}"))).execute(&mut first).await?;
            let mut connections = Vec::new();
            for _ in 0..writers {
                connections.push(postgres::connect(&options).await?);
            }
            began = Instant::now();
            for connection in connections {
                writing.spawn(write_postgres(connection, name.clone(), batch, began + time));
            }
            let written = all(&mut writing).await;
            sqlx::query(AssertSqlSafe(format!("DROP TABLE {name}"))).execute(&mut first).await?;
            written?
        }
    };
    let rows = (transactions.len() * batch) as u64;
    Ok(Committed { rows, time: began.elapsed(), transactions })
}

/// What all writers have written: how long each of their transactions took.
async fn all(writing: &mut JoinSet<Result<Vec<Duration>, sqlx::Error>>) -> Result<Vec<Duration>, StoreError> {
    let mut transactions = Vec::new();
    while let Some(written) = writing.join_next().await {
        transactions.extend(written.unwrap_or_else(|_| Ok(Vec::new()))?);
    }
    Ok(transactions)
}

async fn write_sqlite(mut db: SqliteConnection, batch: usize, until: Instant) -> Result<Vec<Duration>, sqlx::Error> {
    let (workflow, content, mut transactions) = (new_id(), vec![b'x'; ROW_BYTES], Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        let mut transaction = match db.begin_with("BEGIN IMMEDIATE").await {
            Ok(transaction) => transaction,
            // Others were always quicker to take the lock: that is what so many writers come to.
            Err(error) if may_pass(&error) => continue,
            Err(error) => return Err(error),
        };
        for _ in 0..batch {
            sqlx::query("INSERT INTO rows (id, workflow_id, content) VALUES ($1, $2, $3)")
                .bind(new_id())
                .bind(workflow)
                .bind(&content)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        transactions.push(began.elapsed());
    }
    db.close().await?;
    Ok(transactions)
}

async fn write_postgres(
    mut db: PgConnection,
    table: String,
    batch: usize,
    until: Instant,
) -> Result<Vec<Duration>, sqlx::Error> {
    let insert = format!("INSERT INTO {table} SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[])");
    let (workflow, content, mut transactions) = (new_id(), vec![b'x'; ROW_BYTES], Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        let ids: Vec<Uuid> = (0..batch).map(|_| new_id()).collect();
        sqlx::query(AssertSqlSafe(insert.clone()))
            .bind(ids)
            .bind(vec![workflow; batch])
            .bind(vec![content.as_slice(); batch])
            .execute(&mut db)
            .await?;
        transactions.push(began.elapsed());
    }
    db.close().await?;
    Ok(transactions)
}
