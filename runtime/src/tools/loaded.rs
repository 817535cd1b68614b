//! Plugins that are compiled and ready. A component never changes, so nothing here goes stale.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use weir_host::plugin::{CodeFrom, Plugin, PluginHost, Refused, Request, Tool};

use super::schema::Schema;
use super::secrets::SecretError;
use super::{Tools, reach};
use crate::meter::meter;
use crate::model::plugin::{PluginDigest, PluginRef};
use crate::store::{PluginVersion, StoreError};

/// Most plugins that are kept compiled; the one that was not called for longest makes room.
const KEPT_MAX: usize = 128;

/// Most patterns in all schemas of a plugin.
const PATTERNS_MAX: usize = 256;

/// A plugin, ready for calls.
pub struct Loaded {
    pub(super) digest: PluginDigest,
    pub(super) origin: CodeFrom,
    pub(super) plugin: Plugin,
    pub(super) tools: HashMap<String, Arc<Schemas>>,
    pub(super) host: PluginHost,
    /// What it asks for.
    pub(super) request: Request,
    pub(super) reach: reach::Known,
}

/// What a tool takes and gives.
pub(super) struct Schemas {
    pub(super) input: Schema,
    pub(super) output: Option<Schema>,
}

/// Why a plugin is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it is not stored here")]
    Gone,
    #[error("{0}")]
    Tools(String),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Loaded {
    /// Ties a compiled plugin to the tools that it listed.
    ///
    /// # Errors
    /// Names the tool whose schema cannot be used, and why.
    pub(super) async fn new(
        host: &PluginHost,
        digest: PluginDigest,
        (plugin, origin): (Plugin, CodeFrom),
        tools: Vec<Tool>,
        request: Request,
    ) -> Result<Self, Refused> {
        let tools = host.in_background(move || Schemas::of_all(&tools)).await?.map_err(Refused::new)?;
        meter().plugin_loaded(match origin {
            CodeFrom::Cache => "cache",
            CodeFrom::Compiler => "compiler",
        });
        Ok(Self { digest, origin, plugin, tools, host: host.clone(), request, reach: reach::Known::default() })
    }
}

impl Schemas {
    fn of_all(tools: &[Tool]) -> Result<HashMap<String, Arc<Self>>, String> {
        let (mut all, mut patterns) = (HashMap::with_capacity(tools.len()), 0);
        for tool in tools {
            let schemas = Self::of(tool)?;
            patterns += schemas.input.patterns + schemas.output.as_ref().map_or(0, |output| output.patterns);
            if patterns > PATTERNS_MAX {
                return Err(format!("the schemas of the tools have more than {PATTERNS_MAX} patterns together"));
            }
            all.insert(tool.name.clone(), Arc::new(schemas));
        }
        Ok(all)
    }

    fn of(tool: &Tool) -> Result<Self, String> {
        let of = |which: &str, schema| {
            Schema::compile(schema).map_err(|error| format!("the {which} of the tool `{}`: {error}", tool.name))
        };
        if tool.input_schema.get("type").and_then(|kind| kind.as_str()) != Some("object") {
            return Err(format!("the inputSchema of the tool `{}`: must have the type `object`", tool.name));
        }
        let output = tool.output_schema.as_ref().map(|schema| of("outputSchema", schema)).transpose()?;
        Ok(Self { input: of("inputSchema", &tool.input_schema)?, output })
    }
}

type Slot = Arc<OnceCell<Arc<Loaded>>>;

/// The compiled plugins. A plugin is compiled once, however many calls wait for it.
#[derive(Default)]
pub(super) struct Shelf(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    uses: u64,
    /// Each with when it was used last, in uses.
    kept: HashMap<PluginDigest, (u64, Slot)>,
}

impl Shelf {
    fn slot(&self, digest: PluginDigest) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.uses += 1;
        if slots.kept.len() >= KEPT_MAX && !slots.kept.contains_key(&digest) {
            let oldest = slots.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| *digest);
            oldest.and_then(|oldest| slots.kept.remove(&oldest));
        }
        let uses = slots.uses;
        let (used, slot) = slots.kept.entry(digest).or_default();
        *used = uses;
        Arc::clone(slot)
    }

    /// Puts a plugin there that was compiled already.
    pub(super) fn put(&self, loaded: Loaded) {
        // Where it is there, it is the same.
        let _ = self.slot(loaded.digest).set(Arc::new(loaded));
    }
}

impl Tools {
    /// The plugin with this digest, compiled: from the shelf, or from the database.
    pub(super) async fn load(&self, digest: PluginDigest) -> Result<Arc<Loaded>, Unready> {
        let slot = self.loaded.slot(digest);
        slot.get_or_try_init(|| self.compile(digest)).await.map(Arc::clone)
    }

    async fn compile(&self, digest: PluginDigest) -> Result<Arc<Loaded>, Unready> {
        let component = self.store.component(digest).await?.ok_or(Unready::Gone)?;
        let component = component.into();
        self.check(digest, &component).await?;
        let made = self.host.compile(digest.0, component).await?;
        let unreadable = |error: serde_json::Error| Unready::Tools(format!("its tools cannot be read: {error}"));
        let tools = self.store.plugin_tools(digest).await?.into_iter().map(serde_json::from_value);
        let tools: Vec<Tool> = tools.collect::<Result<_, _>>().map_err(unreadable)?;
        let stored = self.store.plugin(&PluginRef::Digest(digest)).await?.ok_or(Unready::Gone)?;
        let request = read_request(&stored).map_err(Unready::Tools)?;
        Ok(Arc::new(Loaded::new(&self.host, digest, made, tools, request).await?))
    }
}

/// What a stored plugin asks for. One from before there were requests asks for nothing.
pub fn read_request(plugin: &PluginVersion) -> Result<Request, String> {
    let request = plugin.request.clone().map_or_else(|| Ok(Request::default()), serde_json::from_value);
    request.map_err(|error| format!("its request cannot be read: {error}"))
}
