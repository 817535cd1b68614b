//! Writes that come so often that many are written by one statement.

use sqlx::{PgConnection, SqliteConnection};
use tokio::sync::oneshot;

use super::StoreError;
use super::writer::Write;

/// A write that comes so often that many are written by one statement.
pub(super) trait Batch: Send + Sync + Sized + 'static {
    type Output: Send + 'static;

    /// Whether it must be on disk before it is answered.
    fn durable(&self) -> bool;

    /// About how many bytes it writes.
    fn size_bytes(&self) -> usize;

    /// Puts a batch into the order that keeps two processes from waiting for each other.
    fn sort(batch: &mut [Waiting<Self>]);

    /// As the writer of SQLite takes it.
    fn queued(waiting: Waiting<Self>) -> Write;

    /// Performs all, inside a transaction, and answers in their order.
    fn on_sqlite(
        batch: &[&Self],
        db: &mut SqliteConnection,
    ) -> impl Future<Output = Result<Vec<Self::Output>, sqlx::Error>> + Send;

    /// Performs all by one statement, and answers in their order. Performing one again answers the same.
    fn on_postgres(
        batch: &[&Self],
        db: &mut PgConnection,
    ) -> impl Future<Output = Result<Vec<Self::Output>, sqlx::Error>> + Send;
}

/// Something to write that somebody waits for.
pub(super) struct Waiting<B: Batch> {
    pub(super) item: B,
    reply: oneshot::Sender<Result<B::Output, StoreError>>,
}

impl<B: Batch> Waiting<B> {
    /// With where its answer comes.
    pub(super) fn new(item: B) -> (Self, oneshot::Receiver<Result<B::Output, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { item, reply }, answer)
    }

    /// Whether nobody waits any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers. The caller may be gone; what is written stands all the same.
    pub(super) fn settle(self, result: Result<B::Output, StoreError>) {
        let _ = self.reply.send(result);
    }
}

/// One column of a batch.
pub(super) fn column<'b, B, T>(batch: &[&'b B], value: impl Fn(&'b B) -> T) -> Vec<T> {
    batch.iter().map(|item| value(item)).collect()
}

/// How many rows the texts of a [`ManyRows`] have.
const ROWS: [usize; 4] = [64, 16, 4, 1];

/// A statement of SQLite for many rows: as four texts that stay prepared, of which a batch of any size takes few.
pub(super) struct ManyRows([String; ROWS.len()]);

impl ManyRows {
    /// The text with the places of so many columns of each row between `before` and `after`.
    pub(super) fn new(before: &str, columns: usize, after: &str) -> Self {
        // Places without a name: SQLite looks for each name among all of them.
        let row = format!("({})", vec!["?"; columns].join(", "));
        Self(ROWS.map(|rows| format!("{before}{}{after}", vec![row.as_str(); rows].join(", "))))
    }

    /// A batch in parts, each with the text for it.
    pub(super) fn parts<'b, T>(&'static self, mut batch: &'b [T]) -> impl Iterator<Item = (&'b [T], &'static str)> {
        std::iter::from_fn(move || {
            let (rows, text) = ROWS.iter().zip(&self.0).find(|(rows, _)| **rows <= batch.len())?;
            let (part, rest) = batch.split_at(*rows);
            batch = rest;
            Some((part, text.as_str()))
        })
    }
}
