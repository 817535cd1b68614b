//! The link to Redis that the tasks of the wire share: where it is, how its keys are called, and how one connects again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisError};
use tokio_util::sync::CancellationToken;

use crate::model::definition::Priority;

/// Longest time for a connection, and for an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a task waits before it connects again: the first time, and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where Redis is and how it is used.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`, which may hold a user and a password.
    pub url: String,
    /// Begins the names of keys.
    pub prefix: String,
    /// How long the state of a run is kept after its last change.
    pub state_ttl: Duration,
}

/// The URL of Redis cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("REDIS_URL cannot be used: {0}")]
pub struct WireError(#[from] RedisError);

/// What the tasks of a wire share.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) settings: RedisSettings,
    /// Whether the writing connection stands.
    up: AtomicBool,
    pub(super) closing: CancellationToken,
}

impl Link {
    pub(super) fn new(settings: RedisSettings) -> Result<Self, WireError> {
        let client = Client::open(settings.url.as_str().into_connection_info()?)?;
        Ok(Self { client, settings, up: AtomicBool::new(false), closing: CancellationToken::new() })
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(super) fn hints_key(&self, priority: Priority) -> String {
        format!("{{{}}}:hints:{}", self.settings.prefix, priority.as_str())
    }

    pub(super) fn news_channel(&self) -> String {
        format!("{{{}}}:news", self.settings.prefix)
    }

    pub(super) fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!("connected to Redis");
            } else {
                tracing::warn!("Redis is away: runs are accepted and executed all the same, slower");
            }
        }
    }

    pub(super) async fn connect(&self, answer_timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(answer_timeout));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Waits before the next try to connect; `pause` is how long the time before.
    pub(super) async fn pause(&self, pause: &mut Option<Duration>) {
        let next = pause.map_or(PAUSE_FIRST, |pause| (pause * 2).min(PAUSE_MAX));
        *pause = Some(next);
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = self.closing.cancelled() => {}
        }
    }
}
