//! A request and what came back, as a tape has it: JSON without secrets, for people to read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::egress;

/// A request, and what came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// Where to. `[secret name]` stands for a secret in the query.
    pub url: String,
    /// Its headers, with names in lower case; `[secret name]` stands for a secret. None: they were not kept, and any will
    /// do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_headers: Option<BTreeMap<String, String>>,
    /// The body that was sent.
    #[serde(default, skip_serializing_if = "Body::is_empty")]
    pub sent: Body,
    /// The status that came back.
    pub status: u16,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Values>,
    /// The body that came back, as far as the call read it.
    #[serde(default, skip_serializing_if = "Body::is_empty")]
    pub received: Body,
}

/// What a header says: one text, or one for each time that it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// It is there once.
    One(String),
    /// It is there several times.
    Several(Vec<String>),
}

impl Values {
    fn all(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

/// The headers of a response as a tape has them. None: one of them is no text.
pub(super) fn texts(headers: &HeaderMap) -> Option<BTreeMap<String, Values>> {
    let values = |name: &HeaderName| {
        let text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned);
        let mut values: Vec<String> = headers.get_all(name).iter().map(text).collect::<Option<_>>()?;
        let several = values.len() > 1;
        let values = if several { Values::Several(values) } else { Values::One(values.pop()?) };
        Some((name.as_str().to_owned(), values))
    };
    headers.keys().map(values).collect()
}

/// A body: text as it is, anything else in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// UTF-8.
    Text(String),
    /// Base64 (RFC 4648, section 4) of other bytes.
    Base64(String),
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Exchange {
    /// What in it cannot be played, if anything: the member, and why.
    #[must_use]
    pub fn fault(&self) -> Option<(String, String)> {
        if StatusCode::from_u16(self.status).is_err() {
            return Some(("/status".to_owned(), format!("{} is no status", self.status)));
        }
        let odd = |(name, values): &(&String, &Values)| {
            let odd = |value: &String| HeaderValue::from_bytes(value.as_bytes()).is_err();
            HeaderName::try_from(*name).is_err() || values.all().iter().any(odd)
        };
        if let Some((name, _)) = self.headers.iter().find(odd) {
            return Some((format!("/headers/{name}"), "cannot be a header".to_owned()));
        }
        let bodies = [("/sent", &self.sent), ("/received", &self.received)];
        let (place, _) = bodies.into_iter().find(|(_, body)| body.bytes().is_none())?;
        Some((format!("{place}/base64"), "is not base64".to_owned()))
    }

    pub(super) fn answers(&self, sent: &Sent) -> bool {
        self.method == sent.method && self.url == sent.url && self.sent == sent.body
    }

    pub(super) fn answers_exactly(&self, sent: &Sent) -> bool {
        self.answers(sent) && self.sent_headers.as_ref().is_none_or(|headers| *headers == sent.headers)
    }

    pub(super) fn played(self) -> Option<Played> {
        let mut headers = HeaderMap::new();
        for (name, values) in &self.headers {
            let name = HeaderName::try_from(name).ok()?;
            for value in values.all() {
                headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?);
            }
        }
        Some(Played { status: StatusCode::from_u16(self.status).ok()?, headers, body: self.received.bytes()? })
    }
}

impl Body {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// The bytes, unless somebody wrote what is not base64.
    fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(Bytes::from(text.clone())),
            Self::Base64(text) => STANDARD.decode(text).ok().map(Bytes::from),
        }
    }

    fn is_empty(&self) -> bool {
        self.text().is_empty()
    }

    pub(super) fn text(&self) -> &str {
        let (Self::Text(text) | Self::Base64(text)) = self;
        text
    }
}

/// A request, as a tape knows it: with the names of secrets in place of what stands for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Its headers, with names in lower case. Several of one name are one, with commas.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Body,
}

impl Sent {
    pub(super) fn of(request: &egress::Request) -> Self {
        let named = |text: &str| request.secrets.named(text);
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in &request.headers {
            let value = named(&String::from_utf8_lossy(value.as_bytes()));
            let known = headers.entry(name.as_str().to_owned());
            known.and_modify(|known| *known = format!("{known}, {value}")).or_insert(value);
        }
        let body = match Body::of(&request.body) {
            Body::Text(text) => Body::Text(named(&text)),
            other @ Body::Base64(_) => other,
        };
        Self { method: request.method.as_str().to_owned(), url: named(request.url.as_str()), headers, body }
    }
}

/// What a tape plays in answer to a request.
pub(super) struct Played {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}
