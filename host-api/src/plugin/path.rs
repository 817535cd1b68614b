//! Paths of rules: what lies below a prefix, whoever reads the path. It parses no URLs.

/// Whether `path` is `prefix` or below it. A path that a server could read as another one is below nothing but the root.
pub(super) fn below(prefix: &str, path: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    !hides(path) && rest.is_some_and(|rest| rest.is_empty() && !prefix.ends_with('/') || rest.starts_with('/'))
}

/// Whether separators or dots are written so that only some servers see them.
pub(super) fn hides(path: &str) -> bool {
    let path = encoded_once(&path.to_ascii_lowercase());
    // To some servers a `;` ends a segment, so `..;` is `..` to them; to others a zero or a space does.
    let dots = |segment: &str| {
        let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
        rest.is_some_and(|rest| [";", "%3b", "%00", "%09", "%20"].iter().any(|end| rest.starts_with(end)))
    };
    // `%c0` and `%c1` begin what is longer than UTF-8 allows.
    let hidden = ["%2f", "%5c", "%2e", "\\", "//", "%c0%", "%c1%"];
    hidden.iter().any(|hidden| path.contains(hidden)) || path.split('/').any(dots)
}

/// The path as the last of several servers reads it, each of which decodes what is encoded more than once (`%252e`).
fn encoded_once(path: &str) -> String {
    let mut parts = path.split('%');
    let mut once = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        once.push('%');
        once.push_str(part.trim_start_matches("25"));
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_some_server_reads_as_another_is_below_nothing() {
        for path in ["/a", "/a/b", "/a/b%20c", "/a/..b", "/a/.b", "/a/100%25", "/a/%2520", "/a/%C3%A9", "/a/b;c=d"] {
            assert!(below("/a", path), "{path}");
        }
        for path in [
            "/a/..%00/b",
            "/a/..%20/b",
            "/a/.%09/b",
            "/a/..;/b",
            "/a/..%3B/b",
            "/a/%2e%2e/b",
            "/a/%252e%252e/b",
            "/a/%25252Fb",
            "/a/..%252500/b",
            "/a/%25c0%25ae",
            "/a/%255c",
            "/a/%c0%ae%c0%ae/b",
            "/a/%C1%9C",
            "/a//b",
            "/a\\b",
            "/ab",
            "/b",
        ] {
            assert!(!below("/a", path), "{path}");
        }
        assert!(below("/", "/..%00/b"), "below the root anything goes");
    }
}
