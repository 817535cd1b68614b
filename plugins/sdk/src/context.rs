//! What a tool knows of its call, and what it may say while it works.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

/// How serious a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// A line that a tool wrote with a fake context.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// How serious it is.
    pub level: Level,
    /// The text.
    pub message: String,
    /// What belongs to it.
    pub fields: Option<Value>,
}

/// One call: who calls, and the host behind it.
///
/// In a test, [`Context::fake`] stands in for a host: it has the settings that it was given, and keeps the lines that
/// the tool writes.
#[derive(Debug)]
pub struct Context {
    pub(crate) run_id: String,
    pub(crate) step: String,
    pub(crate) attempt: u32,
    pub(crate) idempotency_key: String,
    pub(crate) deadline: Option<Duration>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) lines: RefCell<Vec<Line>>,
}

impl Context {
    /// A context without a host, for tests.
    #[must_use]
    pub fn fake() -> Self {
        Self {
            run_id: "00000000-0000-7000-8000-000000000000".to_owned(),
            step: "step_0".to_owned(),
            attempt: 1,
            idempotency_key: "00000000-0000-7000-8000-000000000000:step_0".to_owned(),
            deadline: None,
            settings: BTreeMap::new(),
            lines: RefCell::default(),
        }
    }

    /// A fake context with a setting.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What the tool logged with a fake context.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.lines.borrow().clone()
    }

    /// The run that calls.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The step that calls, by its path in the run.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// 1 for the first attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The same for all attempts of the step: pass it on to services that take one.
    #[must_use]
    pub fn idempotency_key(&self) -> &str {
        &self.idempotency_key
    }

    /// What this attempt may take from its start; none: there is no limit.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// A line for the people who operate and debug.
    pub fn log(&self, level: Level, message: &str) {
        self.write(level, message, None);
    }

    /// A line with fields: an object.
    pub fn log_with(&self, level: Level, message: &str, fields: Value) {
        self.write(level, message, Some(fields));
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn write(&self, level: Level, message: &str, fields: Option<Value>) {
        self.lines.borrow_mut().push(Line { level, message: message.to_owned(), fields });
    }

    #[cfg(target_arch = "wasm32")]
    #[allow(clippy::unused_self)]
    fn write(&self, level: Level, message: &str, fields: Option<Value>) {
        crate::guest::write(level, message, fields.map(|fields| fields.to_string()).as_deref());
    }

    /// How far the call is. `done` must grow from report to report.
    pub fn progress(&self, done: f64, total: Option<f64>, message: Option<&str>) {
        #[cfg(target_arch = "wasm32")]
        crate::bindings::weir::plugin::tool_progress::report(done, total, message);
        #[cfg(not(target_arch = "wasm32"))]
        let _ = (done, total, message);
    }

    /// A setting that the operator made for this plugin.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<String> {
        #[cfg(target_arch = "wasm32")]
        if let Some(value) = crate::bindings::weir::plugin::tool_config::setting(name) {
            return Some(value);
        }
        self.settings.get(name).cloned()
    }
}
