//! Where requests may go, as people write it down: a host or hosts, a scheme and a port.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A host, or hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// Any host. Addresses that are not public stay closed all the same.
    Any,
    /// Every host below this one, such as `a.example.com` for `*.example.com`; not the host itself.
    Below(String),
    /// This host: a name, or an address.
    Exact(String),
}

/// What a text that should be a host is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host: write `api.example.com`, `*.example.com`, an address (IPv6 in brackets), or `*`")]
pub struct HostError(String);

impl HostPattern {
    /// Reads a host, `*.` and a host, or `*`.
    ///
    /// # Errors
    /// [`HostError`] says what can be written.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let wrong = || HostError(text.to_owned());
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let host = Host::parse(name).map_err(|_| wrong())?;
        let name = host.to_string();
        let plain = name.strip_suffix('.').unwrap_or(&name);
        match host {
            Host::Domain(_) if !is_name(plain) => Err(wrong()),
            Host::Domain(_) if below => Ok(Self::Below(plain.to_owned())),
            _ if below => Err(wrong()),
            _ => Ok(Self::Exact(plain.to_owned())),
        }
    }

    /// Whether it is `host`, as a URL writes it.
    #[must_use]
    pub fn is(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        match self {
            Self::Any => true,
            Self::Below(name) => host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.')),
            Self::Exact(name) => host == name,
        }
    }

    /// Whether every host that `other` means is meant by this too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Below(name), Self::Below(other)) => name == other || self.is(other),
            (_, Self::Exact(host)) => self.is(host),
            _ => false,
        }
    }
}

/// Whether a host is one that the domain name system can know: labels of letters, digits, `-` inside, and `_`.
fn is_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(host: HostPattern) -> Self {
        host.to_string()
    }
}

/// How a request travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Encrypted.
    #[default]
    Https,
    /// In the open.
    Http,
}

impl Scheme {
    /// As a URL writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// Reads `https` or `http`.
    ///
    /// # Errors
    /// Says so.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "https" => Ok(Self::Https),
            "http" => Ok(Self::Http),
            other => Err(format!("`{other}` is no scheme: write `https` or `http`")),
        }
    }

    /// The port of a URL that names none.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// Scheme, hosts and port. Written `https://api.example.com`, `api.example.com` (https), `http://127.0.0.1:8080`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    /// How.
    pub scheme: Scheme,
    /// Where.
    pub host: HostPattern,
    /// At which port.
    pub port: u16,
}

impl Origin {
    /// Reads an origin. Without a scheme it is https, without a port the scheme's.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Https, text),
            Some((scheme, rest)) => (Scheme::parse(scheme)?, rest),
        };
        // The colons of an address in brackets are not before a port.
        let colon = rest.rfind(':').filter(|at| !rest[*at..].contains(']'));
        let (host, port) = match colon {
            Some(at) => {
                let port = rest[at + 1..].parse().ok().filter(|port| *port != 0);
                (&rest[..at], port.ok_or_else(|| format!("`{}` is not a port", &rest[at + 1..]))?)
            }
            None => (rest, scheme.port()),
        };
        let host = HostPattern::parse(host).map_err(|_| {
            format!(
                "`{host}` is not a host: write `api.example.com`, `*.example.com`, or an address (IPv6 in brackets)"
            )
        })?;
        Ok(Self { scheme, host, port })
    }

    /// Whether a request to `url` goes there.
    #[must_use]
    pub fn admits(&self, url: &Url) -> bool {
        url.scheme() == self.scheme.as_str()
            && url.port_or_known_default() == Some(self.port)
            && url.host_str().is_some_and(|host| self.host.is(host))
    }

    /// Whether this is meant by every request that `other` is meant by.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.port == other.port && self.host.covers(&other.host)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_addresses_and_what_lies_below() {
        let host = |text: &str| HostPattern::parse(text).expect("a host");
        for (pattern, yes, no) in [
            ("api.example.com", "api.example.com", "example.com"),
            ("API.Example.com.", "api.example.com", "xapi.example.com"),
            ("*.example.com", "a.b.example.com", "example.com"),
            ("*.example.com", "a.example.com.", "aexample.com"),
            ("127.1", "127.0.0.1", "127.0.0.2"),
            ("München.invalid", "xn--mnchen-3ya.invalid", "mnchen.invalid"),
            ("*.münchen.invalid", "a.xn--mnchen-3ya.invalid", "xn--mnchen-3ya.invalid"),
            ("[0::1]", "[::1]", "[::2]"),
            ("*", "anything", ""),
        ] {
            assert!(host(pattern).is(yes), "{pattern} is {yes}");
            assert!(pattern == "*" || !host(pattern).is(no), "{pattern} is not {no}");
        }
        for bad in [
            "",
            ".",
            "*.",
            "a b",
            "**",
            "a.*.com",
            "*.127.0.0.1",
            "http://a",
            "a/b",
            "a:1",
            "user@a",
            "a..b",
            "a..",
            ".a",
            "-a.b",
            "a-.b",
            "x.y,z.w",
            "a;b",
            "*.-a.b",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad:?}");
        }
        for (wide, narrow, covers) in [
            ("*", "*.a.com", true),
            ("*.a.com", "*.b.a.com", true),
            ("*.a.com", "b.a.com", true),
            ("*.a.com", "a.com", false),
            ("*.b.a.com", "*.a.com", false),
            ("a.com", "*", false),
            ("a.com", "a.com", true),
        ] {
            assert_eq!(host(wide).covers(&host(narrow)), covers, "{wide} covers {narrow}");
        }
    }

    #[test]
    fn origins_are_read_with_defaults() {
        for (text, written) in [
            ("api.example.com", "https://api.example.com"),
            ("https://api.example.com:443", "https://api.example.com"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(Origin::parse(text).expect("an origin").to_string(), written);
        }
        for bad in ["ftp://a", "a:0", "a:b", "https://a/path", "https://user@a"] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
        let origin = Origin::parse("a.example.com").expect("an origin");
        let url = |text: &str| Url::parse(text).expect("a URL");
        assert!(origin.admits(&url("https://A.example.com/x?y")));
        for other in ["http://a.example.com/", "https://a.example.com:444/", "https://b.example.com/"] {
            assert!(!origin.admits(&url(other)), "{other}");
        }
    }
}
