//! Takes hints out of Redis: as many as this process has room for, on a connection that is blocked while there are none.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, Value};
use tokio::sync::watch;

use super::link::{ANSWER_TIMEOUT, Link};
use super::local::Hints;
use crate::model::definition::Priority;
use crate::model::id::RunId;

/// How long one `BLMPOP` waits. In between, the popper notices that the connection is gone.
const BLOCKED: Duration = Duration::from_secs(2);

/// How many hints this process has room for.
pub(super) struct Wanted(watch::Sender<usize>);

impl Default for Wanted {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Wanted {
    /// Asks for so many until the answer is dropped.
    pub(super) fn ask(&self, wanted: usize) -> Asked<'_> {
        self.set(wanted);
        Asked(self)
    }

    fn set(&self, wanted: usize) {
        self.0.send_if_modified(|value| std::mem::replace(value, wanted) != wanted);
    }

    /// So many of them have come.
    fn came(&self, count: usize) {
        self.0.send_modify(|wanted| *wanted = wanted.saturating_sub(count));
    }
}

/// Somebody asks for hints. Nobody does any more when this is dropped, however that happens.
pub(super) struct Asked<'w>(&'w Wanted);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// The task. What it takes is this process's to look at, so it takes nothing that nobody asks for.
pub(super) struct Popper {
    link: Arc<Link>,
    hints: Arc<Hints>,
    wanted: Arc<Wanted>,
}

impl Popper {
    pub(super) fn new(link: Arc<Link>, hints: Arc<Hints>, wanted: Arc<Wanted>) -> Self {
        Self { link, hints, wanted }
    }

    pub(super) async fn run(self) {
        let mut pause = None;
        while !self.link.closing.is_cancelled() {
            let closing = self.link.closing.clone();
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                popped = self.pop_until_broken(&mut pause) => match popped {
                    Ok(()) => return,
                    // A connection that broke is the sender's to tell of; this is a refusal.
                    Err(error) if error.kind() != ErrorKind::Io => {
                        tracing::warn!(%error, "hints cannot be taken from Redis: runs are begun later");
                    }
                    Err(_) => {}
                },
            }
            self.link.pause(&mut pause).await;
        }
    }

    /// Ends with an error when the connection broke, and without one when nobody will ever ask again.
    async fn pop_until_broken(&self, pause: &mut Option<Duration>) -> Result<(), RedisError> {
        let mut connection = self.link.connect(BLOCKED + ANSWER_TIMEOUT).await?;
        *pause = None;
        let mut asked = self.wanted.0.subscribe();
        while let Ok(wanted) = asked.wait_for(|wanted| *wanted > 0).await.map(|wanted| *wanted) {
            let (runs, priority) = self.pop(&mut connection, wanted).await?;
            if !runs.is_empty() {
                self.wanted.came(runs.len());
                self.hints.add(runs, priority);
            }
        }
        Ok(())
    }

    async fn pop(
        &self,
        connection: &mut MultiplexedConnection,
        most: usize,
    ) -> Result<(Vec<RunId>, Priority), RedisError> {
        let keys = Priority::ALL.map(|priority| self.link.hints_key(priority));
        let mut command = redis::cmd("BLMPOP");
        command.arg(BLOCKED.as_secs()).arg(keys.len()).arg(&keys).arg("RIGHT").arg("COUNT").arg(most);
        let popped: Option<(String, Vec<Value>)> = command.query_async(connection).await?;
        let Some((key, texts)) = popped else { return Ok((Vec::new(), Priority::Normal)) };
        let priority = Priority::ALL.into_iter().zip(keys).find(|(_, known)| *known == key);
        let run = |text: &Value| redis::from_redis_value_ref::<String>(text).ok()?.parse().ok().map(RunId);
        Ok((texts.iter().filter_map(run).collect(), priority.map_or(Priority::Normal, |(priority, _)| priority)))
    }
}
