//! The wire of a cluster: Redis 7 or Valkey. The only user of the client library, together with its two tasks.
//!
//! | key | type | content |
//! | --- | --- | --- |
//! | `{<prefix>}:hints:high`, `:normal`, `:low` | list | run ids; pushed left, popped right by `BLMPOP` in this order, at most 100,000 each |
//! | `{<prefix>}:news` | channel | `finished <run id>`, `message <run id>`, `canceled <run id>` |
//! | `run:<run id>:state` | string | the state of a run as JSON (`wire/state.rs`), for `run_state_ttl_seconds` after its last change |
//!
//! The prefix is the setting `redis_prefix`; as a hash tag it keeps the three lists in one slot of a Redis Cluster. A state
//! begins with `{"seq":`, the number of appends that it shows; one is never replaced by an older one.
//!
//! Three connections, each of which comes back by itself: one that writes, one that is blocked in `BLMPOP`, and one that
//! listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisError};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::local::Hints;
use super::popper::{Popper, Wanted};
use super::sender::{Outbox, Sender};
use super::{HotCopy, News, Wire};
use crate::model::definition::Priority;
use crate::model::id::RunId;

/// Longest time for a connection, and for an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a task waits before it connects again: the first time, and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// News that wait for a slow listener in this process.
const NEWS_MAX: usize = 4096;

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
pub(super) struct Shared {
    client: Client,
    pub(super) settings: RedisSettings,
    /// Whether the writing connection stands.
    up: AtomicBool,
    pub(super) closing: CancellationToken,
}

impl Shared {
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

/// Hints, copies and news by way of Redis.
pub struct RedisWire {
    shared: Arc<Shared>,
    outbox: Outbox,
    wanted: Wanted,
    hints: Arc<Hints>,
    news: broadcast::Sender<News>,
    tasks: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl RedisWire {
    /// Begins to connect. Redis need not be there.
    ///
    /// # Errors
    /// When the URL is none of Redis.
    #[expect(clippy::disallowed_methods, reason = "the tasks live as long as the wire; `close` joins them")]
    pub fn start(settings: RedisSettings) -> Result<Self, WireError> {
        let client = Client::open(settings.url.as_str().into_connection_info()?)?;
        let closing = CancellationToken::new();
        let shared = Arc::new(Shared { client, settings, up: AtomicBool::new(false), closing });
        let (hints, wanted) = (Arc::new(Hints::default()), Wanted::default());
        let (news, _) = broadcast::channel(NEWS_MAX);
        let (outbox, sender) = Sender::new(Arc::clone(&shared));
        let popper = Popper::new(Arc::clone(&shared), Arc::clone(&hints), &wanted);
        let listening = listen(Arc::clone(&shared), news.clone());
        let tasks = vec![tokio::spawn(sender.run()), tokio::spawn(popper.run()), tokio::spawn(listening)];
        Ok(Self { shared, outbox, wanted, hints, news, tasks: tokio::sync::Mutex::new(tasks) })
    }
}

/// Listens for what other processes tell.
async fn listen(shared: Arc<Shared>, news: broadcast::Sender<News>) {
    let mut pause = None;
    while !shared.closing.is_cancelled() {
        let listened = async {
            let mut subscription =
                tokio::time::timeout(ANSWER_TIMEOUT, shared.client.get_async_pubsub()).await.ok()?.ok()?;
            subscription.subscribe(shared.news_channel()).await.ok()?;
            pause = None;
            let mut messages = subscription.into_on_message();
            while let Some(message) = messages.next().await {
                if let Some(heard) = message.get_payload::<String>().ok().as_deref().and_then(News::parse) {
                    // Nobody may be interested.
                    let _ = news.send(heard);
                }
            }
            Some(())
        };
        tokio::select! {
            _ = listened => {}
            () = shared.closing.cancelled() => {}
        }
        shared.pause(&mut pause).await;
    }
}

impl News {
    pub(super) fn text(self) -> String {
        match self {
            Self::Finished(run) => format!("finished {run}"),
            Self::Message(run) => format!("message {run}"),
            Self::Canceled(run) => format!("canceled {run}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (what, run) = text.split_once(' ')?;
        let run = RunId(run.parse().ok()?);
        match what {
            "finished" => Some(Self::Finished(run)),
            "message" => Some(Self::Message(run)),
            "canceled" => Some(Self::Canceled(run)),
            _ => None,
        }
    }
}

impl Wire for RedisWire {
    fn push(&self, run: RunId, priority: Priority) {
        self.outbox.hint(run, priority);
    }

    fn pop(&self, most: usize) -> BoxFuture<'_, Vec<RunId>> {
        Box::pin(async move {
            self.wanted.set(most.max(1).saturating_sub(self.hints.len()));
            let taken = self.hints.take(most).await;
            self.wanted.set(0);
            taken
        })
    }

    fn shows(&self) -> bool {
        true
    }

    fn show(&self, copy: HotCopy) {
        self.outbox.show(copy);
    }

    fn tell(&self, news: News) {
        self.outbox.tell(news);
    }

    fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.closing.cancel();
            for task in self.tasks.lock().await.drain(..) {
                let _ = task.await;
            }
        })
    }
}
