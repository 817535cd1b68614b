//! What a guest says while it works: log lines and progress, within caps.

use tokio::time::Instant;

/// Lines that are kept of each second of a call.
const LINES_PER_SECOND: u64 = 100;

/// Bytes of lines that are kept of one call.
const LINES_MAX_BYTES: usize = 64 * 1024;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// One line of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How serious it is.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// JSON object text, as the guest gave it.
    pub fields: Option<String>,
}

/// How far a call is, as the guest last said.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Grows from report to report.
    pub done: f64,
    /// What `done` is when the call ends, if the guest knows.
    pub total: Option<f64>,
    /// For people.
    pub message: Option<String>,
}

/// The lines of one call.
#[derive(Default)]
pub(super) struct LogBook {
    began: Option<Instant>,
    bytes: usize,
    count: u64,
    pub(super) lines: Vec<LogLine>,
    pub(super) dropped: u64,
    pub(super) progress: Option<Progress>,
}

impl LogBook {
    pub(super) fn write(&mut self, line: LogLine) {
        let seconds = self.began.get_or_insert_with(Instant::now).elapsed().as_secs();
        let bytes = self.bytes + line.message.len() + line.fields.as_ref().map_or(0, String::len);
        if self.count >= LINES_PER_SECOND * (seconds + 1) || bytes > LINES_MAX_BYTES {
            self.dropped += 1;
            return;
        }
        self.bytes = bytes;
        self.count += 1;
        self.lines.push(line);
    }

    pub(super) fn report(&mut self, progress: Progress) {
        if progress.done.is_finite() && self.progress.as_ref().is_none_or(|last| progress.done > last.done) {
            self.progress = Some(progress);
        }
    }

    /// The last line that speaks of an error: a panic, when the guest was built with the SDK.
    pub(super) fn last_error(&self) -> Option<&str> {
        self.lines.iter().rev().find(|line| line.level == LogLevel::Error).map(|line| line.message.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: usize) -> LogLine {
        LogLine { level: LogLevel::Info, message: "x".repeat(bytes), fields: None }
    }

    #[test]
    fn lines_beyond_the_caps_are_counted() {
        let mut book = LogBook::default();
        for _ in 0..150 {
            book.write(line(1));
        }
        assert_eq!((book.lines.len(), book.dropped), (100, 50));
        let mut book = LogBook::default();
        book.write(line(LINES_MAX_BYTES));
        book.write(line(1));
        assert_eq!((book.lines.len(), book.dropped), (1, 1));
    }

    #[test]
    fn progress_grows() {
        let mut book = LogBook::default();
        for done in [1.0, f64::NAN, 0.5, 2.0] {
            book.report(Progress { done, total: None, message: None });
        }
        assert_eq!(book.progress.map(|progress| progress.done), Some(2.0));
    }
}
