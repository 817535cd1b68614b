//! Weir: a durable workflow runtime. JSON workflows, triggered by webhooks, that survive any crash.
//!
//! `docs/ARCHITECTURE.md` has the map of the rooms and who may call whom.

#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod bench;
pub mod cli;
mod client;
pub mod clock;
pub mod config;
pub mod engine;
pub mod meter;
pub mod model;
pub mod store;
pub mod telemetry;
pub mod tools;
pub mod vault;
pub mod wire;
