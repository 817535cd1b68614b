//! What `wit/plugin.wit` says, as Rust types. Generated; the rest of the crate converts from and to them at once.

#![expect(missing_docs, reason = "generated: the documentation stands in wit/plugin.wit")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    exports: { default: async },
    imports: { default: trappable },
});
