//! Real Postgres servers: each a private one in a directory of its own, stopped, killed and started again by a test.
//!
//! Needs Debian's package `postgresql`, or `initdb`, `postgres` and `psql` in one directory of the path, and `openssl`
//! for TLS. Postgres refuses to run as root; for root it runs as the user `postgres`.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Signal, getegid, geteuid};
use tempfile::TempDir;

use crate::server::{CERTIFICATE, KEY, Running, free_port, make_certificate, output};

/// What every server is started with; `fsync` stays on, so a test may believe what was committed.
const SETTINGS: [&str; 5] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=32MB",
    "autovacuum=on",
];

/// The log line that says that connections are accepted.
const READY: &str = "database system is ready to accept connections";

/// A Postgres server on 127.0.0.1, with the superuser `weir` who needs no password.
pub struct Postgres {
    running: Running,
    installed: Installed,
    settings: Vec<String>,
    port: u16,
    databases: AtomicUsize,
    /// Goes last: the server must have ended.
    dir: TempDir,
}

impl Postgres {
    /// Starts a server in a fresh directory, on a free port.
    ///
    /// # Panics
    /// When Postgres is not installed or does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further settings, each `key=value`.
    ///
    /// # Panics
    /// When Postgres is not installed or does not start.
    pub async fn start_with(settings: &[&str]) -> Self {
        Self::start_in(settings, false).await
    }

    /// Starts a server that also talks TLS, with a certificate for 127.0.0.1 and localhost that it signed itself. Clients
    /// need no certificate.
    ///
    /// # Panics
    /// When Postgres or `openssl` is not installed, or Postgres does not start or has no TLS.
    pub async fn start_tls() -> Self {
        let files = [format!("ssl_cert_file={CERTIFICATE}"), format!("ssl_key_file={KEY}")];
        Self::start_in(&["ssl=on", &files[0], &files[1]], true).await
    }

    async fn start_in(settings: &[&str], tls: bool) -> Self {
        let installed = Installed::find().await;
        let settings: Vec<String> = SETTINGS.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
        let dir = installed.dir();
        let data = dir.path().join("data");
        installed.copy_template(&data).await;
        if tls {
            make_certificate(&data).await;
            for file in [CERTIFICATE, KEY] {
                chown(data.join(file), Some(installed.uid), Some(installed.gid)).expect("a file of the server's user");
            }
        }
        // The port may be taken between the choice and the start.
        for _ in 0..10 {
            let port = free_port();
            let running = Running::start("Postgres", Signal::QUIT, installed.server(dir.path(), port, &settings)).await;
            if running.says(READY).await {
                return Self { running, installed, settings, port, databases: AtomicUsize::new(0), dir };
            }
            assert!(running.tail().contains("Address already in use"), "Postgres does not start");
        }
        panic!("no free port for Postgres");
    }

    /// The URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://weir@127.0.0.1:{}/{database}", self.port)
    }

    /// The port, the same for as long as this lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of a server that talks TLS.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("data").join(CERTIFICATE)
    }

    /// The process id of the server's first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Creates an empty database and answers its URL.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.psql(&self.url(), &format!("CREATE DATABASE {name}")).await;
        self.url_of(&name)
    }

    /// Runs SQL with `psql` in the database at `url` and answers its rows, a line each, with `|` between columns.
    ///
    /// # Panics
    /// When it fails.
    pub async fn psql(&self, url: &str, sql: &str) -> String {
        let mut command = self.installed.command(&self.installed.bin.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]);
        output(command).await
    }

    /// Stops the server and waits for its end. Fast (SIGINT) it closes the connections and shuts down cleanly; else
    /// (SIGQUIT) it ends at once, as in a crash, and recovers at the next start.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&mut self, fast: bool) {
        self.running.signal(if fast { Signal::INT } else { Signal::QUIT });
        self.running.ended().await;
    }

    /// Starts the server again on the same directory and port. One that somebody else kills is waited for.
    ///
    /// # Panics
    /// When it still runs or does not start.
    pub async fn start_again(&mut self) {
        self.running.ended().await;
        self.running =
            Running::start("Postgres", Signal::QUIT, self.installed.server(self.dir.path(), self.port, &self.settings))
                .await;
        assert!(self.running.says(READY).await, "Postgres does not start again");
    }
}

/// The programs of Postgres, and who runs the server.
struct Installed {
    bin: PathBuf,
    version: String,
    uid: u32,
    gid: u32,
}

impl Installed {
    /// The newest Postgres of this machine.
    async fn find() -> Self {
        let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
        let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let debian = debian.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let bin = debian.max_by_key(version).or_else(|| {
            std::env::split_paths(&path).find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        });
        let bin = bin.expect("Postgres is missing: install the package postgresql (`make test` does it for root)");
        let (mut uid, mut gid) = (geteuid().as_raw(), getegid().as_raw());
        if uid == 0 {
            uid = id("-u").await;
            gid = id("-g").await;
        }
        let mut command = Command::new(bin.join("postgres"));
        command.arg("--version");
        let version = output(command).await;
        let version = version.split_whitespace().nth(2).expect("postgres (PostgreSQL) VERSION").to_owned();
        Self { bin, version, uid, gid }
    }

    /// A program run as the server's user, with nothing of this environment but the path. The kernel kills it when the
    /// thread that started it ends.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if geteuid().is_root() {
            command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.gid)]).arg("--clear-groups");
        }
        command.arg("--").arg(program).current_dir("/").env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn server(&self, dir: &Path, port: u16, settings: &[String]) -> Command {
        let mut command = self.command(&self.bin.join("postgres"));
        command.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string()]);
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        command
    }

    /// A fresh directory of the server's user.
    fn dir(&self) -> TempDir {
        let dir = tempfile::Builder::new().prefix("weir-tests-").tempdir().expect("a directory");
        chown(dir.path(), Some(self.uid), Some(self.gid)).expect("the directory of the server's user");
        dir
    }

    /// Puts a fresh data directory at `data`. `initdb` takes a second, so it is done once for each machine, version
    /// and user, beside the place where its result then stays. Who comes second finds that place taken: a rename
    /// onto a directory with something in it fails.
    async fn copy_template(&self, data: &Path) {
        let template = std::env::temp_dir().join(format!("weir-tests-pg-{}-{}-v1", self.version, self.uid));
        if !template.exists() {
            let dir = self.dir();
            let mut command = self.command(&self.bin.join("initdb"));
            command.args(["-U", "weir", "--auth=trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8", "-D"]);
            command.arg(dir.path());
            output(command).await;
            let renamed = std::fs::rename(dir.path(), &template);
            assert!(renamed.is_ok() || template.exists(), "{}: {renamed:?}", template.display());
        }
        let owner = template.metadata().expect("a directory").uid();
        assert_eq!(owner, self.uid, "{} belongs to somebody else", template.display());
        let mut command = self.command(Path::new("cp"));
        command.args(["-a", "--reflink=auto", "--"]).arg(template).arg(data);
        output(command).await;
    }
}

/// The user or the group that Debian's package makes for the server.
async fn id(option: &str) -> u32 {
    let mut command = Command::new("id");
    command.args([option, "postgres"]);
    output(command).await.parse().expect("a number")
}

#[cfg(test)]
mod tests {
    use super::Postgres;

    #[tokio::test]
    async fn what_was_committed_outlives_every_kind_of_stop() {
        let mut postgres = Postgres::start().await;
        let url = postgres.database().await;
        let (port, pid) = (postgres.port(), postgres.pid());
        postgres.psql(&url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
        postgres.stop(false).await;
        postgres.start_again().await;
        postgres.psql(&url, "INSERT INTO kept VALUES (2)").await;
        postgres.stop(true).await;
        postgres.start_again().await;
        assert_eq!(postgres.psql(&url, "SELECT n FROM kept ORDER BY n").await, "1\n2");
        assert_eq!(postgres.psql(&url, "SHOW fsync").await, "on");
        assert_eq!(postgres.port(), port);
        assert_ne!(postgres.pid(), pid);
    }

    #[tokio::test]
    async fn servers_and_databases_are_strangers_to_each_other() {
        let (one, two) = tokio::join!(Postgres::start_with(&["max_connections=20"]), Postgres::start());
        let (left, right) = tokio::join!(one.database(), one.database());
        one.psql(&left, "CREATE TABLE here ()").await;
        for (postgres, url) in [(&one, &right), (&one, &one.url()), (&two, &two.url())] {
            assert_eq!(postgres.psql(url, "SELECT to_regclass('here') IS NULL").await, "t");
        }
        assert_eq!(one.psql(&left, "SHOW max_connections").await, "20");
        assert_eq!(two.psql(&two.url(), "SHOW max_connections").await, "200");
    }
}
