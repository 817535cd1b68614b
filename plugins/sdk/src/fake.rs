//! What stands in for a host in the tests of a plugin: it refuses what a host would refuse, by what the plugin asks for
//! in `plugin.toml`, all of it being granted. Not part of a plugin, and never on the network.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use http::header::CONTENT_LENGTH;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use url::{Host, Url};

use crate::http::Request;
use crate::http_error::{HttpError, HttpErrorKind};

/// Headers that belong to the connection, which is the host's.
const FORBIDDEN: [&str; 9] = [
    "connection",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// What all headers of a request may take, in bytes, with what keeping them takes.
const HEADERS_MAX_BYTES: usize = 16 * 1024;

/// What a plugin asks for. What else its request says is of no meaning in a test.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Wishes {
    #[serde(default)]
    http: Vec<Rule>,
    #[serde(default)]
    secrets: Vec<Wish>,
    #[serde(default)]
    settings: Vec<Wish>,
}

#[derive(Clone, Debug, Deserialize)]
struct Wish {
    name: String,
    default: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Rule {
    host: String,
    #[serde(default = "https")]
    scheme: String,
    port: Option<u16>,
    methods: BTreeSet<String>,
    #[serde(default = "root")]
    path_prefix: String,
    #[serde(default)]
    secrets: BTreeSet<String>,
}

fn https() -> String {
    "https".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

impl Wishes {
    /// Reads the request of a plugin, as `plugin!` writes it.
    ///
    /// # Errors
    /// What in it no host would take.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let wishes: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        for (n, rule) in wishes.http.iter().enumerate() {
            let unknown = rule.secrets.iter().find(|name| !wishes.secrets.iter().any(|wish| wish.name == **name));
            let unknown = unknown.map(|name| format!("names the secret `{name}`, for which there is no [[secrets]]"));
            if let Some(fault) = rule.fault().or(unknown) {
                return Err(format!("http[{n}] {fault}"));
            }
        }
        Ok(wishes)
    }

    /// Whether a rule names the secret, so that it can be granted.
    pub(crate) fn names_secret(&self, name: &str) -> bool {
        self.http.iter().any(|rule| rule.secrets.contains(name))
    }

    /// Whether an operator can make the setting.
    pub(crate) fn names_setting(&self, name: &str) -> bool {
        self.settings.iter().any(|wish| wish.name == name)
    }

    /// What a setting is when the operator says nothing.
    pub(crate) fn setting_default(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|wish| wish.name == name)?.default.as_deref()
    }

    /// Whether the plugin may make the request, which has these secrets in it.
    fn admit(&self, method: &str, url: &Url, secrets: &[&str]) -> Result<(), String> {
        let mut rules = self.http.iter().filter(|rule| rule.admits(method, url)).peekable();
        if rules.peek().is_none() {
            let origin = url.origin().ascii_serialization();
            return Err(format!("no [[http]] of plugin.toml asks for {method} {origin}{}", url.path()));
        }
        let allowed: BTreeSet<&str> = rules.flat_map(|rule| &rule.secrets).map(String::as_str).collect();
        match secrets.iter().find(|name| !allowed.contains(*name)) {
            Some(name) => Err(format!("no [[http]] of plugin.toml lets the secret `{name}` travel with it")),
            None => Ok(()),
        }
    }
}

impl Rule {
    fn fault(&self) -> Option<String> {
        let plain = |method: &String| {
            let known = Method::from_str(method).is_ok_and(|known| ![Method::CONNECT, Method::TRACE].contains(&known));
            known && !method.contains(|c: char| c.is_ascii_lowercase())
        };
        let host = self.host.strip_prefix("*.").unwrap_or(&self.host);
        let is_host = self.host == "*" || !host.contains('*') && Host::parse(host).is_ok();
        [
            (!is_host, format!("has the host `{}`, which is none", self.host)),
            (!["http", "https"].contains(&self.scheme.as_str()), format!("has the scheme `{}`", self.scheme)),
            (self.port == Some(0), "has the port 0".to_owned()),
            (self.methods.is_empty(), "names no method".to_owned()),
            (!self.methods.iter().all(plain), "has a method that is not in upper case, or cannot be used".to_owned()),
            (!is_plain_path(&self.path_prefix), format!("has the path_prefix `{}`, which is none", self.path_prefix)),
        ]
        .into_iter()
        .find_map(|(is, fault)| is.then_some(fault))
    }

    fn admits(&self, method: &str, url: &Url) -> bool {
        let port = self.port.unwrap_or(if self.scheme == "http" { 80 } else { 443 });
        self.methods.contains(method)
            && url.scheme() == self.scheme
            && url.port_or_known_default() == Some(port)
            && url.host_str().is_some_and(|host| self.means(host.trim_end_matches('.')))
            && self.is_above(url.path())
    }

    fn means(&self, host: &str) -> bool {
        let written = |name: &str| Host::parse(name).map(|host| host.to_string()).unwrap_or_default();
        match (self.host.as_str(), self.host.strip_prefix("*.")) {
            ("*", _) => true,
            (_, Some(below)) => {
                let below = written(below);
                host.strip_suffix(below.trim_end_matches('.')).is_some_and(|rest| rest.ends_with('.'))
            }
            (exact, None) => host == written(exact).trim_end_matches('.'),
        }
    }

    /// The path itself and what is below it, by whole segments. A path that servers read differently is below nothing.
    fn is_above(&self, path: &str) -> bool {
        let prefix = self.path_prefix.as_str();
        if prefix == "/" {
            return true;
        }
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        let below = |rest: &str| rest.starts_with('/') || rest.is_empty() && !prefix.ends_with('/');
        !is_ambiguous(path) && rest.is_some_and(below)
    }
}

fn is_ambiguous(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["%2f", "%5c", "%2e", "\\", "//"].iter().any(|part| path.contains(part))
}

/// Whether a URL would write the path in the same way.
fn is_plain_path(path: &str) -> bool {
    let Ok(mut url) = Url::parse("https://host/") else { return false };
    url.set_path(path);
    path.starts_with('/') && url.path() == path && !is_ambiguous(path)
}

/// Texts that stand for the secrets of a context, and their names.
pub(crate) struct Placeholders<'s>(pub(crate) &'s [String]);

impl Placeholders<'_> {
    /// What stands for a secret: as long as a host's.
    pub(crate) fn of(&self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|known| known == name)?;
        Some(format!("weir-secret-{:032x}", at + 1))
    }

    fn all(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().filter_map(|name| Some((name.as_str(), self.of(name)?)))
    }

    /// Names of the secrets in a text.
    fn named_in<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        self.all().filter(|(_, placeholder)| text.contains(placeholder)).map(|(name, _)| name)
    }

    /// The text, with what a host would put the secrets in place of.
    fn named(&self, text: &str) -> String {
        self.all().fold(text.to_owned(), |text, (name, it)| text.replace(&it, &format!("[secret {name}]")))
    }
}

/// Holds a request against what every host asks of one and, where the plugin is known, against what it may do. Answers
/// it as the network would see it, but for the values of secrets.
///
/// # Errors
/// That it cannot be made, or is denied.
pub(crate) fn admit(
    request: &Request,
    wishes: Option<&Wishes>,
    secrets: &Placeholders<'_>,
) -> Result<Request, HttpError> {
    let unusable = |what: &str| HttpError::from(HttpErrorKind::Unusable(what.to_owned()));
    check_headers(request)?;
    let (scheme, authority, path) = request.parts()?;
    Method::from_bytes(request.method.as_bytes()).map_err(|_| unusable("the method is refused"))?;
    Authority::from_str(&authority).map_err(|_| unusable("the host is refused"))?;
    PathAndQuery::from_str(&path).map_err(|_| unusable("the path is refused"))?;
    let url = Url::parse(&format!("{scheme}://{authority}{path}")).map_err(|_| unusable("the URL is none"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unusable("a URL has no user and no password"));
    }
    let values = || request.headers.iter().map(|(_, value)| value.as_str());
    let found: Vec<&str> =
        values().chain([url.query().unwrap_or_default()]).flat_map(|text| secrets.named_in(text)).collect();
    if values().any(|value| !value.is_ascii() && secrets.named_in(value).next().is_some()) {
        return Err(HttpError::denied("a header with a secret in it is not ASCII".to_owned()));
    }
    if let Some(wishes) = wishes {
        wishes.admit(&request.method, &url, &found).map_err(HttpError::denied)?;
    }
    let mut seen = request.clone();
    for (_, value) in &mut seen.headers {
        *value = secrets.named(value);
    }
    if let Some((before, query)) = request.url.split_once('?') {
        seen.url = format!("{before}?{}", secrets.named(query));
    }
    Ok(seen)
}

fn check_headers(request: &Request) -> Result<(), HttpErrorKind> {
    let refused = |name: &str, why: &str| HttpErrorKind::Unusable(format!("the header `{name}` is refused: {why}"));
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let known = HeaderName::from_str(name).map_err(|_| refused(name, "its name is none"))?;
        // As bytes: a value need not be ASCII.
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refused(name, "its value is none"))?;
        if FORBIDDEN.contains(&known.as_str()) {
            return Err(refused(name, "it belongs to the connection"));
        }
        let length = request.body.len().to_string();
        if known == CONTENT_LENGTH && (value.as_bytes() != length.as_bytes() || headers.contains_key(&known)) {
            return Err(refused(name, "it is not, once, the length of the body"));
        }
        headers.append(known, value);
    }
    let names = headers.keys().map(|name| name.as_str().len() + size_of::<HeaderName>());
    let values = headers.values().map(|value| value.len() + size_of::<HeaderValue>());
    let bytes: usize = names.chain(values).sum();
    if bytes > HEADERS_MAX_BYTES {
        let why = format!("its headers take {bytes} bytes, more than {HEADERS_MAX_BYTES}");
        return Err(HttpErrorKind::Unusable(why));
    }
    Ok(())
}
