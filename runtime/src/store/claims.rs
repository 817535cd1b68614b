//! Claims: the right to advance a run for a while, fenced by a random token.
//!
//! A claim need not survive a power cut: losing one costs a repeat, never a run. A claim that ends without a release
//! counts as an interruption until the run makes progress; a run that was interrupted [`INTERRUPTS_SUSPECT`] times in
//! a row is a suspect, and suspects are claimed one at a time, so that the next crash convicts only a culprit.

use std::time::Duration;

use uuid::Uuid;

use super::sql::{Connection, Row};
use super::writer::Op;
use super::{Store, StoreError};
use crate::clock::new_token;
use crate::model::id::{ClaimToken, RunId, WorkflowId};
use crate::model::time::Timestamp;

/// After so many interruptions in a row a run is a suspect.
pub const INTERRUPTS_SUSPECT: u32 = 2;

/// How long a suspect rests after the process died while it ran, the first time.
const SUSPECT_REST: Duration = Duration::from_millis(500);

/// A write permit for one run. Not `Clone`: it can be held only once.
#[derive(Debug)]
pub struct Claim {
    /// The run.
    pub run: RunId,
    /// The fence.
    pub token: ClaimToken,
    /// Appends made so far, by anyone.
    pub seq: u64,
    /// How long it lasts without an append or a renewal.
    pub lease: Duration,
    /// When it ends, as far as appends have moved that; renewals are not counted in.
    pub lease_until: Timestamp,
}

/// A claimed run, with what its driver needs to begin.
#[derive(Debug)]
pub struct Claimed {
    /// The permit.
    pub claim: Claim,
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The revision it executes.
    pub revision: u32,
    /// Its input, as JSON text.
    pub input: Vec<u8>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Messages in its inbox so far, read or not.
    pub inbox: u32,
    /// Claims in a row that ended without progress, not counting this one.
    pub interrupts: u32,
}

/// What became of claims that were to be renewed.
#[derive(Debug, Default)]
pub struct Renewed {
    /// The runs whose claims last until the given time, with the messages in their inboxes so far, read or not.
    pub held: Vec<(RunId, u32)>,
    /// When those claims end unless they are renewed again.
    pub lease_until: Option<Timestamp>,
    /// The runs whose claims are somebody else's now, or nobody's. The others are in use at the moment.
    pub lost: Vec<RunId>,
}

/// Whom to claim.
enum Target {
    /// These runs, as far as they are free and no suspects.
    Ids(Vec<RunId>),
    /// Up to so many due runs that are no suspects.
    Due(u32),
    /// One due suspect.
    Suspect,
    /// This run, as far as it is free, suspect or not.
    Any(RunId),
}

struct ClaimOp {
    target: Target,
    token: ClaimToken,
    now: Timestamp,
    lease: Duration,
}

/// `$1` token, `$2` end of the lease, `$3` now. A run is free when nobody holds it or the lease is over, and finished
/// runs (`due_at` null) are never claimed. Which ones is a subquery that is answered once; on Postgres it locks them and
/// passes over those that somebody else is writing. The 2 in the texts of this file is [`INTERRUPTS_SUSPECT`].
macro_rules! claim_sql {
    ($free:literal) => {
        (
            concat!(claim_sql!(@head), "id IN (SELECT id FROM runs WHERE ", $free, ")", claim_sql!(@tail)),
            concat!(
                claim_sql!(@head), "id = ANY(ARRAY(SELECT id FROM runs WHERE ", $free, " FOR UPDATE SKIP LOCKED))",
                claim_sql!(@tail)
            ),
        )
    };
    (@head) => {
        "UPDATE runs SET interrupts = interrupts + CASE WHEN claim IS NOT NULL THEN 1 ELSE 0 END, claim = $1, \
                lease_until = $2 WHERE "
    };
    (@tail) => {
        " RETURNING id, workflow_id, revision, input, created_at, seq, inbox, interrupts"
    };
}

/// The texts for SQLite and for Postgres.
type Texts = (&'static str, &'static str);

const CLAIM_IDS_SQLITE: &str = claim_sql!(
    "id IN (SELECT unhex(value) FROM json_each($4)) AND due_at IS NOT NULL AND (claim IS NULL OR lease_until <= $3) \
     AND interrupts + CASE WHEN claim IS NOT NULL THEN 1 ELSE 0 END < 2"
)
.0;
const CLAIM_IDS_POSTGRES: &str = claim_sql!(
    "id = ANY($4) AND due_at IS NOT NULL AND (claim IS NULL OR lease_until <= $3) \
     AND interrupts + CASE WHEN claim IS NOT NULL THEN 1 ELSE 0 END < 2 ORDER BY id"
)
.1;
const CLAIM_DUE: Texts = claim_sql!(
    "due_at <= $3 AND (claim IS NULL OR lease_until <= $3) \
     AND interrupts + CASE WHEN claim IS NOT NULL THEN 1 ELSE 0 END < 2 ORDER BY due_at LIMIT $4"
);
const CLAIM_SUSPECT: Texts = claim_sql!(
    "due_at <= $3 AND (claim IS NULL OR lease_until <= $3) \
     AND interrupts + CASE WHEN claim IS NOT NULL THEN 1 ELSE 0 END >= 2 ORDER BY due_at LIMIT 1"
);
const CLAIM_ANY: Texts = claim_sql!("id = $4 AND due_at IS NOT NULL AND (claim IS NULL OR lease_until <= $3)");

impl Op for ClaimOp {
    type Output = Vec<Claimed>;

    fn durable(&self) -> bool {
        false
    }

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Vec<Claimed>, sqlx::Error> {
        let (token, until, now) = (self.token.0, self.lease_until().as_micros(), self.now.as_micros());
        macro_rules! query {
            ($texts:expr) => {
                db.query_either($texts.0, $texts.1).bind(token).bind(until).bind(now)
            };
        }
        let rows = match &self.target {
            Target::Due(most) => query!(CLAIM_DUE).bind(i64::from(*most)).fetch_all().await?,
            Target::Suspect => query!(CLAIM_SUSPECT).fetch_all().await?,
            Target::Any(id) => query!(CLAIM_ANY).bind(id.0).fetch_all().await?,
            Target::Ids(ids) => match db {
                Connection::Postgres(db) => {
                    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
                    let claimed = sqlx::query(CLAIM_IDS_POSTGRES).bind(token).bind(until).bind(now).bind(ids);
                    claimed.fetch_all(&mut **db).await?.into_iter().map(Row::Postgres).collect()
                }
                Connection::Sqlite(_) => {
                    let ids: Vec<String> = ids.iter().map(|id| id.0.simple().to_string()).collect();
                    let query = db.query(CLAIM_IDS_SQLITE).bind(token).bind(until).bind(now);
                    query.bind(serde_json::json!(ids).to_string()).fetch_all().await?
                }
            },
        };
        rows.iter().map(|row| self.read(row)).collect()
    }
}

impl ClaimOp {
    fn read(&self, row: &Row) -> Result<Claimed, sqlx::Error> {
        Ok(Claimed {
            claim: Claim {
                run: RunId(row.get("id")?),
                token: self.token,
                seq: row.size("seq")?,
                lease: self.lease,
                lease_until: self.lease_until(),
            },
            workflow_id: WorkflowId(row.get("workflow_id")?),
            revision: row.count("revision")?,
            input: row.get("input")?,
            created_at: Timestamp::from_micros(row.get("created_at")?),
            inbox: row.count("inbox")?,
            interrupts: row.count("interrupts")?,
        })
    }

    fn lease_until(&self) -> Timestamp {
        self.now.plus(self.lease)
    }
}

/// `$1` and `$2` the runs and their tokens, `$3` the end of the lease. A run that is being written at the moment is passed
/// over: its claim is in use, and is renewed the next time.
const RENEW_POSTGRES: &str = "UPDATE runs SET lease_until = $3 WHERE id = ANY(ARRAY( \
         SELECT runs.id FROM unnest($1::uuid[], $2::uuid[]) AS given (id, token) \
         JOIN runs ON runs.id = given.id AND runs.claim = given.token ORDER BY runs.id FOR UPDATE OF runs SKIP LOCKED)) \
     RETURNING id, inbox";
const LOST_POSTGRES: &str = "SELECT given.id FROM unnest($1::uuid[], $2::uuid[]) AS given (id, token) \
                             LEFT JOIN runs ON runs.id = given.id AND runs.claim = given.token WHERE runs.id IS NULL";

struct Renew {
    runs: Vec<Uuid>,
    tokens: Vec<Uuid>,
    lease_until: Timestamp,
}

impl Op for Renew {
    type Output = Renewed;

    fn durable(&self) -> bool {
        false
    }

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Renewed, sqlx::Error> {
        let Connection::Postgres(db) = db else {
            // A claim on an embedded database lasts as long as its process.
            return Ok(Renewed::default());
        };
        let renew = sqlx::query(RENEW_POSTGRES).bind(&self.runs).bind(&self.tokens).bind(self.lease_until.as_micros());
        let rows: Vec<_> = renew.fetch_all(&mut **db).await?.into_iter().map(Row::Postgres).collect();
        let held = rows.iter().map(|row| Ok((RunId(row.get("id")?), row.count("inbox")?)));
        let held = held.collect::<Result<Vec<_>, sqlx::Error>>()?;
        let mut lost = Vec::new();
        if held.len() < self.runs.len() {
            let rows = sqlx::query(LOST_POSTGRES).bind(&self.runs).bind(&self.tokens).fetch_all(&mut **db).await?;
            for row in rows.into_iter().map(Row::Postgres) {
                lost.push(RunId(row.get("id")?));
            }
        }
        Ok(Renewed { held, lease_until: Some(self.lease_until), lost })
    }
}

struct Release {
    run: RunId,
    token: ClaimToken,
    now: Timestamp,
    due_at: Timestamp,
    received: u32,
    counts: bool,
}

impl Op for Release {
    type Output = ();

    fn durable(&self) -> bool {
        false
    }

    async fn perform(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        // A claim that was lost meanwhile is none of ours to release. One that counts as an interruption leaves its
        // token behind with a lease that is over.
        db.query(
            "UPDATE runs SET claim = CASE WHEN $6 THEN claim END, lease_until = CASE WHEN $6 THEN 0 END, \
                    due_at = CASE WHEN inbox > $5 THEN $3 ELSE $4 END WHERE id = $1 AND claim = $2",
        )
        .bind(self.run.0)
        .bind(self.token.0)
        .bind(self.now.as_micros())
        .bind(self.due_at.as_micros())
        .bind(i64::from(self.received))
        .bind(self.counts)
        .execute()
        .await
        .map(|_| ())
    }
}

/// For an embedded database only: its claims end with the process.
struct VoidClaims {
    now: Timestamp,
}

impl Op for VoidClaims {
    type Output = ();

    async fn perform(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        // The token stays: the next claim counts the interruption by it. A suspect rests before it may be the one
        // suspect that runs, each time twice as long: somebody who kills the process at random moments then does
        // not meet the same innocent run again and again.
        db.query(
            "UPDATE runs SET lease_until = 0, \
                    due_at = CASE WHEN interrupts < 2 THEN min(due_at, $1) \
                                  ELSE $1 + $2 * (1 << min(interrupts - 2, 10)) END \
             WHERE due_at IS NOT NULL AND claim IS NOT NULL AND lease_until > 0",
        )
        .bind(self.now.as_micros())
        .bind(i64::try_from(SUSPECT_REST.as_micros()).unwrap_or(i64::MAX))
        .execute()
        .await?;
        // The hints ended with the process too: who waits for one is due at once.
        let hinted = "UPDATE runs SET due_at = $1 WHERE due_at > $1 AND claim IS NULL AND seq = 0";
        db.query(hinted).bind(self.now.as_micros()).execute().await.map(|_| ())
    }
}

impl Store {
    /// Claims those of `ids` that are unfinished, free and no suspects; the others are someone else's business.
    ///
    /// # Errors
    /// When the database cannot be written; nothing is claimed then.
    pub async fn claim(&self, ids: Vec<RunId>, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
        self.claim_target(Target::Ids(ids), lease).await
    }

    /// Claims up to `most` free runs that are due, the longest due first, and no suspects.
    ///
    /// # Errors
    /// When the database cannot be written; nothing is claimed then.
    pub async fn claim_due(&self, most: u32, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
        self.claim_target(Target::Due(most), lease).await
    }

    /// Claims the suspect that is due longest. The caller holds at most one suspect at a time.
    ///
    /// # Errors
    /// When the database cannot be written; nothing is claimed then.
    pub async fn claim_suspect(&self, lease: Duration) -> Result<Option<Claimed>, StoreError> {
        Ok(self.claim_target(Target::Suspect, lease).await?.pop())
    }

    /// Claims a run whether it is a suspect or not, for a message that ends it before anything is performed.
    ///
    /// # Errors
    /// When the database cannot be written; nothing is claimed then.
    pub async fn claim_any(&self, run: RunId, lease: Duration) -> Result<Option<Claimed>, StoreError> {
        Ok(self.claim_target(Target::Any(run), lease).await?.pop())
    }

    async fn claim_target(&self, target: Target, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
        let now = self.clock.now();
        self.db.write(ClaimOp { target, token: ClaimToken(new_token()), now, lease }).await
    }

    /// Makes claims last for `lease` from now on. On an embedded database there is nothing to renew.
    ///
    /// # Errors
    /// When the database cannot be written; the claims then end at their time.
    pub async fn renew(&self, claims: &[(RunId, ClaimToken)], lease: Duration) -> Result<Renewed, StoreError> {
        let runs = claims.iter().map(|(run, _)| run.0).collect();
        let tokens = claims.iter().map(|(_, token)| token.0).collect();
        self.db.write(Renew { runs, tokens, lease_until: self.clock.now().plus(lease) }).await
    }

    /// Gives a claim back until `due_at`, or at once when more than `received` messages have come. No interruption is
    /// counted.
    ///
    /// # Errors
    /// When the database cannot be written; the claim then ends with its lease.
    pub async fn release(
        &self,
        run: RunId,
        token: ClaimToken,
        due_at: Timestamp,
        received: u32,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.db.write(Release { run, token, now, due_at, received, counts: false }).await
    }

    /// Ends a claim whose driver broke: the run is due at `due_at`, and the next claim counts an interruption.
    ///
    /// # Errors
    /// When the database cannot be written; the claim then ends with its lease.
    pub async fn abandon(&self, run: RunId, token: ClaimToken, due_at: Timestamp) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.db.write(Release { run, token, now, due_at, received: u32::MAX, counts: true }).await
    }

    /// When the next unclaimed run is due.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT due_at FROM runs WHERE due_at IS NOT NULL AND claim IS NULL ORDER BY due_at LIMIT 1";
        let row = self.db.query(sql).fetch_optional().await?;
        row.map(|row| Ok(Timestamp::from_micros(row.get("due_at")?))).transpose()
    }

    pub(super) async fn void_claims(&self) -> Result<(), StoreError> {
        self.db.write(VoidClaims { now: self.clock.now() }).await
    }
}
