//! What a workflow means: definitions, the journal of a run, and what to do next.
//!
//! Everything here is a pure function of its arguments. No async, no IO, no clock, no randomness: times, random
//! numbers and limits come in as parameters, so that the same journal always folds to the same state and a
//! re-evaluated expression gives the same value. `tests/tidy.rs` checks that nothing here calls another room.

pub mod ask;
pub mod context;
pub mod decide;
pub mod definition;
pub mod error;
pub mod expression;
pub mod id;
pub mod journal;
pub mod limits;
pub mod names;
pub mod original;
pub mod path;
pub mod plugin;
pub mod reader;
pub mod retry;
pub mod state;
pub mod step;
pub mod template;
pub mod time;
pub mod tool;
