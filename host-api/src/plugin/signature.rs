//! Signatures of plugins: who vouches for a component. Pure; keys and signatures are lines of text for people and files.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature as Bytes, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, Payload};

use super::artifact::{REQUEST_SECTION, Refused};

/// Begins what is signed, so that a signature of a plugin is good for nothing else. Another format has another number.
const DOMAIN: &str = "weir plugin signature 1\n";

/// How the text of a key begins.
const PUBLIC: &str = "weir-ed25519:";
const SECRET: &str = "weir-ed25519-secret:";

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A key that signs.
pub struct SecretKey(SigningKey);

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(Bytes);

/// What is signed: a component by its digest, and its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedText(Vec<u8>);

impl PublicKey {
    /// Reads `weir-ed25519:` and 32 bytes in base64.
    ///
    /// # Errors
    /// Says what it is instead.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        // Where a name or quotes stand around it, too: what is secret is not repeated.
        if text.contains(SECRET) {
            let told = format!("a secret key (`{SECRET}...`) stands where its public key belongs (`{PUBLIC}...`): ");
            return Err(Refused(told + "`weir plugin keygen` prints that one"));
        }
        let wrong = || Refused(format!("`{text}` is not `{PUBLIC}` and 32 bytes in base64"));
        let bytes = text.strip_prefix(PUBLIC).and_then(decode).ok_or_else(wrong)?;
        Self::from_bytes(&bytes).ok_or_else(wrong)
    }

    /// From its 32 bytes, where they are a key. Weak ones, under which everything is signed, are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Whether the holder of this key signed the text.
    #[must_use]
    pub fn signed(&self, text: &SignedText, signature: &Signature) -> bool {
        self.0.verify_strict(&text.0, &signature.0).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", STANDARD.encode(self.0.to_bytes()))
    }
}

impl SecretKey {
    /// The key that is made of these random bytes.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// Reads what [`SecretKey::to_text`] wrote.
    ///
    /// # Errors
    /// When it is something else. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let bytes = text.trim().strip_prefix(SECRET).and_then(decode);
        let wrong = || Refused(format!("it is not `{SECRET}` and 32 bytes in base64"));
        bytes.map(|bytes| Self::from_random(&bytes)).ok_or_else(wrong)
    }

    /// The key as one line of text, which is secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{SECRET}{}", STANDARD.encode(self.0.to_bytes()))
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs. The same text always has the same signature.
    #[must_use]
    pub fn sign(&self, text: &SignedText) -> Signature {
        Signature(self.0.sign(&text.0))
    }
}

impl Signature {
    /// Reads 64 bytes in base64.
    ///
    /// # Errors
    /// Says what it must be.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let wrong = || Refused("a signature is 64 bytes in base64".to_owned());
        decode(text.trim()).map(|bytes| Self::from_bytes(&bytes)).ok_or_else(wrong)
    }

    /// From its 64 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        Self(Bytes::from_bytes(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        self.0.to_bytes()
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.to_bytes()))
    }
}

impl SignedText {
    /// What stands for an admitted component. Reads it all.
    ///
    /// # Errors
    /// When the bytes are malformed.
    pub fn of(component: &[u8]) -> Result<Self, Refused> {
        let mut digest = String::with_capacity(64);
        for byte in Sha256::digest(component) {
            // Writing to a string does not fail.
            let _ = write!(digest, "{byte:02x}");
        }
        let mut text = format!("{DOMAIN}sha256:{digest}\n").into_bytes();
        match request_section(component)? {
            Some(request) => {
                text.extend(format!("request {}\n", request.len()).into_bytes());
                text.extend(request);
            }
            None => text.extend(b"no request\n"),
        }
        Ok(Self(text))
    }
}

/// The request at the top of an admitted component, where there is one at most.
fn request_section(component: &[u8]) -> Result<Option<&[u8]>, Refused> {
    let malformed = |error: wasmparser::BinaryReaderError| Refused(format!("malformed WebAssembly: {error}"));
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == REQUEST_SECTION => {
                return Ok(Some(section.data()));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
