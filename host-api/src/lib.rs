//! Everything a step can reach outside the process, behind one guard.
//!
//! This crate knows nothing of workflows, runs or databases.

#![warn(missing_docs)]

pub mod egress;
