//! Claims: the right to advance a run for a while, fenced by a random token.
//!
//! A claim need not survive a power cut: losing one costs a repeat, never a run. A claim that ends without a release
//! counts as an interruption until the run makes progress; a run that was interrupted [`INTERRUPTS_SUSPECT`] times in
//! a row is a suspect, and suspects are claimed one at a time, so that the next crash convicts only a culprit.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

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
    lease_until: Timestamp,
}

/// `$1` token, `$2` end of the lease, `$3` now. A run is free when nobody holds it or the lease is over, and finished
/// runs (`due_at` null) are never claimed. The 2 in the texts of this file is [`INTERRUPTS_SUSPECT`].
macro_rules! claim_sql {
    ($which:literal) => {
        concat!(
            "UPDATE runs SET interrupts = interrupts + (claim IS NOT NULL), claim = $1, lease_until = $2 WHERE ",
            $which,
            " RETURNING id, workflow_id, revision, input, created_at, seq, inbox, interrupts"
        )
    };
}

const CLAIM_ID: &str = claim_sql!(
    "id = $4 AND due_at IS NOT NULL AND (claim IS NULL OR lease_until <= $3) \
     AND interrupts + (claim IS NOT NULL) < 2"
);
const CLAIM_DUE: &str = claim_sql!(
    "id IN (SELECT id FROM runs WHERE due_at <= $3 AND (claim IS NULL OR lease_until <= $3) \
            AND interrupts + (claim IS NOT NULL) < 2 ORDER BY due_at LIMIT $4)"
);
const CLAIM_SUSPECT: &str = claim_sql!(
    "id IN (SELECT id FROM runs WHERE due_at <= $3 AND (claim IS NULL OR lease_until <= $3) \
            AND interrupts + (claim IS NOT NULL) >= 2 ORDER BY due_at LIMIT 1)"
);

const CLAIM_ANY: &str = claim_sql!("id = $4 AND due_at IS NOT NULL AND (claim IS NULL OR lease_until <= $3)");

impl Op for ClaimOp {
    type Output = Vec<Claimed>;

    fn durable(&self) -> bool {
        false
    }

    async fn perform(&self, db: &mut SqliteConnection) -> Result<Vec<Claimed>, sqlx::Error> {
        let query = |sql: &'static str| {
            sqlx::query(sql).bind(self.token.0).bind(self.lease_until.as_micros()).bind(self.now.as_micros())
        };
        let rows = match &self.target {
            Target::Due(most) => query(CLAIM_DUE).bind(*most).fetch_all(db).await?,
            Target::Suspect => query(CLAIM_SUSPECT).fetch_all(db).await?,
            Target::Any(id) => query(CLAIM_ANY).bind(id.0).fetch_all(db).await?,
            Target::Ids(ids) => {
                let mut rows = Vec::with_capacity(ids.len());
                for id in ids {
                    rows.extend(query(CLAIM_ID).bind(id.0).fetch_optional(&mut *db).await?);
                }
                rows
            }
        };
        rows.iter().map(|row| self.read(row)).collect()
    }
}

impl ClaimOp {
    fn read(&self, row: &SqliteRow) -> Result<Claimed, sqlx::Error> {
        Ok(Claimed {
            claim: Claim {
                run: RunId(row.try_get("id")?),
                token: self.token,
                seq: row.try_get::<i64, _>("seq")?.unsigned_abs(),
            },
            workflow_id: WorkflowId(row.try_get("workflow_id")?),
            revision: row.try_get("revision")?,
            input: row.try_get("input")?,
            created_at: Timestamp::from_micros(row.try_get("created_at")?),
            inbox: row.try_get("inbox")?,
            interrupts: row.try_get("interrupts")?,
        })
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

    async fn perform(&self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        // A claim that was lost meanwhile is none of ours to release. One that counts as an interruption leaves its
        // token behind with a lease that is over.
        sqlx::query(
            "UPDATE runs SET claim = CASE WHEN $6 THEN claim END, lease_until = CASE WHEN $6 THEN 0 END, \
                    due_at = CASE WHEN inbox > $5 THEN $3 ELSE $4 END WHERE id = $1 AND claim = $2",
        )
        .bind(self.run.0)
        .bind(self.token.0)
        .bind(self.now.as_micros())
        .bind(self.due_at.as_micros())
        .bind(self.received)
        .bind(self.counts)
        .execute(db)
        .await
        .map(|_| ())
    }
}

struct VoidClaims {
    now: Timestamp,
}

impl Op for VoidClaims {
    type Output = ();

    async fn perform(&self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        // The token stays: the next claim counts the interruption by it. A suspect rests before it may be the one
        // suspect that runs, each time twice as long: somebody who kills the process at random moments then does
        // not meet the same innocent run again and again.
        sqlx::query(
            "UPDATE runs SET lease_until = 0, \
                    due_at = CASE WHEN interrupts < 2 THEN min(due_at, $1) \
                                  ELSE $1 + $2 * (1 << min(interrupts - 2, 10)) END \
             WHERE due_at IS NOT NULL AND claim IS NOT NULL AND lease_until > 0",
        )
        .bind(self.now.as_micros())
        .bind(i64::try_from(SUSPECT_REST.as_micros()).unwrap_or(i64::MAX))
        .execute(db)
        .await
        .map(|_| ())
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
        self.writer.run(ClaimOp { target, token: ClaimToken(new_token()), now, lease_until: now.plus(lease) }).await
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
        self.writer.run(Release { run, token, now, due_at, received, counts: false }).await
    }

    /// Ends a claim whose driver broke: the run is due at `due_at`, and the next claim counts an interruption.
    ///
    /// # Errors
    /// When the database cannot be written; the claim then ends with its lease.
    pub async fn abandon(&self, run: RunId, token: ClaimToken, due_at: Timestamp) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.writer.run(Release { run, token, now, due_at, received: u32::MAX, counts: true }).await
    }

    /// When the next unclaimed run is due.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT due_at FROM runs WHERE due_at IS NOT NULL AND claim IS NULL ORDER BY due_at LIMIT 1";
        let row = sqlx::query(sql).fetch_optional(&self.readers).await?;
        row.map(|row| Ok(Timestamp::from_micros(row.try_get("due_at")?))).transpose()
    }

    pub(super) async fn void_claims(&self) -> Result<(), StoreError> {
        self.writer.run(VoidClaims { now: self.clock.now() }).await
    }
}
