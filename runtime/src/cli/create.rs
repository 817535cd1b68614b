//! `weir plugin new`: a directory that builds and passes its tests as it is.

use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::{kit, print};
use crate::model::plugin::plugin_name_fault;

/// In which language a plugin is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// A crate that depends on the SDK.
    Rust,
    /// A module, made a component by componentize-py.
    Python,
    /// A module, made a component by componentize-js.
    Javascript,
}

/// Names that Cargo takes for no library: what is there already, and what its own output would hide.
const NO_CRATES: [&str; 8] = ["alloc", "build", "core", "deps", "proc_macro", "std", "test", "weir-sdk"];

/// Words of Rust: no library can have such a name.
const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn else enum extern false final fn for gen \
if impl in let loop macro match mod move mut override priv pub ref return self Self static struct super trait true try type typeof \
unsafe unsized use virtual where while yield ";

/// Makes the directory.
///
/// # Errors
/// When the name does not fit, or the directory is there.
pub(super) fn new(name: &str, language: Language) -> anyhow::Result<()> {
    if let Some(fault) = plugin_name_fault(name) {
        bail!("the name of a plugin {fault}");
    }
    let no_crate = NO_CRATES.contains(&name)
        || KEYWORDS.contains(&format!(" {name} "))
        || !name.starts_with(|first: char| first.is_ascii_alphabetic());
    if language == Language::Rust && no_crate {
        bail!("no crate can be named `{name}`: choose another name");
    }
    let mut files = Vec::new();
    let (template, test) = match language {
        Language::Rust => {
            files.extend(kit::sdk()?.into_iter().map(|(path, bytes)| (format!(".weir/{path}"), bytes)));
            ("rust", "cargo test")
        }
        Language::Python => {
            files.extend(kit::below("python").into_iter().filter(|(path, _)| path == "weir.py"));
            ("python", "python3 -m unittest")
        }
        Language::Javascript => {
            files.extend(kit::below("javascript").into_iter().filter(|(path, _)| path == "weir.js"));
            ("javascript", "node --test")
        }
    };
    for (path, bytes) in kit::below(&format!("template/{template}")) {
        let text = String::from_utf8(bytes).with_context(|| path.clone())?.replace("{{name}}", name);
        let path = if path == "gitignore" { ".gitignore".to_owned() } else { path };
        files.push((path, text.into_bytes()));
    }
    let directory = Path::new(name);
    std::fs::create_dir(directory).with_context(|| format!("the directory {name} cannot be made"))?;
    kit::write(&files, directory)?;
    print(&format!(
        "{name} is a plugin with one tool. Next:\n  cd {name}\n  {test}\n  weir plugin build\n  \
         weir plugin call {name}.wasm greet '{{\"name\": \"Ada\"}}'\n  \
         weir plugin test --record greet '{{\"name\": \"Ada\"}}'\n"
    ))
}
