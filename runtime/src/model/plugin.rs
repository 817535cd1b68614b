//! Plugins as definitions name them and revisions pin them.
//!
//! A definition names a plugin as its author does; a revision keeps what the name meant when it was saved, by digest.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Longest name of a plugin, and longest version, in bytes.
pub const PLUGIN_NAME_MAX_BYTES: usize = 64;

/// What a plugin is: the SHA-256 of its component. Written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PluginDigest(pub [u8; 32]);

impl PluginDigest {
    const SCHEME: &str = "sha256:";

    /// Reads a digest as [`fmt::Display`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::SCHEME).filter(|digits| digits.len() == 64 && digits.is_ascii())?;
        let mut bytes = [0; 32];
        for (n, byte) in bytes.iter_mut().enumerate() {
            let pair = &digits[2 * n..2 * n + 2];
            *byte = u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PluginDigest> for String {
    fn from(digest: PluginDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for PluginDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is not a digest"))
    }
}

/// How somebody names a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginRef {
    /// `name`: its newest version.
    Name(String),
    /// `name@version`.
    Version(String, String),
    /// By what it is.
    Digest(PluginDigest),
}

impl PluginRef {
    /// Reads a name, a name with a version, or a digest.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(digest) = PluginDigest::parse(text) {
            return Ok(Self::Digest(digest));
        }
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        if plugin_name_fault(name).is_some() || version.is_some_and(|version| plugin_version_fault(version).is_some()) {
            let rule = "must be a plugin's name, `name@version`, or `sha256:` and 64 hexadecimal digits";
            return Err(format!("{rule}, not `{text}`"));
        }
        let name = name.to_owned();
        Ok(version.map_or(Self::Name(name.clone()), |version| Self::Version(name, version.to_owned())))
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Version(name, version) => write!(f, "{name}@{version}"),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// What is wrong with the name of a plugin, if anything.
#[must_use]
pub fn plugin_name_fault(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let sound = starts && name.len() <= PLUGIN_NAME_MAX_BYTES && name.bytes().all(fits);
    (!sound).then(|| {
        format!("must be 1 to {PLUGIN_NAME_MAX_BYTES} characters of A-Z a-z 0-9 - _, and begin with a letter or digit")
    })
}

/// What is wrong with the version of a plugin, if anything. Versions are compared by when they came, not by what they
/// say, so any text that semantic versioning could write will do.
#[must_use]
pub fn plugin_version_fault(version: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+');
    let sound = !version.is_empty() && version.len() <= PLUGIN_NAME_MAX_BYTES && version.bytes().all(fits);
    (!sound).then(|| format!("must be 1 to {PLUGIN_NAME_MAX_BYTES} characters of A-Z a-z 0-9 - . +"))
}

/// What the plugins that a revision names were when it was saved: the digest for each `mcp_tool` step, by its name.
pub type ToolLock = IndexMap<String, PluginDigest>;

/// What a call of a tool really used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Units of fuel: about one for each instruction of the guest.
    pub fuel: u64,
    /// Most linear memory at any time, in bytes.
    pub peak_memory_bytes: u64,
    /// Wall time, in microseconds.
    pub time_us: u64,
    /// Where its requests went, by origin such as `https://api.example.com`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub hosts: IndexMap<String, HostUse>,
    /// Names of the secrets that left with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

/// What a call of a tool sent to a host, and received from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostUse {
    /// Requests.
    pub requests: u32,
    /// Bytes of their bodies.
    pub sent_bytes: u64,
    /// Bytes of the bodies that came back.
    pub received_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_named_in_three_ways() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(PluginRef::parse("greet"), Ok(PluginRef::Name("greet".to_owned())));
        assert_eq!(
            PluginRef::parse("a-b@1.0.0-rc.1"),
            Ok(PluginRef::Version("a-b".to_owned(), "1.0.0-rc.1".to_owned()))
        );
        assert_eq!(PluginRef::parse(&digest), Ok(PluginRef::Digest(PluginDigest([10; 32]))));
        assert_eq!(PluginDigest([10; 32]).to_string(), digest);
        for bad in ["", "-a", "a b", "greet@", "a@b@c", "sha256:12", &digest.replace("0a", "+a")] {
            assert!(PluginRef::parse(bad).is_err(), "{bad}");
        }
    }
}
