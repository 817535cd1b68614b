//! API keys: who may use the API. Only their digests are kept.

use super::sql::{Connection, Row};
use super::writer::Op;
use super::{Store, StoreError};
use crate::model::time::Timestamp;

/// SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// An API key, without the key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// What people call it.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
}

struct Add {
    name: String,
    hash: KeyHash,
    now: i64,
}

impl Op for Add {
    /// Whether the name was free.
    type Output = bool;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<bool, sqlx::Error> {
        let sql = "INSERT INTO api_keys (name, hash, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";
        Ok(db.query(sql).bind(&self.name).bind(&self.hash[..]).bind(self.now).execute().await? > 0)
    }
}

struct Delete(String);

impl Op for Delete {
    /// Whether there was such a key.
    type Output = bool;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<bool, sqlx::Error> {
        Ok(db.query("DELETE FROM api_keys WHERE name = $1").bind(&self.0).execute().await? > 0)
    }
}

impl Store {
    /// Keeps the digest of a key; answers whether its name was free.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn add_api_key(&self, name: String, hash: KeyHash) -> Result<bool, StoreError> {
        self.db.write(Add { name, hash, now: self.clock.now().as_micros() }).await
    }

    /// Deletes a key; answers whether there was one. It opens nothing from then on.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn delete_api_key(&self, name: String) -> Result<bool, StoreError> {
        self.db.write(Delete(name)).await
    }

    /// All keys, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows = self.db.query("SELECT name, created_at FROM api_keys ORDER BY name").fetch_all().await?;
        let key = |row: &Row| {
            Ok(ApiKey { name: row.get("name")?, created_at: Timestamp::from_micros(row.get("created_at")?) })
        };
        rows.iter().map(key).collect()
    }

    /// Whether there is any key, and whether there is one with this digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn knows_api_key(&self, hash: &KeyHash) -> Result<(bool, bool), StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM api_keys) AS any_key, \
                          EXISTS (SELECT 1 FROM api_keys WHERE hash = $1) AS this_key";
        let row = self.db.query(sql).bind(&hash[..]).fetch_one().await?;
        Ok((row.get("any_key")?, row.get("this_key")?))
    }
}
