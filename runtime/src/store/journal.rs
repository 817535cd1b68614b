//! The journal: the only way a run advances.

use std::collections::HashMap;

use sqlx::{PgConnection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::claims::Claim;
use super::lane::{Batch, Waiting};
use super::{Store, StoreError, from_json, json_bytes};
use crate::model::error::Failure;
use crate::model::id::{ClaimToken, RunId};
use crate::model::journal::{Event, Outcome};
use crate::model::time::Timestamp;

/// Events to add to a run's journal, and what becomes of the run.
#[derive(Clone, Debug)]
pub struct Append {
    /// The events. Never empty.
    pub events: Vec<Event>,
    /// Messages of the inbox that these events and those before them have taken.
    pub received: u32,
    /// Top-level steps done; `None` leaves the number as it is.
    pub step_index: Option<u32>,
    /// What becomes of the run.
    pub next: Next,
    /// Whether this must be on disk even where none of the events says so by itself.
    pub durable: bool,
}

/// What becomes of a run after an append.
#[derive(Clone, Debug)]
pub enum Next {
    /// The claim is kept.
    Continue,
    /// The claim is given back until this time, or at once if a message is waiting.
    Wait(Timestamp),
    /// The run is over and the claim with it.
    Finish(Outcome, Option<Failure>, Timestamp),
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is written; `inbox` messages have come so far, read or not.
    Written {
        /// Messages so far.
        inbox: u32,
    },
    /// Somebody else holds the run now. Nothing was written.
    Lost,
}

/// One append, as it is stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// Its events.
    pub events: Vec<Event>,
}

/// An append on its way.
pub(super) struct AppendOp {
    run: RunId,
    token: ClaimToken,
    seq: i64,
    events: Vec<u8>,
    durable: bool,
    progress: bool,
    started_at: Option<i64>,
    received: u32,
    step_index: Option<u32>,
    wait_until: Option<i64>,
    finish: Option<(Outcome, Option<Vec<u8>>, i64)>,
    now: i64,
}

/// $1 $2 $3 are the fence. $8 is the time to wait until, $9 the outcome: either ends the claim.
const APPEND_SQLITE: &str = "UPDATE runs SET seq = seq + 1, step_index = coalesce($4, step_index), started_at = coalesce(started_at, $5), \
            interrupts = CASE WHEN $6 THEN 0 ELSE interrupts END, \
            due_at = CASE WHEN $9 IS NOT NULL THEN NULL \
                          WHEN $8 IS NULL THEN due_at \
                          WHEN inbox > $7 THEN $12 \
                          ELSE $8 END, \
            claim = CASE WHEN $8 IS NULL AND $9 IS NULL THEN claim END, \
            lease_until = CASE WHEN $8 IS NULL AND $9 IS NULL THEN lease_until END, \
            outcome = $9, error = $10, finished_at = $11 \
     WHERE id = $1 AND claim = $2 AND seq = $3 RETURNING inbox";

/// The same for many at once, with their journal entries.
const APPEND_POSTGRES: &str = "WITH given AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[], \
            $7::bigint[], $8::bigint[], $9::text[], $10::bytea[], $11::bigint[], $12::bigint[], $13::bytea[]) \
         AS given (id, token, seq, step_index, started_at, progress, received, until, outcome, error, finished_at, now, \
                   events)), \
     advanced AS (UPDATE runs SET seq = runs.seq + 1, step_index = coalesce(given.step_index, runs.step_index), \
            started_at = coalesce(runs.started_at, given.started_at), \
            interrupts = CASE WHEN given.progress THEN 0 ELSE runs.interrupts END, \
            due_at = CASE WHEN given.outcome IS NOT NULL THEN NULL \
                          WHEN given.until IS NULL THEN runs.due_at \
                          WHEN runs.inbox > given.received THEN given.now \
                          ELSE given.until END, \
            claim = CASE WHEN given.until IS NULL AND given.outcome IS NULL THEN runs.claim END, \
            lease_until = CASE WHEN given.until IS NULL AND given.outcome IS NULL THEN runs.lease_until END, \
            outcome = given.outcome, error = given.error, finished_at = given.finished_at \
         FROM given WHERE runs.id = given.id AND runs.claim = given.token AND runs.seq = given.seq \
         RETURNING runs.id, given.token, runs.seq, runs.inbox, given.events), \
     written AS (INSERT INTO journal (run_id, seq, claim, events) SELECT id, seq, token, events FROM advanced) \
     SELECT id, token, inbox FROM advanced";

/// The fence does not match: either the claim is lost, or this very append was committed before and its answer got lost.
/// My token at the sequence I expect means that it happened.
const READ_BACK_SQLITE: &str = "SELECT runs.inbox FROM journal JOIN runs ON runs.id = journal.run_id \
                                WHERE journal.run_id = $1 AND journal.seq = $2 AND journal.claim = $3";
const READ_BACK_POSTGRES: &str = "SELECT runs.id, given.token, runs.inbox FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS given (id, seq, token) \
     JOIN journal ON journal.run_id = given.id AND journal.seq = given.seq AND journal.claim = given.token \
     JOIN runs ON runs.id = given.id";

impl Batch for AppendOp {
    type Output = Appended;

    fn durable(&self) -> bool {
        self.durable
    }

    fn size_bytes(&self) -> usize {
        self.events.len()
    }

    fn sort(batch: &mut [Waiting<Self>]) {
        batch.sort_unstable_by_key(|waiting| waiting.item.run.0);
    }

    async fn on_sqlite(&self, db: &mut SqliteConnection) -> Result<Appended, sqlx::Error> {
        let (outcome, error, finished_at) = self.end();
        let advanced = sqlx::query(APPEND_SQLITE)
            .bind(self.run.0)
            .bind(self.token.0)
            .bind(self.seq)
            .bind(self.step_index)
            .bind(self.started_at)
            .bind(self.progress)
            .bind(self.received)
            .bind(self.wait_until)
            .bind(outcome)
            .bind(error)
            .bind(finished_at)
            .bind(self.now);
        let Some(row) = advanced.fetch_optional(&mut *db).await? else {
            let written = sqlx::query(READ_BACK_SQLITE).bind(self.run.0).bind(self.seq + 1).bind(self.token.0);
            let row = written.fetch_optional(db).await?;
            return row.map_or(Ok(Appended::Lost), |row| Ok(Appended::Written { inbox: row.try_get("inbox")? }));
        };
        sqlx::query("INSERT INTO journal (run_id, seq, claim, events) VALUES ($1, $2, $3, $4)")
            .bind(self.run.0)
            .bind(self.seq + 1)
            .bind(self.token.0)
            .bind(&self.events)
            .execute(db)
            .await?;
        Ok(Appended::Written { inbox: row.try_get("inbox")? })
    }

    async fn on_postgres(batch: &[Waiting<Self>], db: &mut PgConnection) -> Result<Vec<Appended>, sqlx::Error> {
        let advanced = sqlx::query(APPEND_POSTGRES)
            .bind(column(batch, |op| op.run.0))
            .bind(column(batch, |op| op.token.0))
            .bind(column(batch, |op| op.seq))
            .bind(column(batch, |op| op.step_index.map(i64::from)))
            .bind(column(batch, |op| op.started_at))
            .bind(column(batch, |op| op.progress))
            .bind(column(batch, |op| i64::from(op.received)))
            .bind(column(batch, |op| op.wait_until))
            .bind(column(batch, |op| op.end().0))
            .bind(column(batch, |op| op.end().1))
            .bind(column(batch, |op| op.end().2))
            .bind(column(batch, |op| op.now))
            .bind(column(batch, |op| op.events.as_slice()));
        let mut inboxes = HashMap::with_capacity(batch.len());
        read_inboxes(&advanced.fetch_all(&mut *db).await?, &mut inboxes)?;
        let rest: Vec<&Self> =
            batch.iter().map(|waiting| &waiting.item).filter(|op| !inboxes.contains_key(&op.key())).collect();
        if !rest.is_empty() {
            let written = sqlx::query(READ_BACK_POSTGRES)
                .bind(rest.iter().map(|op| op.run.0).collect::<Vec<_>>())
                .bind(rest.iter().map(|op| op.seq + 1).collect::<Vec<_>>())
                .bind(rest.iter().map(|op| op.token.0).collect::<Vec<_>>());
            read_inboxes(&written.fetch_all(db).await?, &mut inboxes)?;
        }
        let appended = |inbox: Option<&u32>| inbox.map_or(Appended::Lost, |inbox| Appended::Written { inbox: *inbox });
        Ok(batch.iter().map(|waiting| appended(inboxes.get(&waiting.item.key()))).collect())
    }
}

/// One column of a batch.
pub(super) fn column<'b, B: Batch, T>(batch: &'b [Waiting<B>], value: impl Fn(&'b B) -> T) -> Vec<T> {
    batch.iter().map(|waiting| value(&waiting.item)).collect()
}

fn read_inboxes(rows: &[sqlx::postgres::PgRow], inboxes: &mut HashMap<(Uuid, Uuid), u32>) -> Result<(), sqlx::Error> {
    for row in rows {
        let inbox = u32::try_from(row.try_get::<i64, _>("inbox")?).unwrap_or(u32::MAX);
        inboxes.insert((row.try_get("id")?, row.try_get("token")?), inbox);
    }
    Ok(())
}

impl AppendOp {
    /// A driver appends one after the other, and its token is its own.
    fn key(&self) -> (Uuid, Uuid) {
        (self.run.0, self.token.0)
    }

    /// The outcome of a run that is over, its error, and when.
    fn end(&self) -> (Option<&'static str>, Option<&[u8]>, Option<i64>) {
        match &self.finish {
            Some((outcome, error, at)) => (Some(outcome.as_str()), error.as_deref(), Some(*at)),
            None => (None, None, None),
        }
    }
}

impl Store {
    /// Appends to a run's journal under `claim`. Once it answers `Written`, events that must be durable are on disk.
    ///
    /// Idempotent: the same append under the same claim may be repeated when its outcome is unknown.
    ///
    /// # Errors
    /// When the database cannot be written, or not now; the caller repeats the append.
    pub async fn append(&self, claim: &mut Claim, append: &Append) -> Result<Appended, StoreError> {
        let micros = |time: &Timestamp| time.as_micros();
        let durable = append.durable || append.events.iter().any(Event::is_durable);
        let op = AppendOp {
            run: claim.run,
            token: claim.token,
            seq: i64::try_from(claim.seq).unwrap_or(i64::MAX),
            events: json_bytes(&append.events)?,
            durable,
            progress: append.events.iter().any(Event::is_progress),
            started_at: append.events.iter().find_map(|event| match event {
                Event::Started { at } => Some(at.as_micros()),
                _ => None,
            }),
            received: append.received,
            step_index: append.step_index,
            wait_until: match &append.next {
                Next::Wait(until) => Some(micros(until)),
                Next::Continue | Next::Finish(..) => None,
            },
            finish: match &append.next {
                Next::Finish(outcome, error, at) => {
                    Some((*outcome, error.as_ref().map(json_bytes).transpose()?, micros(at)))
                }
                Next::Continue | Next::Wait(_) => None,
            },
            now: self.clock.now().as_micros(),
        };
        let appended =
            self.db.write_batched(op, |cluster| if durable { &cluster.appends } else { &cluster.notes }).await?;
        if appended != Appended::Lost {
            claim.seq += 1;
        }
        Ok(appended)
    }

    /// Reads up to `most` appends of a run's journal that come after the append `after`.
    ///
    /// # Errors
    /// When the database cannot be read, or an entry not by this version.
    pub async fn journal(&self, run: RunId, after: u64, most: u32) -> Result<Vec<Entry>, StoreError> {
        let rows = self
            .db
            .query("SELECT seq, events FROM journal WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
            .bind(run.0)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(i64::from(most))
            .fetch_all()
            .await?;
        rows.iter().map(|row| Ok(Entry { seq: row.size("seq")?, events: from_json(row.get("events")?)? })).collect()
    }
}
