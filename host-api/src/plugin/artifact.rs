//! Admission: bytes from a stranger become a component that is well-formed and asks for nothing that is not offered.
//!
//! Only parsers work here; the compiler sees nothing that did not pass.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::{Parser, Payload, Validator};
use wit_component::ComponentEncoder;

/// The custom section in which a plugin says who it is and what it wants: JSON object text.
pub(super) const REQUEST_SECTION: &str = "weir:request";

/// Core modules and components inside one component.
const NESTED_MAX: usize = 64;

/// Bytes of one function: for each of them the compiler takes more than a thousand bytes of memory.
const FUNCTION_MAX_BYTES: usize = 256 * 1024;

/// The interfaces that a component may import, each with the versions that fit.
const OFFERED: &[(&str, &str)] = &[
    ("weir:plugin/tool-types", "0.1."),
    ("weir:plugin/tool-log", "0.1."),
    ("weir:plugin/tool-progress", "0.1."),
    ("weir:plugin/tool-config", "0.1."),
    ("wasi:cli/stderr", "0.2."),
    ("wasi:cli/stdin", "0.2."),
    ("wasi:cli/stdout", "0.2."),
    ("wasi:clocks/monotonic-clock", "0.2."),
    ("wasi:clocks/wall-clock", "0.2."),
    ("wasi:http/outgoing-handler", "0.2."),
    ("wasi:http/types", "0.2."),
    ("wasi:io/error", "0.2."),
    ("wasi:io/poll", "0.2."),
    ("wasi:io/streams", "0.2."),
    ("wasi:random/insecure", "0.2."),
    ("wasi:random/insecure-seed", "0.2."),
    ("wasi:random/random", "0.2."),
];

/// What a plugin's component must export.
const EXPORTED: (&str, &str) = ("weir:plugin/tools", "0.1.");

/// Why bytes are not a plugin, in one sentence for whoever sent them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub(super) String);

impl Refused {
    /// A refusal in the words of somebody further in.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Who a plugin is and what it wants, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A component that may be stored and compiled.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The component, with its request in one top-level section.
    pub component: Vec<u8>,
    /// What it is: the SHA-256 of the component.
    pub digest: [u8; 32],
    /// The interfaces that it imports, in its order.
    pub imports: Vec<String>,
    /// Who it says it is, if it does.
    pub request: Option<Request>,
}

impl Artifact {
    /// Admits a component, or a core module with embedded component types, which is wrapped.
    ///
    /// # Errors
    /// Says what is malformed, missing, or wanted and not offered.
    pub fn admit(bytes: &[u8]) -> Result<Self, Refused> {
        let mut component = if Parser::is_core_wasm(bytes) {
            well_formed(bytes)?;
            Cow::Owned(wrap(bytes)?)
        } else if Parser::is_component(bytes) {
            Cow::Borrowed(bytes)
        } else {
            return Err(Refused("the bytes are no WebAssembly: neither a component nor a core module".to_owned()));
        };
        well_formed(&component)?;
        let found = Found::read(&component)?;
        found.check()?;
        let request = found.request()?;
        if let Some(section) = request.filter(|_| found.requests.iter().all(|(depth, _)| *depth > 0)) {
            let section = CustomSection { name: REQUEST_SECTION.into(), data: section.into() };
            let mut hoisted = component.to_vec();
            section.append_to_component(&mut hoisted);
            component = Cow::Owned(hoisted);
        }
        let request = request.map(parse_request).transpose()?;
        let imports = found.imports.clone();
        let digest = Sha256::digest(&component).into();
        Ok(Self { component: component.into_owned(), digest, imports, request })
    }
}

fn well_formed(bytes: &[u8]) -> Result<(), Refused> {
    let malformed = |error: wasmparser::BinaryReaderError| {
        Refused(format!("malformed WebAssembly at byte {}: {}", error.offset(), error.message()))
    };
    Validator::new().validate_all(bytes).map(|_| ()).map_err(malformed)
}

/// Makes a component of a core module, as `cargo build --target wasm32-unknown-unknown` leaves it.
fn wrap(module: &[u8]) -> Result<Vec<u8>, Refused> {
    let encode = || ComponentEncoder::default().validate(true).module(module)?.encode();
    encode().map_err(|error| Refused(format!("the core module cannot be made a component: {error:#}")))
}

fn parse_request(section: &[u8]) -> Result<Request, Refused> {
    serde_json::from_slice(section)
        .map_err(|error| Refused(format!("the section {REQUEST_SECTION} is not a request: {error}")))
}

/// What a component says about itself at its top, and the requests inside.
#[derive(Default)]
struct Found {
    imports: Vec<String>,
    exports: Vec<String>,
    /// Each with how deep it is nested.
    requests: Vec<(usize, Vec<u8>)>,
    nested: usize,
}

impl Found {
    fn read(component: &[u8]) -> Result<Self, Refused> {
        let malformed = |error: wasmparser::BinaryReaderError| Refused(format!("malformed WebAssembly: {error}"));
        let (mut found, mut depth) = (Self::default(), 0_usize);
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(malformed)? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                    depth += 1;
                    found.nested += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CodeSectionEntry(body) if body.range().len() > FUNCTION_MAX_BYTES => {
                    let size = body.range().len();
                    return Err(Refused(format!("a function has {size} bytes, more than {FUNCTION_MAX_BYTES}")));
                }
                Payload::CustomSection(section) if section.name() == REQUEST_SECTION => {
                    found.requests.push((depth, section.data().to_vec()));
                }
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        found.imports.push(import.map_err(malformed)?.name.name.to_string());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        found.exports.push(export.map_err(malformed)?.name.name.to_string());
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn check(&self) -> Result<(), Refused> {
        if self.nested > NESTED_MAX {
            return Err(Refused(format!("the component has {} modules inside, more than {NESTED_MAX}", self.nested)));
        }
        let unknown: Vec<&str> = self
            .imports
            .iter()
            .map(String::as_str)
            .filter(|import| !OFFERED.iter().any(|offered| names(import, *offered)))
            .collect();
        if !unknown.is_empty() {
            return Err(Refused(format!("the component imports what is not offered: {}", unknown.join(", "))));
        }
        if !self.exports.iter().any(|export| names(export, EXPORTED)) {
            let message = "the component does not export weir:plugin/tools@0.1.0, as a plugin must";
            return Err(Refused(message.to_owned()));
        }
        Ok(())
    }

    /// The one request: at the top, or in a module inside, from where it is hoisted.
    fn request(&self) -> Result<Option<&[u8]>, Refused> {
        let at = |top: bool| self.requests.iter().filter(move |(depth, _)| (*depth == 0) == top).map(|(_, data)| data);
        if at(true).count() > 1 || at(false).count() > 1 {
            return Err(Refused(format!("the component has more than one section {REQUEST_SECTION}")));
        }
        match (at(true).next(), at(false).next()) {
            (Some(top), Some(inside)) if top != inside => {
                Err(Refused(format!("the component has two sections {REQUEST_SECTION} that disagree")))
            }
            (top, inside) => Ok(top.or(inside).map(Vec::as_slice)),
        }
    }
}

/// Whether `name` is the interface in a version that fits, such as `wasi:io/poll@0.2.3`.
fn names(name: &str, (interface, line): (&str, &str)) -> bool {
    name.split_once('@').is_some_and(|(of, version)| of == interface && version.starts_with(line))
}
