//! What a plugin asks for, and what an operator grants it. The effective right is both together.
//!
//! A plugin carries its request inside its component, in the section `weir:request`; a grant is kept beside it, for one
//! digest. A request to a host is made only when a rule of each admits it. Both are small JSON documents of the same
//! rules, so that a grant is usually the request itself, or less.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};
use url::Url;

use super::artifact::Refused;
use super::path::{below, hides};
use crate::egress::{HostPattern, Origin, Scheme};

/// Most rules, secrets and settings of a request or a grant.
const ENTRIES_MAX: usize = 64;

/// Longest name of a secret or a setting, and longest description and setting, in bytes.
const NAME_MAX_BYTES: usize = 64;
const TEXT_MAX_BYTES: usize = 4096;

/// Which requests: to a host, by some methods, below a path, and with which secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRule {
    /// The host or hosts.
    pub host: HostPattern,
    /// The scheme.
    #[serde(default)]
    pub scheme: Scheme,
    /// The port; none: the scheme's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The methods, in upper case.
    pub methods: BTreeSet<String>,
    /// The path and everything below it, by whole segments.
    #[serde(default = "root")]
    pub path_prefix: String,
    /// Names of the secrets that may travel in such requests.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
}

fn root() -> String {
    "/".to_owned()
}

impl HttpRule {
    /// Scheme, hosts and port.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { scheme: self.scheme, host: self.host.clone(), port: self.port.unwrap_or(self.scheme.port()) }
    }

    fn admits(&self, method: &str, url: &Url) -> bool {
        self.methods.contains(method) && self.origin().admits(url) && below(&self.path_prefix, url.path())
    }

    /// Whether everything that `other` admits is admitted by this.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.origin().covers(&other.origin())
            && self.methods.is_superset(&other.methods)
            && self.secrets.is_superset(&other.secrets)
            && below(&self.path_prefix, &other.path_prefix)
    }

    /// What is exercised when one method of this rule is used.
    #[must_use]
    pub fn exercise(&self, method: &str) -> String {
        format!("{method} {}{}", self.origin(), self.path_prefix)
    }

    fn fault(&self) -> Option<String> {
        let method = |method: &String| match Method::from_bytes(method.as_bytes()) {
            Ok(known) => {
                method.chars().any(|c| c.is_ascii_lowercase()) || [Method::CONNECT, Method::TRACE].contains(&known)
            }
            Err(_) => true,
        };
        if self.methods.is_empty() {
            return Some("`methods` names none".to_owned());
        }
        if let Some(odd) = self.methods.iter().find(|name| method(name)) {
            return Some(format!("`methods`: `{odd}` is not a method in upper case that can be used"));
        }
        if self.port == Some(0) {
            return Some("`port` is 0".to_owned());
        }
        let mut plain = Url::parse("http://host/").ok()?;
        plain.set_path(&self.path_prefix);
        let odd = !self.path_prefix.starts_with('/') || plain.path() != self.path_prefix || hides(&self.path_prefix);
        odd.then(|| format!("`path_prefix` `{}` is not the beginning of a path, as a URL writes it", self.path_prefix))
    }
}

impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<&str> = self.methods.iter().map(String::as_str).collect();
        write!(f, "{} {}{}", methods.join(", "), self.origin(), self.path_prefix)?;
        if !self.path_prefix.ends_with('/') {
            f.write_str(" and below")?;
        }
        if self.secrets.is_empty() {
            return Ok(());
        }
        let secrets: Vec<String> = self.secrets.iter().map(|name| format!("`{name}`")).collect();
        write!(f, ", with the secret {}", secrets.join(", "))
    }
}

/// A secret that a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretWish {
    /// Its name.
    pub name: String,
    /// What it is for, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A setting that a plugin knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingWish {
    /// Its name.
    pub name: String,
    /// What it is for, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it is when the operator says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// Who a plugin is and what it wants, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it is, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The requests that it wants to make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpRule>,
    /// The secrets that its rules name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretWish>,
    /// The settings that it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<SettingWish>,
    /// It needs no more linear memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// A call needs no longer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Names the member that is not as it must be.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        // A list would be taken for the members in their order.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refused::new("it is not a JSON object"));
        }
        let request: Self = serde_json::from_slice(json).map_err(|error| Refused::new(error.to_string()))?;
        request.fault().map_or(Ok(request), |fault| Err(Refused::new(fault)))
    }

    fn fault(&self) -> Option<String> {
        let most = self.http.len().max(self.secrets.len()).max(self.settings.len());
        if most > ENTRIES_MAX {
            return Some(format!("it has a list of {most} entries, more than {ENTRIES_MAX}"));
        }
        if self.timeout_seconds == Some(0) {
            return Some("timeout_seconds: must be more than 0".to_owned());
        }
        let wishes = self.secrets.iter().map(|wish| (("secrets", &wish.name), [wish.description.as_ref(), None]));
        let settings = self.settings.iter();
        let wishes = wishes
            .chain(settings.map(|wish| (("settings", &wish.name), [wish.description.as_ref(), wish.default.as_ref()])));
        let mut seen = BTreeSet::new();
        for (place, texts) in wishes.chain([(("description", &self.name), [self.description.as_ref(), None])]) {
            let (list, name) = place;
            let fault = if !seen.insert(place) {
                Some("is there twice".to_owned())
            } else if texts.into_iter().flatten().any(|text| text.len() > TEXT_MAX_BYTES) {
                Some(format!("has a text of more than {TEXT_MAX_BYTES} bytes"))
            } else {
                name_fault(name).filter(|_| list != "description")
            };
            if let Some(fault) = fault {
                return Some(format!("{list}: `{name}` {fault}"));
            }
        }
        let unknown = |rule: &HttpRule| {
            let unknown = rule.secrets.iter().find(|name| !seen.contains(&("secrets", *name)))?;
            Some(format!("`secrets` names `{unknown}`, which the request does not ask for in its own `secrets`"))
        };
        let mut rules = self.http.iter().enumerate();
        rules.find_map(|(n, rule)| Some(format!("http[{n}]: {}", rule.fault().or_else(|| unknown(rule))?)))
    }

    /// What it wants beyond `grant`, a rule each.
    #[must_use]
    pub fn beyond(&self, grant: &Grant) -> Vec<HttpRule> {
        let covered = |rule: &&HttpRule| grant.http.iter().any(|granted| granted.covers(rule));
        self.http.iter().filter(|rule| !covered(rule)).cloned().collect()
    }
}

/// What an operator lets a plugin do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The requests that it may make.
    #[serde(default)]
    pub http: Vec<HttpRule>,
    /// What its settings are.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Linear memory, in bytes; none: what every tool may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// Time of a call, in seconds; none: what the step says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

impl Grant {
    /// Everything that `request` asks for.
    #[must_use]
    pub fn all_of(request: &Request) -> Self {
        Self { http: request.http.clone(), ..Self::default() }
    }

    /// What in it cannot be granted to who asks for `request`, if anything: the member, and why.
    #[must_use]
    pub fn fault(&self, request: &Request) -> Option<(String, String)> {
        for (n, rule) in self.http.iter().enumerate() {
            if let Some(fault) = rule.fault() {
                return Some((format!("/http/{n}"), fault));
            }
        }
        for (name, value) in &self.settings {
            let pointer = format!("/settings/{name}");
            if !request.settings.iter().any(|wish| wish.name == *name) {
                return Some((pointer, "the plugin knows no such setting".to_owned()));
            }
            if value.len() > TEXT_MAX_BYTES {
                return Some((pointer, format!("has more than {TEXT_MAX_BYTES} bytes")));
            }
        }
        if self.http.len() > ENTRIES_MAX {
            return Some(("/http".to_owned(), format!("has more than {ENTRIES_MAX} rules")));
        }
        (self.timeout_seconds == Some(0)).then(|| ("/timeout_seconds".to_owned(), "must be more than 0".to_owned()))
    }
}

/// What is wrong with the name of a secret or a setting, if anything.
#[must_use]
pub fn name_fault(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let sound = starts && name.len() <= NAME_MAX_BYTES && name.bytes().all(fits);
    (!sound).then(|| {
        format!("must be 1 to {NAME_MAX_BYTES} characters of A-Z a-z 0-9 _ - and dot, and begin with a letter")
    })
}

/// Why a request is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The plugin did not ask for it.
    Request,
    /// Nobody granted it.
    Grant,
}

/// A request that may be made: with which secrets, and which rule of the grant lets it.
pub(super) struct Admitted<'a> {
    pub(super) secrets: BTreeSet<&'a str>,
    pub(super) rule: &'a HttpRule,
}

/// Whether a plugin may make a request.
pub(super) fn admit<'a>(
    request: &'a Request,
    grant: &'a Grant,
    method: &str,
    url: &Url,
) -> Result<Admitted<'a>, Missing> {
    let secrets = |rules: &'a [HttpRule]| -> Option<BTreeSet<&'a str>> {
        let mut admitting = rules.iter().filter(|rule| rule.admits(method, url)).peekable();
        admitting.peek()?;
        Some(admitting.flat_map(|rule| &rule.secrets).map(String::as_str).collect())
    };
    let wanted = secrets(&request.http).ok_or(Missing::Request)?;
    let granted = secrets(&grant.http).ok_or(Missing::Grant)?;
    let rule = grant.http.iter().find(|rule| rule.admits(method, url)).ok_or(Missing::Grant)?;
    Ok(Admitted { secrets: wanted.intersection(&granted).copied().collect(), rule })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(http: &Value) -> Result<Request, Refused> {
        let secrets = json!([{"name": "token"}, {"name": "other"}]);
        Request::parse(json!({"name": "p", "http": http, "secrets": secrets}).to_string().as_bytes())
    }

    #[test]
    fn a_request_names_its_own_faults() {
        for (http, fault) in [
            (json!([{"host": "a.com", "methods": []}]), "http[0]: `methods` names none"),
            (json!([{"host": "a.com", "methods": ["get"]}]), "`get` is not a method"),
            (json!([{"host": "a.com", "methods": ["CONNECT"]}]), "`CONNECT` is not a method"),
            (json!([{"host": "a b", "methods": ["GET"]}]), "`a b` is not a host"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "x"}]), "`path_prefix` `x`"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "/a/../b"}]), "`path_prefix` `/a/../b`"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "/a%2fb"}]), "`path_prefix`"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "/a/..;"}]), "`path_prefix`"),
            (json!([{"host": "a.com", "methods": ["GET"], "port": 0}]), "`port` is 0"),
            (json!([{"host": "a.com", "methods": ["GET"], "secrets": ["x"]}]), "`secrets` names `x`"),
            (json!([{"host": "a.com", "methods": ["GET"], "colour": "red"}]), "unknown field `colour`"),
        ] {
            let refused = request(&http).expect_err("refused").to_string();
            assert!(refused.contains(fault), "{refused}");
        }
    }

    #[test]
    fn a_request_is_made_when_both_admit_it() {
        let rule =
            json!({"host": "*.a.com", "methods": ["GET", "POST"], "path_prefix": "/repos", "secrets": ["token"]});
        let request = request(&json!([rule])).expect("sound");
        let all = Grant::all_of(&request);
        let narrow: Grant = serde_json::from_value(json!({"http": [
            {"host": "x.a.com", "methods": ["GET"], "path_prefix": "/repos/mine"},
            {"host": "elsewhere.com", "methods": ["GET"]},
        ]}))
        .expect("a grant");
        let try_it = |grant: &Grant, method: &str, url: &str| {
            let url = Url::parse(url).expect("a URL");
            admit(&request, grant, method, &url)
                .map(|admitted| admitted.secrets.into_iter().collect::<Vec<_>>().join(","))
        };
        for (grant, method, url, expected) in [
            (&all, "GET", "https://x.a.com/repos", Ok("token".to_owned())),
            (&all, "GET", "https://x.a.com/repos/y?z", Ok("token".to_owned())),
            (&all, "DELETE", "https://x.a.com/repos", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/reposx", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/../admin", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/%2e%2e/admin", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/..%2fadmin", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com//repos", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/..;/admin", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/..;x=y/admin", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/a/.;/..;", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/..%3B/admin", Err(Missing::Request)),
            (&all, "GET", "https://x.a.com/repos/a;b/...;", Ok("token".to_owned())),
            (&all, "GET", "http://x.a.com/repos", Err(Missing::Request)),
            (&narrow, "GET", "https://x.a.com/repos/mine/1", Ok(String::new())),
            (&narrow, "POST", "https://x.a.com/repos/mine/1", Err(Missing::Grant)),
            (&narrow, "GET", "https://x.a.com/repos/other", Err(Missing::Grant)),
            (&narrow, "GET", "https://elsewhere.com/", Err(Missing::Request)),
            (&Grant::default(), "GET", "https://x.a.com/repos", Err(Missing::Grant)),
        ] {
            assert_eq!(try_it(grant, method, url), expected, "{method} {url}");
        }
        assert_eq!(request.beyond(&all), []);
        assert_eq!(request.beyond(&narrow), request.http);
        assert_eq!(request.http[0].to_string(), "GET, POST https://*.a.com/repos and below, with the secret `token`");
    }
}
