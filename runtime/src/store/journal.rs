//! The journal: the only way a run advances.

use sqlx::{Row as _, SqliteConnection};

use super::claims::Claim;
use super::writer::Op;
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

struct AppendOp {
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

impl Op for AppendOp {
    type Output = Appended;

    fn durable(&self) -> bool {
        self.durable
    }

    async fn perform(&self, db: &mut SqliteConnection) -> Result<Appended, sqlx::Error> {
        let (outcome, error, finished_at) = match &self.finish {
            Some((outcome, error, at)) => (Some(outcome.as_str()), error.as_deref(), Some(*at)),
            None => (None, None, None),
        };
        // $1 $2 $3 are the fence. $8 is the time to wait until, $9 the outcome: either ends the claim.
        let row = sqlx::query(
            "UPDATE runs SET seq = seq + 1, step_index = coalesce($4, step_index), started_at = coalesce(started_at, $5), \
                    interrupts = CASE WHEN $6 THEN 0 ELSE interrupts END, \
                    due_at = CASE WHEN $9 IS NOT NULL THEN NULL \
                                  WHEN $8 IS NULL THEN due_at \
                                  WHEN inbox > $7 THEN $12 \
                                  ELSE $8 END, \
                    claim = CASE WHEN $8 IS NULL AND $9 IS NULL THEN claim END, \
                    lease_until = CASE WHEN $8 IS NULL AND $9 IS NULL THEN lease_until END, \
                    outcome = $9, error = $10, finished_at = $11 \
             WHERE id = $1 AND claim = $2 AND seq = $3 RETURNING inbox",
        )
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
        .bind(self.now)
        .fetch_optional(&mut *db)
        .await?;
        let Some(row) = row else {
            return self.read_back(db).await;
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
}

impl AppendOp {
    /// The fence does not match: either the claim is lost, or this very append was committed before and its answer
    /// got lost. My token at the sequence I expect means that it happened.
    async fn read_back(&self, db: &mut SqliteConnection) -> Result<Appended, sqlx::Error> {
        let row = sqlx::query(
            "SELECT runs.inbox FROM journal JOIN runs ON runs.id = journal.run_id \
             WHERE journal.run_id = $1 AND journal.seq = $2 AND journal.claim = $3",
        )
        .bind(self.run.0)
        .bind(self.seq + 1)
        .bind(self.token.0)
        .fetch_optional(db)
        .await?;
        row.map_or(Ok(Appended::Lost), |row| Ok(Appended::Written { inbox: row.try_get("inbox")? }))
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
        let op = AppendOp {
            run: claim.run,
            token: claim.token,
            seq: i64::try_from(claim.seq).unwrap_or(i64::MAX),
            events: json_bytes(&append.events)?,
            durable: append.durable || append.events.iter().any(Event::is_durable),
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
        let appended = self.writer.run(op).await?;
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
        let rows = sqlx::query("SELECT seq, events FROM journal WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
            .bind(run.0)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(most)
            .fetch_all(&self.readers)
            .await?;
        let entry = |row: &sqlx::sqlite::SqliteRow| {
            let events: &[u8] = row.try_get("events")?;
            Ok(Entry { seq: row.try_get::<i64, _>("seq")?.unsigned_abs(), events: from_json(events)? })
        };
        rows.iter().map(entry).collect()
    }
}
