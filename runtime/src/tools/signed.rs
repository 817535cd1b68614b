//! Who vouches for a plugin: asked at its upload, and again whenever it is read from the database.

use std::sync::Arc;

use weir_host::plugin::{Artifact, PublicKey, Refused, Signature, Signed, SignedText};

use super::Tools;
use super::loaded::Unready;
use super::upload::Refusal;
use crate::model::plugin::PluginDigest;
use crate::store::{StoreError, StoredSignature};

impl Tools {
    /// What people call a key that signed a plugin.
    #[must_use]
    pub fn signer(&self, key: &[u8; 32]) -> String {
        PublicKey::from_bytes(key).map_or_else(|| "no key".to_owned(), |key| self.trust.name(&key))
    }

    /// Finds the trusted key that signed an upload, if it is signed.
    pub(super) async fn vouched(
        &self,
        artifact: Artifact,
        signature: Option<String>,
    ) -> Result<(Artifact, Option<StoredSignature>), Refusal> {
        let Some(signature) = signature else {
            return if self.trust.is_required() { Err(Refusal::Unsigned) } else { Ok((artifact, None)) };
        };
        let signature = Signature::parse(&signature).map_err(|error| Refusal::Signature(error.to_string()))?;
        let trust = Arc::clone(&self.trust);
        let find = move || {
            let signed = trust.signer(&SignedText::of(&artifact.component)?, &signature);
            Ok::<_, Refused>((artifact, signed))
        };
        let (artifact, signed) = self.host.in_background(find).await??;
        let Some(signed) = signed else {
            let digest = PluginDigest(artifact.digest);
            let message = format!("no key in `plugin_trusted_keys` made this signature of the component {digest}");
            return Err(Refusal::Signature(message));
        };
        let signature = StoredSignature { signature: signed.signature.to_bytes(), signed_by: signed.by.to_bytes() };
        Ok((artifact, Some(signature)))
    }

    /// Whether it is enough for this server who signed a plugin, or that nobody did; if not, why.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accepted(&self, digest: PluginDigest) -> Result<Result<(), Refused>, StoreError> {
        let signature = self.store.plugin_signature(digest).await?;
        let by = signature.and_then(|stored| PublicKey::from_bytes(&stored.signed_by));
        Ok(self.trust.accepts(by.as_ref()))
    }

    /// Looks again at a plugin from the database. (Its digest is looked at where it is made ready.)
    pub(super) async fn check(&self, digest: PluginDigest, component: &Arc<[u8]>) -> Result<(), Unready> {
        let signed = match self.store.plugin_signature(digest).await? {
            Some(stored) => {
                let by = PublicKey::from_bytes(&stored.signed_by);
                let by = by.ok_or_else(|| Refused::new("what is stored as the key that signed it is none"))?;
                Some(Signed { signature: Signature::from_bytes(&stored.signature), by })
            }
            None => None,
        };
        let (trust, component) = (Arc::clone(&self.trust), Arc::clone(component));
        // Not in the background: nothing here was made by a stranger, and it is over in the blink of an eye.
        let check = tokio::task::spawn_blocking(move || trust.check(&component, signed.as_ref()));
        Ok(check.await.unwrap_or_else(|_| Err(Refused::new("the look at its signature came to no end")))?)
    }
}
