//! Names of hosts in other letters than ASCII, as they stand in a request. Names are not checked here: what is none, the
//! host refuses.

use std::borrow::Cow;

use idna::{AsciiDenyList, domain_to_ascii_cow};

/// The authority of a URL with its host in ASCII, as URL parsers write it (UTS #46).
pub(crate) fn to_ascii(authority: &str) -> Cow<'_, str> {
    if authority.is_ascii() {
        return Cow::Borrowed(authority);
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    match (domain_to_ascii_cow(host.as_bytes(), AsciiDenyList::URL), port) {
        (Ok(host), Some(port)) => Cow::Owned(format!("{host}:{port}")),
        (Ok(host), None) => host,
        (Err(_), _) => Cow::Borrowed(authority),
    }
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
