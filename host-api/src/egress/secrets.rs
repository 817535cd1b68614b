//! Secrets on their way out: whoever makes a request holds a placeholder; the secret takes its place when the request
//! leaves, for a host that it is meant for. How it is taken out of what comes back is not known here.

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::origin::Origin;
use super::scrub::Scrub;

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

    fn may_go_to(&self, url: &Url) -> Result<(), Withheld> {
        let admitted = self.origins.iter().any(|origin| origin.admits(url));
        let withheld = || Withheld { secret: self.name.clone(), origin: url.origin().ascii_serialization() };
        admitted.then_some(()).ok_or_else(withheld)
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

    /// Puts the secrets where their placeholders stand, and adds them to those that have `left`.
    ///
    /// # Errors
    /// [`Withheld`] names a secret that is not meant for where the request goes; nothing is sent then.
    pub(super) fn reveal(&self, url: &mut Url, headers: &mut HeaderMap, left: &mut Left) -> Result<(), Withheld> {
        if self.0.is_empty() {
            return Ok(());
        }
        let found: Vec<_> = self.found(url, headers).cloned().collect();
        for (text, secret) in &found {
            secret.may_go_to(url)?;
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
        found.iter().for_each(|(_, secret)| left.add(secret));
        Ok(())
    }
}

/// Secrets that have left with a request, or with one that was redirected to it, or may have before.
#[derive(Clone, Default)]
pub(super) struct Left(Vec<Arc<Secret>>);

impl Left {
    /// Adds those of `secrets` that may go to `url`.
    pub(super) fn may_be_known(&mut self, secrets: &[Arc<Secret>], url: &Url) {
        let there = secrets.iter().filter(|secret| secret.may_go_to(url).is_ok());
        there.for_each(|secret| self.add(secret));
    }

    fn add(&mut self, secret: &Arc<Secret>) {
        if !self.0.iter().any(|known| Arc::ptr_eq(known, secret)) {
            self.0.push(Arc::clone(secret));
        }
    }

    /// What takes them out of a response.
    pub(super) fn scrub(&self) -> Option<Scrub> {
        let secrets = self.0.iter().map(|secret| (secret.name.as_str(), secret.value.as_str()));
        (!self.0.is_empty()).then(|| Scrub::new(secrets))
    }

    /// What takes them out of texts that are in small letters: hosts, and names of headers.
    fn scrub_small(&self) -> Scrub {
        let small: Vec<String> = self.0.iter().map(|secret| secret.value.to_ascii_lowercase()).collect();
        Scrub::new(self.0.iter().zip(&small).map(|(secret, value)| (secret.name.as_str(), value.as_str())))
    }

    /// Leaves out headers whose names have a secret in them.
    pub(super) fn drop_named(&self, headers: &mut HeaderMap) {
        let scrub = self.scrub_small();
        let named: Vec<_> = headers.keys().filter(|name| scrub.finds(name.as_str().as_bytes())).cloned().collect();
        for name in named {
            headers.remove(name);
        }
    }

    /// A text for people without them.
    pub(super) fn out_of(&self, text: &str) -> String {
        let Some(scrub) = self.scrub() else { return text.to_owned() };
        let scrubbed = self.scrub_small().whole(&scrub.whole(text.as_bytes()));
        String::from_utf8_lossy(&scrubbed).into_owned()
    }

    /// Whether a client may follow a `location` with what stands in it, to `target`.
    ///
    /// # Errors
    /// [`Withheld`] names a secret that stands in it and is not meant for there.
    pub(super) fn may_follow(&self, location: &[u8], target: &Url) -> Result<(), Withheld> {
        let stands = |secret: &&Arc<Secret>| {
            let scrub = Scrub::new([(secret.name.as_str(), secret.value.as_str())].into_iter());
            // A host is read without its escapes and in small letters.
            let small = Scrub::new([(secret.name.as_str(), secret.value.to_ascii_lowercase().as_str())].into_iter());
            let host = target.host_str().unwrap_or_default().as_bytes();
            scrub.finds(location) || scrub.finds(target.as_str().as_bytes()) || small.finds(host)
        };
        self.0.iter().filter(stands).try_for_each(|secret| secret.may_go_to(target))
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use http::header;

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
        let mut left = Left::default();
        placeholders().reveal(&mut url, &mut headers, &mut left).expect("may go");
        assert_eq!(left.0.len(), 1);
        assert_eq!(url.as_str(), "https://api.example.com/P-1?key=s3cret%2Fvalue%221");
        let value = &headers[header::AUTHORIZATION];
        assert_eq!((value.as_bytes(), value.is_sensitive()), (format!("Bearer {VALUE}").as_bytes(), true));
        for elsewhere in ["https://evil.example.com/", "http://api.example.com/", "https://api.example.com:8443/"] {
            let (mut url, mut headers) = request(elsewhere);
            let withheld = placeholders().reveal(&mut url, &mut headers, &mut Left::default()).expect_err("withheld");
            assert_eq!(withheld.secret, "token");
            assert_eq!(headers[header::AUTHORIZATION], "Bearer P-1");
        }
        assert_eq!(format!("{:?}", placeholders()), r#"Placeholders([("P-1", Secret(token))])"#);
    }

    #[test]
    fn a_redirect_takes_a_secret_along_only_where_it_may_go() {
        let (mut url, mut headers) = request("https://api.example.com/");
        let mut left = Left::default();
        placeholders().reveal(&mut url, &mut headers, &mut left).expect("may go");
        for (location, goes) in [
            ("/v1/?key=s3cret%2fvalue%221", true),
            ("https://evil.example.com/?key=other", true),
            ("https://evil.example.com/?key=s3cret%2fvalue%221", false),
            ("http://api.example.com/czNjcmV0L3ZhbHVlIjE", false),
            ("//evil.example.com/?key=x#s3cret/value\"1", false),
        ] {
            let target = url.join(location).expect("a URL");
            assert_eq!(left.may_follow(location.as_bytes(), &target).is_ok(), goes, "{location}");
        }
    }
}
