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
    let path = path.to_ascii_lowercase();
    // To some servers a `;` ends a segment, so `..;` is `..` to them.
    let dots = |segment: &str| {
        let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
        rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3b"))
    };
    ["%2f", "%5c", "%2e", "\\", "//"].iter().any(|hidden| path.contains(hidden)) || path.split('/').any(dots)
}
