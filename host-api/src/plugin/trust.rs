//! Whom an operator trusts to sign plugins, and what of a plugin that keeps from being used.

use super::artifact::Refused;
use super::signature::{PublicKey, Signature, SignedText};

/// Longest name of a key, in bytes.
const NAME_MAX_BYTES: usize = 64;

/// The keys that an operator trusts, and whether plugins must be signed by one of them.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: Vec<(String, PublicKey)>,
    required: bool,
}

/// A signature, and the key that it was verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The signature.
    pub signature: Signature,
    /// Whose it is.
    pub by: PublicKey,
}

impl Trust {
    /// Reads keys, each `NAME=KEY` or a key alone.
    ///
    /// # Errors
    /// Names the entry that is neither, or has a name that came before; or says that a signature cannot be required.
    pub fn parse(keys: &[String], required: bool) -> Result<Self, Refused> {
        let mut trust = Self { keys: Vec::with_capacity(keys.len()), required };
        for entry in keys {
            // A key may end with `=`, and has a colon in front of that.
            let named = entry.split_once('=').filter(|(name, _)| !name.contains(':'));
            let (name, key) = named.unwrap_or((entry, entry));
            let key = PublicKey::parse(key)?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@+/=:".contains(c);
            if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.chars().all(plain) {
                return Err(Refused(format!(
                    "`{name}` is no name of a key: it has 1 to {NAME_MAX_BYTES} characters of A-Z a-z 0-9 - _ . @ + /"
                )));
            }
            if trust.keys.iter().any(|(known, other)| known == name || *other == key) {
                return Err(Refused(format!("`{entry}`: the name or the key stands there twice")));
            }
            trust.keys.push((name.to_owned(), key));
        }
        if required && trust.keys.is_empty() {
            return Err(Refused("a signature is required, and no key is trusted: no plugin could be used".to_owned()));
        }
        Ok(trust)
    }

    /// Whether a plugin without a signature may not be used.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Finds the trusted key that made a signature.
    #[must_use]
    pub fn signer(&self, text: &SignedText, signature: &Signature) -> Option<Signed> {
        let (_, by) = self.keys.iter().find(|(_, key)| key.signed(text, signature))?;
        Some(Signed { signature: signature.clone(), by: by.clone() })
    }

    /// What people call a key: its name where it is trusted, else the key itself.
    #[must_use]
    pub fn name(&self, key: &PublicKey) -> String {
        let known = self.keys.iter().find(|(_, known)| known == key);
        known.map_or_else(|| key.to_string(), |(name, _)| name.clone())
    }

    /// Looks again at a plugin that was stored: with its signature, if it has one.
    ///
    /// # Errors
    /// Says why it may not be used: a signature that is there must be right, also where none is required.
    pub fn check(&self, component: &[u8], signed: Option<&Signed>) -> Result<(), Refused> {
        if let Some(Signed { signature, by }) = signed
            && !by.signed(&SignedText::of(component)?, signature)
        {
            return Err(Refused(
                "its signature is not one of this component: somebody changed what is stored".to_owned(),
            ));
        }
        self.accepts(signed.map(|signed| &signed.by))
    }

    /// Whether it is enough that a plugin was signed by this key, or by nobody.
    ///
    /// # Errors
    /// Says why it is not.
    pub fn accepts(&self, by: Option<&PublicKey>) -> Result<(), Refused> {
        match by {
            _ if !self.required => Ok(()),
            Some(by) if self.keys.iter().any(|(_, key)| key == by) => Ok(()),
            Some(by) => Err(Refused(format!("it is signed by {by}, which `plugin_trusted_keys` does not have"))),
            None => Err(Refused("it is not signed, and `plugin_signature_required` is on".to_owned())),
        }
    }
}
