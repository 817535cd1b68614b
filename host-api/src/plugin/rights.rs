//! What a plugin asks for and what an operator grants, read from JSON with every fault. What follows from it is in
//! `access.rs`, never here.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::Value;
use url::Url;

use super::access::{Grant, HttpRule, Request, SecretWish, SettingWish, root};
use super::artifact::Refused;
use super::document::{At, Flaw, Flaws, read_json};
use super::path::hides;
use crate::egress::{HostPattern, Scheme};

/// Most rules, secrets and settings of a request or a grant.
const ENTRIES_MAX: usize = 64;

/// Longest name of a secret or a setting, and longest description and setting, in bytes.
const NAME_MAX_BYTES: usize = 64;
const TEXT_MAX_BYTES: usize = 4096;

/// Least memory that a limit may say: one page. No guest runs with less.
const MEMORY_MIN_BYTES: u64 = 65_536;

/// Most flaws of a request that its refusal tells.
const FLAWS_TOLD: usize = 20;

impl HttpRule {
    /// Reads a rule; `secret_fault` says what is wrong with the name of a secret, if anything.
    fn read(at: &At<'_>, secret_fault: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let mut members = at.members()?;
        let host = members.require("host", |at| at.parsed(HostPattern::parse));
        let scheme = members.take("scheme", |at| at.parsed(Scheme::parse));
        let port = members.take("port", |at| at.number(1, u16::MAX.into())?.try_into().ok());
        let methods = members.require("methods", |at| {
            let methods = at.set(ENTRIES_MAX, method_fault)?;
            if methods.is_empty() {
                at.flaw("names no method");
            }
            Some(methods)
        });
        let path_prefix = members.take("path_prefix", |at| at.parsed(prefix));
        let secrets = members.take("secrets", |at| at.set(ENTRIES_MAX, secret_fault));
        members.finish();
        Some(Self {
            host: host?,
            scheme: scheme?.unwrap_or_default(),
            port: port?,
            methods: methods?,
            path_prefix: path_prefix?.unwrap_or_else(root),
            secrets: secrets?.unwrap_or_default(),
        })
    }
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Names every member that is not as it must be.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        let (value, mut flaws) = read_json(json).map_err(|error| Refused::new(error.to_string()))?;
        match Self::read(&value) {
            Ok(request) if flaws.is_empty() => return Ok(request),
            Ok(_) => {}
            Err(more) => flaws.extend(more),
        }
        let told: Vec<String> = flaws.iter().take(FLAWS_TOLD).map(Flaw::to_string).collect();
        Err(Refused::new(told.join("; ")))
    }

    fn read(value: &Value) -> Result<Self, Vec<Flaw>> {
        let flaws = Flaws::default();
        let at = At::top(value, &flaws);
        let read = at.members().and_then(|mut members| {
            let name = members.require("name", |at| at.text().map(str::to_owned));
            let version = members.take("version", |at| at.text().map(str::to_owned));
            let description = members.take("description", text);
            let secrets = members.take("secrets", |at| {
                let wishes = at.list(ENTRIES_MAX, |at| {
                    let (name, description, _) = wish(at, false)?;
                    Some(SecretWish { name, description })
                })?;
                once(at, wishes.iter().map(|wish| &wish.name)).map(|()| wishes)
            });
            let settings = members.take("settings", |at| {
                let wishes = at.list(ENTRIES_MAX, |at| {
                    let (name, description, default) = wish(at, true)?;
                    Some(SettingWish { name, description, default })
                })?;
                once(at, wishes.iter().map(|wish| &wish.name)).map(|()| wishes)
            });
            let asked = secrets.as_ref().map(|secrets| secrets.as_deref().unwrap_or_default());
            let http = members.take("http", |at| {
                at.list(ENTRIES_MAX, |at| {
                    let rule = HttpRule::read(at, |_| None)?;
                    let known = |name: &&String| asked.is_none_or(|all| all.iter().any(|wish| wish.name == **name));
                    if let Some(unknown) = rule.secrets.iter().find(|name| !known(name)) {
                        at.flaw(format!(
                            "names the secret `{unknown}`, which the request does not ask for in its own `secrets`"
                        ));
                    }
                    Some(rule)
                })
            });
            let memory_max_bytes = members.take("memory_max_bytes", memory);
            let timeout_seconds = members.take("timeout_seconds", seconds);
            members.finish();
            Some(Self {
                name: name?,
                version: version?,
                description: description?,
                http: http?.unwrap_or_default(),
                secrets: secrets?.unwrap_or_default(),
                settings: settings?.unwrap_or_default(),
                memory_max_bytes: memory_max_bytes?,
                timeout_seconds: timeout_seconds?,
            })
        });
        flaws.settle(read)
    }
}

impl Grant {
    /// Reads what somebody grants to who asks for `request`.
    ///
    /// # Errors
    /// Everything in it that is not as it must be, or cannot be granted.
    pub fn read(value: &Value, request: &Request) -> Result<Self, Vec<Flaw>> {
        let flaws = Flaws::default();
        let at = At::top(value, &flaws);
        let read = at.members().and_then(|mut members| {
            let unknown = |name: &str| {
                let asked = request.secrets.iter().any(|wish| wish.name == name);
                (!asked).then(|| "the plugin asks for no such secret".to_owned())
            };
            let http = members.take("http", |at| at.list(ENTRIES_MAX, |at| HttpRule::read(at, unknown)));
            let settings = members.take("settings", |at| {
                let mut settings = BTreeMap::new();
                for (name, at) in at.entries()? {
                    if !request.settings.iter().any(|wish| wish.name == name) {
                        at.flaw("the plugin knows no such setting");
                    } else if let Some(value) = text(&at) {
                        settings.insert(name.to_owned(), value);
                    }
                }
                Some(settings)
            });
            let memory_max_bytes = members.take("memory_max_bytes", memory);
            let timeout_seconds = members.take("timeout_seconds", seconds);
            members.finish();
            Some(Self {
                http: http?.unwrap_or_default(),
                settings: settings?.unwrap_or_default(),
                memory_max_bytes: memory_max_bytes?,
                timeout_seconds: timeout_seconds?,
            })
        });
        flaws.settle(read)
    }
}

/// What is wrong with a method of a rule, if anything.
fn method_fault(name: &str) -> Option<String> {
    if ["CONNECT", "TRACE"].contains(&name) {
        return Some(format!("`{name}` is not allowed: no plugin makes requests with CONNECT or TRACE"));
    }
    let usable = Method::from_bytes(name.as_bytes()).is_ok() && !name.contains('*');
    let sound = usable && !name.bytes().any(|byte| byte.is_ascii_lowercase());
    (!sound).then(|| {
        format!(
            "`{name}` is not a method: write each in upper case, such as GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
        )
    })
}

/// The beginning of a path.
fn prefix(text: &str) -> Result<String, String> {
    let odd = Url::parse("http://host/").is_ok_and(|mut plain| {
        plain.set_path(text);
        !text.starts_with('/') || plain.path() != text || hides(text)
    });
    if odd { Err(format!("`{text}` is not the beginning of a path, as a URL writes it")) } else { Ok(text.to_owned()) }
}

/// A text that is not too long.
fn text(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    if text.len() > TEXT_MAX_BYTES {
        at.flaw(format!("has more than {TEXT_MAX_BYTES} bytes"));
        return None;
    }
    Some(text.to_owned())
}

fn memory(at: &At<'_>) -> Option<u64> {
    at.number(MEMORY_MIN_BYTES, u64::MAX)
}

fn seconds(at: &At<'_>) -> Option<u32> {
    at.number(1, u32::MAX.into())?.try_into().ok()
}

/// A secret or a setting: its name, what it is for, and its default where it can have one.
fn wish(at: &At<'_>, has_default: bool) -> Option<(String, Option<String>, Option<String>)> {
    let mut members = at.members()?;
    let sound = |name: &str| name_fault(name).map_or_else(|| Ok(name.to_owned()), Err);
    let name = members.require("name", |at| at.parsed(sound));
    let description = members.take("description", text);
    let default = if has_default { members.take("default", text) } else { Some(None) };
    members.finish();
    Some((name?, description?, default?))
}

/// Notes names that are there twice.
fn once<'n>(at: &At<'_>, names: impl Iterator<Item = &'n String>) -> Option<()> {
    let mut seen = BTreeSet::new();
    let twice = names.filter(|name| !seen.insert(*name)).map(|name| format!("`{name}` is there twice"));
    let twice: Vec<String> = twice.collect();
    twice.iter().for_each(|message| at.flaw(message.as_str()));
    twice.is_empty().then_some(())
}

/// What is wrong with the name of a secret or a setting, if anything.
#[must_use]
pub fn name_fault(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let sound = starts && name.len() <= NAME_MAX_BYTES && name.bytes().all(fits);
    (!sound).then(|| {
        format!("must be 1 to {NAME_MAX_BYTES} characters of A-Z a-z 0-9 _ - and dot, and begin with a letter")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(http: &Value) -> Result<Request, Refused> {
        let secrets = json!([{"name": "token"}, {"name": "other"}]);
        Request::parse(json!({"name": "p", "http": http, "secrets": secrets}).to_string().as_bytes())
    }

    #[test]
    fn a_request_names_its_own_faults() {
        for (http, fault) in [
            (json!([{"host": "a.com", "methods": []}]), "`http[0].methods` names no method"),
            (json!([{"host": "a.com", "methods": ["get"]}]), "`http[0].methods[0]` `get` is not a method"),
            (json!([{"host": "a.com", "methods": ["CONNECT"]}]), "`http[0].methods[0]` `CONNECT` is not allowed"),
            (json!([{"host": "a.com", "methods": ["TRACE"]}]), "`TRACE` is not allowed"),
            (json!([{"host": "a.com", "methods": ["trace"]}]), "`trace` is not a method"),
            (json!([{"host": "a.com", "methods": ["*"]}]), "`*` is not a method"),
            (json!([{"host": "a.com", "methods": ["GET", "GET"]}]), "`http[0].methods[1]` `GET` is there twice"),
            (json!([{"host": "a b", "methods": ["GET"]}]), "`http[0].host` `a b` is not a host"),
            (json!([{"host": "a..b", "methods": ["GET"]}]), "`a..b` is not a host"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "x"}]), "`http[0].path_prefix` `x`"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "/a/../b"}]), "`/a/../b` is not"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "/a%2fb"}]), "`http[0].path_prefix`"),
            (json!([{"host": "a.com", "methods": ["GET"], "path_prefix": "/a/..;"}]), "`http[0].path_prefix`"),
            (json!([{"host": "a.com", "methods": ["GET"], "port": 0}]), "`http[0].port` must be"),
            (json!([{"host": "a.com", "methods": ["GET"], "secrets": ["x"]}]), "`http[0]` names the secret `x`"),
            (json!([{"host": "a.com", "methods": ["GET"], "colour": "red"}]), "unknown member `colour`"),
            (json!([{"methods": ["GET"]}]), "`http[0]` `host` is missing"),
            (json!([["a.com", "https", null, ["GET"]]]), "`http[0]` must be an object, not an array"),
            (json!({"host": "a.com"}), "`http` must be an array, not an object"),
        ] {
            let refused = request(&http).expect_err("refused").to_string();
            assert!(refused.contains(fault), "{refused}");
        }
        for (document, told) in [
            (r#"["arr2", "1"]"#, "must be an object, not an array"),
            (
                r#"{"name": "p", "secrets": [["token"]], "memory_max_bytes": 1, "timeout_seconds": 0}"#,
                "`secrets[0]` must be an object, not an array; `memory_max_bytes` must be a whole number from 65536 up; \
                 `timeout_seconds` must be a whole number from 1 to 4294967295",
            ),
            (
                r#"{"name": "p", "settings": [{"name": "a"}, {"name": "a", "default": 1}]}"#,
                "`settings[1].default` must be a string, not a number",
            ),
            (r#"{"name": "p", "settings": [{"name": "a"}, {"name": "a"}]}"#, "`settings` `a` is there twice"),
            (r#"{"name": "p", "name": "q"}"#, "`name` is there twice"),
            (r#"{"version": "1"}"#, "`name` is missing"),
        ] {
            assert_eq!(Request::parse(document.as_bytes()).expect_err("refused").to_string(), told);
        }
    }

    #[test]
    fn a_grant_is_read_whole_and_every_fault_has_its_pointer() {
        let asking = json!({"name": "p", "settings": [{"name": "colour"}]}).to_string();
        let asking = Request::parse(asking.as_bytes()).expect("a request");
        let rule = json!({"host": "a.com", "methods": ["GET"], "scheme": "http", "port": null});
        let sound = json!({"http": [rule], "settings": {"colour": "red"}, "memory_max_bytes": 65536});
        let grant = Grant::read(&sound, &asking).expect("a grant");
        assert_eq!((grant.http[0].origin().port, grant.memory_max_bytes), (80, Some(65536)));
        assert_eq!(Grant::read(&json!({}), &asking), Ok(Grant::default()));
        let unsound = json!({
            "http": [["a.com"], {}, {"host": "-a", "methods": "GET", "scheme": "ftp", "x/y": 1}],
            "settings": {"size": "1", "colour": 1}, "memory_max_bytes": 65535, "colour": 1,
        });
        let flaws = Grant::read(&unsound, &asking).expect_err("unsound");
        let pointers: Vec<&str> = flaws.iter().map(|flaw| flaw.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/http/0",
                "/http/1",
                "/http/1",
                "/http/2/host",
                "/http/2/scheme",
                "/http/2/methods",
                "/http/2/x~1y",
                "/settings/size",
                "/settings/colour",
                "/memory_max_bytes",
                "/colour"
            ]
        );
        for shape in [json!([]), json!([[]]), json!(null), json!("all")] {
            let flaws = Grant::read(&shape, &asking).expect_err("no object");
            assert_eq!((flaws.len(), flaws[0].pointer.as_str()), (1, ""), "{shape}");
        }
    }

    #[test]
    fn no_secret_is_granted_that_nobody_asks_for() {
        let grant = |secrets: Value| json!({"http": [{"host": "a.com", "methods": ["GET"], "secrets": secrets}]});
        let asking = request(&json!([])).expect("a request");
        assert!(Grant::read(&grant(json!(["token", "other"])), &asking).is_ok());
        let flaws = Grant::read(&grant(json!(["token", "nobody", "", "a b"])), &asking).expect_err("unknown");
        let told: Vec<String> = flaws.iter().map(|Flaw { pointer, message }| format!("{pointer}: {message}")).collect();
        let unknown = |n: u32| format!("/http/0/secrets/{n}: the plugin asks for no such secret");
        assert_eq!(told, [1, 2, 3].map(unknown));
        assert!(Grant::read(&grant(json!(["token"])), &Request::default()).is_err());
    }
}
