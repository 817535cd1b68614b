//! The embedded database: opening, locking, migrating and backing up one SQLite file.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::OpenError;

/// The schema, in steps.
pub(super) fn migrations() -> Migrator {
    sqlx::migrate!("../migrations/sqlite")
}

const READERS_MAX: u32 = 8;
const READER_WAIT: Duration = Duration::from_secs(5);

/// A lock on the file beside the database. SQLite's own locks would let a second process in.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(io(parent))?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&name).map_err(io(&name))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The other process may be about to write it: then the message does without.
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.is_empty() { pid } else { format!(" (pid {})", pid.trim()) };
                return Err(OpenError::Locked { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path: name, source }),
        }
        // For the message above only: a disk that is too full for it is no reason not to start.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .optimize_on_close(false, None)
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Off, Duration::MAX)
}

/// Makes the file, for this user alone, where there is none. SQLite gives its other files the same mode.
fn make_private(path: &Path) -> Result<(), OpenError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(OpenError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// A connection to a database that holds nothing of value, with the settings of the real one.
pub(super) async fn scratch(path: &Path) -> Result<SqliteConnection, OpenError> {
    Ok(options(path).pragma("temp_store", "MEMORY").connect().await?)
}

/// Takes the lock and opens the connection that writes, with the schema brought up to date. `beside` a process that has the
/// database open, where there is one, its lock is not taken and its schema left as it is.
async fn take(path: &Path, beside: bool) -> Result<(Option<Lock>, SqliteConnection), OpenError> {
    let lock = match Lock::take(path) {
        Err(OpenError::Locked { .. }) if beside => None,
        taken => Some(taken?),
    };
    make_private(path)?;
    let mut connection = options(path).pragma("temp_store", "MEMORY").connect().await?;
    if lock.is_some() {
        migrations().run(&mut connection).await?;
    }
    Ok((lock, connection))
}

/// The file itself, by whatever name it is called: that is what is locked.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Opens the writer and the readers; `beside` as for [`take`].
pub(super) async fn open(path: &Path, beside: bool) -> Result<(Option<Lock>, SqliteConnection, SqlitePool), OpenError> {
    let path = &real(path);
    let (lock, writer) = take(path, beside).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(READER_WAIT)
        .connect_with(options(path).create_if_missing(false).read_only(true))
        .await?;
    Ok((lock, writer, readers))
}

/// Opens a single connection, for this process alone. Without `make`, the file must be there.
pub(super) async fn open_whole(path: &Path, make: bool) -> Result<(Option<Lock>, SqliteConnection), OpenError> {
    if !make && let Err(source) = path.metadata() {
        return Err(OpenError::Io { path: path.to_owned(), source });
    }
    take(&real(path), false).await
}

/// Writes a consistent copy of the database to `target`, which must not exist. A server may go on working meanwhile.
pub(super) async fn backup(path: &Path, target: &Path) -> Result<(), OpenError> {
    let mut source = options(path).create_if_missing(false).connect().await?;
    make_private(target)?;
    let copied = async {
        sqlx::query("VACUUM INTO $1").bind(target.display().to_string()).execute(&mut source).await?;
        let copy = File::open(target).and_then(|file| file.sync_all());
        copy.map_err(|source| OpenError::Io { path: target.to_owned(), source })
    };
    let copied = copied.await;
    if copied.is_err() {
        // Half a copy would be taken for a whole one, and would refuse the next try.
        let _ = std::fs::remove_file(target);
    }
    copied
}
