//! Where a step stands in its definition.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The address of a step: its name, below the names and indexes of what it stands in (`fetch`, `fanout[3].call`).
///
/// A path, never an index, addresses a step in the journal, in idempotency keys and over the API, so that several
/// steps of a run can be in flight and nested steps need no new format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepPath(Arc<str>);

impl StepPath {
    /// The path of a step that stands at the top level of its definition.
    #[must_use]
    pub fn top(name: &str) -> Self {
        Self(name.into())
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest step name, in bytes.
pub const STEP_NAME_MAX_BYTES: usize = 128;

/// Says what is wrong with `name` as a step name, if anything: it must be 1 to 128 bytes, without the characters
/// that paths are made with and without control characters.
#[must_use]
pub fn step_name_fault(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > STEP_NAME_MAX_BYTES {
        return Some(format!("must be 1 to {STEP_NAME_MAX_BYTES} bytes long, not {}", name.len()));
    }
    let bad = name.chars().find(|c| c.is_control() || ".[]/".contains(*c))?;
    Some(format!("must not contain {bad:?}: `.`, `[`, `]`, `/` and control characters are not allowed in a step name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_path_are_refused() {
        for bad in ["", "a.b", "a[0]", "a/b", "a\nb", &"x".repeat(129)] {
            assert!(step_name_fault(bad).is_some(), "{bad:?}");
        }
        for good in ["fetch", "fetch-data", "Fetch data", "données"] {
            assert_eq!(step_name_fault(good), None, "{good:?}");
        }
    }
}
