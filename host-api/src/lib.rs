//! Everything a step can reach outside the process, behind one guard, and the sandbox of the tools that plugins bring.
//!
//! This crate knows nothing of workflows, runs or databases.

#![warn(missing_docs)]

pub mod egress;
pub mod plugin;
