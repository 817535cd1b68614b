//! What bytes are, found out by trying: admitted, compiled, asked for their tools, and the tools' schemas compiled.

use sha2::{Digest as _, Sha256};
use weir_host::plugin::{Artifact, Listed, PluginHost, Refused};

use super::loaded::Loaded;
use crate::model::tool::PluginDigest;

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

/// Finds out what `bytes` are. Takes as long as compiling them.
///
/// # Errors
/// Why they are not a plugin, in one sentence.
pub async fn examine(host: &PluginHost, bytes: &[u8]) -> Result<Examined, Refused> {
    let artifact = Artifact::admit(bytes)?;
    let digest = PluginDigest(Sha256::digest(&artifact.component).into());
    let plugin = host.compile(artifact.component.as_slice().into()).await?;
    let listed = plugin.list_tools().await;
    let listed = listed.map_err(|fault| Refused::new(format!("the plugin did not list its tools: {fault}")))?;
    let loaded = Loaded::new(digest, plugin, &listed.tools).map_err(Refused::new)?;
    Ok(Examined { digest, artifact, listed, loaded })
}
