//! What an error of a database means: whether it passes, and what may be tried again.

use sqlx::postgres::PgDatabaseError;

/// How often a transaction on Postgres that collided with another one is repeated.
pub(super) const COLLISIONS_MAX: u32 = 10;

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
            if error.try_downcast_ref::<PgDatabaseError>().is_some() {
                passes_on_postgres(&code)
            } else {
                passes_on_sqlite(&code)
            }
        }
        _ => false,
    }
}

/// Whether an error with this SQLSTATE (appendix A of the manual of Postgres) may pass by itself. Only what is wrong with
/// the values themselves stays wrong: cardinality, data, integrity, and program limits. Everything else is the state of a
/// server, of rights or of a schema, which somebody is about to change: runs wait for that.
fn passes_on_postgres(code: &str) -> bool {
    !["21", "22", "23", "54"].iter().any(|class| code.starts_with(class))
}

/// Whether a server may be about to start: it does not answer, or says that it cannot yet.
pub(super) fn may_start(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            ["08", "53", "57"].iter().any(|class| code.starts_with(class))
        }
        _ => false,
    }
}

/// Whether somebody else held a row for too long.
pub(super) fn is_held_up(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "55P03")
}

/// Whether a primary result code (<https://sqlite.org/rescode.html>) may pass by itself: full disk, IO, locks.
fn passes_on_sqlite(code: &str) -> bool {
    // BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN.
    const PASSING: [u32; 7] = [5, 6, 7, 8, 10, 13, 14];
    code.parse::<u32>().is_ok_and(|code| PASSING.contains(&(code & 0xff)))
}

/// Whether a transaction that failed so was in the way of another one, and can be repeated at once.
pub(super) fn collided(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "40001" || code == "40P01")
}

/// Whether the connection is gone, in a way that is known at once: cut by the other side, or by a server that stops.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}
