//! The inbox: what arrives for a run from outside, read by whoever holds its claim.

use super::runs::{RunRow, read_run, select_run};
use super::sql::Connection;
use super::writer::Op;
use super::{Store, StoreError, from_json, json_bytes};
use crate::model::id::RunId;
use crate::model::journal::Message;

/// What became of a message.
#[derive(Clone, Debug)]
pub enum Sent {
    /// It is on disk and the run, as it is now, is due.
    Delivered(Box<RunRow>),
    /// The run is in no state for it: a finished run cannot be canceled, and only a failed one redriven.
    Refused,
}

struct SendOp {
    run: RunId,
    message: Message,
    bytes: Vec<u8>,
    now: i64,
}

impl Op for SendOp {
    type Output = Result<Sent, StoreError>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        let sql = match self.message {
            // Due at once, even where it waits for a far time.
            Message::Cancel => {
                "UPDATE runs SET inbox = inbox + 1, due_at = CASE WHEN due_at < $2 THEN due_at ELSE $2 END \
                 WHERE id = $1 AND outcome IS NULL RETURNING inbox"
            }
            // Open again; what made it a suspect before is forgiven.
            Message::Redrive => {
                "UPDATE runs SET inbox = inbox + 1, due_at = $2, outcome = NULL, finished_at = NULL, error = NULL, \
                        interrupts = 0 \
                 WHERE id = $1 AND outcome = 'FAILED' RETURNING inbox"
            }
        };
        let Some(row) = db.query(sql).bind(self.run.0).bind(self.now).fetch_optional().await? else {
            return Ok(Ok(Sent::Refused));
        };
        db.query("INSERT INTO inbox (run_id, n, message) VALUES ($1, $2, $3)")
            .bind(self.run.0)
            .bind(row.get::<i64>("inbox")?)
            .bind(&self.bytes)
            .execute()
            .await?;
        let row = db.query(select_run()).bind(self.run.0).fetch_one().await?;
        Ok(read_run(&row).map(|run| Sent::Delivered(Box::new(run))))
    }
}

impl Store {
    /// Puts a message into the inbox of a run and makes the run due.
    ///
    /// # Errors
    /// When the database cannot be written; no message was left then.
    pub async fn send(&self, run: RunId, message: Message) -> Result<Sent, StoreError> {
        let bytes = json_bytes(&message)?;
        self.db.write(SendOp { run, message, bytes, now: self.clock.now().as_micros() }).await?
    }

    /// The messages of a run after number `after`, with their numbers.
    ///
    /// # Errors
    /// When the database cannot be read, or a message not by this version.
    pub async fn messages(&self, run: RunId, after: u32) -> Result<Vec<(u32, Message)>, StoreError> {
        let rows = self
            .db
            .query("SELECT n, message FROM inbox WHERE run_id = $1 AND n > $2 ORDER BY n")
            .bind(run.0)
            .bind(i64::from(after))
            .fetch_all()
            .await?;
        rows.iter().map(|row| Ok((row.count("n")?, from_json(row.get("message")?)?))).collect()
    }
}
