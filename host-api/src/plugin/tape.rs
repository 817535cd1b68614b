//! A tape: the requests that a call made and what came back, so that the call can be made again without a network.
//!
//! What is on a tape has no secret: of a request it has the text that stands for one, by its name, and responses were
//! looked through before. Request headers are on it only where somebody wants to hold a call against them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::egress;

/// Bytes of bodies on one tape.
const BODIES_MAX_BYTES: usize = 4 << 20;

/// How a text begins that stands for a secret; 32 hexadecimal digits follow, which are others in each call.
pub(super) const PLACEHOLDER: &str = "weir-secret-";
const PLACEHOLDER_DIGITS: usize = 32;

/// A text with `[secret]` for each text that stood for one in some call.
#[must_use]
pub fn without_placeholders(text: &str) -> String {
    let mut parts = text.split(PLACEHOLDER);
    let mut without = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let stands = part.bytes().take(PLACEHOLDER_DIGITS).filter(u8::is_ascii_hexdigit).count() == PLACEHOLDER_DIGITS;
        match part.get(PLACEHOLDER_DIGITS..).filter(|_| stands) {
            Some(rest) => without += &format!("[secret]{rest}"),
            None => without += &format!("{PLACEHOLDER}{part}"),
        }
    }
    without
}

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

impl Exchange {
    /// What in it cannot be played, if anything: the member, and why.
    #[must_use]
    pub fn fault(&self) -> Option<(String, String)> {
        if StatusCode::from_u16(self.status).is_err() {
            return Some(("/status".to_owned(), format!("{} is no status", self.status)));
        }
        let odd = |(name, value): &(&String, &String)| {
            HeaderName::try_from(*name).is_err() || HeaderValue::try_from(*value).is_err()
        };
        if let Some((name, _)) = self.headers.iter().find(odd) {
            return Some((format!("/headers/{name}"), "cannot be a header".to_owned()));
        }
        let bodies = [("/sent", &self.sent), ("/received", &self.received)];
        let (place, _) = bodies.into_iter().find(|(_, body)| body.bytes().is_none())?;
        Some((format!("{place}/base64"), "is not base64".to_owned()))
    }

    fn answers(&self, sent: &Sent) -> bool {
        self.method == sent.method && self.url == sent.url && self.sent == sent.body
    }

    fn answers_exactly(&self, sent: &Sent) -> bool {
        self.answers(sent) && self.sent_headers.as_ref().is_none_or(|headers| *headers == sent.headers)
    }

    fn played(self) -> Option<Played> {
        let header = |(name, value): (&String, &String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        Some(Played {
            status: StatusCode::from_u16(self.status).ok()?,
            headers: self.headers.iter().filter_map(header).collect(),
            body: self.received.bytes()?,
        })
    }
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
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

    fn text(&self) -> &str {
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

/// The first request of a call that was not the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Astray {
    /// Which request of the call: 0 is the first.
    pub at: usize,
    /// What was recorded there; none: there were not so many.
    pub wanted: Option<Exchange>,
    /// What was asked.
    pub got: Sent,
}

/// The exchanges of one call.
#[derive(Debug)]
pub struct Tape {
    manner: Manner,
    reel: Mutex<Reel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Records { headers: bool },
    Plays,
    PlaysExactly,
}

#[derive(Debug, Default)]
struct Reel {
    /// Requests that the call made so far, in the order in which it made them.
    turns: usize,
    /// Exchanges, each with its turn.
    exchanges: BTreeMap<usize, Exchange>,
    astray: Option<Astray>,
}

/// What a tape plays in answer to a request.
pub(super) struct Played {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Tape {
    fn new(manner: Manner, exchanges: Vec<Exchange>) -> Self {
        let exchanges = exchanges.into_iter().enumerate().collect();
        Self { manner, reel: Mutex::new(Reel { exchanges, ..Reel::default() }) }
    }

    /// An empty tape, which keeps what a call does.
    #[must_use]
    pub fn recording() -> Self {
        Self::new(Manner::Records { headers: false }, Vec::new())
    }

    /// An empty tape, which keeps what a call does, and the headers of its requests too.
    #[must_use]
    pub fn recording_headers() -> Self {
        Self::new(Manner::Records { headers: true }, Vec::new())
    }

    /// A tape that answers in place of every host, in any order. What is not on it is denied.
    #[must_use]
    pub fn playing(exchanges: Vec<Exchange>) -> Self {
        Self::new(Manner::Plays, exchanges)
    }

    /// A tape that answers in place of every host, as long as each request is the one that was recorded at its place.
    /// Any other is denied.
    #[must_use]
    pub fn playing_exactly(exchanges: Vec<Exchange>) -> Self {
        Self::new(Manner::PlaysExactly, exchanges)
    }

    /// What is on it, in the order of the requests; of a tape that plays, what was not asked for.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.values().cloned().collect()
    }

    /// Requests of a recorded call that nothing came back to, or too much to be kept: they cannot be played.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        let reel = self.lock();
        reel.turns.saturating_sub(reel.exchanges.len())
    }

    /// The first request that was not the recorded one, of a tape that plays exactly.
    #[must_use]
    pub fn astray(&self) -> Option<Astray> {
        self.lock().astray.clone()
    }

    pub(super) fn plays(&self) -> bool {
        !matches!(self.manner, Manner::Records { .. })
    }

    /// The turn of a request: taken when the call makes it, whenever it is answered.
    pub(super) fn turn(&self) -> usize {
        let mut reel = self.lock();
        reel.turns += 1;
        reel.turns - 1
    }

    /// The answer to a request, which is taken from the tape.
    pub(super) fn play(&self, turn: usize, sent: &Sent) -> Option<Played> {
        let mut reel = self.lock();
        if self.manner != Manner::PlaysExactly {
            let (&at, _) = reel.exchanges.iter().find(|(_, one)| one.answers(sent))?;
            return reel.exchanges.remove(&at)?.played();
        }
        if reel.exchanges.get(&turn).is_some_and(|one| one.answers_exactly(sent)) {
            return reel.exchanges.remove(&turn)?.played();
        }
        if reel.astray.as_ref().is_none_or(|known| turn < known.at) {
            let wanted = reel.exchanges.get(&turn).cloned();
            reel.astray = Some(Astray { at: turn, wanted, got: sent.clone() });
        }
        None
    }

    /// Keeps an exchange, unless it is too large.
    pub(super) fn keep(&self, turn: usize, sent: &Sent, status: StatusCode, headers: &HeaderMap, received: &[u8]) {
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        let exchange = Exchange {
            method: sent.method.clone(),
            url: sent.url.clone(),
            sent_headers: (self.manner == Manner::Records { headers: true }).then(|| sent.headers.clone()),
            sent: sent.body.clone(),
            status: status.as_u16(),
            headers: headers.iter().filter_map(header).collect(),
            received: Body::of(received),
        };
        if exchange.sent.text().len().max(exchange.received.text().len()) <= BODIES_MAX_BYTES {
            self.lock().exchanges.insert(turn, exchange);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reel> {
        self.reel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, header: &str) -> Sent {
        let headers = BTreeMap::from([("x-a".to_owned(), header.to_owned())]);
        Sent { method: "GET".to_owned(), url: format!("http://a.example.com{path}"), headers, body: Body::default() }
    }

    fn recorded(headers: bool) -> Vec<Exchange> {
        let tape = if headers { Tape::recording_headers() } else { Tape::recording() };
        let turns = [tape.turn(), tape.turn(), tape.turn()];
        // Answered in another order, and one not at all.
        tape.keep(turns[2], &get("/c", "3"), StatusCode::NOT_FOUND, &HeaderMap::new(), b"c");
        tape.keep(turns[0], &get("/a", "1"), StatusCode::OK, &HeaderMap::new(), &[0xff]);
        assert_eq!(tape.unanswered(), 1);
        tape.exchanges()
    }

    #[test]
    fn what_was_recorded_is_played_in_its_order() {
        let tape = Tape::playing_exactly(recorded(true));
        let turns = [tape.turn(), tape.turn(), tape.turn()];
        let second = tape.play(turns[1], &get("/c", "3")).expect("recorded");
        assert_eq!((second.status, &second.body[..]), (StatusCode::NOT_FOUND, &b"c"[..]));
        let first = tape.play(turns[0], &get("/a", "1")).expect("recorded");
        assert_eq!((first.status, &first.body[..]), (StatusCode::OK, &[0xff][..]));
        assert_eq!((tape.astray(), tape.exchanges()), (None, vec![]));
        assert!(tape.play(turns[2], &get("/a", "1")).is_none());
        assert_eq!(tape.astray().map(|astray| (astray.at, astray.wanted)), Some((2, None)));
    }

    #[test]
    fn another_request_goes_astray() {
        for (exact, other) in [(true, get("/b", "1")), (true, get("/a", "2")), (false, get("/b", "1"))] {
            let tape = Tape::playing_exactly(recorded(exact));
            let turn = tape.turn();
            assert!(tape.play(turn, &other).is_none());
            assert_eq!(tape.astray().expect("astray").got, other);
        }
        // Headers that were not kept are not held against anything.
        let tape = Tape::playing_exactly(recorded(false));
        assert!(tape.play(tape.turn(), &get("/a", "2")).is_some());
    }

    #[test]
    fn what_stands_for_a_secret_is_the_same_in_all_calls() {
        let placeholder = format!("{PLACEHOLDER}{:032x}", 7_u128);
        let text = format!("{placeholder}, {placeholder}f {PLACEHOLDER} {PLACEHOLDER}07");
        assert_eq!(without_placeholders(&text), "[secret], [secret]f weir-secret- weir-secret-07");
        assert_eq!(without_placeholders("plain"), "plain");
    }

    #[test]
    fn without_exactness_the_order_is_free() {
        let tape = Tape::playing(recorded(false));
        assert!(tape.play(tape.turn(), &get("/c", "any")).is_some());
        assert!(tape.play(tape.turn(), &get("/c", "any")).is_none());
        assert_eq!(tape.exchanges().len(), 1);
    }

    #[test]
    fn what_cannot_be_played_is_told() {
        let sound = recorded(false).remove(0);
        assert_eq!(sound.fault(), None);
        let place = |broken: Exchange| broken.fault().expect("a fault").0;
        assert_eq!(place(Exchange { status: 7, ..sound.clone() }), "/status");
        assert_eq!(place(Exchange { received: Body::Base64("?".to_owned()), ..sound.clone() }), "/received/base64");
        let headers = BTreeMap::from([("a b".to_owned(), String::new())]);
        assert_eq!(place(Exchange { headers, ..sound }), "/headers/a b");
    }
}
