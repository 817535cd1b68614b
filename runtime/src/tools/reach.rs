//! What the tools of a plugin may reach now, and the book of what they did with it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weir_host::plugin::{Grant, Reach, Uses};

use super::Tools;
use super::loaded::{Loaded, Unready};
use super::recorded::Recorded;
use super::secrets::FRESH;
use crate::model::journal::json_fits;
use crate::model::plugin::PluginDigest;
use crate::store::StoreError;

/// How often the book is written down. What is in it is lost with the process.
const BOOK_EVERY: Duration = Duration::from_secs(5);

/// Of many calls of a plugin so often one is kept, up to a size in bytes of JSON.
const CALL_EVERY: Duration = Duration::from_secs(1);
const CALL_MAX_BYTES: usize = 256 << 10;

/// Entries that the book holds until it is written down.
const BOOK_MAX: usize = 10_000;

/// What was read, when, and after how many changes in this process.
pub(super) type Known = Mutex<Option<(Instant, u64, Arc<Reach>)>>;

impl Tools {
    /// What a plugin may reach, as it was at most some seconds ago; at once after a change by this process.
    pub(super) async fn reach(&self, plugin: &Loaded) -> Result<Arc<Reach>, Unready> {
        let changes = self.changes.load(Ordering::Acquire);
        if let Some((read_at, known, reach)) = &*plugin.reach.lock().unwrap_or_else(PoisonError::into_inner)
            && read_at.elapsed() < FRESH
            && *known == changes
        {
            return Ok(Arc::clone(reach));
        }
        let read_at = Instant::now();
        let grant = self.grant(plugin.digest).await?.unwrap_or_default();
        let mut secrets = Vec::new();
        let mut names: Vec<&String> = grant.http.iter().flat_map(|rule| &rule.secrets).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            secrets.extend(self.secrets.get(name).await?);
        }
        let reach = Arc::new(Reach { request: plugin.request.clone(), grant, secrets });
        let mut known = plugin.reach.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((read_at, changes, Arc::clone(&reach)));
        Ok(reach)
    }

    /// What a plugin is granted, if anybody granted it something.
    ///
    /// # Errors
    /// When the database cannot be read, or the grant not by this version.
    pub async fn grant(&self, digest: PluginDigest) -> Result<Option<Grant>, StoreError> {
        let stored = self.store.plugin_grant(digest).await?;
        let unreadable = |error: serde_json::Error| StoreError::Unreadable(format!("a grant: {error}"));
        stored.map(|stored| serde_json::from_value(stored.rights).map_err(unreadable)).transpose()
    }

    /// Says that a grant or a secret was changed: the next call sees it.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Writes down now and then what plugins did with their rights, for as long as it is polled.
    pub async fn keep_book(&self) {
        loop {
            tokio::time::sleep(BOOK_EVERY).await;
            self.write_book().await;
        }
    }

    /// Writes down what plugins did with their rights.
    pub async fn write_book(&self) {
        let noted = self.book.take();
        if !noted.is_empty()
            && let Err(error) = self.store.record_plugin_uses(noted).await
        {
            tracing::debug!(%error, "what plugins did with their rights could not be written down");
        }
        for (plugin, calls) in self.book.take_calls() {
            let calls: Vec<_> = calls.iter().filter_map(|call| serde_json::to_value(call).ok()).collect();
            if !calls.is_empty()
                && let Err(error) = self.store.keep_plugin_calls(plugin, calls, self.book.calls_kept).await
            {
                tracing::debug!(%error, "calls of a plugin could not be kept");
            }
        }
    }
}

/// What plugins did since it was written down.
#[derive(Default)]
pub(super) struct Book {
    /// With their rights, and how often.
    uses: Mutex<HashMap<(PluginDigest, String), u64>>,
    /// Some of their calls.
    calls: Mutex<HashMap<PluginDigest, Calls>>,
    /// Calls of each plugin that are kept; 0: none.
    calls_kept: u32,
}

/// The calls of one plugin.
struct Calls {
    last_at: Instant,
    kept: Vec<Recorded>,
}

impl Book {
    pub(super) fn new(calls_kept: u32) -> Self {
        Self { calls_kept, ..Self::default() }
    }

    /// Whether a call that begins now shall be kept.
    pub(super) fn wants_call(&self, plugin: PluginDigest) -> bool {
        if self.calls_kept == 0 {
            return false;
        }
        let now = Instant::now();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(&plugin) {
            Some(calls) if now.saturating_duration_since(calls.last_at) < CALL_EVERY => false,
            Some(calls) => {
                calls.last_at = now;
                true
            }
            None => {
                calls.insert(plugin, Calls { last_at: now, kept: Vec::new() });
                true
            }
        }
    }

    pub(super) fn keep(&self, plugin: PluginDigest, call: Recorded) {
        if !json_fits(&call, CALL_MAX_BYTES) {
            return;
        }
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls.entry(plugin).or_insert_with(|| Calls { last_at: Instant::now(), kept: Vec::new() });
        calls.kept.push(call);
    }

    fn take_calls(&self) -> Vec<(PluginDigest, Vec<Recorded>)> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was not called for a while is forgotten.
        calls.retain(|_, calls| !calls.kept.is_empty() || calls.last_at.elapsed() < BOOK_EVERY);
        calls.iter_mut().map(|(plugin, calls)| (*plugin, std::mem::take(&mut calls.kept))).collect()
    }

    pub(super) fn note(&self, plugin: PluginDigest, uses: &Uses) {
        let rules = uses.rules.iter().map(|rule| format!("rule {rule}"));
        let secrets = uses.secrets.iter().map(|name| format!("secret {name}"));
        let settings = uses.settings.iter().map(|name| format!("setting {name}"));
        let denied = uses.denied.iter().map(|denial| format!("denied {}: {}", denial.wanted, denial.why));
        let mut what = rules.chain(secrets).chain(settings).chain(denied).peekable();
        if what.peek().is_none() {
            return;
        }
        let mut book = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for what in what {
            if book.len() < BOOK_MAX {
                *book.entry((plugin, what)).or_default() += 1;
            }
        }
    }

    fn take(&self) -> Vec<(PluginDigest, String, u64)> {
        let book = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        book.into_iter().map(|((plugin, what), count)| (plugin, what, count)).collect()
    }
}
