//! The journal: the only way a run advances.

use std::collections::{HashMap, HashSet, hash_map};
use std::sync::LazyLock;

use sqlx::{PgConnection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::batch::{Batch, ManyRows, Waiting, column};
use super::claims::Claim;
use super::writer::Write;
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

type SqliteQuery<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

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
    lease_until: i64,
}

macro_rules! advance_sql {
    () => {
        "UPDATE runs SET seq = runs.seq + 1, step_index = coalesce(given.step_index, runs.step_index), \
            started_at = coalesce(runs.started_at, given.started_at), \
            interrupts = CASE WHEN given.progress THEN 0 ELSE runs.interrupts END, \
            due_at = CASE WHEN given.outcome IS NOT NULL THEN NULL \
                          WHEN given.until IS NULL THEN runs.due_at \
                          WHEN runs.inbox > given.received THEN given.now \
                          ELSE given.until END, \
            claim = CASE WHEN given.until IS NULL AND given.outcome IS NULL THEN runs.claim END, \
            lease_until = CASE WHEN given.until IS NULL AND given.outcome IS NULL THEN given.lease_until END, \
            outcome = given.outcome, error = given.error, finished_at = given.finished_at \
         FROM given WHERE runs.id = given.id AND runs.claim = given.token AND runs.seq = given.seq "
    };
}

/// The token and the sequence are the fence. A time to wait until or an outcome ends the claim.
static APPEND_SQLITE: LazyLock<ManyRows> = LazyLock::new(|| {
    let before = "WITH given (id, token, seq, step_index, started_at, progress, received, until, outcome, error, \
                              finished_at, now, lease_until) AS (VALUES ";
    ManyRows::new(before, 13, concat!(") ", advance_sql!(), "RETURNING id, inbox"))
});

/// Entries of the journal.
static ENTRIES_SQLITE: LazyLock<ManyRows> =
    LazyLock::new(|| ManyRows::new("INSERT INTO journal (run_id, seq, claim, events) VALUES ", 4, ""));

/// The same, with the journal entries.
const APPEND_POSTGRES: &str = concat!(
    "WITH given AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[], \
            $7::bigint[], $8::bigint[], $9::text[], $10::bytea[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bytea[]) \
         AS given (id, token, seq, step_index, started_at, progress, received, until, outcome, error, finished_at, now, \
                   lease_until, events)), \
     advanced AS (",
    advance_sql!(),
    "RETURNING runs.id, given.token, runs.seq, runs.inbox, given.events), \
     written AS (INSERT INTO journal (run_id, seq, claim, events) SELECT id, seq, token, events FROM advanced) \
     SELECT id, token, inbox FROM advanced"
);

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

    fn queued(waiting: Waiting<Self>) -> Write {
        Write::Append(waiting)
    }

    async fn on_sqlite(batch: &[&Self], db: &mut SqliteConnection) -> Result<Vec<Appended>, sqlx::Error> {
        let mut inboxes = HashMap::with_capacity(batch.len());
        let mut entries = Vec::with_capacity(batch.len());
        for turn in Self::turns(batch) {
            for (part, text) in APPEND_SQLITE.parts(&turn) {
                let advanced = part.iter().fold(sqlx::query(text), |query, op| op.bind_on_sqlite(query));
                for row in advanced.fetch_all(&mut *db).await? {
                    let (run, inbox) = (row.try_get::<Uuid, _>("id")?, row.try_get::<u32, _>("inbox")?);
                    if let Some(op) = part.iter().find(|op| op.run.0 == run) {
                        entries.push((run, op.seq + 1, op.token.0, op.events.as_slice()));
                        inboxes.insert(op.key(), inbox);
                    }
                }
            }
        }
        insert_on_sqlite(&entries, db).await?;
        for op in batch {
            if let hash_map::Entry::Vacant(unknown) = inboxes.entry(op.key()) {
                let written = sqlx::query(READ_BACK_SQLITE).bind(op.run.0).bind(op.seq + 1).bind(op.token.0);
                if let Some(row) = written.fetch_optional(&mut *db).await? {
                    unknown.insert(row.try_get("inbox")?);
                }
            }
        }
        Ok(Self::appended(batch, &inboxes))
    }

    async fn on_postgres(batch: &[&Self], db: &mut PgConnection) -> Result<Vec<Appended>, sqlx::Error> {
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
            .bind(column(batch, |op| op.lease_until))
            .bind(column(batch, |op| op.events.as_slice()));
        let mut inboxes = HashMap::with_capacity(batch.len());
        read_inboxes(&advanced.fetch_all(&mut *db).await?, &mut inboxes)?;
        let rest: Vec<&Self> = batch.iter().copied().filter(|op| !inboxes.contains_key(&op.key())).collect();
        if !rest.is_empty() {
            let written = sqlx::query(READ_BACK_POSTGRES)
                .bind(column(&rest, |op| op.run.0))
                .bind(column(&rest, |op| op.seq + 1))
                .bind(column(&rest, |op| op.token.0));
            read_inboxes(&written.fetch_all(db).await?, &mut inboxes)?;
        }
        Ok(Self::appended(batch, &inboxes))
    }
}

/// Writes entries, each with its run, its number, its token and its events.
pub(super) async fn insert_on_sqlite(
    entries: &[(Uuid, i64, Uuid, &[u8])],
    db: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    for (part, text) in ENTRIES_SQLITE.parts(entries) {
        let mut query = sqlx::query(text);
        for (run, seq, token, events) in part {
            query = query.bind(*run).bind(*seq).bind(*token).bind(*events);
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
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

    /// A batch in turns, each with one append of a run at most: what SQLite returns of a row does not say whose token it was.
    fn turns<'b>(batch: &[&'b Self]) -> Vec<Vec<&'b Self>> {
        let mut turns: Vec<(HashSet<Uuid>, Vec<&Self>)> = Vec::new();
        for op in batch {
            match turns.iter_mut().find(|(runs, _)| !runs.contains(&op.run.0)) {
                Some((runs, turn)) => {
                    runs.insert(op.run.0);
                    turn.push(op);
                }
                None => turns.push((HashSet::from([op.run.0]), vec![op])),
            }
        }
        turns.into_iter().map(|(_, turn)| turn).collect()
    }

    fn bind_on_sqlite<'q>(&'q self, query: SqliteQuery<'q>) -> SqliteQuery<'q> {
        let (outcome, error, finished_at) = self.end();
        query
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
            .bind(self.lease_until)
    }

    /// What became of each, given the messages of those that were written.
    fn appended(batch: &[&Self], inboxes: &HashMap<(Uuid, Uuid), u32>) -> Vec<Appended> {
        let appended = |inbox: Option<&u32>| inbox.map_or(Appended::Lost, |inbox| Appended::Written { inbox: *inbox });
        batch.iter().map(|op| appended(inboxes.get(&op.key()))).collect()
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
    /// Appends to a run's journal under `claim`, which lasts from then for its lease, unless the append ends it. Once this
    /// answers `Written`, events that must be durable are on disk.
    ///
    /// Idempotent: the same append under the same claim may be repeated when its outcome is unknown.
    ///
    /// # Errors
    /// When the database cannot be written, or not now; the caller repeats the append.
    pub async fn append(&self, claim: &mut Claim, append: &Append) -> Result<Appended, StoreError> {
        let micros = |time: &Timestamp| time.as_micros();
        let now = self.clock.now();
        let lease_until = now.plus(claim.lease);
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
            now: now.as_micros(),
            lease_until: lease_until.as_micros(),
        };
        let appended =
            self.db.write_batched(op, |cluster| if durable { &cluster.appends } else { &cluster.notes }).await?;
        if appended != Appended::Lost {
            claim.seq += 1;
            claim.lease_until = lease_until;
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
