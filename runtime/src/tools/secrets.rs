//! Secrets of requests, opened: for the tools that are granted them, and for `http` steps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weir_host::egress::{Origin, Secret};

use crate::store::{SealedSecret, Store, StoreError};
use crate::vault::{SealBroken, Vault};

/// How long a process goes by what it read: a change reaches every process within this time.
pub(super) const FRESH: Duration = Duration::from_secs(5);

/// Names that are remembered; beyond that all are read again.
const KNOWN_MAX: usize = 1024;

/// Why a secret is not there.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was sealed with another master key.
    #[error("the secret `{0}`: {1}")]
    Sealed(String, SealBroken),
    /// What is stored is not as this version writes it.
    #[error("the secret `{0}` cannot be read: {1}")]
    Unreadable(String, String),
}

/// The secrets of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Secrets(Arc<Inner>);

struct Inner {
    store: Store,
    vault: Arc<Vault>,
    known: Mutex<Known>,
}

/// What was read of each name, and when.
type Known = HashMap<String, (Instant, Option<Arc<Secret>>)>;

impl Secrets {
    /// The secrets in `store`, sealed by `vault`.
    #[must_use]
    pub fn new(store: Store, vault: Arc<Vault>) -> Self {
        Self(Arc::new(Inner { store, vault, known: Mutex::default() }))
    }

    /// The secret called `name`, if it is set; as it was at most some seconds ago.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn get(&self, name: &str) -> Result<Option<Arc<Secret>>, SecretError> {
        if let Some((read_at, secret)) = self.known().get(name)
            && read_at.elapsed() < FRESH
        {
            return Ok(secret.clone());
        }
        let read_at = Instant::now();
        let sealed = self.0.store.secret(name).await?;
        let secret = sealed.map(|sealed| self.open(sealed)).transpose()?.map(Arc::new);
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), (read_at, secret.clone()));
        Ok(secret)
    }

    fn open(&self, sealed: SealedSecret) -> Result<Secret, SecretError> {
        let SealedSecret { name, sealed, origins, .. } = sealed;
        let value = self.0.vault.open_sealed(&owner(&name), &sealed);
        let value = value.map_err(|error| SecretError::Sealed(name.clone(), error))?;
        let unreadable = |error: String| SecretError::Unreadable(name.clone(), error);
        let value = String::from_utf8(value).map_err(|_| unreadable("it is not text".to_owned()))?;
        let origins = origins.iter().map(|origin| Origin::parse(origin)).collect::<Result<_, _>>();
        Ok(Secret::new(name.clone(), value, origins.map_err(unreadable)?))
    }

    /// Sets a secret. Answers it, and whether there was none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn put(&self, name: &str, value: &str, origins: &[Origin]) -> Result<(SealedSecret, bool), StoreError> {
        let origins: Vec<String> = origins.iter().map(Origin::to_string).collect();
        let put = self.0.store.put_secret(name, self.0.vault.seal(&owner(name), value), &origins).await;
        self.known().remove(name);
        put
    }

    /// Deletes a secret. Answers whether there was one.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn delete(&self, name: &str) -> Result<bool, StoreError> {
        let deleted = self.0.store.delete_secret(name).await;
        self.known().remove(name);
        deleted
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For whom the vault seals a secret.
#[must_use]
pub fn owner(name: &str) -> Vec<u8> {
    format!("secret:{name}").into_bytes()
}
