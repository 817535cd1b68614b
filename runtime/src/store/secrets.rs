//! Secrets of requests: sealed, by name, each with where it may go. What seals and opens them is not here.

use super::sql::{Connection, Row};
use super::writer::Op;
use super::{Store, StoreError, from_json, json_bytes};
use crate::model::time::Timestamp;

/// A secret as it is kept.
#[derive(Clone, Debug)]
pub struct SealedSecret {
    /// What people call it.
    pub name: String,
    /// The sealed value.
    pub sealed: Vec<u8>,
    /// Where it may go, as origins are written.
    pub origins: Vec<String>,
    /// When it was set first.
    pub created_at: Timestamp,
    /// When it was set last.
    pub updated_at: Timestamp,
}

struct Put {
    name: String,
    sealed: Vec<u8>,
    origins: Vec<u8>,
    now: i64,
}

impl Op for Put {
    /// Whether there was none before.
    type Output = Result<(SealedSecret, bool), StoreError>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        let sql = "INSERT INTO secrets (name, sealed, origins, created_at, updated_at) VALUES ($1, $2, $3, $4, $4) \
                   ON CONFLICT (name) DO UPDATE \
                   SET sealed = excluded.sealed, origins = excluded.origins, updated_at = excluded.updated_at \
                   RETURNING name, sealed, origins, created_at, updated_at";
        let put = db.query(sql).bind(&self.name).bind(&self.sealed).bind(&self.origins).bind(self.now);
        let row = put.fetch_one().await?;
        Ok(read(&row).map(|secret| {
            let is_new = secret.created_at == secret.updated_at;
            (secret, is_new)
        }))
    }
}

struct Delete(String);

impl Op for Delete {
    type Output = bool;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<bool, sqlx::Error> {
        Ok(db.query("DELETE FROM secrets WHERE name = $1").bind(&self.0).execute().await? > 0)
    }
}

impl Store {
    /// Keeps a secret, in place of one with the same name. Answers it, and whether there was none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn put_secret(
        &self,
        name: &str,
        sealed: Vec<u8>,
        origins: &[String],
    ) -> Result<(SealedSecret, bool), StoreError> {
        let (origins, now) = (json_bytes(&origins)?, self.clock.now().as_micros());
        self.db.write(Put { name: name.to_owned(), sealed, origins, now }).await?
    }

    /// Deletes a secret. Answers whether there was one.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn delete_secret(&self, name: &str) -> Result<bool, StoreError> {
        self.db.write(Delete(name.to_owned())).await
    }

    /// The secret with this name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn secret(&self, name: &str) -> Result<Option<SealedSecret>, StoreError> {
        let sql = "SELECT name, sealed, origins, created_at, updated_at FROM secrets WHERE name = $1";
        self.db.query(sql).bind(name).fetch_optional().await?.as_ref().map(read).transpose()
    }

    /// Up to `most` secrets with names behind `after`, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn secrets(&self, after: &str, most: u32) -> Result<Vec<SealedSecret>, StoreError> {
        let sql =
            "SELECT name, sealed, origins, created_at, updated_at FROM secrets WHERE name > $1 ORDER BY name LIMIT $2";
        let rows = self.db.query(sql).bind(after).bind(i64::from(most)).fetch_all().await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<SealedSecret, StoreError> {
    Ok(SealedSecret {
        name: row.get("name")?,
        sealed: row.get("sealed")?,
        origins: from_json(row.get("origins")?)?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
        updated_at: Timestamp::from_micros(row.get("updated_at")?),
    })
}
