//! Real Redis servers: each a private one that keeps nothing on disk, killed and started again by a test.
//!
//! Needs Debian's packages `redis-server` and `redis-tools`, and `openssl` for TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::server::{CERTIFICATE, KEY, Running, free_port, make_certificate, output};

/// The log line that says that connections are accepted.
const READY: &str = "Ready to accept connections";

/// A Redis server on 127.0.0.1.
pub struct Redis {
    running: Running,
    settings: Vec<String>,
    port: u16,
    tls: bool,
    /// Goes last: the server must have ended.
    dir: TempDir,
}

impl Redis {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further arguments, like `--requirepass` and a password.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    pub async fn start_with(settings: &[&str]) -> Self {
        Self::start_in(directory(), settings, false).await
    }

    /// Starts a server that talks only TLS, with a certificate for 127.0.0.1 and localhost that it signed itself.
    /// Clients need no certificate.
    ///
    /// # Panics
    /// When Redis or `openssl` is not installed, or Redis does not start or has no TLS.
    pub async fn start_tls(settings: &[&str]) -> Self {
        let dir = directory();
        make_certificate(dir.path()).await;
        Self::start_in(dir, settings, true).await
    }

    async fn start_in(dir: TempDir, settings: &[&str], tls: bool) -> Self {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        // The port may be taken between the choice and the start.
        for _ in 0..10 {
            let port = free_port();
            let running = Running::start("Redis", Signal::KILL, server(dir.path(), port, tls, &settings)).await;
            if running.says(READY).await {
                return Self { running, settings, port, tls, dir };
            }
            assert!(running.tail().contains("Address already in use"), "Redis does not start");
        }
        panic!("no free port for Redis");
    }

    /// The URL, with the password where `--requirepass` gave one.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let password = self.password().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}://{password}127.0.0.1:{}", self.port)
    }

    fn password(&self) -> Option<&str> {
        let at = self.settings.iter().position(|setting| setting == "--requirepass")?;
        self.settings.get(at + 1).map(String::as_str)
    }

    /// The port, the same for as long as this lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// The certificate that a client of a TLS server must trust, in PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join(CERTIFICATE)
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When that fails.
    pub fn kill(&mut self) {
        self.running.child.kill().expect("killed");
        self.running.child.wait().expect("ended");
    }

    /// Starts the server again on the same port, empty. One that somebody else kills is waited for.
    ///
    /// # Panics
    /// When it still runs or does not start.
    pub async fn start_again(&mut self) {
        self.running.ended().await;
        self.running =
            Running::start("Redis", Signal::KILL, server(self.dir.path(), self.port, self.tls, &self.settings)).await;
        assert!(self.running.says(READY).await, "Redis does not start again");
    }

    /// Runs a command with `redis-cli` and answers what that prints: values a line each, and refusals of Redis too.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn command(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if self.tls {
            command.arg("--tls").arg("--cacert").arg(self.certificate());
        }
        if let Some(password) = self.password() {
            command.env("REDISCLI_AUTH", password);
        }
        command.args(words);
        output(command).await
    }
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("weir-tests-").tempdir().expect("a directory")
}

/// The server, killed by the kernel when the thread that started it ends.
fn server(dir: &Path, port: u16, tls: bool, settings: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig=KILL", "--", "redis-server", "--bind", "127.0.0.1"]);
    command.args(["--daemonize", "no", "--save", "", "--appendonly", "no", "--dir"]).arg(dir);
    let port = port.to_string();
    if tls {
        command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
        command.args(["--tls-cert-file", CERTIFICATE, "--tls-key-file", KEY, "--tls-ca-cert-file", CERTIFICATE]);
    } else {
        command.args(["--port", &port]);
    }
    command.args(settings).current_dir(dir).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

#[cfg(test)]
mod tests {
    use super::Redis;

    #[tokio::test]
    async fn a_killed_server_comes_back_empty_on_its_port() {
        let mut redis = Redis::start().await;
        let (url, pid) = (redis.url(), redis.pid());
        assert_eq!(redis.command(&["SET", "key", "a value"]).await, "OK");
        assert_eq!(redis.command(&["GET", "key"]).await, "a value");
        redis.kill();
        redis.start_again().await;
        assert_eq!(redis.command(&["KEYS", "*"]).await, "");
        assert_eq!(redis.url(), url);
        assert_ne!(redis.pid(), pid);
    }

    #[tokio::test]
    async fn a_password_and_tls_are_asked_for() {
        let (open, closed) = tokio::join!(Redis::start(), Redis::start_tls(&["--requirepass", "s3cret"]));
        assert_eq!(open.command(&["PING"]).await, "PONG");
        assert_eq!(closed.command(&["PING"]).await, "PONG");
        assert_eq!(closed.url(), format!("rediss://:s3cret@127.0.0.1:{}", closed.port()));
        let refused = closed.command(&["--no-auth-warning", "-a", "wrong", "PING"]).await;
        assert!(refused.starts_with("NOAUTH"), "{refused}");
    }
}
