//! What the tests are made with: real `weir` processes, real HTTP targets that count, and a clock that a test moves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

pub mod clock;
pub mod cluster;
pub mod guest;
pub mod load;
pub mod plugin;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
mod server;
pub mod target;

use std::time::Duration;

use serde_json::{Value, json};

/// Longest time that a test waits for a condition before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `condition`, which must come true within [`PATIENCE`].
///
/// # Panics
/// When it does not.
pub async fn within<T>(what: &str, condition: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, condition).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// A definition with these steps.
#[must_use]
pub fn definition(steps: &Value) -> Value {
    json!({ "version": "1.0", "steps": steps })
}
