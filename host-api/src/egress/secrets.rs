//! Secrets on their way out: whoever makes a request holds a placeholder; the secret takes its place when the request
//! leaves, for a host that it is meant for, and is taken out of what comes back.

use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::origin::Origin;

/// A secret, and where it may go.
pub struct Secret {
    name: String,
    value: String,
    origins: Vec<Origin>,
}

impl Secret {
    /// The secret `value`, which people call `name`, for requests to `origins`.
    #[must_use]
    pub fn new(name: String, value: String, origins: Vec<Origin>) -> Self {
        Self { name, value, origins }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// A secret that may not travel with this request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret `{secret}` may not go to {origin}")]
pub struct Withheld {
    /// Its name.
    pub secret: String,
    /// Where it was to go.
    pub origin: String,
}

/// Texts that stand for secrets in headers and in the query of a request.
#[derive(Clone, Debug, Default)]
pub struct Placeholders(Vec<(String, Arc<Secret>)>);

impl Placeholders {
    /// Adds a text that stands for `secret`.
    pub fn add(&mut self, text: String, secret: Arc<Secret>) {
        self.0.push((text, secret));
    }

    /// The text that stands for the secret called `name`.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(_, secret)| secret.name == name).map(|(text, _)| text.as_str())
    }

    /// The text with each placeholder in it replaced by the secret's name.
    #[must_use]
    pub fn named(&self, text: &str) -> String {
        let named = |text: String, (placeholder, secret): &(String, Arc<Secret>)| {
            text.replace(placeholder, &format!("[secret {}]", secret.name))
        };
        self.0.iter().fold(text.to_owned(), named)
    }

    /// Names of the secrets whose placeholder stands in a header or in the query.
    pub fn named_in<'s>(&'s self, url: &Url, headers: &HeaderMap) -> impl Iterator<Item = &'s str> {
        self.found(url, headers).map(|(_, secret)| secret.name.as_str())
    }

    fn found(&self, url: &Url, headers: &HeaderMap) -> impl Iterator<Item = &(String, Arc<Secret>)> {
        let (query, headers) = (url.query().unwrap_or_default().to_owned(), headers.clone());
        self.0.iter().filter(move |(text, _)| {
            query.contains(text.as_str()) || headers.values().any(|value| contains(value.as_bytes(), text.as_bytes()))
        })
    }

    /// Puts the secrets where their placeholders stand, and answers what takes them out of the response.
    ///
    /// # Errors
    /// [`Withheld`] names a secret that is not meant for where the request goes; nothing is sent then.
    pub(super) fn reveal(&self, url: &mut Url, headers: &mut HeaderMap) -> Result<Option<Scrub>, Withheld> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let found: Vec<_> = self.found(url, headers).cloned().collect();
        if found.is_empty() {
            return Ok(None);
        }
        for (text, secret) in &found {
            if !secret.origins.iter().any(|origin| origin.admits(url)) {
                let origin = url.origin().ascii_serialization();
                return Err(Withheld { secret: secret.name.clone(), origin });
            }
            if let Some(query) = url.query().filter(|query| query.contains(text)) {
                let encoded = utf8_percent_encode(&secret.value, NON_ALPHANUMERIC).to_string();
                let query = query.replace(text, &encoded);
                url.set_query(Some(&query));
            }
            for value in headers.values_mut().filter(|value| contains(value.as_bytes(), text.as_bytes())) {
                let unusable = || Withheld { secret: secret.name.clone(), origin: "a header".to_owned() };
                let revealed = value.to_str().map_err(|_| unusable())?.replace(text, &secret.value);
                *value = HeaderValue::try_from(revealed).map_err(|_| unusable())?;
                value.set_sensitive(true);
            }
        }
        // What comes back is looked through, so it must come in a coding that is read here.
        headers.remove(header::ACCEPT_ENCODING);
        Ok(Scrub::new(found.iter().map(|(_, secret)| &**secret)))
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Takes secrets out of what a target sends back, also where one is cut in two by the pieces of a body.
pub(super) struct Scrub {
    needles: Vec<Vec<u8>>,
    finder: AhoCorasick,
    /// For each needle what stands in its place.
    instead: Vec<String>,
    longest: usize,
    held: BytesMut,
}

impl Scrub {
    fn new<'s>(secrets: impl Iterator<Item = &'s Secret>) -> Option<Self> {
        let (mut needles, mut instead) = (Vec::new(), Vec::new());
        for secret in secrets {
            let json = serde_json::Value::from(secret.value.as_str()).to_string();
            let forms = [
                secret.value.clone(),
                utf8_percent_encode(&secret.value, NON_ALPHANUMERIC).to_string(),
                json[1..json.len() - 1].to_owned(),
                STANDARD.encode(&secret.value).trim_end_matches('=').to_owned(),
            ];
            for form in forms {
                if !needles.contains(&form.clone().into_bytes()) {
                    needles.push(form.into_bytes());
                    instead.push(format!("[secret {}]", secret.name));
                }
            }
        }
        // Fails only for more needles than there is memory.
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&needles).ok()?;
        let longest = needles.iter().map(Vec::len).max().unwrap_or_default();
        Some(Self { needles, finder, instead, longest, held: BytesMut::new() })
    }

    /// The same text without the secrets.
    pub(super) fn whole(&self, bytes: &[u8]) -> Vec<u8> {
        self.finder.replace_all_bytes(bytes, &self.instead)
    }

    /// Takes the secrets out of every header.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut().filter(|value| self.finder.is_match(value.as_bytes())) {
            let scrubbed = HeaderValue::from_bytes(&self.whole(value.as_bytes()));
            *value = scrubbed.unwrap_or_else(|_| HeaderValue::from_static(""));
        }
        // The length may be another one now.
        headers.remove(header::CONTENT_LENGTH);
    }

    /// The next piece of a body. Its end is kept back while it may be the beginning of a secret.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Bytes {
        self.held.extend_from_slice(piece);
        let mut done = 0;
        let mut out = BytesMut::new();
        for found in self.finder.find_iter(&self.held) {
            out.extend_from_slice(&self.held[done..found.start()]);
            out.extend_from_slice(self.instead[found.pattern().as_usize()].as_bytes());
            done = found.end();
        }
        let rest = &self.held[done..];
        let begins = |tail: &[u8]| self.needles.iter().any(|needle| needle.starts_with(tail));
        let most = rest.len().min(self.longest.saturating_sub(1));
        let kept = (1..=most).rev().find(|kept| begins(&rest[rest.len() - kept..])).unwrap_or(0);
        out.extend_from_slice(&rest[..rest.len() - kept]);
        let kept = BytesMut::from(&rest[rest.len() - kept..]);
        self.held = kept;
        out.freeze()
    }

    /// What was kept back, at the end of a body.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "s3cret/value\"1";

    fn placeholders() -> Placeholders {
        let origins = vec![Origin::parse("api.example.com").expect("an origin")];
        let mut placeholders = Placeholders::default();
        placeholders.add("P-1".to_owned(), Arc::new(Secret::new("token".to_owned(), VALUE.to_owned(), origins)));
        placeholders
    }

    fn request(url: &str) -> (Url, HeaderMap) {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer P-1"))]);
        (Url::parse(url).expect("a URL"), headers)
    }

    #[test]
    fn a_placeholder_becomes_the_secret_for_its_hosts_only() {
        let (mut url, mut headers) = request("https://api.example.com/P-1?key=P-1");
        placeholders().reveal(&mut url, &mut headers).expect("may go").expect("is scrubbed");
        assert_eq!(url.as_str(), "https://api.example.com/P-1?key=s3cret%2Fvalue%221");
        let value = &headers[header::AUTHORIZATION];
        assert_eq!((value.as_bytes(), value.is_sensitive()), (format!("Bearer {VALUE}").as_bytes(), true));
        for elsewhere in ["https://evil.example.com/", "http://api.example.com/", "https://api.example.com:8443/"] {
            let (mut url, mut headers) = request(elsewhere);
            let withheld = placeholders().reveal(&mut url, &mut headers).err().expect("withheld");
            assert_eq!(withheld.secret, "token");
            assert_eq!(headers[header::AUTHORIZATION], "Bearer P-1");
        }
        assert_eq!(format!("{:?}", placeholders()), r#"Placeholders([("P-1", Secret(token))])"#);
    }

    #[test]
    fn secrets_are_taken_out_wherever_a_body_is_cut() {
        let (mut url, mut headers) = request("https://api.example.com/");
        let placeholders = placeholders();
        let forms = [VALUE, "s3cret%2Fvalue%221", r#"s3cret/value\"1"#, "czNjcmV0L3ZhbHVlIjE"];
        let body = format!("s3 {} s3cret/valu", forms.join(","));
        let clean = format!("s3 {} s3cret/valu", ["[secret token]"; 4].join(","));
        let mut scrub = placeholders.reveal(&mut url, &mut headers).expect("may go").expect("is scrubbed");
        for size in 1..=body.len() {
            let mut out = Vec::new();
            for piece in body.as_bytes().chunks(size) {
                out.extend_from_slice(&scrub.piece(piece));
            }
            out.extend_from_slice(&scrub.rest());
            assert_eq!(String::from_utf8(out).expect("text"), clean, "pieces of {size}");
        }
    }
}
