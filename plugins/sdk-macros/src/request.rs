//! `plugin.toml`: what a plugin asks for, read when the crate is compiled.
//!
//! It becomes the JSON of the section `weir:request`. What its members may be, the server knows; here only their names
//! are held against a list, so that a slip of the pen is found at once.

use std::path::Path;

use proc_macro2::Span;
use syn::{Error, Result};
use toml::{Table, Value};

/// The members of the file, and of its lists.
const MEMBERS: [&str; 8] =
    ["name", "version", "description", "http", "secrets", "settings", "memory_max_bytes", "timeout_seconds"];
const LISTS: [(&str, &[&str]); 3] = [
    ("http", &["host", "scheme", "port", "methods", "path_prefix", "secrets"]),
    ("secrets", &["name", "description"]),
    ("settings", &["name", "description", "default"]),
];

/// The request, and the file that it is from.
pub(crate) struct Found {
    pub(crate) json: String,
    pub(crate) file: Option<String>,
}

/// Reads the request of the crate that is compiled.
pub(crate) fn read() -> Result<Found> {
    let fail = |message: String| Error::new(Span::call_site(), message);
    #[expect(clippy::disallowed_methods, reason = "cargo says by variables which crate it compiles")]
    let variable = |name: &str| std::env::var(name).map_err(|_| fail(format!("{name} is not set: build with cargo")));
    let file = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("plugin.toml");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(fail(format!("{}: {error}", file.display()))),
    };
    let mut request = Table::new();
    request.insert("name".to_owned(), Value::String(variable("CARGO_PKG_NAME")?));
    request.insert("version".to_owned(), Value::String(variable("CARGO_PKG_VERSION")?));
    let said: Table =
        text.as_deref().unwrap_or_default().parse().map_err(|error| fail(format!("plugin.toml: {error}")))?;
    if let Some(unknown) = unknown(&said) {
        return Err(fail(format!("plugin.toml: {unknown}")));
    }
    request.extend(said);
    let json = serde_json::to_string(&request).map_err(|error| fail(format!("plugin.toml: {error}")))?;
    Ok(Found { json, file: text.map(|_| file.display().to_string()) })
}

/// A member that there is not.
fn unknown(said: &Table) -> Option<String> {
    let of = |known: &[&str]| format!("; there are {}", known.join(", "));
    if let Some(name) = said.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Some(format!("`{name}` is unknown{}", of(&MEMBERS)));
    }
    for (list, known) in LISTS {
        let Some(entries) = said.get(list) else { continue };
        let tables = entries.as_array().map(|entries| entries.iter().map(Value::as_table).collect::<Option<Vec<_>>>());
        let Some(Some(tables)) = tables else { return Some(format!("`{list}` is written as [[{list}]]")) };
        let mut names = tables.into_iter().flat_map(Table::keys);
        if let Some(name) = names.find(|name| !known.contains(&name.as_str())) {
            return Some(format!("`{name}` in [[{list}]] is unknown{}", of(known)));
        }
    }
    None
}
