//! Write a tool for Weir as a Rust function.
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! #[weir_sdk::input]
//! struct Greet {
//!     name: String,
//! }
//!
//! weir_sdk::plugin! {
//!     /// Greets a person by name.
//!     fn greet(input: Greet, _cx: &Context) -> Result<Text, ToolError> {
//!         Ok(Text(format!("Hello, {}!", input.name)))
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! The doc comment is what people and models read, the schema of the arguments comes from the type, and the name and
//! the version of the plugin are those of the crate. In tests, `testing::call("greet", json!({"name": "Ada"}))` calls
//! the tool natively. Built for `wasm32-unknown-unknown` with `crate-type = ["cdylib"]`, the crate is what
//! `POST /plugins` of a Weir server takes.

#![warn(missing_docs)]

mod answer;
mod ask;
mod context;
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod fake;
mod form;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
mod http;
mod http_error;
mod idn;
#[doc(hidden)]
pub mod tool;
#[cfg(target_arch = "wasm32")]
mod wasi;

pub use answer::{Answer, Block, Content, Json, Link, Notes, Output, Resource, ResourceData, Text};
pub use ask::{Question, QuestionBody, Reply};
pub use context::{Context, Level, Line};
pub use error::ToolError;
pub use http::{Request, RequestBuilder, Response, Secret};
pub use http_error::{HttpError, HttpErrorKind};
pub use tool::Arguments;
pub use weir_sdk_macros::{input, output, plugin};

pub use {schemars, serde, serde_json};

/// What `wit/plugin.wit` says, for a guest.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::bindings",
    });
}

/// What nearly every plugin uses.
pub mod prelude {
    pub use crate::{Answer, Content, Context, HttpError, HttpErrorKind, Json, Reply, Text, ToolError};
    pub use serde_json::{Value, json};
}
