//! What the cache of compiled plugins saves: a component compiled, and loaded from the cache.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;
use weir_host::egress::Egress;
use weir_host::plugin::{Artifact, CacheSettings, CodeFrom, PluginHost};

use crate::clock::random_bytes;
use crate::config::Config;

/// Loads of one measurement.
const LOADS: usize = 9;

/// How long a component takes until it is ready.
pub(super) struct Stored {
    /// Its bytes.
    pub(super) size: usize,
    /// The first time, and what it takes to keep its code.
    pub(super) compiled: Duration,
    /// From the cache, the component held against its digest: the median.
    pub(super) loaded: Duration,
}

/// Measures with the component in `file`, and a cache in `dir`.
pub(super) async fn measure(file: &Path, dir: &Path, config: &Config) -> anyhow::Result<Stored> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let artifact = Artifact::admit(&bytes).with_context(|| file.display().to_string())?;
    let (digest, component) = (artifact.digest, artifact.component.into());
    let cache = CacheSettings {
        dir: dir.join("stored"),
        max_bytes: config.plugin_cache_max_bytes.into(),
        fresh_key: random_bytes,
    };
    let egress = Egress::new(config.egress()?)?;
    let host = PluginHost::with_cache(config.plugins(), egress, Some(cache))?;
    let ready = async || {
        let began = Instant::now();
        let (_, origin) = host.compile(digest, std::sync::Arc::clone(&component)).await?;
        Ok::<_, anyhow::Error>((began.elapsed(), origin))
    };
    let (compiled, origin) = ready().await?;
    ensure!(origin == CodeFrom::Compiler, "the cache of this measurement was not empty");
    let mut times = Vec::with_capacity(LOADS);
    for _ in 0..LOADS {
        let (took, origin) = ready().await?;
        ensure!(origin == CodeFrom::Cache, "what was compiled was not kept");
        times.push(took);
    }
    times.sort_unstable();
    Ok(Stored { size: component.len(), compiled, loaded: times[LOADS / 2] })
}
