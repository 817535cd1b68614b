//! Writes to Redis: whatever has gathered since the last time goes out in one pipeline. While Redis is away hints and news
//! are dropped, and of each run only the newest copy is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError};
use tokio::sync::Notify;

use super::link::{ANSWER_TIMEOUT, Link};
use super::{HotCopy, News};
use crate::model::definition::Priority;
use crate::model::id::RunId;

/// Most hints, news and copies that gather, each. Beyond that they are dropped.
const GATHERED_MAX: usize = 16_384;

/// Most hints in one list of Redis. The oldest go first: those runs are due for a long time already.
const LIST_MAX: usize = 100_000;

/// Most bytes of results in the copies that gather. Beyond that copies are dropped: runs and their results are not.
const COPIES_MAX_BYTES: usize = 64 << 20;

/// Most copies in one pipeline.
const COPIES_MAX: usize = 256;

/// `KEYS[1]` the state; `ARGV` its sequence, its text, its time to live, and whether it is the last one, which always counts: a
/// crash of Postgres can take appends back that were shown already, and then the end has a smaller number.
const SHOW: &str = r#"local old = redis.call('GETRANGE', KEYS[1], 0, 30)
local seq = string.match(old, '^{"seq":(%d+)')
if ARGV[4] == '0' and seq and tonumber(seq) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1"#;

#[derive(Default)]
struct Gathered {
    hints: [Vec<RunId>; Priority::ALL.len()],
    copies: HashMap<RunId, HotCopy>,
    copies_bytes: usize,
    news: Vec<News>,
}

/// Where what is to be written gathers.
#[derive(Clone)]
pub(super) struct Outbox {
    gathered: Arc<Mutex<Gathered>>,
    came: Arc<Notify>,
}

impl Outbox {
    fn add(&self, add: impl FnOnce(&mut Gathered)) {
        add(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        self.came.notify_one();
    }

    pub(super) fn hint(&self, run: RunId, priority: Priority) {
        self.add(|gathered| push(&mut gathered.hints[priority as usize], run));
    }

    pub(super) fn tell(&self, news: News) {
        self.add(|gathered| push(&mut gathered.news, news));
    }

    pub(super) fn show(&self, copy: HotCopy) {
        self.add(|gathered| {
            let earlier = gathered.copies.get(&copy.run);
            if earlier.is_some_and(|earlier| earlier.seq > copy.seq && !copy.last) {
                return;
            }
            let freed = earlier.map_or(0, |earlier| earlier.size_bytes);
            let size = gathered.copies_bytes - freed + copy.size_bytes;
            if earlier.is_some() || (gathered.copies.len() < GATHERED_MAX && size <= COPIES_MAX_BYTES) {
                gathered.copies_bytes = size;
                gathered.copies.insert(copy.run, copy);
            }
        });
    }

    fn is_empty(&self) -> bool {
        let gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.copies.is_empty() && gathered.news.is_empty() && gathered.hints.iter().all(Vec::is_empty)
    }

    /// Takes everything, but for copies beyond what one pipeline takes.
    fn take(&self) -> Gathered {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = std::mem::take(&mut *gathered);
        if taken.copies.len() > COPIES_MAX {
            let keep: Vec<RunId> = taken.copies.keys().skip(COPIES_MAX).copied().collect();
            gathered.copies = keep.into_iter().filter_map(|run| taken.copies.remove_entry(&run)).collect();
            gathered.copies_bytes = gathered.copies.values().map(|copy| copy.size_bytes).sum();
            self.came.notify_one();
        }
        taken
    }
}

fn push<T>(queue: &mut Vec<T>, item: T) {
    if queue.len() < GATHERED_MAX {
        queue.push(item);
    }
}

/// The task.
pub(super) struct Sender {
    link: Arc<Link>,
    outbox: Outbox,
}

impl Sender {
    pub(super) fn new(link: Arc<Link>) -> (Outbox, Self) {
        let outbox = Outbox { gathered: Arc::default(), came: Arc::default() };
        (outbox.clone(), Self { link, outbox })
    }

    pub(super) async fn run(self) {
        let mut pause = None;
        loop {
            let sent = self.send_until_broken(&mut pause).await;
            if sent.is_ok() || self.link.closing.is_cancelled() {
                return;
            }
            self.link.set_up(false);
            {
                // They are of use at once or not at all.
                let mut gathered = self.outbox.gathered.lock().unwrap_or_else(PoisonError::into_inner);
                gathered.hints = Default::default();
                gathered.news.clear();
            }
            self.link.pause(&mut pause).await;
        }
    }

    /// Ends with an error when the connection broke, and without one when the wire is closed and everything is sent.
    async fn send_until_broken(&self, pause: &mut Option<Duration>) -> Result<(), RedisError> {
        let mut connection = self.link.connect(ANSWER_TIMEOUT).await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        self.link.set_up(true);
        loop {
            let closing = self.link.closing.is_cancelled();
            if !closing {
                tokio::select! {
                    () = self.outbox.came.notified() => {}
                    () = self.link.closing.cancelled() => {}
                    // An idle connection that is gone must be known: readiness tells of it.
                    () = tokio::time::sleep(ANSWER_TIMEOUT) => redis::cmd("PING").exec_async(&mut connection).await?,
                }
            }
            self.send(&mut connection, self.outbox.take()).await?;
            *pause = None;
            if closing && self.outbox.is_empty() {
                return Ok(());
            }
        }
    }

    async fn send(&self, connection: &mut MultiplexedConnection, gathered: Gathered) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::new();
        for (priority, runs) in Priority::ALL.into_iter().zip(&gathered.hints) {
            if !runs.is_empty() {
                let texts: Vec<String> = runs.iter().map(ToString::to_string).collect();
                let key = self.link.hints_key(priority);
                pipeline.lpush(&key, texts).ignore().ltrim(&key, 0, LIST_MAX as isize - 1).ignore();
            }
        }
        let ttl = self.link.settings.state_ttl.as_secs();
        let mut shown = Vec::with_capacity(gathered.copies.len());
        for copy in gathered.copies.into_values() {
            let HotCopy { run, seq, last, size_bytes, body } = copy;
            let (key, state) = (format!("run:{run}:state"), body());
            let text = state.to_string();
            if seq == 0 && !last {
                // Whatever stands there is newer.
                pipeline.cmd("SET").arg(key).arg(text).arg("EX").arg(ttl).arg("NX").ignore();
            } else {
                pipeline.cmd("EVAL").arg(SHOW).arg(1).arg(key).arg(seq).arg(text).arg(ttl).arg(u8::from(last)).ignore();
            }
            shown.push(HotCopy { run, seq, last, size_bytes, body: Box::new(move || state) });
        }
        // After the copies: whoever hears that a run is over finds it so.
        for news in &gathered.news {
            pipeline.publish(self.link.news_channel(), news.text()).ignore();
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        let sent = pipeline.exec_async(connection).await;
        if sent.is_err() {
            // Again with the next connection, unless something newer has come.
            shown.into_iter().for_each(|copy| self.outbox.show(copy));
        }
        sent
    }
}
