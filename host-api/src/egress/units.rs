//! How texts write one character in other words: percent-encoding, escapes of JSON and JavaScript, references of HTML.
//! It knows nothing of secrets.

/// No escape is longer, in bytes.
pub(super) const UNIT_MAX_BYTES: usize = 20;

/// What stands at the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// Nothing but the byte itself.
    None,
    /// A character of ASCII, and how many bytes are written for it.
    Of(u8, usize),
    /// So far it may be one; the text ends too early to say.
    Cut,
}

/// Whether an escape can begin with `byte`.
pub(super) fn introduces(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&')
}

/// The escape that `text` begins with.
pub(super) fn escape(text: &[u8]) -> Escape {
    match text {
        [b'%', rest @ ..] => hex(rest, 2, 1),
        [b'\\'] => Escape::Cut,
        [b'\\', b'u', b'{', rest @ ..] => braced(rest),
        [b'\\', b'u', rest @ ..] => hex(rest, 4, 2),
        [b'\\', b'x', rest @ ..] => hex(rest, 2, 2),
        [b'\\', b'0'..=b'7', ..] => octal(text),
        [b'\\', escaped, ..] if escaped.is_ascii_graphic() && !escaped.is_ascii_alphanumeric() => {
            Escape::Of(*escaped, 2)
        }
        [b'&', ..] => reference(text),
        _ => Escape::None,
    }
}

/// A character of so many hexadecimal `digits`, which stand after `before` bytes.
fn hex(text: &[u8], digits: usize, before: usize) -> Escape {
    let found = &text[..text.len().min(digits)];
    if !found.iter().all(u8::is_ascii_hexdigit) {
        return Escape::None;
    }
    if found.len() < digits {
        return Escape::Cut;
    }
    number(found, 16).map_or(Escape::None, |byte| Escape::Of(byte, before + digits))
}

/// `\u{2f}`, after its brace.
fn braced(text: &[u8]) -> Escape {
    let window = &text[..text.len().min(UNIT_MAX_BYTES - 3)];
    match window.iter().position(|byte| !byte.is_ascii_hexdigit()) {
        Some(end) if window[end] == b'}' => {
            number(&window[..end], 16).map_or(Escape::None, |byte| Escape::Of(byte, 3 + end + 1))
        }
        None if text.len() < UNIT_MAX_BYTES - 3 => Escape::Cut,
        _ => Escape::None,
    }
}

/// `\57`: at most three digits, and as many as there are.
fn octal(text: &[u8]) -> Escape {
    let window = &text[1..text.len().min(4)];
    let digits = window.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    if digits == window.len() && digits < 3 {
        return Escape::Cut;
    }
    number(&window[..digits], 8).map_or(Escape::None, |byte| Escape::Of(byte, 1 + digits))
}

fn number(digits: &[u8], radix: u32) -> Option<u8> {
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?;
    u8::try_from(number).ok().filter(u8::is_ascii)
}

/// `&amp;`, `&#38;` or `&#x26;`. Numbers and the oldest names need no `;`.
fn reference(text: &[u8]) -> Escape {
    let window = &text[1..text.len().min(UNIT_MAX_BYTES)];
    let digits = |from: usize, is: fn(&u8) -> bool| from + window[from..].iter().take_while(|byte| is(byte)).count();
    let (from, end, radix) = match window {
        [b'#', b'x' | b'X', ..] => (2, digits(2, u8::is_ascii_hexdigit), 16),
        [b'#', ..] => (1, digits(1, u8::is_ascii_digit), 10),
        _ => (0, digits(0, u8::is_ascii_alphanumeric), 0),
    };
    let closed = window.get(end) == Some(&b';');
    if end == window.len() {
        return if text.len() < UNIT_MAX_BYTES { Escape::Cut } else { Escape::None };
    }
    let byte = match radix {
        0 => name(&window[..end], closed),
        radix => number(&window[from..end], radix),
    };
    byte.map_or(Escape::None, |byte| Escape::Of(byte, 1 + end + usize::from(closed)))
}

fn name(name: &[u8], closed: bool) -> Option<u8> {
    let (_, byte) = NAMES.iter().find(|(known, _)| known.split(' ').any(|known| known.as_bytes() == name))?;
    let old = ["amp", "gt", "lt", "quot"].iter().any(|old| name.eq_ignore_ascii_case(old.as_bytes()));
    (closed || old).then_some(*byte)
}

/// Names of HTML for characters of ASCII that a secret may have
/// (<https://html.spec.whatwg.org/multipage/named-characters.html>).
const NAMES: [(&str, u8); 30] = [
    ("amp AMP", b'&'),
    ("apos", b'\''),
    ("ast midast", b'*'),
    ("bsol", b'\\'),
    ("colon", b':'),
    ("comma", b','),
    ("commat", b'@'),
    ("dollar", b'$'),
    ("equals", b'='),
    ("excl", b'!'),
    ("grave DiacriticalGrave", b'`'),
    ("gt GT", b'>'),
    ("Hat", b'^'),
    ("lcub lbrace", b'{'),
    ("lowbar UnderBar", b'_'),
    ("lpar", b'('),
    ("lsqb lbrack", b'['),
    ("lt LT", b'<'),
    ("num", b'#'),
    ("percnt", b'%'),
    ("period", b'.'),
    ("plus", b'+'),
    ("quest", b'?'),
    ("quot QUOT", b'"'),
    ("rcub rbrace", b'}'),
    ("rpar", b')'),
    ("rsqb rbrack", b']'),
    ("semi", b';'),
    ("sol", b'/'),
    ("verbar vert VerticalLine", b'|'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_their_languages_write_them() {
        for (text, found) in [
            ("%2Fx", Escape::Of(b'/', 3)),
            ("%2fx", Escape::Of(b'/', 3)),
            ("%2", Escape::Cut),
            ("%2x", Escape::None),
            ("%e4", Escape::None),
            ("\\/", Escape::Of(b'/', 2)),
            ("\\\\", Escape::Of(b'\\', 2)),
            ("\\n", Escape::None),
            ("\\", Escape::Cut),
            ("\\u003C", Escape::Of(b'<', 6)),
            ("\\u003c", Escape::Of(b'<', 6)),
            ("\\u00", Escape::Cut),
            ("\\u20ac", Escape::None),
            ("\\x27", Escape::Of(b'\'', 4)),
            ("&amp;x", Escape::Of(b'&', 5)),
            ("&#39;", Escape::Of(b'\'', 5)),
            ("&#039;", Escape::Of(b'\'', 6)),
            ("&#x27;", Escape::Of(b'\'', 6)),
            ("&#x2f", Escape::Cut),
            ("&#x2f-", Escape::Of(b'/', 5)),
            ("&#0000000047;", Escape::Of(b'/', 13)),
            ("&#", Escape::Cut),
            ("&rbrace;", Escape::Of(b'}', 8)),
            ("&DiacriticalGrave;", Escape::Of(b'`', 18)),
            ("&lt ", Escape::Of(b'<', 3)),
            ("&sol ", Escape::None),
            ("\\u{2f}", Escape::Of(b'/', 6)),
            ("\\u{2", Escape::Cut),
            ("\\u{2g}", Escape::None),
            ("\\57x", Escape::Of(b'/', 3)),
            ("\\057", Escape::Of(b'/', 4)),
            ("\\1445", Escape::Of(b'd', 4)),
            ("\\57", Escape::Cut),
            ("\\777", Escape::None),
            ("&nope;", Escape::None),
            ("&a=b", Escape::None),
            ("&verylongparameterofall", Escape::None),
            ("plain", Escape::None),
            ("", Escape::None),
        ] {
            assert_eq!(escape(text.as_bytes()), found, "{text}");
        }
        assert!(NAMES.iter().all(|(names, _)| names.split(' ').all(|name| name.len() + 2 <= UNIT_MAX_BYTES)));
    }
}
