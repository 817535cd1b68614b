//! Admission: bytes from a stranger become a component that is well-formed and asks for nothing that is not offered.
//!
//! Only parsers work here; the compiler sees nothing that did not pass.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};
use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::{FunctionBody, Operator, Parser, Payload, Validator};
use wit_component::ComponentEncoder;

use super::access::Request;

/// The custom section in which a plugin says who it is and what it wants: JSON object text.
pub(super) const REQUEST_SECTION: &str = "weir:request";

/// Bytes of that section.
const REQUEST_MAX_BYTES: usize = 64 * 1024;

/// Core modules and components inside one component.
const NESTED_MAX: usize = 64;

/// Bytes of one function: for each of them the compiler takes more than a thousand bytes of memory.
/// The largest of JavaScript's interpreter has 168 KiB, of Python's 179 KiB.
const FUNCTION_MAX_BYTES: usize = 256 * 1024;

/// Bytes of one function that does nothing but store addresses, which costs the compiler a sixth as much or less. One
/// with which Python's libraries relocate their data has 417 KiB.
const RELOCATION_MAX_BYTES: usize = 1024 * 1024;

/// The interfaces that a component may import, each with the versions that fit. Files, sockets, environment and
/// terminals are there because the standard libraries of Python and others cannot be linked without them, and there is
/// nothing in them: see `Guest`.
const OFFERED: &[(&str, &str)] = &[
    ("weir:plugin/tool-types", "0.1."),
    ("weir:plugin/tool-log", "0.1."),
    ("weir:plugin/tool-progress", "0.1."),
    ("weir:plugin/tool-config", "0.1."),
    ("wasi:cli/environment", "0.2."),
    ("wasi:cli/exit", "0.2."),
    ("wasi:cli/stderr", "0.2."),
    ("wasi:cli/stdin", "0.2."),
    ("wasi:cli/stdout", "0.2."),
    ("wasi:cli/terminal-input", "0.2."),
    ("wasi:cli/terminal-output", "0.2."),
    ("wasi:cli/terminal-stderr", "0.2."),
    ("wasi:cli/terminal-stdin", "0.2."),
    ("wasi:cli/terminal-stdout", "0.2."),
    ("wasi:clocks/monotonic-clock", "0.2."),
    ("wasi:clocks/wall-clock", "0.2."),
    ("wasi:filesystem/preopens", "0.2."),
    ("wasi:filesystem/types", "0.2."),
    ("wasi:http/outgoing-handler", "0.2."),
    ("wasi:http/types", "0.2."),
    ("wasi:io/error", "0.2."),
    ("wasi:io/poll", "0.2."),
    ("wasi:io/streams", "0.2."),
    ("wasi:random/insecure", "0.2."),
    ("wasi:random/insecure-seed", "0.2."),
    ("wasi:random/random", "0.2."),
    ("wasi:sockets/instance-network", "0.2."),
    ("wasi:sockets/ip-name-lookup", "0.2."),
    ("wasi:sockets/network", "0.2."),
    ("wasi:sockets/tcp", "0.2."),
    ("wasi:sockets/tcp-create-socket", "0.2."),
    ("wasi:sockets/udp", "0.2."),
    ("wasi:sockets/udp-create-socket", "0.2."),
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
    if section.len() > REQUEST_MAX_BYTES {
        let size = section.len();
        return Err(Refused(format!("the section {REQUEST_SECTION} has {size} bytes, more than {REQUEST_MAX_BYTES}")));
    }
    Request::parse(section)
        .map_err(|error| Refused(format!("the section {REQUEST_SECTION} (`plugin.toml`) is not a request: {error}")))
}

/// Whether a function does nothing but store addresses, one after another.
fn relocates(body: &FunctionBody<'_>) -> Result<bool, wasmparser::BinaryReaderError> {
    use Operator::{End, GlobalGet, I32Add, I32Const, I32Store};
    for operator in body.get_operators_reader()? {
        if !matches!(operator?, GlobalGet { .. } | I32Const { .. } | I32Add | I32Store { .. } | End) {
            return Ok(false);
        }
    }
    Ok(true)
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
                    if size > RELOCATION_MAX_BYTES || !relocates(&body).map_err(malformed)? {
                        return Err(Refused(format!("a function has {size} bytes, more than {FUNCTION_MAX_BYTES}")));
                    }
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
