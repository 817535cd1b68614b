//! Plugins: WebAssembly components that expose tools, and may do nothing that nobody granted.
//!
//! The way of a component: [`Artifact::admit`] takes bytes from a stranger and refuses what is malformed or wants what
//! is not offered, by parsing alone; [`PluginHost::compile`] makes a [`Plugin`] of it, once for all starts with a cache; [`Plugin::list_tools`] asks it
//! once what it offers; [`Plugin::call`] answers one call in an instance of its own. No state and no trap survives a
//! call. What a guest may use stands in [`GuestLimits`], how it fails in [`FaultClass`].

mod artifact;
mod bindings;
mod cache;
mod call;
mod fault;
mod guest;
mod host;
mod imports;
mod lane;
mod log;
mod mcp;
mod signature;
mod trust;

pub use artifact::{Artifact, Refused, Request};
pub use cache::CacheSettings;
pub use call::{Call, Listed, Plugin, Report, Used};
pub use fault::{Fault, FaultClass};
pub use host::{GuestLimits, HostLimits, Origin, PluginHost};
pub use log::{LogLevel, LogLine, Progress};
pub use mcp::{Answer, Tool};
pub use signature::{PublicKey, SecretKey, Signature, SignedText};
pub use trust::{Signed, Trust};
