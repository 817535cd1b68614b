//! The wire of a cluster: Redis 7 or Valkey.
//!
//! | key | type | content |
//! | --- | --- | --- |
//! | `{<prefix>}:hints:high`, `:normal`, `:low` | list | run ids; pushed left, popped right by `BLMPOP` in this order, at most 100,000 each |
//! | `{<prefix>}:news` | channel | `finished <run id>`, `message <run id>`, `canceled <run id>` |
//! | `run:<run id>:state` | string | the state of a run as JSON (`wire/state.rs`), for `run_state_ttl_seconds` after its last change |
//!
//! The prefix is the setting `redis_prefix`; as a hash tag it keeps the three lists in one slot of a Redis Cluster. A state
//! begins with `{"seq":`, the number of appends that it shows; an older one replaces it only when it is the last of its run.
//!
//! Three connections, each of which comes back by itself: one that writes, one that is blocked in `BLMPOP`, and one that
//! listens.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::link::{ANSWER_TIMEOUT, Link, RedisSettings, WireError};
use super::local::Hints;
use super::popper::{Popper, Wanted};
use super::sender::{Outbox, Sender};
use super::{HotCopy, News, Wire};
use crate::model::definition::Priority;
use crate::model::id::RunId;

/// How long one subscription is listened to. A connection that is gone without a word is found out by that.
const LISTEN_FOR: Duration = Duration::from_secs(60);

/// News that wait for a slow listener in this process.
const NEWS_MAX: usize = 4096;

/// Hints, copies and news by way of Redis.
pub struct RedisWire {
    link: Arc<Link>,
    outbox: Outbox,
    wanted: Arc<Wanted>,
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
        let link = Arc::new(Link::new(settings)?);
        let (hints, wanted) = (Arc::new(Hints::default()), Arc::new(Wanted::default()));
        let (news, _) = broadcast::channel(NEWS_MAX);
        let (outbox, sender) = Sender::new(Arc::clone(&link));
        let popper = Popper::new(Arc::clone(&link), Arc::clone(&hints), Arc::clone(&wanted));
        let listening = listen(Arc::clone(&link), news.clone());
        let tasks = vec![tokio::spawn(sender.run()), tokio::spawn(popper.run()), tokio::spawn(listening)];
        Ok(Self { link, outbox, wanted, hints, news, tasks: tokio::sync::Mutex::new(tasks) })
    }
}

/// Listens for what other processes tell.
async fn listen(link: Arc<Link>, news: broadcast::Sender<News>) {
    let mut pause = None;
    while !link.closing.is_cancelled() {
        let listened = async {
            let mut subscription =
                tokio::time::timeout(ANSWER_TIMEOUT, link.client.get_async_pubsub()).await.ok()?.ok()?;
            subscription.subscribe(link.news_channel()).await.ok()?;
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
            _ = tokio::time::timeout(LISTEN_FOR, listened) => {}
            () = link.closing.cancelled() => {}
        }
        link.pause(&mut pause).await;
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
            let _asked = self.wanted.ask(most.max(1).saturating_sub(self.hints.len()));
            self.hints.take(most).await
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
        self.link.is_up()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.link.closing.cancel();
            for task in self.tasks.lock().await.drain(..) {
                let _ = task.await;
            }
        })
    }
}
