//! Creating runs.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use sqlx::{PgConnection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::batch::{Batch, ManyRows, Waiting, column};
use super::claims::Claim;
use super::journal::insert_on_sqlite;
use super::writer::Write;
use super::{Store, StoreError, json_bytes};
use crate::model::id::{ClaimToken, EndpointId, RunId, WorkflowId};
use crate::model::journal::Event;
use crate::model::time::Timestamp;

/// A run to create.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The revision it will execute: the current one of the workflow.
    pub revision: u32,
    /// Its input, as JSON text.
    pub input: Bytes,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When someone must look at it, should the hint to do so get lost.
    pub due_at: Timestamp,
    /// The webhook endpoint that it comes from.
    pub caller: Option<Caller>,
    /// What makes a repeat of the request answer the same run.
    pub idempotency: Option<Idempotency>,
    /// Where the run begins with its creation: its claim and its first append.
    pub begun: Option<Begun>,
}

/// A webhook endpoint, as it was when a request was let in.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Which one.
    pub endpoint: EndpointId,
    /// Its secret, sealed.
    pub secret: Vec<u8>,
}

/// The first append of a run that is created under a claim.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The fence of the claim.
    pub token: ClaimToken,
    /// How long it lasts without an append or a renewal.
    pub lease: Duration,
    /// The events of the append. Never empty.
    pub events: Vec<Event>,
    /// Top-level steps done.
    pub step_index: u32,
}

/// The key under which a request may be repeated.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Unique for the workflow.
    pub key: String,
    /// SHA-256 of the request; `None` where a repeat may differ.
    pub hash: Option<[u8; 32]>,
}

/// What became of a run to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is on disk.
    New,
    /// The same request came before.
    Repeated(RunId),
    /// The key came before with another request.
    Conflict,
    /// The workflow, or the endpoint that was called, is switched off, gone, or not what it was when it was read.
    Changed,
}

/// A run on its way.
pub(super) struct CreateOp {
    run: NewRun,
    /// The first append, as JSON.
    events: Option<Vec<u8>>,
}

macro_rules! insert_sql {
    () => {
        "INSERT INTO runs (id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at, claim, lease_until, \
                           seq, step_index, started_at) \
         SELECT id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at, claim, lease_until, \
                CASE WHEN claim IS NULL THEN 0 ELSE 1 END, step_index, CASE WHEN claim IS NOT NULL THEN created_at END \
         FROM given "
    };
}

/// A repeat is not an error: the conflict is on the idempotency key, since ids are fresh. Whether it may run is asked
/// here, so that a change holds from its answer on for requests that are under way, whatever they had read before.
static CREATE_SQLITE: LazyLock<ManyRows> = LazyLock::new(|| {
    let before = "WITH given (id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at, endpoint, secret, \
                              claim, lease_until, step_index) AS (VALUES ";
    let after = concat!(
        ") ",
        insert_sql!(),
        "WHERE EXISTS (SELECT 1 FROM workflows w WHERE w.id = workflow_id AND w.revision = given.revision AND w.is_active) \
           AND (endpoint IS NULL OR EXISTS \
                (SELECT 1 FROM endpoints e WHERE e.id = endpoint AND e.secret = given.secret AND e.is_active)) \
         ON CONFLICT DO NOTHING"
    );
    ManyRows::new(before, 13, after)
});

/// The same; answers the ids of those that were created. Somebody who changes a workflow or an endpoint waits for creations
/// under way, and creations wait for him.
const CREATE_POSTGRES: &str = concat!(
    "WITH given AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[], $5::text[], $6::bytea[], \
            $7::bigint[], $8::bigint[], $9::uuid[], $10::bytea[], $11::uuid[], $12::bigint[], $13::bigint[], $14::bytea[]) \
         AS given (id, workflow_id, revision, input, idem_key, idem_hash, created_at, due_at, endpoint, secret, \
                   claim, lease_until, step_index, events)), \
     active AS MATERIALIZED (SELECT id, revision FROM workflows WHERE id IN (SELECT workflow_id FROM given) AND is_active \
         ORDER BY id FOR SHARE), \
     open AS MATERIALIZED (SELECT id, secret FROM endpoints WHERE id IN (SELECT endpoint FROM given) AND is_active \
         ORDER BY id FOR SHARE), \
     created AS (",
    insert_sql!(),
    "WHERE (workflow_id, revision) IN (SELECT id, revision FROM active) \
            AND (endpoint IS NULL OR (endpoint, secret) IN (SELECT id, secret FROM open)) \
         ON CONFLICT DO NOTHING RETURNING id, claim), \
     written AS (INSERT INTO journal (run_id, seq, claim, events) \
         SELECT id, 1, claim, events FROM given JOIN created USING (id, claim)) \
     SELECT id FROM created"
);

/// What was created earlier: under the same key, or by this very request whose answer got lost.
const EARLIER_SQLITE: &str = "SELECT id, idem_hash FROM runs WHERE id = $1 \
                              UNION SELECT id, idem_hash FROM runs WHERE workflow_id = $2 AND idem_key = $3";
const EARLIER_POSTGRES: &str = "SELECT given.id AS new_id, runs.id, runs.idem_hash \
     FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS given (id, workflow_id, idem_key) \
     JOIN runs ON runs.id = given.id OR (runs.workflow_id = given.workflow_id AND runs.idem_key = given.idem_key)";

impl Batch for CreateOp {
    type Output = Created;

    fn durable(&self) -> bool {
        true
    }

    fn size_bytes(&self) -> usize {
        self.run.input.len() + self.events.as_ref().map_or(0, Vec::len)
    }

    fn sort(batch: &mut [Waiting<Self>]) {
        // Keys are what one creation may have to wait for another one for; without one, ids keep the pages together.
        batch.sort_unstable_by(|a, b| (a.item.key(), a.item.run.id.0).cmp(&(b.item.key(), b.item.run.id.0)));
    }

    fn queued(waiting: Waiting<Self>) -> Write {
        Write::Create(waiting)
    }

    async fn on_sqlite(batch: &[&Self], db: &mut SqliteConnection) -> Result<Vec<Created>, sqlx::Error> {
        let mut created = Vec::with_capacity(batch.len());
        for (part, text) in CREATE_SQLITE.parts(batch) {
            let mut query = sqlx::query(text);
            for op in part {
                query = query
                    .bind(op.run.id.0)
                    .bind(op.run.workflow_id.0)
                    .bind(op.run.revision)
                    .bind(&*op.run.input)
                    .bind(op.key())
                    .bind(op.hash())
                    .bind(op.run.created_at.as_micros())
                    .bind(op.run.due_at.as_micros())
                    .bind(op.endpoint())
                    .bind(op.secret())
                    .bind(op.token())
                    .bind(op.lease_until())
                    .bind(op.step_index());
            }
            let inserted = query.execute(&mut *db).await?.rows_affected();
            if inserted == part.len() as u64 {
                created.extend(part.iter().map(|_| Created::New));
            } else {
                for op in part {
                    created.push(op.look_on_sqlite(db).await?);
                }
            }
        }
        let begun = batch.iter().zip(&created).filter(|(_, created)| **created == Created::New);
        let entries = begun.filter_map(|(op, _)| Some((op.run.id.0, 1, op.token()?, op.events.as_deref()?)));
        insert_on_sqlite(&entries.collect::<Vec<_>>(), db).await?;
        Ok(created)
    }

    async fn on_postgres(batch: &[&Self], db: &mut PgConnection) -> Result<Vec<Created>, sqlx::Error> {
        let created = sqlx::query(CREATE_POSTGRES)
            .bind(column(batch, |op| op.run.id.0))
            .bind(column(batch, |op| op.run.workflow_id.0))
            .bind(column(batch, |op| i64::from(op.run.revision)))
            .bind(column(batch, |op| &*op.run.input))
            .bind(column(batch, Self::key))
            .bind(column(batch, Self::hash))
            .bind(column(batch, |op| op.run.created_at.as_micros()))
            .bind(column(batch, |op| op.run.due_at.as_micros()))
            .bind(column(batch, Self::endpoint))
            .bind(column(batch, Self::secret))
            .bind(column(batch, Self::token))
            .bind(column(batch, Self::lease_until))
            .bind(column(batch, Self::step_index))
            .bind(column(batch, |op| op.events.as_deref()))
            .fetch_all(&mut *db)
            .await?;
        let created = created.iter().map(|row| row.try_get("id")).collect::<Result<HashSet<Uuid>, _>>()?;
        let rest: Vec<&Self> = batch.iter().copied().filter(|op| !created.contains(&op.run.id.0)).collect();
        let earlier = if rest.is_empty() { HashMap::new() } else { earlier(&rest, db).await? };
        let what = |op: &Self| match earlier.get(&op.run.id.0) {
            _ if created.contains(&op.run.id.0) => Created::New,
            Some((id, hash)) => op.repeats(*id, hash.as_deref()),
            None => Created::Changed,
        };
        Ok(batch.iter().map(|op| what(op)).collect())
    }
}

/// The runs that stand in the way of these, each with the hash of its request, by the ids of these.
async fn earlier(
    rest: &[&CreateOp],
    db: &mut PgConnection,
) -> Result<HashMap<Uuid, (Uuid, Option<Vec<u8>>)>, sqlx::Error> {
    let rows = sqlx::query(EARLIER_POSTGRES)
        .bind(column(rest, |op| op.run.id.0))
        .bind(column(rest, |op| op.run.workflow_id.0))
        .bind(column(rest, CreateOp::key))
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("new_id")?, (row.try_get("id")?, row.try_get("idem_hash")?)))).collect()
}

impl CreateOp {
    fn key(&self) -> Option<&str> {
        self.run.idempotency.as_ref().map(|idempotency| idempotency.key.as_str())
    }

    fn hash(&self) -> Option<&[u8]> {
        self.run.idempotency.as_ref().and_then(|idempotency| idempotency.hash.as_ref()).map(<[u8; 32]>::as_slice)
    }

    fn endpoint(&self) -> Option<Uuid> {
        self.run.caller.as_ref().map(|caller| caller.endpoint.0)
    }

    fn secret(&self) -> Option<&[u8]> {
        self.run.caller.as_ref().map(|caller| caller.secret.as_slice())
    }

    fn token(&self) -> Option<Uuid> {
        self.run.begun.as_ref().map(|begun| begun.token.0)
    }

    fn lease_until(&self) -> Option<i64> {
        self.run.claim().map(|claim| claim.lease_until.as_micros())
    }

    fn step_index(&self) -> i64 {
        self.run.begun.as_ref().map_or(0, |begun| i64::from(begun.step_index))
    }

    /// What became of this, when not all of its part were created.
    async fn look_on_sqlite(&self, db: &mut SqliteConnection) -> Result<Created, sqlx::Error> {
        let found = sqlx::query(EARLIER_SQLITE).bind(self.run.id.0).bind(self.run.workflow_id.0).bind(self.key());
        let row = found.fetch_optional(db).await?;
        row.map_or(Ok(Created::Changed), |row| Ok(self.repeats(row.try_get("id")?, row.try_get("idem_hash")?)))
    }

    /// What this is, given the run that stands in its way.
    fn repeats(&self, id: Uuid, hash: Option<&[u8]>) -> Created {
        if id == self.run.id.0 {
            Created::New
        } else if hash == self.hash() {
            Created::Repeated(RunId(id))
        } else {
            Created::Conflict
        }
    }
}

impl NewRun {
    /// The claim under which it is created, if it is.
    #[must_use]
    pub fn claim(&self) -> Option<Claim> {
        let claim = |begun: &Begun| Claim {
            run: self.id,
            token: begun.token,
            seq: 1,
            lease: begun.lease,
            lease_until: self.created_at.plus(begun.lease),
        };
        self.begun.as_ref().map(claim)
    }
}

impl Store {
    /// Creates a run. When this answers, the run is on disk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the run was not created, unless the database died in the moment of the commit.
    pub async fn create_run(&self, run: NewRun) -> Result<Created, StoreError> {
        let events = run.begun.as_ref().map(|begun| json_bytes(&begun.events)).transpose()?;
        self.db.write_batched(CreateOp { run, events }, |cluster| &cluster.creations).await
    }
}
