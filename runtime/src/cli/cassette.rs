//! Cassettes: files with one call each, everything that it needs to be made again without a network, and how it ended.
//! No value of a secret is in one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use weir_host::egress::Secret;
use weir_host::plugin::{Flaw, Grant, Reach, Request};

use super::difference::{Difference, differences};
use crate::tools::{Loaded, Recorded, Replayed};

/// Most bytes of a cassette: a file that is larger is none.
const CASSETTE_MAX_BYTES: u64 = 64 << 20;

/// A cassette.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cassette {
    /// The call: its tool, its arguments, its requests with what came back, and how it ended.
    pub(super) call: Recorded,
    /// What it was granted, and its settings.
    #[serde(default)]
    pub(super) grant: Grant,
    /// Names of the secrets that it had.
    #[serde(default)]
    pub(super) secrets: Vec<String>,
}

/// What of a call was not as on its cassette.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Findings {
    pub(super) differences: Vec<Difference>,
    /// What was denied and why, for a person.
    pub(super) denied: Vec<String>,
}

/// The cassettes of a folder, by name; none where there is no such folder.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn list(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.with_context(|| folder.display().to_string())?;
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    Ok(paths)
}

impl Cassette {
    /// Reads a cassette.
    ///
    /// # Errors
    /// Names the member that is not as it must be.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let size = std::fs::metadata(file)?.len();
        if size > CASSETTE_MAX_BYTES {
            bail!("has {size} bytes, more than {CASSETTE_MAX_BYTES}");
        }
        let cassette: Self = serde_json::from_slice(&std::fs::read(file)?)?;
        for (n, exchange) in cassette.call.http.iter().enumerate() {
            if let Some((pointer, message)) = exchange.fault() {
                bail!("/call/http/{n}{pointer}: {message}");
            }
        }
        if cassette.call.unanswered > 0 {
            bail!("/call/unanswered: a call with requests that nothing came back to cannot be made again");
        }
        Ok(cassette)
    }

    /// Writes it, as people keep it under version control.
    ///
    /// # Errors
    /// When it cannot be written, or is there and was not to be replaced.
    pub(super) fn write(&self, file: &Path, replace: bool) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let mut options = std::fs::OpenOptions::new();
        // Somebody else may have written it meanwhile.
        options.write(true).create(true).truncate(true).create_new(!replace);
        let open = folder.and_then(|()| options.open(file));
        open.and_then(|mut open| open.write_all(text.as_bytes())).with_context(|| file.display().to_string())
    }

    /// Makes the call again, with these rights, and holds everything that it did against what was recorded.
    pub(super) async fn play(&self, plugin: &Loaded, request: &Request, grant: Grant) -> Findings {
        let grant = grant.with_secrets_of(request);
        let written = json!(grant);
        if let Err(flaws) = Grant::read(&written, request) {
            let difference = |flaw: &Flaw| Difference {
                wanted: written.pointer(&flaw.pointer).cloned(),
                pointer: format!("/grant{}", flaw.pointer),
                got: None,
            };
            let differences = flaws.iter().map(difference).collect();
            return Findings { differences, denied: flaws.into_iter().map(|flaw| flaw.message).collect() };
        }
        let replayed = plugin.replay_exactly(&self.call, reach(request, grant, &self.secrets)).await;
        let denied = replayed.denied.iter().map(|denial| format!("denied {}: {}", denial.wanted, denial.why));
        let differences = self.compare(&replayed);
        let denied = if differences.is_empty() { Vec::new() } else { denied.collect() };
        Findings { differences, denied }
    }

    fn compare(&self, replayed: &Replayed) -> Vec<Difference> {
        // What follows the first request that was not the recorded one is no wonder.
        if let Some(astray) = &replayed.astray {
            let (got, pointer) = (&astray.got, format!("/call/http/{}", astray.at));
            let Some(wanted) = &astray.wanted else {
                let got = Some(json!(format!("{} {}", got.method, got.url)));
                return vec![Difference { pointer, wanted: None, got }];
            };
            let asked = json!({"method": got.method, "url": got.url, "sent": got.body});
            let recorded = json!({"method": wanted.method, "url": wanted.url, "sent": wanted.sent});
            let mut found = differences(&pointer, &recorded, &asked);
            if let Some(headers) = &wanted.sent_headers {
                found.extend(differences(&format!("{pointer}/sent_headers"), &json!(headers), &json!(got.headers)));
            }
            return found;
        }
        let made = self.call.http.len().saturating_sub(replayed.unasked.len());
        let unasked = replayed.unasked.iter().enumerate().map(|(n, exchange)| Difference {
            pointer: format!("/call/http/{}", made + n),
            wanted: Some(json!(format!("{} {}", exchange.method, exchange.url))),
            got: None,
        });
        let mut found: Vec<Difference> = unasked.collect();
        let sorted = |mut wanted: Vec<String>| {
            wanted.sort_unstable();
            json!(wanted)
        };
        let denied = sorted(replayed.denied.iter().map(|denial| denial.wanted.clone()).collect());
        found.extend(differences("/call/denied", &sorted(self.call.denied.clone()), &denied));
        found.extend(differences("/call/outcome", &json!(self.call.outcome), &json!(replayed.outcome)));
        found
    }
}

/// What a call may reach that is made again: secrets have names and no value, since nothing leaves.
pub(super) fn reach(request: &Request, grant: Grant, secrets: &[String]) -> Arc<Reach> {
    let nowhere = |name: &String| Arc::new(Secret::new(name.clone(), String::new(), Vec::new()));
    Arc::new(Reach { request: request.clone(), grant, secrets: secrets.iter().map(nowhere).collect() })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(change: impl Fn(&mut Value)) -> anyhow::Result<Cassette> {
        let mut cassette = json!({
            "call": {
                "tool": "t", "arguments": {}, "outcome": {"answer": {"result": 1}},
                "http": [{"method": "GET", "url": "http://a.example.com/", "status": 200}],
            },
            "secrets": ["token"],
        });
        change(&mut cassette);
        let dir = tempfile::TempDir::new().expect("a directory");
        let file = dir.path().join("below/t.json");
        std::fs::create_dir(dir.path().join("below")).expect("made");
        std::fs::write(&file, cassette.to_string()).expect("written");
        let read = Cassette::read(&file)?;
        let again = dir.path().join("new/t.json");
        read.write(&again, false).expect("written");
        assert!(read.write(&again, false).is_err(), "it is there");
        read.write(&again, true).expect("replaced");
        assert_eq!(Cassette::read(&again).expect("read"), read);
        assert_eq!(list(&dir.path().join("new")).expect("read"), [again]);
        Ok(read)
    }

    #[test]
    fn cassettes_are_read_as_they_were_written_and_no_member_is_ignored() {
        assert_eq!(read(|_| ()).expect("sound").secrets, ["token"]);
        for (pointer, value, says) in [
            ("/colour", json!("red"), "unknown field `colour`"),
            ("/call/colour", json!("red"), "unknown field `colour`"),
            ("/call/http/0/status", json!(7), "/call/http/0/status: 7 is no status"),
            ("/call/http/0/received", json!({"base64": "?"}), "/call/http/0/received/base64: is not base64"),
            ("/call/unanswered", json!(1), "/call/unanswered"),
        ] {
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            let error = read(|cassette| {
                cassette.pointer_mut(parent).expect("there")[name] = value.clone();
            });
            let error = error.expect_err(pointer).to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(list(Path::new("nowhere")).expect("empty").is_empty());
    }
}
