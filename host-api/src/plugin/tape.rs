//! A tape: the requests that a call made and what came back, so that the call can be made again without a network.
//!
//! What is on a tape has no secret: of a request it has the text that stands for one, by its name, and responses were
//! looked through before. Request headers are on it only where somebody wants to hold a call against them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, StatusCode};

use super::exchange::{Body, Exchange, Played, Sent, texts};

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

    /// Requests of a recorded call that nothing came back to, or what cannot be kept: they cannot be played.
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

    /// Keeps an exchange, unless it is too large, or has a header that is no text.
    pub(super) fn keep(&self, turn: usize, sent: &Sent, status: StatusCode, headers: &HeaderMap, received: &[u8]) {
        let Some(headers) = texts(headers) else { return };
        let exchange = Exchange {
            method: sent.method.clone(),
            url: sent.url.clone(),
            sent_headers: (self.manner == Manner::Records { headers: true }).then(|| sent.headers.clone()),
            sent: sent.body.clone(),
            status: status.as_u16(),
            headers,
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
    use http::{HeaderName, HeaderValue};

    use super::super::exchange::Values;
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
    fn headers_come_back_as_often_as_they_came() {
        let headers = |values: &[&[u8]]| {
            let value = |value: &&[u8]| HeaderValue::from_bytes(value).expect("a value");
            HeaderMap::from_iter(values.iter().map(value).map(|value| (HeaderName::from_static("x-a"), value)))
        };
        for sent in [headers(&[b"1"]), headers(&[b"1", b"2", b"1"]), headers(&["\u{e9}".as_bytes()]), headers(&[])] {
            let tape = Tape::recording();
            tape.keep(tape.turn(), &get("/a", "1"), StatusCode::OK, &sent, b"");
            let text = serde_json::to_string(&tape.exchanges()).expect("JSON");
            let tape = Tape::playing(serde_json::from_str(&text).expect("exchanges"));
            assert_eq!(tape.play(tape.turn(), &get("/a", "1")).expect("recorded").headers, sent, "{text}");
        }
        let tape = Tape::recording();
        tape.keep(tape.turn(), &get("/a", "1"), StatusCode::OK, &headers(&[b"\xe9"]), b"");
        assert_eq!(tape.unanswered(), 1);
    }

    #[test]
    fn what_cannot_be_played_is_told() {
        let sound = recorded(false).remove(0);
        assert_eq!(sound.fault(), None);
        let place = |broken: Exchange| broken.fault().expect("a fault").0;
        assert_eq!(place(Exchange { status: 7, ..sound.clone() }), "/status");
        assert_eq!(place(Exchange { received: Body::Base64("?".to_owned()), ..sound.clone() }), "/received/base64");
        let headers = BTreeMap::from([("a b".to_owned(), Values::One(String::new()))]);
        assert_eq!(place(Exchange { headers, ..sound }), "/headers/a b");
    }
}
