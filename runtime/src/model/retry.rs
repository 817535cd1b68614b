//! When a failed step is tried again: exponential backoff with a cap and full jitter.

use std::time::Duration;

/// How often and how fast a step is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; at least 1. Interrupted attempts do not count.
    pub max_attempts: u32,
    /// Upper bound of the delay before the second attempt.
    pub initial_delay: Duration,
    /// Upper bound of any delay, except where the target's `Retry-After` asks for more.
    pub max_delay: Duration,
    /// Factor from one bound to the next; at least 1.
    pub multiplier: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(60),
            multiplier: 2.0,
        }
    }
}

/// Longest `Retry-After` that is honoured; a target that asks for more is asked again after this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

impl RetryPolicy {
    /// The delay before the next attempt after `failures` failed ones (at least 1), or `None` when the attempts are
    /// used up: those of the policy, or the server's `attempts_max`.
    ///
    /// `jitter` is a random number in `0.0..1.0`: the delay is that part of the bound ("full jitter"), but never less
    /// than `retry_after`.
    #[must_use]
    pub fn delay(
        &self,
        failures: u32,
        attempts_max: u32,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> Option<Duration> {
        if failures >= self.max_attempts.min(attempts_max) {
            return None;
        }
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let cap = self.max_delay.as_secs_f64();
        let bound = (self.initial_delay.as_secs_f64() * self.multiplier.powi(exponent)).min(cap);
        let delay = Duration::from_secs_f64(bound * jitter.clamp(0.0, 1.0));
        Some(delay.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 4,
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(3),
            multiplier: 2.0,
        }
    }

    #[test]
    fn bounds_double_up_to_the_cap_and_attempts_end() {
        let bounds: Vec<_> = (1..=4).map(|failures| policy().delay(failures, 100, None, 1.0)).collect();
        let secs = |s| Some(Duration::from_secs(s));
        assert_eq!(bounds, [secs(1), secs(2), secs(3), None]);
    }

    #[test]
    fn jitter_is_full_and_retry_after_is_a_floor() {
        assert_eq!(policy().delay(1, 100, None, 0.0), Some(Duration::ZERO));
        assert_eq!(policy().delay(1, 100, None, 0.25), Some(Duration::from_millis(250)));
        assert_eq!(policy().delay(1, 100, Some(Duration::from_secs(10)), 0.5), Some(Duration::from_secs(10)));
        assert_eq!(policy().delay(1, 100, Some(Duration::from_secs(999_999)), 0.5), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn extreme_policies_do_not_overflow() {
        let wild = RetryPolicy { max_attempts: u32::MAX, multiplier: 1e300, ..policy() };
        assert_eq!(wild.delay(u32::MAX - 1, u32::MAX, None, 1.0), Some(Duration::from_secs(3)));
    }
}
