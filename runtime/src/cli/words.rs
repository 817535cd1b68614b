//! What a plugin asks for and is granted, in plain words.

use weir_host::plugin::{Grant, Request};

use crate::telemetry::one_line;

/// Bytes, as people say them.
pub(super) fn bytes(count: u64) -> String {
    match count {
        count if count >= 1 << 20 && count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        count if count >= 1 << 10 && count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        count => format!("{count} bytes"),
    }
}

/// A line for each, behind what they are.
fn listed(what: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<String> = lines.into_iter().collect();
    lines.iter().enumerate().fold(String::new(), |text, (n, line)| {
        let what = if n == 0 { what } else { "" };
        text + &format!("  {what:<9}{line}\n")
    })
}

/// A name, what it is for, and its default.
fn wish(name: &str, description: Option<&str>, default: Option<&str>) -> String {
    let description = description.map(|text| format!(": {}", text.replace(['\n', '\r'], " "))).unwrap_or_default();
    let default = default.map(|value| format!(" (default `{}`)", one_line(value))).unwrap_or_default();
    format!("{name}{description}{default}")
}

fn limits(memory_max_bytes: Option<u64>, timeout_seconds: Option<u32>) -> String {
    let memory = memory_max_bytes.map(|most| format!("{} of memory", bytes(most)));
    let time = timeout_seconds.map(|most| format!("{most} seconds for a call"));
    listed("limits", memory.into_iter().chain(time).map(|limit| format!("no more than {limit}")))
}

/// What a plugin says that it is, and what it asks for: a line each for requests, secrets, settings and limits.
pub(super) fn asked(request: &Request) -> String {
    // On one line: what a stranger says must not look like a line of ours.
    let mut text = listed("says", request.description.iter().map(|text| text.replace(['\n', '\r'], " ")));
    text += &listed("asks for", request.http.iter().map(ToString::to_string));
    if request.http.is_empty() {
        text += "  asks for no request to anybody\n";
    }
    let secrets = request.secrets.iter();
    text += &listed("secrets", secrets.map(|secret| wish(&secret.name, secret.description.as_deref(), None)));
    let settings = request.settings.iter();
    text +=
        &listed("settings", settings.map(|one| wish(&one.name, one.description.as_deref(), one.default.as_deref())));
    text + &limits(request.memory_max_bytes, request.timeout_seconds)
}

/// What a plugin is granted.
pub(super) fn granted(grant: Option<&Grant>) -> String {
    let Some(grant) = grant else { return "  granted  nothing, and nobody decided so\n".to_owned() };
    let mut text = listed("granted", grant.http.iter().map(ToString::to_string));
    if grant.http.is_empty() {
        text += "  granted  no request to anybody\n";
    }
    text += &listed("settings", grant.settings.iter().map(|(name, value)| format!("{name} = {}", one_line(value))));
    text + &limits(grant.memory_max_bytes, grant.timeout_seconds)
}

/// How what `request` asks for differs from what was granted before: `+` is new, `-` is not asked for any more.
pub(super) fn difference(request: &Request, before: &Grant) -> String {
    let more = request.beyond(before).into_iter().map(|rule| format!("  + {rule}\n"));
    let after = Grant::all_of(request);
    let as_request = |grant: &Grant| Request { http: grant.http.clone(), ..Request::default() };
    let less = as_request(before).beyond(&after).into_iter().map(|rule| format!("  - {rule}\n"));
    more.chain(less).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rules: &str) -> Request {
        Request::parse(
            format!(
                r#"{{"name": "x", "description": "Reads\n  asks for nothing.", "secrets": [{{"name": "token", "description": "to read"}}],
            "settings": [{{"name": "repo", "default": "a/b"}}], "memory_max_bytes": 1048576, "http": {rules}}}"#
            )
            .as_bytes(),
        )
        .expect("a request")
    }

    #[test]
    fn requests_are_told_in_words() {
        let asks = request(
            r#"[{"host": "a.example.com", "methods": ["GET"], "path_prefix": "/x", "secrets": ["token"]},
            {"host": "*.example.com", "methods": ["GET", "POST"]}]"#,
        );
        assert_eq!(
            asked(&asks),
            "  says     Reads   asks for nothing.\n  asks for GET https://a.example.com/x and below, with the secret `token`\n           \
             GET, POST https://*.example.com/\n  secrets  token: to read\n  settings repo (default `a/b`)\n  \
             limits   no more than 1 MiB of memory\n"
        );
        assert_eq!(asked(&Request::default()), "  asks for no request to anybody\n");
    }

    #[test]
    fn what_is_new_and_what_went_is_told() {
        let before = Grant::all_of(&request(r#"[{"host": "a.example.com", "methods": ["GET"]}]"#));
        let after = request(r#"[{"host": "a.example.com", "methods": ["GET", "POST"]}]"#);
        assert_eq!(difference(&after, &before), "  + GET, POST https://a.example.com/\n");
        let after = request(r#"[{"host": "b.example.com", "methods": ["GET"]}]"#);
        assert_eq!(difference(&after, &before), "  + GET https://b.example.com/\n  - GET https://a.example.com/\n");
        let after = request(r#"[{"host": "a.example.com", "methods": ["GET"], "path_prefix": "/b"}]"#);
        assert_eq!(difference(&after, &before), "  - GET https://a.example.com/\n");
        assert_eq!(granted(None), "  granted  nothing, and nobody decided so\n");
    }
}
