//! How long to wait before which attempt.

use std::time::Duration;

use crate::config::Strategy;

/// Waits that grow up to a limit, each shortened at random.
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
    /// How the waits grow.
    pub strategy: Strategy,
    /// Wait before the second attempt.
    pub delay: Duration,
    /// Factor by which each further wait grows where they grow exponentially.
    pub backoff: f64,
    /// No wait grows beyond this.
    pub max_delay: Duration,
    /// Whether each wait is shortened at random by up to a half. Decorrelated waits are random in any case.
    pub jitter: bool,
}

/// How many times the wait before a decorrelated wait may be at most.
const DECORRELATED: f64 = 3.0;

impl Schedule {
    /// The wait before attempt number `attempt`, where the first attempt is number 1 and waits for nothing.
    ///
    /// A decorrelated wait depends on the one before: whoever knows that asks [`Schedule::after`]. Here it is drawn from
    /// everything that it can be.
    #[must_use]
    pub fn before(&self, attempt: u32) -> Duration {
        self.after(None, attempt)
    }

    /// The same, where the wait before it is known.
    #[must_use]
    pub fn after(&self, previous: Option<Duration>, attempt: u32) -> Duration {
        let whole = self.longest(attempt);
        if self.strategy == Strategy::Decorrelated {
            let most = previous.map_or(whole, |previous| {
                whole.min(previous.max(self.delay).mul_f64(DECORRELATED))
            });
            // `delay` may be longer than `max_delay`, which wins.
            let least = self.delay.min(most);
            return least + (most - least).mul_f64(fastrand::f64());
        }
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
        let power = i32::try_from(grown).unwrap_or(i32::MAX);
        let factor = match self.strategy {
            Strategy::Fixed => 1.0,
            Strategy::Linear => f64::from(grown) + 1.0,
            Strategy::Exponential => self.backoff.max(1.0).powi(power),
            // The first of them is not always the shortest either: callers that failed together part at once.
            Strategy::Decorrelated => DECORRELATED.powi(power.saturating_add(1)),
        };
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
    use crate::config::Strategy;

    proptest! {
        #[test]
        fn waits_grow_up_to_the_limit_and_chance_only_shortens_them(
            strategy in prop_oneof![
                Just(Strategy::Fixed),
                Just(Strategy::Linear),
                Just(Strategy::Exponential),
            ],
            delay in 0u64..100_000,
            backoff in 0.5f64..100.0,
            max_delay in 0u64..100_000,
            attempt in 0u32..1000,
        ) {
            let schedule = Schedule {
                strategy,
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

        #[test]
        fn a_decorrelated_wait_lies_between_the_first_and_three_times_the_one_before(
            delay in 1u64..1_000,
            max_delay in 0u64..100_000,
        ) {
            let schedule = Schedule {
                strategy: Strategy::Decorrelated,
                delay: Duration::from_millis(delay),
                backoff: 2.0,
                max_delay: Duration::from_millis(max_delay),
                jitter: false,
            };
            let mut previous = None;
            for attempt in 2..20 {
                let wait = schedule.after(previous, attempt);
                let before: Duration = previous.unwrap_or(schedule.delay);
                prop_assert!(wait >= schedule.delay.min(schedule.max_delay));
                prop_assert!(wait <= schedule.max_delay);
                prop_assert!(wait <= before.max(schedule.delay) * 3 + Duration::from_micros(1));
                previous = Some(wait);
            }
        }
    }

    fn waits(strategy: Strategy) -> Vec<u128> {
        let schedule = Schedule {
            strategy,
            delay: Duration::from_millis(100),
            backoff: 2.0,
            max_delay: Duration::from_millis(500),
            jitter: false,
        };
        (1..=6)
            .map(|attempt| schedule.before(attempt).as_millis())
            .collect()
    }

    #[test]
    fn each_strategy_grows_in_its_own_way() {
        assert_eq!(waits(Strategy::Fixed), [0, 100, 100, 100, 100, 100]);
        assert_eq!(waits(Strategy::Linear), [0, 100, 200, 300, 400, 500]);
        assert_eq!(waits(Strategy::Exponential), [0, 100, 200, 400, 500, 500]);
    }

    #[test]
    fn decorrelated_waits_differ_from_the_first_on() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50 {
            seen.insert(waits(Strategy::Decorrelated)[1]);
        }
        assert!(seen.len() > 10, "{seen:?}");
    }
}
