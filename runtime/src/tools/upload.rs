//! Upload: bytes become a stored plugin, or a refusal that says why. Everything is tried before anything is kept.

use weir_host::plugin::{Artifact, Grant, Refused};

use super::{Examined, Tools};
use crate::model::plugin::{PluginDigest, PluginRef, plugin_name_fault, plugin_version_fault};
use crate::store::{Added, NewPlugin, PluginVersion, StoreError, VersionStatus};

/// What somebody uploads.
pub struct Upload {
    /// A component, or a core module with embedded component types.
    pub bytes: Vec<u8>,
    /// The plugin's name, for a component that does not say it.
    pub name: Option<String>,
    /// The plugin's version, for a component that does not say it.
    pub version: Option<String>,
    /// Whether it shall be what its name means, as soon as what it wants is granted.
    pub activate: bool,
    /// The signature of whoever vouches for it, in base64.
    pub signature: Option<String>,
}

/// What became of it.
pub struct Uploaded {
    /// The plugin as it is stored.
    pub plugin: PluginVersion,
    /// Whether it was not there before.
    pub is_new: bool,
}

/// Why an upload is not kept.
#[derive(Debug)]
pub enum Refusal {
    /// The bytes are not a plugin: what is malformed, wanted and not offered, or not as the contract says.
    Invalid(String),
    /// The name or the version is not given, given twice differently, or not one. The parameter and the rule.
    Named(&'static str, String),
    /// Nobody who is trusted signed it: not with the signature that came with it.
    Signature(String),
    /// It is not signed, and must be.
    Unsigned,
    /// The version is another component already.
    VersionTaken(String),
    /// The database cannot do it.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::Invalid(refused.to_string())
    }
}

impl Tools {
    /// Admits, compiles and asks a plugin, and keeps it.
    ///
    /// # Errors
    /// Why it is refused; nothing is kept then.
    pub async fn upload(&self, upload: Upload) -> Result<Uploaded, Refusal> {
        let Upload { bytes, name, version, activate, signature } = upload;
        let artifact = self.host.in_background(move || Artifact::admit(&bytes)).await??;
        // First of all: nobody compiles what nobody vouches for.
        let (artifact, signature) = self.vouched(artifact, signature).await?;
        let Examined { digest, artifact, listed, loaded, .. } = Examined::of(&self.host, artifact).await?;
        let said = artifact.request.as_ref();
        let name = named("name", name, said.map(|said| said.name.as_str()), plugin_name_fault)?;
        let version = said.and_then(|said| said.version.as_deref()).map_or_else(
            || named("version", version.clone(), None, plugin_version_fault),
            |said| named("version", version.clone(), Some(said), plugin_version_fault),
        )?;
        let (status, rights) = self.beginning(&name, digest, &artifact, activate).await?;
        let unwritable = |error: serde_json::Error| Refusal::Invalid(error.to_string());
        let documents = listed.tools.iter().map(|tool| Ok((tool.name.clone(), serde_json::to_value(tool)?)));
        let documents = documents.collect::<Result<Vec<_>, serde_json::Error>>();
        let new = NewPlugin {
            name: name.clone(),
            version: version.clone(),
            digest,
            component: artifact.component,
            imports: artifact.imports,
            tools: documents.map_err(unwritable)?,
            request: artifact.request.map(serde_json::to_value).transpose().map_err(unwritable)?,
            status,
            rights: rights.map(serde_json::to_value).transpose().map_err(unwritable)?,
            signature,
        };
        let added = self.store.add_plugin(new).await?;
        if let Added::VersionTaken(other) = added {
            let message =
                format!("`{name}@{version}` is stored already with other content ({other}): give it a new version");
            return Err(Refusal::VersionTaken(message));
        }
        self.loaded.put(loaded);
        let stored = self.store.plugin(&PluginRef::Version(name, version)).await?;
        let plugin = stored.ok_or_else(|| StoreError::Unreadable("an uploaded plugin is gone".to_owned()))?;
        let status = plugin.status.as_str();
        tracing::info!(plugin.name, plugin.version, plugin.digest = %digest, status, "a plugin was uploaded");
        Ok(Uploaded { plugin, is_new: added == Added::New })
    }

    /// How a new version begins: one that wants no more than the active version of its name is granted takes that
    /// grant over; one that wants more waits.
    async fn beginning(
        &self,
        name: &str,
        digest: PluginDigest,
        artifact: &Artifact,
        activate: bool,
    ) -> Result<(VersionStatus, Option<Grant>), StoreError> {
        let request = artifact.request.clone().unwrap_or_default();
        // The same component may be there already, under another name or version.
        let own = self.grant(digest).await?;
        let is_granted = own.is_some();
        let grant = match own {
            Some(own) => Some(own),
            None => match self.store.plugin(&PluginRef::Name(name.to_owned())).await? {
                Some(active) if active.status == VersionStatus::Active => self.grant(active.digest).await?,
                _ => None,
            },
        };
        let more = !request.beyond(grant.as_ref().unwrap_or(&Grant::default())).is_empty();
        let status = match (activate, more) {
            (false, _) => VersionStatus::Inactive,
            (true, true) => VersionStatus::Waiting,
            (true, false) => VersionStatus::Active,
        };
        let inherited = grant.filter(|_| !more && !is_granted).map(|grant| grant.fitted(&request));
        Ok((status, inherited))
    }
}

/// The name or version that the request gives, or the component says; where both do, they agree.
fn named(
    which: &'static str,
    given: Option<String>,
    said: Option<&str>,
    fault: impl Fn(&str) -> Option<String>,
) -> Result<String, Refusal> {
    let refused = |message: String| Err(Refusal::Named(which, message));
    match (given, said) {
        (Some(given), Some(said)) if given != said => refused(format!("the component says that it is `{said}`")),
        (None, None) => refused("is missing, and the component does not say it".to_owned()),
        (given, said) => {
            let text = given.or_else(|| said.map(str::to_owned)).unwrap_or_default();
            fault(&text).map_or(Ok(text), refused)
        }
    }
}
