//! How long to wait before which attempt.

use std::time::Duration;

/// Waits that grow by a factor up to a limit, each shortened at random.
///
/// ```
/// use std::time::Duration;
/// use trunkline_resilience::retry::RetrySettings;
///
/// let mut schedule = RetrySettings::default().schedule();
/// schedule.jitter = false;
/// let waits = [2, 3, 4].map(|attempt| schedule.before(attempt).as_secs());
/// assert_eq!(waits, [1, 2, 4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Schedule {
    /// Wait before the second attempt.
    pub delay: Duration,
    /// Factor by which each further wait grows.
    pub backoff: f64,
    /// No wait grows beyond this.
    pub max_delay: Duration,
    /// Whether each wait is shortened at random by up to a half.
    pub jitter: bool,
}

impl Schedule {
    /// The wait before attempt number `attempt`, where the first attempt is number 1 and waits for nothing.
    #[must_use]
    pub fn before(&self, attempt: u32) -> Duration {
        let whole = self.longest(attempt);
        if self.jitter {
            whole.mul_f64(1.0 - fastrand::f64() / 2.0)
        } else {
            whole
        }
    }

    /// The wait before an attempt when chance shortens it by nothing.
    #[must_use]
    pub fn longest(&self, attempt: u32) -> Duration {
        let Some(grown) = attempt.checked_sub(2) else {
            return Duration::ZERO;
        };
        let factor = self
            .backoff
            .max(1.0)
            .powi(i32::try_from(grown).unwrap_or(i32::MAX));
        let seconds = self.delay.as_secs_f64() * factor;
        // NaN (nothing times infinity) is no reason to wait.
        if seconds >= self.max_delay.as_secs_f64() {
            self.max_delay
        } else {
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_up_to_the_limit_and_chance_only_shortens_them(
            delay in 0u64..100_000,
            backoff in 0.5f64..100.0,
            max_delay in 0u64..100_000,
            attempt in 0u32..1000,
        ) {
            let schedule = Schedule {
                delay: Duration::from_millis(delay),
                backoff,
                max_delay: Duration::from_millis(max_delay),
                jitter: true,
            };
            let whole = schedule.longest(attempt);
            prop_assert!(whole <= schedule.max_delay);
            prop_assert!(whole <= schedule.longest(attempt + 1));
            let wait = schedule.before(attempt);
            prop_assert!(wait <= whole);
            prop_assert!(wait + Duration::from_nanos(1) >= whole / 2);
        }
    }
}
