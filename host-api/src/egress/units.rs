//! How texts write one character in other words: percent-encoding, escapes of JSON and JavaScript, references of HTML.
//! It knows nothing of secrets.

/// No escape is longer, in bytes.
pub(super) const UNIT_MAX_BYTES: usize = 12;

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
        [b'\\', b'u', rest @ ..] => hex(rest, 4, 2),
        [b'\\', b'x', rest @ ..] => hex(rest, 2, 2),
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

fn number(digits: &[u8], radix: u32) -> Option<u8> {
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?;
    u8::try_from(number).ok().filter(u8::is_ascii)
}

/// `&amp;`, `&#38;` or `&#x26;`.
fn reference(text: &[u8]) -> Escape {
    let window = &text[1..text.len().min(UNIT_MAX_BYTES)];
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'#';
    let Some(end) = window.iter().position(|byte| !part(byte)) else {
        return if text.len() < UNIT_MAX_BYTES { Escape::Cut } else { Escape::None };
    };
    let byte = match &window[..end] {
        _ if window[end] != b';' => None,
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        name => NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, byte)| *byte),
    };
    byte.map_or(Escape::None, |byte| Escape::Of(byte, end + 2))
}

/// Names of HTML for characters that a secret may have.
const NAMES: [(&str, u8); 33] = [
    ("amp", b'&'),
    ("AMP", b'&'),
    ("apos", b'\''),
    ("ast", b'*'),
    ("bsol", b'\\'),
    ("colon", b':'),
    ("comma", b','),
    ("commat", b'@'),
    ("dollar", b'$'),
    ("equals", b'='),
    ("excl", b'!'),
    ("grave", b'`'),
    ("gt", b'>'),
    ("Hat", b'^'),
    ("lbrace", b'{'),
    ("lbrack", b'['),
    ("lcub", b'{'),
    ("lowbar", b'_'),
    ("lpar", b'('),
    ("lsqb", b'['),
    ("lt", b'<'),
    ("num", b'#'),
    ("percnt", b'%'),
    ("period", b'.'),
    ("plus", b'+'),
    ("quest", b'?'),
    ("quot", b'"'),
    ("rcub", b'}'),
    ("rpar", b')'),
    ("rsqb", b']'),
    ("semi", b';'),
    ("sol", b'/'),
    ("verbar", b'|'),
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
            ("&#", Escape::Cut),
            ("&nope;", Escape::None),
            ("&a=b", Escape::None),
            ("&verylongparameter", Escape::None),
            ("plain", Escape::None),
            ("", Escape::None),
        ] {
            assert_eq!(escape(text.as_bytes()), found, "{text}");
        }
        assert!(NAMES.iter().all(|(name, _)| name.len() + 2 <= UNIT_MAX_BYTES));
    }
}
