//! What a tool knows of its call, and what it may say while it works.

#[cfg(not(target_arch = "wasm32"))]
use std::cell::OnceCell;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::ToolError;
use crate::ask::Past;
#[cfg(not(target_arch = "wasm32"))]
use crate::fake::{self, Placeholders, Wishes};
use crate::http::{Request, Response, Secret};
use crate::http_error::HttpError;

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
/// In a test, [`Context::fake`] stands in for a host: it has the settings, secrets, answers and the network that it was
/// given, and keeps the lines that the tool writes and the requests that it makes. It refuses what a host refuses:
/// requests that cannot be made and, in a call by `testing::call_with`, what `plugin.toml` does not ask for, as if all
/// that it asks for were granted. `testing::context()` knows `plugin.toml` from the beginning, for functions that are
/// tested without a call.
#[derive(Debug)]
pub struct Context {
    pub(crate) run_id: String,
    pub(crate) step: String,
    pub(crate) attempt: u32,
    pub(crate) idempotency_key: String,
    pub(crate) deadline: Option<Duration>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) lines: RefCell<Vec<Line>>,
    pub(crate) past: RefCell<Past>,
    /// Requests that carried a key of this call.
    pub(crate) keyed: Cell<u32>,
    pub(crate) fake: Fake,
}

/// How far a tool said that it is: done, total, and a message.
type Report = (f64, Option<f64>, Option<String>);

/// What stands in for a host.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) secrets: Vec<String>,
    pub(crate) network: Option<Network>,
    /// What the plugin asks for, where it is known which one it is.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) wishes: OnceCell<Wishes>,
    pub(crate) requests: RefCell<Vec<Request>>,
    pub(crate) progress: RefCell<Vec<Report>>,
}

type Network = Box<dyn Fn(&Request) -> Result<Response, HttpError>>;

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake").field("requests", &self.requests).finish_non_exhaustive()
    }
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
            past: RefCell::default(),
            keyed: Cell::default(),
            fake: Fake::default(),
        }
    }

    /// Tells a fake context which plugin it is for, by what that asks for: JSON, as `plugin!` writes it.
    ///
    /// # Panics
    /// When no host would take the request, or an operator could not have given what the context was given.
    #[cfg(not(target_arch = "wasm32"))]
    #[doc(hidden)]
    pub fn know(&self, request: &str) {
        let wishes = Wishes::parse(request).unwrap_or_else(|fault| panic!("plugin.toml: {fault}"));
        // The second call with a context finds what the first one left.
        let _ = self.fake.wishes.set(wishes);
        self.check_gifts();
    }

    /// What no operator could give would make a test worth nothing.
    fn check_gifts(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(wishes) = self.fake.wishes.get() {
            let secret = self.fake.secrets.iter().find(|name| !wishes.names_secret(name)).map(|name| ("secret", name));
            let setting = self.settings.keys().find(|name| !wishes.names_setting(name)).map(|name| ("setting", name));
            if let Some((kind, name)) = secret.or(setting) {
                panic!("the test has a {kind} `{name}` that plugin.toml does not ask for: no operator could give it");
            }
        }
    }

    /// A fake context with a setting.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self.check_gifts();
        self
    }

    /// A fake context that has a secret. As on a host the tool gets a text that stands for it; in the headers and the
    /// query of [`Context::requests`] it is `[secret name]`, and anywhere else it stays what it is.
    #[must_use]
    pub fn with_secret(mut self, name: &str) -> Self {
        self.fake.secrets.push(name.to_owned());
        self.check_gifts();
        self
    }

    /// A fake context with a network: the closure answers every request that a host would let out. Without one, each is
    /// denied.
    #[must_use]
    pub fn with_http(mut self, network: impl Fn(&Request) -> Result<Response, HttpError> + 'static) -> Self {
        self.fake.network = Some(Box::new(network));
        self
    }

    /// The requests that were made with a fake context; not those that were refused.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.fake.requests.borrow().clone()
    }

    /// What was reported of the progress with a fake context: done, total and message.
    #[must_use]
    pub fn reports(&self) -> Vec<(f64, Option<f64>, Option<String>)> {
        self.fake.progress.borrow().clone()
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
    ///
    /// ```
    /// use weir_sdk::Level;
    /// use weir_sdk::prelude::*;
    ///
    /// let cx = Context::fake();
    /// cx.log(Level::Warn, "there is nothing to do");
    /// assert_eq!(cx.lines()[0].message, "there is nothing to do");
    /// ```
    pub fn log(&self, level: Level, message: &str) {
        self.write(level, message, None);
    }

    /// A line with fields: an object.
    ///
    /// ```
    /// use weir_sdk::Level;
    /// use weir_sdk::prelude::*;
    ///
    /// let cx = Context::fake();
    /// cx.log_with(Level::Info, "imported", json!({"rows": 3}));
    /// assert_eq!(cx.lines()[0].fields, Some(json!({"rows": 3})));
    /// ```
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
    ///
    /// ```
    /// use weir_sdk::prelude::*;
    ///
    /// let cx = Context::fake();
    /// for (done, page) in ["a", "b"].iter().enumerate() {
    ///     cx.progress(done as f64, Some(2.0), Some(&format!("reading {page}")));
    /// }
    /// assert_eq!(cx.reports()[1], (1.0, Some(2.0), Some("reading b".to_owned())));
    /// ```
    pub fn progress(&self, done: f64, total: Option<f64>, message: Option<&str>) {
        #[cfg(target_arch = "wasm32")]
        crate::bindings::weir::plugin::tool_progress::report(done, total, message);
        #[cfg(not(target_arch = "wasm32"))]
        self.fake.progress.borrow_mut().push((done, total, message.map(str::to_owned)));
    }

    /// A secret of the operator, which may be put into a header or the query of a request.
    ///
    /// # Errors
    /// When it is not granted or not set: a failure for good, with the code `secret_missing`.
    pub fn secret(&self, name: &str) -> Result<Secret, ToolError> {
        #[cfg(target_arch = "wasm32")]
        let placeholder = crate::bindings::weir::plugin::tool_config::secret_placeholder(name);
        #[cfg(not(target_arch = "wasm32"))]
        let placeholder = Placeholders(&self.fake.secrets).of(name).filter(|_| {
            // What a test gives before it is known which plugin asks.
            self.fake.wishes.get().is_none_or(|wishes| wishes.names_secret(name))
        });
        let missing = || ToolError::permanent(format!("the secret `{name}` is not granted, or not set"));
        let placeholder = placeholder.ok_or_else(|| missing().with_code("secret_missing"))?;
        Ok(Secret { name: name.to_owned(), placeholder })
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn exchange(&self, request: Request) -> Result<Response, HttpError> {
        let Some(network) = &self.fake.network else {
            return Err(HttpError::denied("the test gave no network (`with_http`)".to_owned()));
        };
        let request = fake::admit(&request, self.fake.wishes.get(), &Placeholders(&self.fake.secrets))?;
        self.fake.requests.borrow_mut().push(request.clone());
        network(&request)
    }

    /// A setting that the operator made for this plugin, else its default in `plugin.toml`. None: neither is there, or
    /// `plugin.toml` does not name it.
    ///
    /// ```
    /// use weir_sdk::prelude::*;
    ///
    /// fn language(cx: &Context) -> String {
    ///     cx.setting("language").unwrap_or_else(|| "en".to_owned())
    /// }
    ///
    /// assert_eq!(language(&Context::fake()), "en");
    /// assert_eq!(language(&Context::fake().with_setting("language", "eo")), "eo");
    /// ```
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<String> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::weir::plugin::tool_config::setting(name);
        #[cfg(not(target_arch = "wasm32"))]
        {
            let default = || self.fake.wishes.get()?.setting_default(name).map(str::to_owned);
            self.settings.get(name).cloned().or_else(default)
        }
    }
}
