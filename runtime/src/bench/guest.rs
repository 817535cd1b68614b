//! The plugin that is measured with, made from its text: a core module with the contract's types inside, as a compiler
//! would leave it.

use anyhow::Context as _;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Tools of the guest that are stopped by a limit: each never ends, takes all memory, all stack, traps, or floods.
pub(super) const MISBEHAVING: [&str; 5] = ["loop", "grow", "deep", "trap", "pour"];

/// The plugin's name.
pub(super) const NAME: &str = "weir-bench";

/// The plugin's bytes. It is named `weir-bench`, and its tool `echo` answers with its arguments.
///
/// # Errors
/// When the text does not fit the contract, which is a defect.
pub fn module() -> anyhow::Result<Vec<u8>> {
    named(NAME)
}

/// The same plugin under another name, which makes it another plugin.
pub(super) fn named(name: &str) -> anyhow::Result<Vec<u8>> {
    let text = include_str!("guest.wat").replace(NAME, name);
    let mut module = wat::parse_str(text).context("guest.wat")?;
    let mut contract = Resolve::new();
    let package = contract.push_str("plugin.wit", include_str!("../../../wit/plugin.wit"))?;
    let world = contract.select_world(&[package], Some("plugin"))?;
    embed_component_metadata(&mut module, &contract, world, StringEncoding::UTF8)?;
    Ok(module)
}
