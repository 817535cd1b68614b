//! Everything that is sealed with the master key, for a change of that key.

use super::facts::MASTER_KEY;
use super::sql::Connection;
use super::writer::Op;
use super::{Store, StoreError};
use crate::model::id::EndpointId;

/// Where something sealed stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedAt {
    /// The secret of a webhook endpoint.
    Endpoint(EndpointId),
    /// The one that it had before.
    EndpointBefore(EndpointId),
    /// A secret of requests, by its name.
    Secret(String),
    /// The fact by which a wrong master key is found out.
    Fact,
}

struct Reseal {
    at: SealedAt,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Op for Reseal {
    /// Whether it still was what it was sealed anew from.
    type Output = bool;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<bool, sqlx::Error> {
        let query = match &self.at {
            SealedAt::Endpoint(id) => {
                db.query("UPDATE endpoints SET secret = $3 WHERE id = $1 AND secret = $2").bind(id.0)
            }
            SealedAt::EndpointBefore(id) => {
                db.query("UPDATE endpoints SET previous_secret = $3 WHERE id = $1 AND previous_secret = $2").bind(id.0)
            }
            SealedAt::Secret(name) => {
                db.query("UPDATE secrets SET sealed = $3 WHERE name = $1 AND sealed = $2").bind(name)
            }
            SealedAt::Fact => db.query("UPDATE facts SET value = $3 WHERE name = $1 AND value = $2").bind(MASTER_KEY),
        };
        Ok(query.bind(&self.from).bind(&self.to).execute().await? > 0)
    }
}

impl Store {
    /// Everything that is sealed with a master key, and where it stands.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sealed(&self) -> Result<Vec<(SealedAt, Vec<u8>)>, StoreError> {
        let mut sealed = Vec::new();
        for row in self.db.query("SELECT id, secret, previous_secret FROM endpoints ORDER BY id").fetch_all().await? {
            let id = EndpointId(row.get("id")?);
            sealed.push((SealedAt::Endpoint(id), row.get("secret")?));
            let before: Option<Vec<u8>> = row.get("previous_secret")?;
            sealed.extend(before.map(|before| (SealedAt::EndpointBefore(id), before)));
        }
        for row in self.db.query("SELECT name, sealed FROM secrets ORDER BY name").fetch_all().await? {
            sealed.push((SealedAt::Secret(row.get("name")?), row.get("sealed")?));
        }
        let fact = self.db.query("SELECT value FROM facts WHERE name = $1").bind(MASTER_KEY).fetch_optional().await?;
        if let Some(row) = fact {
            sealed.push((SealedAt::Fact, row.get("value")?));
        }
        Ok(sealed)
    }

    /// Puts what was sealed anew in the place of what it was, unless that has changed meanwhile: answers whether it had not.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn reseal(&self, at: SealedAt, from: Vec<u8>, to: Vec<u8>) -> Result<bool, StoreError> {
        self.db.write(Reseal { at, from, to }).await
    }
}
