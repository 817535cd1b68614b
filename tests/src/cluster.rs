//! A cluster on one machine: a private Postgres and Redis, and any number of `weir` processes on them.

use std::sync::Arc;

use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::process::Weir;
use crate::redis::Redis;

/// 32 bytes in base64, for tests.
pub const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The servers, and one database on them.
pub struct Cluster {
    /// The database server.
    pub postgres: Postgres,
    /// The wire.
    pub redis: Redis,
    /// URL of the database.
    pub database: String,
}

impl Cluster {
    /// Starts Postgres and Redis.
    pub async fn start() -> Self {
        let (postgres, redis) = tokio::join!(Postgres::start(), Redis::start());
        let database = postgres.database().await;
        Self { postgres, redis, database }
    }

    /// The settings of a process with this role.
    #[must_use]
    pub fn settings(&self, role: &str, more: &[&str]) -> Vec<String> {
        let mut settings = vec![
            format!("role={role}"),
            format!("database_url={}", self.database),
            format!("redis_url={}", self.redis.url()),
            format!("master_key={MASTER_KEY}"),
            "egress_allow=127.0.0.1".to_owned(),
        ];
        settings.extend(more.iter().map(|setting| (*setting).to_owned()));
        settings
    }

    /// Starts a process with this role and further settings.
    pub async fn weir(&self, role: &str, more: &[&str]) -> Weir {
        let settings = self.settings(role, more);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Weir::start_in(Arc::new(TempDir::new().expect("a directory")), &settings, &[]).await
    }

    /// Runs SQL in the database.
    pub async fn sql(&self, sql: &str) -> String {
        self.postgres.psql(&self.database, sql).await
    }
}
