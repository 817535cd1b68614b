//! Plugins and their tools: from the bytes that somebody uploads to the answer that a step gets. The only room that
//! knows both the database and the sandbox.
//!
//! A component is admitted, compiled and asked for its tools ([`examine()`]), and kept, when it is uploaded ([`upload`]); a definition's tools are
//! looked up when it is saved ([`lock`]); what it may reach is kept at hand ([`reach`], [`secrets`]); a call holds its arguments against the tool's schema, goes into the sandbox,
//! and comes back as a step's output or as a failure with a code ([`call`]). `tests/it/plugins.rs` and
//! `tests/it/sandbox.rs` show all of it with real guests.

mod adopt;
mod ask;
mod call;
mod count;
mod examine;
mod loaded;
mod lock;
mod reach;
mod recorded;
mod schema;
mod secrets;
mod signed;
mod upload;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;
use weir_host::plugin::{CodeFrom, PluginHost, Trust};

pub use weir_host::egress::{HostPattern, Origin};
pub use weir_host::plugin::{Flaw, Grant, HttpRule, Request, name_fault, read_json};

use crate::store::Store;
use crate::vault::Vault;

pub use adopt::Adopted;
pub use ask::answer_faults;
pub use call::Caller;
pub use examine::{Examined, examine};
pub use loaded::{Loaded, read_request};
pub use recorded::{Outcome, Recorded, Replayed, Told, answer};
pub use secrets::{SecretError, Secrets, owner};
pub use upload::{Refusal, Upload, Uploaded};

/// The room. Cheap to clone.
#[derive(Clone)]
pub struct Tools {
    store: Store,
    host: PluginHost,
    trust: Arc<Trust>,
    loaded: Arc<loaded::Shelf>,
    /// The secrets that tools and `http` steps may send.
    pub secrets: Secrets,
    /// Changes of grants and secrets by this process.
    changes: Arc<AtomicU64>,
    book: Arc<reach::Book>,
}

impl Tools {
    /// The tools of the plugins in `store`, run by `host` where `trust` allows it.
    #[must_use]
    pub fn new(store: Store, host: PluginHost, vault: Arc<Vault>, trust: Trust) -> Self {
        let secrets = Secrets::new(store.clone(), vault);
        let (trust, loaded) = (Arc::new(trust), Arc::default());
        Self { store, host, trust, loaded, secrets, changes: Arc::default(), book: Arc::default() }
    }

    /// The same, which keeps so many of the last calls of each plugin.
    #[must_use]
    pub fn keeping(mut self, calls: u32) -> Self {
        self.book = Arc::new(reach::Book::new(calls));
        self
    }

    /// Makes ready what the newest version of every plugin is, so that the first calls after a start need not wait.
    pub async fn warm(&self) {
        let (began, mut cached, mut compiled) = (Instant::now(), 0_u64, 0_u64);
        let mut request = crate::store::PageRequest { limit: 100, after: None };
        loop {
            let page = match self.store.plugins(request).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "plugins are compiled when they are called first");
                    return;
                }
            };
            for plugin in page.items {
                match self.load(plugin.digest).await {
                    Ok(loaded) if loaded.origin == CodeFrom::Cache => cached += 1,
                    Ok(_) => compiled += 1,
                    Err(error) => {
                        tracing::warn!(plugin.name, plugin.digest = %plugin.digest, %error, "a plugin cannot be used");
                    }
                }
            }
            match page.next {
                Some(next) => request.after = Some(next),
                None => break,
            }
        }
        let (ready, ms) = (cached + compiled, began.elapsed().as_millis());
        if ready > 0 {
            tracing::info!("{ready} plugins ready: {cached} from the cache, {compiled} compiled, in {ms} ms");
        }
    }
}
