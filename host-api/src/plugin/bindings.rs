//! What `wit/plugin.wit` says, as Rust types. Generated; the rest of the crate converts from and to them at once.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    exports: { default: async },
    imports: { default: trappable },
});
