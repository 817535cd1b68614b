//! A cluster on one machine: a private Postgres and Redis, and any number of `weir` processes on them.

use std::sync::Arc;

use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::process::Weir;
use crate::proxy::Proxy;
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
    /// What stands between the processes and Postgres, and between them and Redis, if anything does.
    pub proxies: Option<(Proxy, Proxy)>,
}

impl Cluster {
    /// Starts Postgres and Redis.
    pub async fn start() -> Self {
        let (postgres, redis) = tokio::join!(Postgres::start(), Redis::start());
        let database = postgres.database().await;
        Self { postgres, redis, database, proxies: None }
    }

    /// The same with a proxy in front of each, which the processes go through.
    pub async fn behind_proxies() -> Self {
        let cluster = Self::start().await;
        let proxies = (Proxy::start(cluster.postgres.port()).await, Proxy::start(cluster.redis.port()).await);
        Self { proxies: Some(proxies), ..cluster }
    }

    /// The settings of a process with this role.
    #[must_use]
    pub fn settings(&self, role: &str, more: &[&str]) -> Vec<String> {
        let (database, redis) = match &self.proxies {
            Some((postgres, redis)) => (postgres.url(&self.database), redis.url(&self.redis.url())),
            None => (self.database.clone(), self.redis.url()),
        };
        let mut settings = vec![
            format!("role={role}"),
            format!("database_url={database}"),
            format!("redis_url={redis}"),
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
