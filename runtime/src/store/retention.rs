//! Retention: what ended long ago goes away, a few runs at a time, oldest first.
//!
//! Ids sort by creation and so does the walk, so no index is needed for it. Runs that are not over, however old, are passed
//! over. Runs that were imported may have ids that say nothing of their time: the walk ends with those.

use std::time::Duration;

use uuid::Uuid;

use super::sql::Connection;
use super::writer::Op;
use super::{Store, StoreError};
use crate::model::time::Timestamp;

/// How far a walk came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Runs deleted, with their journals and messages.
    pub deleted: u32,
    /// The last run that was looked at; none when there was nothing more to look at.
    pub last: Option<Uuid>,
}

/// How far ahead the clock of whoever made an id may have been.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(86_400);

struct Sweep {
    after: Uuid,
    before: Uuid,
    ended_before: i64,
    most: u32,
}

/// The last of so many (`$3`) runs whose ids are between `$1` and `$2`. Not all that are looked at may go.
const LAST: &str = "SELECT id FROM (SELECT id FROM runs WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3) AS part \
                    ORDER BY id DESC LIMIT 1";
const DELETE: (&str, &str) = (
    "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE id > $1 AND id <= $2 AND due_at IS NULL \
         AND finished_at < $3) RETURNING id",
    // A run that somebody opens again at this moment is passed over.
    "DELETE FROM runs WHERE id = ANY(ARRAY(SELECT id FROM runs WHERE id > $1 AND id <= $2 AND due_at IS NULL \
         AND finished_at < $3 ORDER BY id FOR UPDATE SKIP LOCKED)) RETURNING id",
);

impl Op for Sweep {
    type Output = Swept;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Swept, sqlx::Error> {
        let last =
            db.query(LAST).bind(self.after).bind(self.before).bind(i64::from(self.most)).fetch_optional().await?;
        let Some(last) = last.map(|row| row.get::<Uuid>("id")).transpose()? else { return Ok(Swept::default()) };
        let deleted = db.query_either(DELETE.0, DELETE.1).bind(self.after).bind(last).bind(self.ended_before);
        let deleted = deleted.fetch_all().await?;
        for row in &deleted {
            let run: Uuid = row.get("id")?;
            db.query("DELETE FROM journal WHERE run_id = $1").bind(run).execute().await?;
            db.query("DELETE FROM inbox WHERE run_id = $1").bind(run).execute().await?;
        }
        Ok(Swept { deleted: u32::try_from(deleted.len()).unwrap_or(u32::MAX), last: Some(last) })
    }
}

impl Store {
    /// Looks at up to `most` runs that were created before `ended_before` and come after `after`, and deletes those that
    /// also ended before it.
    ///
    /// # Errors
    /// When the database cannot be written; nothing of this part is deleted then.
    pub async fn sweep(&self, after: Option<Uuid>, ended_before: Timestamp, most: u32) -> Result<Swept, StoreError> {
        let ended = ended_before.as_micros();
        let part = |after, before| self.db.write(Sweep { after, before, ended_before: ended, most });
        // No id that says when it was made is larger than this one.
        let timeless = first_id_at(self.clock.now().plus(CLOCKS_DIFFER_MAX));
        let after = after.unwrap_or(Uuid::nil());
        if after < timeless {
            let swept = part(after, first_id_at(ended_before)).await?;
            if swept.last.is_some() {
                return Ok(swept);
            }
        }
        part(after.max(timeless), Uuid::max()).await
    }
}

/// The smallest id (UUID of version 7) that can have been made at `time`: its first 48 bits are milliseconds.
fn first_id_at(time: Timestamp) -> Uuid {
    let millis = u128::try_from(time.as_micros() / 1000).unwrap_or(0);
    Uuid::from_u128((millis & 0xffff_ffff_ffff) << 80)
}
