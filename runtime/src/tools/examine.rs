//! What bytes are, found out by trying: admitted, compiled, asked for their tools, and the tools' schemas compiled.

use weir_host::plugin::{Artifact, Listed, PluginHost, Refused};

use super::loaded::Loaded;
use crate::model::plugin::PluginDigest;

/// A plugin that can be stored and called.
pub struct Examined {
    /// What it is.
    pub digest: PluginDigest,
    /// The component, and what it says of itself.
    pub artifact: Artifact,
    /// Its tools.
    pub listed: Listed,
    /// The same, ready for calls.
    pub loaded: Loaded,
}

/// Finds out what `bytes` are. Takes as long as compiling them, in the background.
///
/// # Errors
/// Why they are not a plugin, in one sentence.
pub async fn examine(host: &PluginHost, bytes: Vec<u8>) -> Result<Examined, Refused> {
    Examined::of(host, host.in_background(move || Artifact::admit(&bytes)).await??).await
}

impl Examined {
    /// The same of what is admitted already.
    pub(super) async fn of(host: &PluginHost, artifact: Artifact) -> Result<Self, Refused> {
        let digest = PluginDigest(artifact.digest);
        let made = host.compile(artifact.digest, artifact.component.as_slice().into()).await?;
        let listed = made.0.list_tools().await;
        let listed = listed.map_err(|fault| Refused::new(format!("the plugin did not list its tools: {fault}")))?;
        let request = artifact.request.clone().unwrap_or_default();
        let loaded = Loaded::new(host, digest, made, listed.tools.clone(), request).await?;
        Ok(Self { digest, artifact, listed, loaded })
    }
}
