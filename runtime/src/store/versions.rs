//! Which version of a plugin a name means: activate, retire, and delete what nobody uses.

use uuid::Uuid;

use super::plugins::read_digest;
use super::sql::Connection;
use super::writer::Op;
use super::{Store, StoreError};
use crate::model::id::WorkflowId;

/// Holds the versions with a digest until the transaction is over, and says by its count whether there are any. Whoever
/// pins, grants or deletes one begins with this.
pub(super) const HOLD_PLUGIN: &str = "UPDATE plugin_versions SET name = name WHERE digest = $1";

/// Most users that the refusal of a deletion names.
const USERS_TOLD: i64 = 10;

/// What became of a version that somebody wants to be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, and its component too when nothing else leads to it.
    Gone,
    /// It is what the name means.
    Active,
    /// These revisions pin it, and maybe more.
    InUse(Vec<(WorkflowId, u32)>),
}

/// Makes a version what its name means, if it is there.
pub(super) async fn activate(db: &mut Connection<'_>, name: &str, id: Uuid, now: i64) -> Result<bool, sqlx::Error> {
    // First, so that nobody deletes it meanwhile.
    let held = "UPDATE plugin_versions SET name = name WHERE id = $1";
    if db.query(held).bind(id).execute().await? == 0 {
        return Ok(false);
    }
    let others =
        "UPDATE plugin_versions SET activated_at = NULL WHERE name = $1 AND activated_at IS NOT NULL AND id <> $2";
    db.query(others).bind(name).bind(id).execute().await?;
    let this = "UPDATE plugin_versions SET activated_at = $2, retired_at = NULL, waits = 0 WHERE id = $1";
    db.query(this).bind(id).bind(now).execute().await.map(|_| true)
}

struct Activate {
    name: String,
    id: Uuid,
    now: i64,
}

impl Op for Activate {
    type Output = bool;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<bool, sqlx::Error> {
        activate(db, &self.name, self.id, self.now).await
    }
}

struct Retire {
    id: Uuid,
    now: i64,
}

impl Op for Retire {
    type Output = ();

    async fn perform(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        let sql = "UPDATE plugin_versions SET activated_at = NULL, waits = 0, retired_at = $2 WHERE id = $1";
        db.query(sql).bind(self.id).bind(self.now).execute().await.map(|_| ())
    }
}

struct Delete(Uuid);

impl Op for Delete {
    type Output = Result<Deleted, StoreError>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        let version = "SELECT digest, activated_at FROM plugin_versions WHERE id = $1";
        let Some(row) = db.query(version).bind(self.0).fetch_optional().await? else {
            return Ok(Ok(Deleted::Gone));
        };
        let digest = match read_digest(&row) {
            Ok(digest) => digest,
            Err(error) => return Ok(Err(error)),
        };
        db.query(HOLD_PLUGIN).bind(&digest.0[..]).execute().await?;
        // What it was before it was held may have been changed.
        let Some(row) = db.query(version).bind(self.0).fetch_optional().await? else {
            return Ok(Ok(Deleted::Gone));
        };
        let activated: Option<i64> = row.get("activated_at")?;
        if activated.is_some() {
            return Ok(Ok(Deleted::Active));
        }
        let others = "SELECT 1 AS one FROM plugin_versions WHERE digest = $1 AND id <> $2 LIMIT 1";
        let shared = db.query(others).bind(&digest.0[..]).bind(self.0).fetch_optional().await?.is_some();
        if !shared {
            // A tool lock is JSON text with digests in it.
            let users =
                "SELECT workflow_id, number FROM revisions WHERE tool_lock IS NOT NULL AND tool_lock LIKE $1 LIMIT $2";
            let pattern = format!("%{digest}%").into_bytes();
            let users = db.query(users).bind(pattern).bind(USERS_TOLD).fetch_all().await?;
            if !users.is_empty() {
                let user = |row: &super::sql::Row| Ok((WorkflowId(row.get("workflow_id")?), row.count("number")?));
                return Ok(users
                    .iter()
                    .map(user)
                    .collect::<Result<_, sqlx::Error>>()
                    .map(Deleted::InUse)
                    .map_err(Into::into));
            }
        }
        db.query("DELETE FROM plugin_versions WHERE id = $1").bind(self.0).execute().await?;
        if !shared {
            for sql in [
                "DELETE FROM plugin_calls WHERE digest = $1",
                "DELETE FROM plugin_uses WHERE digest = $1",
                "DELETE FROM plugin_grants WHERE digest = $1",
                "DELETE FROM plugin_tools WHERE digest = $1",
                "DELETE FROM plugins WHERE digest = $1",
            ] {
                db.query(sql).bind(&digest.0[..]).execute().await?;
            }
        }
        Ok(Ok(Deleted::Gone))
    }
}

impl Store {
    /// Makes a version of a plugin what its name means. Answers whether it is there.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn activate_plugin(&self, name: &str, id: Uuid) -> Result<bool, StoreError> {
        let now = self.clock.now().as_micros();
        self.db.write(Activate { name: name.to_owned(), id, now }).await
    }

    /// Retires a version of a plugin: runs and revisions that pin it go on, and no definition may name it any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn retire_plugin(&self, id: Uuid) -> Result<(), StoreError> {
        self.db.write(Retire { id, now: self.clock.now().as_micros() }).await
    }

    /// Deletes a version of a plugin that is not active and that no revision pins.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn delete_plugin(&self, id: Uuid) -> Result<Deleted, StoreError> {
        self.db.write(Delete(id)).await?
    }
}
