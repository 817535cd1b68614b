//! Facts about a database, by name, that its processes agree on.

use super::sql::Connection;
use super::writer::Op;
use super::{Store, StoreError};

/// The fact by which a wrong master key is found out: its own name, sealed.
pub const MASTER_KEY: &str = "master_key";

struct Settle {
    name: &'static str,
    value: Vec<u8>,
}

impl Op for Settle {
    type Output = Vec<u8>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Vec<u8>, sqlx::Error> {
        let insert = "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        db.query(insert).bind(self.name).bind(&self.value).execute().await?;
        let row = db.query("SELECT value FROM facts WHERE name = $1").bind(self.name).fetch_one().await?;
        row.get("value")
    }
}

impl Store {
    /// The fact `name`: `value` where nobody has settled it yet, else what it was settled to be.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn fact(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.db.write(Settle { name, value }).await
    }
}
