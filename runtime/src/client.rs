//! A client of the HTTP API, for commands and for the load generator.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;
use url::Url;
use weir_host::egress::{Egress, EgressSettings, Placeholders, Policy, Request};

/// A server, and connections to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    egress: Egress,
    base: Url,
    key: Option<HeaderValue>,
}

/// What the server refused, as it said itself (RFC 9457).
#[derive(Debug)]
pub(crate) struct Refused {
    /// The status.
    pub(crate) status: StatusCode,
    asked: Url,
    problem: Value,
}

impl Refused {
    /// The stable code; empty where it was not Weir that answered.
    pub(crate) fn code(&self) -> &str {
        self.problem["code"].as_str().unwrap_or_default()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(code) = self.problem["code"].as_str() else {
            return write!(f, "{} answered {}, and not as a server of Weir does", self.asked, self.status);
        };
        let detail = self.problem["detail"].as_str().unwrap_or_default();
        write!(f, "{code}: {detail}")?;
        for fault in self.problem["errors"].as_array().into_iter().flatten() {
            let text = |member: &str| fault[member].as_str().unwrap_or_default();
            let line = format!("{}: {}", text("pointer"), text("message"));
            // A single fault is the detail already.
            if line != detail {
                write!(f, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl Client {
    /// A client of the server at `base`, which may be on any machine where `hosts` (as `egress_allow` writes them) opens
    /// its address, and which knows the API key. Keeps so many idle connections.
    ///
    /// # Errors
    /// When a host cannot be read, or the key not be sent.
    pub(crate) fn new(base: Url, hosts: &[&str], key: Option<&str>, connections: usize) -> anyhow::Result<Self> {
        let egress = Egress::new(EgressSettings {
            policy: Policy::parse(hosts)?,
            connect_timeout: Duration::from_secs(10),
            response_max_bytes: 64 << 20,
            redirects_max: 0,
            idle_connections_max: connections,
        })?;
        let bearer = |key: &str| HeaderValue::try_from(format!("Bearer {key}"));
        let key = key.map(bearer).transpose().context("the API key has characters that no key has")?;
        let key = key.map(|mut key| {
            key.set_sensitive(true);
            key
        });
        Ok(Self { egress, base, key })
    }

    /// The URL of a path below the server's, as segments that need not be encoded yet.
    pub(crate) fn url(&self, segments: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        let path = url.path_segments_mut().map_err(|()| anyhow::anyhow!("{} is not the URL of a server", self.base));
        path?.pop_if_empty().extend(segments);
        Ok(url)
    }

    /// The URL of a path and a query that are encoded.
    pub(crate) fn at(&self, path: &str) -> anyhow::Result<Url> {
        self.base.join(path).with_context(|| format!("{} and {path}", self.base))
    }

    /// Sends a request. The body is null where the answer has none, or no JSON.
    ///
    /// # Errors
    /// [`Refused`] where the server does not answer with success; anything else where it does not answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Value)> {
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        let request =
            Request { method, url: url.clone(), headers, body, secrets: Placeholders::default(), known: Vec::new() };
        let response = self.egress.send(request).await.with_context(|| url.to_string())?;
        let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        if !response.status.is_success() {
            return Err(Refused { status: response.status, asked: url, problem: body }.into());
        }
        Ok((response.status, body))
    }

    /// GETs a URL.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn get(&self, url: Url) -> anyhow::Result<Value> {
        Ok(self.send(Method::GET, url, HeaderMap::new(), Bytes::new()).await?.1)
    }

    /// DELETEs a URL.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn delete(&self, url: Url) -> anyhow::Result<()> {
        self.send(Method::DELETE, url, HeaderMap::new(), Bytes::new()).await.map(|_| ())
    }

    /// Sends JSON to a URL.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn json(&self, method: Method, url: Url, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        self.send(method, url, typed("application/json"), body.to_string().into()).await
    }

    /// Uploads a plugin, with its signature if it has one, to the URL of all of them, and answers what it is to the server.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn upload(
        &self,
        url: Url,
        plugin: Vec<u8>,
        signature: Option<String>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut headers = typed("application/wasm");
        if let Some(signature) = signature {
            headers.insert("weir-plugin-signature", HeaderValue::try_from(signature)?);
        }
        self.send(Method::POST, url, headers, plugin.into()).await
    }
}

fn typed(kind: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))])
}
