//! One text for two databases: a query that is bound, executed and read the same way on SQLite and on Postgres.
//!
//! Both understand `$1`, `RETURNING` and `ON CONFLICT`; whole numbers are 64 bits wide on both. Only statements whose
//! speed depends on the database have two texts, side by side in the file of their noun.

use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query as Prepared;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    Decode, Either, Encode, Executor, PgConnection, Postgres, Row as _, SqlSafeStr, Sqlite, SqliteConnection,
    SqlitePool, Type,
};

use super::cluster::Cluster;
use super::failure::may_pass;

/// How long a statement on Postgres may take, the way there and back included. A connection on which nothing comes
/// back is given up: the other side may be gone without a word.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What both databases can store and read.
pub(super) trait Value<'t>: Encode<'t, Sqlite> + Type<Sqlite> + Encode<'t, Postgres> + Type<Postgres> {}

impl<'t, T: Encode<'t, Sqlite> + Type<Sqlite> + Encode<'t, Postgres> + Type<Postgres>> Value<'t> for T {}

/// A connection to write on: inside a transaction on SQLite, and on Postgres where there is more than one statement.
pub(super) enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Connection<'_> {
    pub(super) fn query(&mut self, sql: impl SqlSafeStr) -> Query<'_> {
        match self {
            Self::Sqlite(connection) => Query::on_sqlite(connection, sql),
            Self::Postgres(connection) => Query::on_postgres(connection, sql),
        }
    }

    /// A statement whose text differs.
    pub(super) fn query_either(&mut self, sqlite: &'static str, postgres: &'static str) -> Query<'_> {
        let sql = if matches!(self, Self::Sqlite(_)) { sqlite } else { postgres };
        self.query(sql)
    }
}

/// Where a query is executed.
pub(super) enum On<'c, C, P> {
    Connection(&'c mut C),
    Pool(&'c P),
}

/// A query on its way.
pub(super) enum Query<'c> {
    Sqlite(On<'c, SqliteConnection, SqlitePool>, Prepared<'static, Sqlite, SqliteArguments>),
    Postgres(On<'c, PgConnection, Cluster>, Prepared<'static, Postgres, PgArguments>),
}

impl<'c> Query<'c> {
    pub(super) fn on_sqlite(connection: &'c mut SqliteConnection, sql: impl SqlSafeStr) -> Self {
        Self::Sqlite(On::Connection(connection), sqlx::query(sql))
    }

    pub(super) fn on_postgres(connection: &'c mut PgConnection, sql: impl SqlSafeStr) -> Self {
        Self::Postgres(On::Connection(connection), sqlx::query(sql))
    }

    /// The value of the next parameter.
    pub(super) fn bind<'t>(self, value: impl Value<'t>) -> Self {
        match self {
            Self::Sqlite(on, query) => Self::Sqlite(on, query.bind(value)),
            Self::Postgres(on, query) => Self::Postgres(on, query.bind(value)),
        }
    }

    /// How many rows it changed.
    pub(super) async fn execute(self) -> Result<u64, sqlx::Error> {
        Ok(self.run().await?.0)
    }

    pub(super) async fn fetch_all(self) -> Result<Vec<Row>, sqlx::Error> {
        Ok(self.run().await?.1)
    }

    pub(super) async fn fetch_optional(self) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.fetch_all().await?.into_iter().next())
    }

    pub(super) async fn fetch_one(self) -> Result<Row, sqlx::Error> {
        self.fetch_optional().await?.ok_or(sqlx::Error::RowNotFound)
    }

    async fn run(self) -> Result<(u64, Vec<Row>), sqlx::Error> {
        match self {
            Self::Sqlite(On::Connection(connection), query) => on_sqlite(connection, query).await,
            Self::Sqlite(On::Pool(pool), query) => on_sqlite(&mut *pool.acquire().await?, query).await,
            Self::Postgres(On::Connection(connection), query) => on_postgres(connection, query).await,
            Self::Postgres(On::Pool(cluster), query) => {
                let mut connection = cluster.pool.acquire().await?;
                let answered = in_time(on_postgres(&mut connection, query)).await;
                if answered.as_ref().is_err_and(may_pass) {
                    // Giving it back would wait for an answer first; and it may lead to a server that is none any more.
                    cluster.distrust.begin();
                    connection.close_on_drop();
                }
                answered
            }
        }
    }
}

/// The answer to a statement on Postgres, or an error when it takes longer than [`STATEMENT_TIMEOUT`].
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let elapsed = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"));
    tokio::time::timeout(STATEMENT_TIMEOUT, answer).await.unwrap_or_else(|_| Err(elapsed()))
}

/// Executes a query, and answers how many rows it changed and those it answered with.
macro_rules! answers {
    ($connection:expr, $query:expr, $row:path) => {{
        let (mut changed, mut rows) = (0, Vec::new());
        let mut answers = $connection.fetch_many($query);
        while let Some(answer) = answers.try_next().await? {
            match answer {
                Either::Left(done) => changed += done.rows_affected(),
                Either::Right(row) => rows.push($row(row)),
            }
        }
        Ok((changed, rows))
    }};
}

async fn on_sqlite(
    connection: &mut SqliteConnection,
    query: Prepared<'static, Sqlite, SqliteArguments>,
) -> Result<(u64, Vec<Row>), sqlx::Error> {
    answers!(connection, query, Row::Sqlite)
}

async fn on_postgres(
    connection: &mut PgConnection,
    query: Prepared<'static, Postgres, PgArguments>,
) -> Result<(u64, Vec<Row>), sqlx::Error> {
    answers!(connection, query, Row::Postgres)
}

/// `($1, $2), ($3, $4)`: the places of so many rows with so many columns.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places = (1..=columns).map(|column| format!("${}", row * columns + column));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn get<'r, T>(&'r self, column: &str) -> Result<T, sqlx::Error>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A whole number that is never negative and never large.
    pub(super) fn count(&self, column: &str) -> Result<u32, sqlx::Error> {
        let number: i64 = self.get(column)?;
        u32::try_from(number)
            .map_err(|error| sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) })
    }

    /// A number of appends or bytes.
    pub(super) fn size(&self, column: &str) -> Result<u64, sqlx::Error> {
        Ok(self.get::<i64>(column)?.unsigned_abs())
    }
}
