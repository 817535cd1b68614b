//! Seals secrets with the master key. They are encrypted rather than hashed because signature schemes need
//! the secret itself.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::clock::random_bytes;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Holds the master key.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    /// Of keys that open and never seal.
    accepted: Vec<XChaCha20Poly1305>,
}

/// What was sealed does not open: it belongs to another owner or another master key.
#[derive(Debug, thiserror::Error)]
#[error("a secret cannot be opened: the master key is not the one that it was sealed with")]
pub struct SealBroken;

impl Vault {
    /// With the master key `text`: 32 bytes in base64.
    ///
    /// # Errors
    /// When it is something else. The error names `place`, and not the key.
    pub fn new(text: &str, place: &str) -> anyhow::Result<Self> {
        let Ok(key) = STANDARD.decode(text.trim()) else {
            bail!("{place} is not base64");
        };
        let Ok(cipher) = XChaCha20Poly1305::new_from_slice(&key) else {
            bail!("{place} has {} bytes, not {KEY_BYTES}", key.len());
        };
        Ok(Self { cipher, accepted: Vec::new() })
    }

    /// The same, which opens also what another vault has sealed.
    #[must_use]
    pub fn accepting(mut self, other: Self) -> Self {
        self.accepted.push(other.cipher);
        self
    }

    /// Reads the master key from `path`; where there is no such file and `make`, makes one that only this user can read.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no key.
    pub fn open(path: &Path, make: bool) -> anyhow::Result<Self> {
        let place = format!("the master key {}", path.display());
        let mut text = String::new();
        match File::open(path) {
            Ok(mut file) => {
                file.read_to_string(&mut text).with_context(|| place.clone())?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound && make => {
                text = STANDARD.encode(random_bytes::<KEY_BYTES>());
                write_new(path, &text).with_context(|| place.clone())?;
                tracing::info!(path = %path.display(), "a new master key was made: keep a copy of it in a safe place");
            }
            Err(error) => return Err(error).with_context(|| place.clone()),
        }
        Self::new(&text, &place)
    }

    /// Seals `secret` for `owner`: it opens for nobody else, so that a sealed secret cannot be moved to another row.
    #[must_use]
    pub fn seal(&self, owner: &[u8], secret: &str) -> Vec<u8> {
        let nonce = random_bytes::<NONCE_BYTES>();
        let payload = Payload { msg: secret.as_bytes(), aad: owner };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        // The cipher fails only for messages of more than 256 GiB.
        [&nonce[..], &sealed.unwrap_or_default()].concat()
    }

    /// Opens what was sealed for `owner`.
    ///
    /// # Errors
    /// [`SealBroken`].
    pub fn open_sealed(&self, owner: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealBroken> {
        let (nonce, message) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealBroken)?;
        let mut ciphers = std::iter::once(&self.cipher).chain(&self.accepted);
        let open = |cipher: &XChaCha20Poly1305| {
            cipher.decrypt(&XNonce::from(*nonce), Payload { msg: message, aad: owner }).ok()
        };
        ciphers.find_map(open).ok_or(SealBroken)
    }
}

/// Writes a whole new file or none: a crash in between must not leave half a key behind.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_opens_what_it_sealed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/weir.key");
        let sealed = Vault::open(&path, true).expect("made").seal(b"endpoint", "s3cret");
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let vault = Vault::open(&path, true).expect("read");
        assert_eq!(vault.open_sealed(b"endpoint", &sealed).expect("opens"), b"s3cret");
        assert!(vault.open_sealed(b"another", &sealed).is_err());
        let other = Vault::open(&dir.path().join("other.key"), true).expect("made");
        assert!(other.open_sealed(b"endpoint", &sealed).is_err());
        let other = other.accepting(vault);
        assert_eq!(other.open_sealed(b"endpoint", &sealed).expect("opens"), b"s3cret");
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
    }

    #[test]
    fn half_a_key_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("weir.key");
        for broken in ["", "AAAA", "not base64!"] {
            std::fs::write(&path, broken).expect("written");
            assert!(Vault::open(&path, true).is_err(), "{broken:?}");
        }
    }
}
