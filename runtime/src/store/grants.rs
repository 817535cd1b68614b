//! What plugins are granted, and what they used of it.

use serde_json::Value;
use uuid::Uuid;

use super::sql::Connection;
use super::versions::{HOLD_PLUGIN, activate};
use super::writer::Op;
use super::{Store, StoreError, from_json, json_bytes};
use crate::clock::new_id;
use crate::model::plugin::PluginDigest;
use crate::model::time::Timestamp;

/// Different uses and denials that are kept of one plugin.
const USES_MAX: i64 = 500;

/// A grant as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredGrant {
    /// The rights, as JSON.
    pub rights: Value,
    /// When they were granted.
    pub granted_at: Timestamp,
}

/// Something that a plugin did with its rights, or was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginUse {
    /// What, such as `rule GET https://api.example.com/`.
    pub what: String,
    /// How often.
    pub count: u64,
    /// When last.
    pub last_at: Timestamp,
}

struct SetGrant {
    digest: PluginDigest,
    rights: Vec<u8>,
    activates: bool,
    now: i64,
}

impl Op for SetGrant {
    /// Names of the plugins that became active by it; nothing where no version has the digest.
    type Output = Option<Vec<String>>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        if db.query(HOLD_PLUGIN).bind(&self.digest.0[..]).execute().await? == 0 {
            return Ok(None);
        }
        let sql = "INSERT INTO plugin_grants (digest, rights, granted_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (digest) DO UPDATE SET rights = excluded.rights, granted_at = excluded.granted_at";
        db.query(sql).bind(&self.digest.0[..]).bind(&self.rights).bind(self.now).execute().await?;
        if !self.activates {
            return Ok(Some(Vec::new()));
        }
        let waiting = "SELECT id, name FROM plugin_versions WHERE digest = $1 AND waits = 1";
        let waiting = db.query(waiting).bind(&self.digest.0[..]).fetch_all().await?;
        let mut names = Vec::with_capacity(waiting.len());
        for row in waiting {
            let name: String = row.get("name")?;
            if activate(db, &name, row.get("id")?, self.now).await? {
                names.push(name);
            }
        }
        Ok(Some(names))
    }
}

struct Revoke(PluginDigest);

impl Op for Revoke {
    type Output = ();

    async fn perform(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        let sql = "DELETE FROM plugin_grants WHERE digest = $1";
        db.query(sql).bind(&self.0.0[..]).execute().await.map(|_| ())
    }
}

struct Record {
    uses: Vec<(PluginDigest, String, i64)>,
    now: i64,
}

impl Op for Record {
    type Output = ();

    async fn perform(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        let known = "UPDATE plugin_uses SET count = count + $3, last_at = $4 WHERE digest = $1 AND what = $2";
        // A plugin that was deleted meanwhile leaves nothing behind, and one that is denied much not more than so much.
        let new = "INSERT INTO plugin_uses (digest, what, count, last_at) \
                   SELECT digest, $2, $3, $4 FROM plugins \
                   WHERE digest = $1 AND (SELECT count(*) FROM plugin_uses WHERE digest = $1) < $5 \
                   ON CONFLICT (digest, what) DO NOTHING";
        for (digest, what, count) in &self.uses {
            let bytes = &digest.0[..];
            let updated = db.query(known).bind(bytes).bind(what).bind(*count).bind(self.now).execute().await?;
            if updated == 0 {
                let insert = db.query(new).bind(bytes).bind(what).bind(*count).bind(self.now).bind(USES_MAX);
                insert.execute().await?;
            }
        }
        Ok(())
    }
}

struct KeepCalls {
    digest: PluginDigest,
    calls: Vec<(Uuid, Vec<u8>)>,
    most: i64,
}

impl Op for KeepCalls {
    type Output = ();

    async fn perform(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        let bytes = &self.digest.0[..];
        for (id, call) in &self.calls {
            let keep =
                "INSERT INTO plugin_calls (digest, id, call) SELECT digest, $2, $3 FROM plugins WHERE digest = $1";
            db.query(keep).bind(bytes).bind(*id).bind(call).execute().await?;
        }
        let drop = "DELETE FROM plugin_calls WHERE digest = $1 AND id NOT IN \
                    (SELECT id FROM plugin_calls WHERE digest = $1 ORDER BY id DESC LIMIT $2)";
        db.query(drop).bind(bytes).bind(self.most).execute().await.map(|_| ())
    }
}

impl Store {
    /// Keeps calls of a plugin, and of all of them the last `most`.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn keep_plugin_calls(
        &self,
        digest: PluginDigest,
        calls: Vec<Value>,
        most: u32,
    ) -> Result<(), StoreError> {
        let call = |call: &Value| Ok((new_id(), json_bytes(call)?));
        let calls = calls.iter().map(call).collect::<Result<Vec<_>, StoreError>>()?;
        self.db.write(KeepCalls { digest, calls, most: most.into() }).await
    }

    /// The calls of a plugin that are kept, the latest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugin_calls(&self, digest: PluginDigest) -> Result<Vec<Value>, StoreError> {
        let query = self.db.query("SELECT call FROM plugin_calls WHERE digest = $1 ORDER BY id DESC");
        let rows = query.bind(&digest.0[..]).fetch_all().await?;
        rows.iter().map(|row| from_json(row.get("call")?)).collect()
    }

    /// What a plugin is granted, if anybody granted it something.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugin_grant(&self, digest: PluginDigest) -> Result<Option<StoredGrant>, StoreError> {
        let query = self.db.query("SELECT rights, granted_at FROM plugin_grants WHERE digest = $1");
        let row = query.bind(&digest.0[..]).fetch_optional().await?;
        row.map(|row| {
            let granted_at = Timestamp::from_micros(row.get("granted_at")?);
            Ok(StoredGrant { rights: from_json(row.get("rights")?)?, granted_at })
        })
        .transpose()
    }

    /// Grants a plugin these rights in place of those that it had. Where they are what it waited for (`activates`), versions
    /// that waited become active: answers their names, or nothing where the plugin is not there any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn set_plugin_grant(
        &self,
        digest: PluginDigest,
        rights: &Value,
        activates: bool,
    ) -> Result<Option<Vec<String>>, StoreError> {
        let (rights, now) = (json_bytes(rights)?, self.clock.now().as_micros());
        self.db.write(SetGrant { digest, rights, activates, now }).await
    }

    /// Takes every right from a plugin.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn revoke_plugin_grant(&self, digest: PluginDigest) -> Result<(), StoreError> {
        self.db.write(Revoke(digest)).await
    }

    /// Adds to what plugins did with their rights: what, and how often.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn record_plugin_uses(&self, uses: Vec<(PluginDigest, String, u64)>) -> Result<(), StoreError> {
        let mut uses: Vec<_> = uses
            .into_iter()
            .map(|(digest, what, count)| (digest, what, i64::try_from(count).unwrap_or(i64::MAX)))
            .collect();
        // In one order in all processes, so that they do not wait for each other in a circle.
        uses.sort_unstable();
        self.db.write(Record { uses, now: self.clock.now().as_micros() }).await
    }

    /// What a plugin did with its rights so far, and what it was denied.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugin_uses(&self, digest: PluginDigest) -> Result<Vec<PluginUse>, StoreError> {
        let query = self.db.query("SELECT what, count, last_at FROM plugin_uses WHERE digest = $1 ORDER BY what");
        let rows = query.bind(&digest.0[..]).fetch_all().await?;
        let read = |row: &super::sql::Row| {
            let last_at = Timestamp::from_micros(row.get("last_at")?);
            Ok(PluginUse { what: row.get("what")?, count: row.size("count")?, last_at })
        };
        rows.iter().map(read).collect()
    }
}
