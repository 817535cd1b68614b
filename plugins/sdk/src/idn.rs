//! Names of hosts in other letters than ASCII, as they stand in a request: in small letters, each label in Punycode
//! (RFC 3492). It checks no names: what is none, the host refuses.

use std::borrow::Cow;

/// The authority of a URL in ASCII. Letters must be composed (NFC), as keyboards and most programs write them.
pub(crate) fn to_ascii(authority: &str) -> Cow<'_, str> {
    if authority.is_ascii() {
        return Cow::Borrowed(authority);
    }
    let label = |label: &str| match label.is_ascii() {
        true => label.to_owned(),
        false => punycode(&label.to_lowercase()).map_or_else(|| label.to_owned(), |code| format!("xn--{code}")),
    };
    // The other full stops of IDNA.
    let labels = authority.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).map(|text| match text.split_once(':') {
        Some((last, port)) => format!("{}:{port}", label(last)),
        None => label(text),
    });
    Cow::Owned(labels.collect::<Vec<_>>().join("."))
}

/// A label in Punycode; none where it is far too long for a name.
fn punycode(label: &str) -> Option<String> {
    const BASE: u32 = 36;
    let letters: Vec<u32> = label.chars().map(u32::from).collect();
    let mut code: String = label.chars().filter(char::is_ascii).collect();
    let plain = u32::try_from(code.len()).ok()?;
    if plain > 0 {
        code.push('-');
    }
    let (mut next, mut delta, mut bias, mut done) = (128, 0_u32, 72, plain);
    while let Some(least) = letters.iter().copied().filter(|letter| *letter >= next).min() {
        delta = delta.checked_add((least - next).checked_mul(done + 1)?)?;
        for letter in &letters {
            if *letter < least {
                delta = delta.checked_add(1)?;
            }
            if *letter != least {
                continue;
            }
            let (mut rest, mut k) = (delta, BASE);
            loop {
                let t = k.saturating_sub(bias).clamp(1, 26);
                if rest < t {
                    break;
                }
                code.push(digit(t + (rest - t) % (BASE - t))?);
                rest = (rest - t) / (BASE - t);
                k += BASE;
            }
            code.push(digit(rest)?);
            bias = adapted(delta, done + 1, done == plain);
            (delta, done) = (0, done + 1);
        }
        (delta, next) = (delta.checked_add(1)?, least + 1);
    }
    Some(code)
}

fn digit(value: u32) -> Option<char> {
    "abcdefghijklmnopqrstuvwxyz0123456789".chars().nth(usize::try_from(value).ok()?)
}

/// The bias after a letter: section 6.1.
fn adapted(delta: u32, letters: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / letters;
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_url_parsers_write_them() {
        for name in [
            "api.example.com:8080",
            "münchen.invalid",
            "MÜNCHEN.invalid:8443",
            "bücher.straße.example",
            "例え.テスト",
            "правительство.рф",
            "faß。example",
            "xn--mnchen-3ya.invalid",
            "a-ü-b-ö-c.ελληνικά.example",
            "他们为什么不说中文.example",
        ] {
            let url = url::Url::parse(&format!("https://{name}/")).expect("a URL");
            let written = match url.port() {
                Some(port) => format!("{}:{port}", url.host_str().expect("a host")),
                None => url.host_str().expect("a host").to_owned(),
            };
            assert_eq!(to_ascii(name), written, "{name}");
        }
    }
}
