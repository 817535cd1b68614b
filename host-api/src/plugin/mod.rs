//! Plugins: WebAssembly components that expose tools, and may do nothing that nobody granted.
//!
//! The way of a component: [`Artifact::admit`] takes bytes from a stranger and refuses what is malformed or wants what
//! is not offered, by parsing alone; [`PluginHost::compile`] makes a [`Plugin`] of it, once for all starts with a cache; [`Plugin::list_tools`] asks it
//! once what it offers; [`Plugin::call`] answers one call in an instance of its own. No state and no trap survives a
//! call. What a guest may use stands in [`GuestLimits`], how it fails in [`FaultClass`].

mod access;
mod artifact;
mod ask;
mod bindings;
mod cache;
mod call;
mod document;
mod exchange;
mod fault;
mod guest;
mod host;
mod imports;
mod lane;
mod log;
mod mcp;
mod outbound;
mod path;
mod rights;
#[cfg(test)]
mod roundtrip;
mod signature;
mod stdio;
mod tape;
mod trust;
mod uses;

pub use access::{Grant, HttpRule, Request, SecretWish, SettingWish};
pub use artifact::{Artifact, Refused};
pub use ask::{AnswerAction, Asked, Question, QuestionAnswer, QuestionBody, Resumption};
pub use cache::CacheSettings;
pub use call::{Call, Listed, Outcome, Plugin, Report, Used};
pub use document::{Flaw, read_json};
pub use exchange::{Body, Exchange, Sent, Values};
pub use fault::{Fault, FaultClass};
pub use host::{CodeFrom, GuestLimits, HostLimits, OutboundLimits, PluginHost};
pub use log::{LogLevel, LogLine, Progress};
pub use mcp::{Answer, Tool};
pub use outbound::Reach;
pub use rights::name_fault;
pub use signature::{PublicKey, SecretKey, Signature, SignedText};
pub use tape::{Astray, Tape, without_placeholders};
pub use trust::{Signed, Trust};
pub use uses::{Denial, HostUse, Uses};
