//! Finds secrets in what a target sends back, however each of their characters is written, and takes them out.
//!
//! A text goes through the [`Automaton`] once. No more is kept back than what may be the beginning of a secret.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};

use super::automaton::{Automaton, RING, States};
use super::units::{Escape, escape};

/// Takes secrets out of what a target sends back, also where one is cut in two by the pieces of a body.
pub(super) struct Scrub {
    automaton: Automaton,
    body: Stream,
}

impl Scrub {
    /// Looks for `secrets`: names and values. An empty value is nowhere.
    pub(super) fn new<'s>(secrets: impl Iterator<Item = (&'s str, &'s str)>) -> Self {
        let automaton = Automaton::new(secrets);
        let body = Stream::new(&automaton);
        Self { automaton, body }
    }

    /// The same text without the secrets.
    pub(super) fn whole(&self, text: &[u8]) -> Bytes {
        Stream::new(&self.automaton).read(&self.automaton, text, true)
    }

    /// Whether a secret stands in the text.
    pub(super) fn finds(&self, text: &[u8]) -> bool {
        self.whole(text) != text
    }

    /// Takes the secrets out of every header.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let scrubbed = self.whole(value.as_bytes());
            if scrubbed != value.as_bytes() {
                let scrubbed = HeaderValue::from_maybe_shared(scrubbed);
                *value = scrubbed.unwrap_or_else(|_| HeaderValue::from_static(""));
            }
        }
        // The length may be another one now.
        headers.remove(header::CONTENT_LENGTH);
    }

    /// The next piece of a body. Its end is kept back while it may be the beginning of a secret.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Bytes {
        self.body.read(&self.automaton, piece, false)
    }

    /// What was kept back, at the end of a body.
    pub(super) fn rest(&mut self) -> Bytes {
        self.body.read(&self.automaton, &[], true)
    }
}

/// A part of the text that is a secret.
struct Cut {
    start: usize,
    end: usize,
    /// What is still to be written in its place.
    instead: Option<usize>,
}

/// A text on its way through the automaton.
struct Stream {
    /// What was not passed on yet.
    held: BytesMut,
    /// Bytes before it.
    base: usize,
    /// How much of it was read.
    read: usize,
    states: States,
    /// In their order, without overlap.
    cuts: Vec<Cut>,
}

impl Stream {
    fn new(automaton: &Automaton) -> Self {
        let states = States::new(automaton.width);
        Self { held: BytesMut::new(), base: 0, read: 0, states, cuts: Vec::new() }
    }

    fn read(&mut self, automaton: &Automaton, piece: &[u8], last: bool) -> Bytes {
        self.held.extend_from_slice(piece);
        while self.read < self.held.len() {
            let (at, byte) = (self.read, self.held[self.read]);
            let here = (self.base + at) % RING;
            if self.states.live[here] {
                self.found(automaton);
            } else if !automaton.begins[usize::from(byte)] {
                self.read += 1;
                continue;
            }
            let escaped = match escape(&self.held[at..]) {
                Escape::Cut if !last => break,
                Escape::Cut | Escape::None => None,
                Escape::Of(byte, bytes) => Some((byte, bytes)),
            };
            for (byte, bytes) in [Some((byte, 1)), escaped].into_iter().flatten() {
                if let Some(row) = automaton.row(byte) {
                    self.states.step(here, (here + bytes) % RING, &automaton.firsts, row);
                }
            }
            self.states.clear(here);
            self.read += 1;
        }
        self.found(automaton);
        let safe = if last { self.held.len() } else { self.undecided(automaton) };
        self.pass(automaton, safe)
    }

    /// Notes the needles that end where the text has been read to.
    fn found(&mut self, automaton: &Automaton) {
        let here = (self.base + self.read) % RING;
        if !self.states.live[here] || !self.states.set(here).iter().zip(&automaton.ends).any(|(a, b)| a & b != 0) {
            return;
        }
        for needle in &automaton.needles {
            let word = here * automaton.width + needle.end / 64;
            if self.states.bits[word] >> (needle.end % 64) & 1 == 0 {
                continue;
            }
            let mut ended = States::new(automaton.width);
            ended.bits[word] = 1 << (needle.end % 64);
            ended.live[here] = true;
            let start = automaton.beginning(&self.held, self.base, ended, self.read);
            self.cut(Cut { start: start.unwrap_or(0), end: self.read, instead: Some(needle.instead) });
            // The same needle begins anew; others may be longer than what was found.
            for state in needle.first..=needle.end {
                self.states.bits[here * automaton.width + state / 64] &= !(1 << (state % 64));
            }
        }
    }

    /// One place for all that lies across another; it is called after the longer one.
    fn cut(&mut self, mut cut: Cut) {
        let long = cut.end - cut.start;
        while let Some(before) = self.cuts.pop_if(|before| before.end > cut.start) {
            cut.start = cut.start.min(before.start);
            cut.instead = match before.instead {
                Some(_) if before.end - before.start < long => cut.instead,
                other => other,
            };
        }
        self.cuts.push(cut);
    }

    /// The first byte that may belong to a secret which has not ended yet.
    fn undecided(&self, automaton: &Automaton) -> usize {
        if !self.states.live.contains(&true) {
            return self.read;
        }
        let last = self.held.len().min(self.read + RING - 1);
        let start = automaton.beginning(&self.held, self.base, self.states.clone(), last);
        start.unwrap_or(self.read).min(self.read)
    }

    /// Passes the text on, as far as `end`.
    fn pass(&mut self, automaton: &Automaton, end: usize) -> Bytes {
        let (mut out, mut done) = (BytesMut::new(), 0);
        for cut in self.cuts.iter_mut().filter(|cut| cut.start < end) {
            out.extend_from_slice(&self.held[done..cut.start]);
            if let Some(instead) = cut.instead.take() {
                out.extend_from_slice(automaton.instead[instead].as_bytes());
            }
            done = cut.end.min(end);
        }
        out.extend_from_slice(&self.held[done..end]);
        let rest = self.held.split_off(end);
        self.held = rest;
        self.base += end;
        self.read -= end;
        self.cuts.retain(|cut| cut.end > end);
        for cut in &mut self.cuts {
            (cut.start, cut.end) = (cut.start.saturating_sub(end), cut.end - end);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

    use super::*;

    /// Has characters that every language escapes, and what looks like escapes of each.
    const SECRETS: [&str; 4] =
        ["t0k&n<a>'b\"c/d\\e+f=~g-h_i.j%", "deadbeef/00", "a%2Fb\\u0041&amp;c%%\\\\", "~~~~>>>>????"];

    fn in_pieces(secrets: &[(&str, &str)], text: &str, size: usize) -> String {
        let mut scrub = Scrub::new(secrets.iter().copied());
        let mut out: Vec<u8> = text.as_bytes().chunks(size).flat_map(|piece| scrub.piece(piece)).collect();
        out.extend_from_slice(&scrub.rest());
        String::from_utf8(out).expect("text")
    }

    fn each(secret: &str, write: impl Fn(u8) -> Option<String>) -> String {
        secret.bytes().map(|byte| write(byte).unwrap_or_else(|| char::from(byte).to_string())).collect()
    }

    /// The ways in which targets write a secret.
    fn forms(secret: &str) -> Vec<String> {
        let among = |byte: u8, these: &str| these.bytes().any(|other| other == byte);
        let percent = |keep: &'static str, upper: bool| {
            each(secret, |byte| {
                let kept = byte.is_ascii_alphanumeric() || among(byte, keep);
                (!kept).then(|| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") })
            })
        };
        let json = serde_json::Value::from(secret).to_string();
        let json = &json[1..json.len() - 1];
        let html = |apostrophe: &str| {
            let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            html.replace('"', "&quot;").replace('\'', apostrophe)
        };
        let mut forms = vec![
            secret.to_owned(),
            percent("", true),
            percent("-_.~", true),
            percent("-_.~", false),
            percent("-_.~/'&=+<>", false),
            url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            json.to_owned(),
            json.replace('/', "\\/"),
            json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003E").replace('\'', "\\u0027"),
            each(secret, |byte| Some(format!("\\u{byte:04x}"))),
            each(secret, |byte| Some(format!("\\x{byte:02X}"))),
            html("&#39;"),
            html("&#x27;"),
            html("&#039;").replace('/', "&#x2F;").replace('=', "&equals;"),
        ];
        for around in ["", "a", "ab"] {
            for after in ["", "c", "cd"] {
                let text = format!("{around}{secret}{after}");
                forms.push(STANDARD.encode(&text).trim_end_matches('=').to_owned());
                forms.push(URL_SAFE_NO_PAD.encode(&text));
                forms.push(STANDARD_NO_PAD.encode(&text).replace('/', "\\/"));
                forms.push(STANDARD_NO_PAD.encode(&text).replace('/', "%2f").replace('+', "%2B"));
            }
        }
        forms
    }

    #[test]
    fn a_secret_is_found_however_it_is_written_and_wherever_it_is_cut() {
        for secret in SECRETS {
            let secrets = [("it", secret)];
            let forms = forms(secret);
            // Beside base64 there is what was not of the secret.
            for form in &forms {
                let out = in_pieces(&secrets, &format!("<{form}>"), usize::MAX);
                let plain = out.replace("[secret it]", "");
                assert!(out.contains("[secret it]") && plain.len() <= 8, "{form} became {out}");
            }
            let text = format!("% \\ & {} %{}", forms.join("\n"), &secret[..7]);
            let whole = in_pieces(&secrets, &text, usize::MAX);
            assert_eq!(whole.matches("[secret it]").count(), forms.len(), "{whole}");
            assert!(whole.ends_with(&format!("%{}", &secret[..7])), "{whole}");
            for size in 1..40 {
                assert_eq!(in_pieces(&secrets, &text, size), whole, "pieces of {size}");
            }
            assert_eq!(Scrub::new(secrets.into_iter()).whole(text.as_bytes()), whole);
        }
    }

    #[test]
    fn what_stands_before_a_secret_does_not_hide_it() {
        for secret in SECRETS {
            let secrets = [("it", secret)];
            for before in
                ["%", "\\", "&", "%2", "\\u00", "&#", "&#x", "&#3", &secret[..5], "%25", "\\\\", "&amp;", "\\u00%"]
            {
                for form in &forms(secret)[..14] {
                    let out = in_pieces(&secrets, &format!("{before}{form}"), 3);
                    assert!(out.contains("[secret it]"), "{before}{form} became {out}");
                }
            }
        }
    }

    #[test]
    fn secrets_in_secrets_are_taken_out_whole() {
        let secrets = [("a", "abcdefgh"), ("b", "xxabcdefghyy"), ("c", "ghyyzzzzzz")];
        for (text, clean) in [
            ("-abcdefgh-", "-[secret a]-"),
            ("-xxabcdefghyy-", "-[secret b]-"),
            ("-xxabcdefghyx-", "-xx[secret a]yx-"),
            ("-xxabcdefghyyzzzzzz-", "-[secret b]-"),
            ("-abcdefghabcdefgh-", "-[secret a][secret a]-"),
            ("-abcdefg", "-abcdefg"),
        ] {
            for size in 1..=text.len() {
                assert_eq!(in_pieces(&secrets, text, size), clean, "pieces of {size}");
            }
        }
    }

    #[test]
    fn no_more_is_kept_back_than_what_may_begin_a_secret() {
        let mut scrub = Scrub::new([("it", "s3cret-token")].into_iter());
        for (piece, passed) in
            [("data: {}\n\n", "data: {}\n\n"), ("50% of s3cret", "50% of "), ("s\n", "s3crets\n"), ("&", "")]
        {
            assert_eq!(scrub.piece(piece.as_bytes()), passed);
        }
        let held: usize = (0..10_000)
            .map(|_| {
                scrub.piece(b"s3s3cre%73");
                scrub.body.held.len()
            })
            .max()
            .expect("some");
        assert!(held < 100, "{held}");
        // The most that a secret can be, of one letter, in a text of that letter.
        let value = "a".repeat(4096);
        let mut scrub = Scrub::new([("it", value.as_str())].into_iter());
        let passed: usize = (0..16).map(|_| scrub.piece(value.as_bytes()).len()).sum();
        assert!(passed + scrub.rest().len() <= 16 * "[secret it]".len());
    }

    #[test]
    fn base64_of_both_alphabets_and_with_padding() {
        let secrets = [("it", SECRETS[3])];
        for text in [STANDARD.encode(SECRETS[3]), URL_SAFE.encode(format!("user:{}", SECRETS[3]))] {
            let out = in_pieces(&secrets, &text, 5);
            assert!(out.contains("[secret it]"), "{out}");
        }
    }
}
