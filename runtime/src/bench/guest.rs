//! The plugins that are measured with, made from their text: core modules with the contract's types inside, as a compiler
//! would leave them.

use anyhow::Context as _;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Tools of the guest that are stopped: the first never ends. Of the others each takes all memory at once or page by page,
/// all of a table, or all stack, traps, floods, answers with what is no answer, or with JSON that is too deep.
pub(super) const MISBEHAVING: [&str; 9] = ["loop", "grow", "step", "wide", "deep", "trap", "pour", "fake", "nest"];

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
    with_contract(&include_str!("guest.wat").replace(NAME, name)).context("guest.wat")
}

/// The plugin that uses its rights: a setting and a secret.
pub(super) fn with_rights() -> anyhow::Result<Vec<u8>> {
    with_contract(include_str!("rights.wat")).context("rights.wat")
}

fn with_contract(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut module = wat::parse_str(text)?;
    let mut contract = Resolve::new();
    let package = contract.push_str("plugin.wit", include_str!("../../../wit/plugin.wit"))?;
    let world = contract.select_world(&[package], Some("plugin"))?;
    embed_component_metadata(&mut module, &contract, world, StringEncoding::UTF8)?;
    Ok(module)
}
