//! The inbox: what arrives for a run from outside, read by whoever holds its claim.

use super::runs::{RunRow, read_run, select_run};
use super::sql::Connection;
use super::writer::Op;
use super::{Store, StoreError, from_json, json_bytes};
use crate::model::ask::Answer;
use crate::model::id::RunId;
use crate::model::journal::Message;
use crate::model::path::StepPath;

/// What became of a message.
#[derive(Clone, Debug)]
pub enum Sent {
    /// It is on disk and the run, as it is now, is due.
    Delivered(Box<RunRow>),
    /// The run is in no state for it: a finished run cannot be canceled, and only a failed one redriven.
    Refused,
    /// Another answer came to the question before.
    Answered,
}

struct SendOp {
    run: RunId,
    message: Message,
    bytes: Vec<u8>,
    /// What the message answers, where it may be answered once.
    answers: Option<String>,
    now: i64,
}

impl SendOp {
    /// What was said before to what the message answers. The run is locked from then on, so that nobody says something
    /// else meanwhile.
    async fn said(&self, db: &mut Connection<'_>) -> Result<Option<Vec<u8>>, sqlx::Error> {
        let Some(answers) = &self.answers else { return Ok(None) };
        db.query("UPDATE runs SET inbox = inbox WHERE id = $1").bind(self.run.0).execute().await?;
        let sql = "SELECT message FROM inbox WHERE run_id = $1 AND answers = $2";
        db.query(sql)
            .bind(self.run.0)
            .bind(answers.as_str())
            .fetch_optional()
            .await?
            .map(|row| row.get("message"))
            .transpose()
    }
}

impl Op for SendOp {
    type Output = Result<Sent, StoreError>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        match self.said(db).await? {
            Some(said) if serde_json::from_slice::<Message>(&said).is_ok_and(|said| said == self.message) => {
                let row = db.query(select_run()).bind(self.run.0).fetch_one().await?;
                return Ok(read_run(&row).map(|run| Sent::Delivered(Box::new(run))));
            }
            Some(_) => return Ok(Ok(Sent::Answered)),
            None => {}
        }
        let sql = match self.message {
            // Due at once, even where it waits for a far time.
            Message::Cancel | Message::Answer { .. } => {
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
        db.query("INSERT INTO inbox (run_id, n, message, answers) VALUES ($1, $2, $3, $4)")
            .bind(self.run.0)
            .bind(row.get::<i64>("inbox")?)
            .bind(&self.bytes)
            .bind(self.answers.as_deref())
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
        self.db.write(SendOp { run, message, bytes, answers: None, now: self.clock.now().as_micros() }).await?
    }

    /// The same for an answer to a question that the run's `redrives`-th life asks: the first one counts. Repeating it
    /// changes nothing, and is answered as it was.
    ///
    /// # Errors
    /// When the database cannot be written; no message was left then.
    pub async fn send_answer(
        &self,
        run: RunId,
        redrives: u32,
        step: StepPath,
        answer: Answer,
    ) -> Result<Sent, StoreError> {
        let answers = Some(answered(redrives, &step, &answer.key));
        let message = Message::Answer { step, answer };
        let bytes = json_bytes(&message)?;
        self.db.write(SendOp { run, message, bytes, answers, now: self.clock.now().as_micros() }).await?
    }

    /// What came to a question, if anything did.
    ///
    /// # Errors
    /// When the database cannot be read, or the answer not by this version.
    pub async fn answer(
        &self,
        run: RunId,
        redrives: u32,
        step: &StepPath,
        key: &str,
    ) -> Result<Option<Answer>, StoreError> {
        let sql = "SELECT message FROM inbox WHERE run_id = $1 AND answers = $2";
        let row = self.db.query(sql).bind(run.0).bind(answered(redrives, step, key).as_str()).fetch_optional().await?;
        let Some(row) = row else { return Ok(None) };
        Ok(match from_json(row.get("message")?)? {
            Message::Answer { answer, .. } => Some(answer),
            Message::Cancel | Message::Redrive => None,
        })
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

/// The name of a question in a run's life, by which it is answered once. The key is written as JSON: it may have characters
/// that no database takes.
fn answered(redrives: u32, step: &StepPath, key: &str) -> String {
    format!("{redrives} {step} {}", serde_json::Value::from(key))
}
