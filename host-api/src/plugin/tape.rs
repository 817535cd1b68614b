//! A tape: the requests that a call made and what came back, so that the call can be made again without a network.
//!
//! What is on a tape has no secret: of a request it has the text that stands for one, by its name, and responses were
//! looked through before. Request headers are not on it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

/// Bytes of bodies on one tape.
const BODIES_MAX_BYTES: usize = 4 << 20;

/// A request, and what came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// Where to. `[secret name]` stands for a secret in the query.
    pub url: String,
    /// The body that was sent.
    #[serde(default, skip_serializing_if = "Body::is_empty")]
    pub sent: Body,
    /// The status that came back.
    pub status: u16,
    /// Its headers, where they are text.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body that came back, as far as the call read it.
    #[serde(default, skip_serializing_if = "Body::is_empty")]
    pub received: Body,
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

impl Body {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::Text(text) => Bytes::from(text.clone()),
            // What cannot be read is nothing: a tape is a file that people edit.
            Self::Base64(text) => Bytes::from(STANDARD.decode(text).unwrap_or_default()),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) | Self::Base64(text) if text.is_empty())
    }
}

/// The exchanges of one call.
#[derive(Debug)]
pub struct Tape {
    plays: bool,
    exchanges: Mutex<Vec<Exchange>>,
}

/// What a tape plays in answer to a request.
pub(super) struct Played {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Tape {
    /// An empty tape, which keeps what a call does.
    #[must_use]
    pub fn recording() -> Self {
        Self { plays: false, exchanges: Mutex::default() }
    }

    /// A tape that answers in place of every host. What is not on it is denied.
    #[must_use]
    pub fn playing(exchanges: Vec<Exchange>) -> Self {
        Self { plays: true, exchanges: Mutex::new(exchanges) }
    }

    /// What is on it; of a tape that plays, what was not asked for.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().clone()
    }

    pub(super) fn plays(&self) -> bool {
        self.plays
    }

    /// The answer to a request, which is taken from the tape.
    pub(super) fn play(&self, method: &str, url: &str, sent: &[u8]) -> Option<Played> {
        let mut exchanges = self.lock();
        let sent = Body::of(sent);
        let fits = |one: &Exchange| one.method == method && one.url == url && one.sent == sent;
        let at = exchanges.iter().position(fits)?;
        let exchange = exchanges.remove(at);
        let header = |(name, value): (&String, &String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        Some(Played {
            status: StatusCode::from_u16(exchange.status).ok()?,
            headers: exchange.headers.iter().filter_map(header).collect(),
            body: exchange.received.bytes(),
        })
    }

    /// Keeps an exchange, unless the tape is full.
    pub(super) fn keep(&self, request: (&str, &str, &[u8]), status: StatusCode, headers: &HeaderMap, received: &[u8]) {
        let (method, url, sent) = request;
        let text =
            |body: &Body| matches!(body, Body::Text(text) | Body::Base64(text) if text.len() <= BODIES_MAX_BYTES);
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        let exchange = Exchange {
            method: method.to_owned(),
            url: url.to_owned(),
            sent: Body::of(sent),
            status: status.as_u16(),
            headers: headers.iter().filter_map(header).collect(),
            received: Body::of(received),
        };
        if text(&exchange.sent) && text(&exchange.received) {
            self.lock().push(exchange);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
