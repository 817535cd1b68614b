//! Copies a whole database into an empty one, of either kind. The target is written in one transaction: it holds
//! everything in the end, or nothing.

use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};
use uuid::Uuid;

use super::sql::{Query, Row, places};
use super::tables::{Kind, TABLES, Table};
use super::{Location, OpenError, postgres, sqlite};

/// Why a database could not be copied. Nothing was written to the target but its schema.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source cannot be opened.
    #[error("the source")]
    Source(#[source] OpenError),
    /// The target cannot be opened.
    #[error("the target")]
    Target(#[source] OpenError),
    /// The schema of the source is newer than this version: a part would be left behind.
    #[error("the schema of the source is newer than this version of Weir: copy it with the version that made it")]
    Newer,
    /// The target has rows already.
    #[error("the target is not empty: its table `{0}` has rows")]
    NotEmpty(&'static str),
    /// A table has another number of rows in the target.
    #[error("the table `{table}` has {from} rows in the source and {to} in the target")]
    Differs {
        /// The table.
        table: &'static str,
        /// Its rows in the source.
        from: i64,
        /// Its rows in the target.
        to: i64,
    },
    /// A database refused, or does not answer.
    #[error("the table `{table}`")]
    Database {
        /// The table.
        table: &'static str,
        /// What it said.
        source: sqlx::Error,
    },
    /// A transaction could not begin or end.
    #[error(transparent)]
    Transaction(sqlx::Error),
}

/// One of the two databases.
enum Side {
    Sqlite(Option<sqlite::Lock>, Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
}

impl Side {
    async fn open(location: &Location, make: bool) -> Result<Self, OpenError> {
        Ok(match location {
            Location::Embedded { path } => {
                let (lock, connection) = sqlite::open_whole(path, make).await?;
                Self::Sqlite(lock, Box::new(connection))
            }
            Location::Cluster { url, .. } => Self::Postgres(Box::new(postgres::open_whole(url, make).await?)),
        })
    }

    fn query(&mut self, sql: String) -> Query<'_> {
        match self {
            Self::Sqlite(_, connection) => Query::on_sqlite(connection, AssertSqlSafe(sql)),
            Self::Postgres(connection) => Query::on_postgres(connection, AssertSqlSafe(sql)),
        }
    }

    async fn begin(&mut self, reads: bool) -> Result<(), sqlx::Error> {
        let sql = match self {
            // All tables as they are at one moment.
            Self::Postgres(_) if reads => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            _ => "BEGIN",
        };
        self.query(sql.to_owned()).execute().await.map(|_| ())
    }

    async fn count(&mut self, table: &Table) -> Result<i64, sqlx::Error> {
        self.query(format!("SELECT count(*) AS n FROM {}", table.name)).fetch_one().await?.get("n")
    }

    /// Whether a newer version has made a step of the schema.
    async fn is_newer(&mut self) -> Result<bool, sqlx::Error> {
        let known = match self {
            Self::Sqlite(..) => sqlite::migrations(),
            Self::Postgres(_) => postgres::migrations(),
        };
        let known = known.iter().map(|migration| migration.version).max();
        let sql = "SELECT max(version) AS version FROM _sqlx_migrations";
        let row = self.query(sql.to_owned()).fetch_one().await?;
        Ok(row.get::<Option<i64>>("version")? > known)
    }

    async fn close(self) {
        // A transaction that is open ends with its connection, and what is committed stays.
        let _ = match self {
            Self::Sqlite(_lock, connection) => sqlx::Connection::close(*connection).await,
            Self::Postgres(connection) => sqlx::Connection::close(*connection).await,
        };
    }
}

/// A value of a row.
enum Cell {
    Uuid(Option<Uuid>),
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    Bool(Option<bool>),
}

impl Cell {
    fn read(row: &Row, (name, kind): (&str, Kind)) -> Result<Self, sqlx::Error> {
        Ok(match kind {
            Kind::Uuid => Self::Uuid(row.get(name)?),
            Kind::Int => Self::Int(row.get(name)?),
            Kind::Text => Self::Text(row.get(name)?),
            Kind::Bytes => Self::Bytes(row.get(name)?),
            Kind::Bool => Self::Bool(row.get(name)?),
        })
    }

    fn bind<'q>(&self, query: Query<'q>) -> Query<'q> {
        match self {
            Self::Uuid(value) => query.bind(value),
            Self::Int(value) => query.bind(value),
            Self::Text(value) => query.bind(value),
            Self::Bytes(value) => query.bind(value),
            Self::Bool(value) => query.bind(value),
        }
    }
}

impl Table {
    /// The names of its first columns.
    fn names(&self, most: usize) -> String {
        self.columns.iter().take(most).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// The rows after the one with the key `after`, in the order of keys.
    async fn read(&self, from: &mut Side, after: Option<&[Cell]>) -> Result<Vec<Vec<Cell>>, sqlx::Error> {
        let (all, key) = (self.names(self.columns.len()), self.names(self.key));
        let beyond = after.map(|_| format!("WHERE ({key}) > {}", places(1, self.key))).unwrap_or_default();
        let sql = format!("SELECT {all} FROM {} {beyond} ORDER BY {key} LIMIT {}", self.name, self.page);
        let query = after.into_iter().flatten().fold(from.query(sql), |query, cell| cell.bind(query));
        let rows = query.fetch_all().await?;
        rows.iter().map(|row| self.columns.iter().map(|column| Cell::read(row, *column)).collect()).collect()
    }

    async fn write(&self, to: &mut Side, rows: &[Vec<Cell>]) -> Result<(), sqlx::Error> {
        let all = self.names(self.columns.len());
        let sql = format!("INSERT INTO {} ({all}) VALUES {}", self.name, places(rows.len(), self.columns.len()));
        let query = rows.iter().flatten().fold(to.query(sql), |query, cell| cell.bind(query));
        query.execute().await.map(|_| ())
    }

    async fn copy(&self, from: &mut Side, to: &mut Side) -> Result<i64, TransferError> {
        let refused = |source| TransferError::Database { table: self.name, source };
        let mut page: Vec<Vec<Cell>> = Vec::new();
        loop {
            page = self.read(from, page.last().map(|row| &row[..self.key])).await.map_err(refused)?;
            if page.is_empty() {
                break;
            }
            self.write(to, &page).await.map_err(refused)?;
        }
        let (source, target) = (from.count(self).await.map_err(refused)?, to.count(self).await.map_err(refused)?);
        if source != target {
            return Err(TransferError::Differs { table: self.name, from: source, to: target });
        }
        Ok(target)
    }
}

/// Copies the database at `from` into the empty one at `to`, after both schemas were brought up to date, and tells the
/// rows of each table as they are copied. An embedded database is locked meanwhile.
///
/// # Errors
/// [`TransferError`]; the target has then the rows that it had.
pub async fn copy(
    from: &Location,
    to: &Location,
    mut tell: impl FnMut(&'static str, i64),
) -> Result<(), TransferError> {
    let mut from = Side::open(from, false).await.map_err(TransferError::Source)?;
    let mut to = Side::open(to, true).await.map_err(TransferError::Target)?;
    let copied = copy_all(&mut from, &mut to, &mut tell).await;
    to.close().await;
    from.close().await;
    copied
}

async fn copy_all(
    from: &mut Side,
    to: &mut Side,
    tell: &mut impl FnMut(&'static str, i64),
) -> Result<(), TransferError> {
    if from.is_newer().await.map_err(TransferError::Transaction)? {
        return Err(TransferError::Newer);
    }
    from.begin(true).await.map_err(TransferError::Transaction)?;
    to.begin(false).await.map_err(TransferError::Transaction)?;
    for table in TABLES {
        let rows = to.count(table).await.map_err(|source| TransferError::Database { table: table.name, source })?;
        if rows > 0 {
            return Err(TransferError::NotEmpty(table.name));
        }
    }
    for table in TABLES {
        tell(table.name, table.copy(from, to).await?);
    }
    to.query("COMMIT".to_owned()).execute().await.map(|_| ()).map_err(TransferError::Transaction)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn every_column_of_the_schema_is_copied_but_claims() {
        let dir = tempfile::tempdir().expect("a directory");
        let location = Location::Embedded { path: dir.path().join("weir.db") };
        let mut side = Side::open(&location, true).await.expect("opens");
        let sql = "SELECT t.name || '.' || c.name AS name FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
                   WHERE t.type = 'table' AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite%'";
        let rows = side.query(sql.to_owned()).fetch_all().await.expect("rows");
        let found: BTreeSet<String> = rows.iter().map(|row| row.get("name").expect("text")).collect();
        let mut known: BTreeSet<String> = ["runs.claim", "runs.lease_until"].map(str::to_owned).into();
        for table in TABLES {
            known.extend(table.columns.iter().map(|(name, _)| format!("{}.{name}", table.name)));
        }
        assert_eq!(known, found);
        side.close().await;
    }
}
