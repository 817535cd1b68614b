//! The limits a definition and a run are held to.

use std::time::Duration;

/// Limits on definitions and runs. Defaults stand in the commented default configuration; this struct only carries
/// the values of the configuration into the pure core.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest JSON text of a definition, in bytes.
    pub definition_max_bytes: usize,
    /// Most steps in one definition.
    pub steps_max: usize,
    /// Most attempts a step may ask for, and gets.
    pub attempts_max: u32,
    /// Longest `timeout_seconds` a step may ask for, and gets.
    pub step_timeout_max: Duration,
    /// Longest time from the start of a run (or its redrive) to its end, and the default of it.
    pub run_timeout_max: Duration,
    /// Largest output of one step, in bytes of JSON text.
    pub step_output_max_bytes: usize,
    /// Largest sum of the outputs of a run, in bytes of JSON text.
    pub context_max_bytes: usize,
}

impl Limits {
    /// The same limits for a definition that was accepted before: what was valid then stays valid when an operator
    /// lowers a limit. Limits on what a run may use hold for it as they are now.
    #[must_use]
    pub fn for_accepted(&self) -> Self {
        let ages = Duration::from_secs(u32::MAX.into());
        Self {
            definition_max_bytes: usize::MAX,
            steps_max: usize::MAX,
            attempts_max: u32::MAX,
            step_timeout_max: ages,
            run_timeout_max: ages,
            ..self.clone()
        }
    }
}

/// Longest text of one `{{ expression }}`, in bytes.
pub const EXPRESSION_MAX_BYTES: usize = 4096;

/// Largest value of one expression, and largest text around expressions, in bytes of JSON text.
pub const EXPRESSION_OUTPUT_MAX_BYTES: usize = 1 << 20;

/// Largest sum of the values that the expressions of one step make, in bytes of JSON text.
pub const STEP_VALUES_MAX_BYTES: usize = 4 << 20;

/// Most expressions in one step.
pub const EXPRESSIONS_MAX: usize = 256;

/// MiniJinja fuel for one evaluation: about one unit an instruction and one for a byte that is built.
pub const EXPRESSION_FUEL: u64 = 2_000_000;

#[cfg(test)]
impl Default for Limits {
    fn default() -> Self {
        Self {
            definition_max_bytes: 256 * 1024,
            steps_max: 200,
            attempts_max: 100,
            step_timeout_max: Duration::from_secs(3600),
            run_timeout_max: Duration::from_secs(86_400),
            step_output_max_bytes: 1 << 20,
            context_max_bytes: 8 << 20,
        }
    }
}
