//! Who does worse than the others: by share of successes, and by latency.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::EjectionConfig;

/// What was seen of an instance since it was looked at last. Counted without a lock: what is counted while somebody looks
/// is seen the next time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    successes: AtomicU64,
    failures: AtomicU64,
    /// Answers, and requests that were given up because another one was faster.
    timed: AtomicU64,
    micros: AtomicU64,
}

impl Tally {
    pub(crate) fn success(&self, latency: Duration) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        self.took(latency);
    }

    pub(crate) fn failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn took(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.timed.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted; counting begins anew.
    pub(crate) fn take(&self) -> Counts {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Counts {
            successes: take(&self.successes),
            failures: take(&self.failures),
            timed: take(&self.timed),
            micros: take(&self.micros),
        }
    }
}

/// What was counted of one instance, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    pub(crate) timed: u64,
    pub(crate) micros: u64,
}

impl Counts {
    fn requests(self) -> u64 {
        self.successes + self.failures
    }

    fn success_percent(self) -> f64 {
        self.successes as f64 * 100.0 / self.requests() as f64
    }

    fn mean_micros(self) -> f64 {
        self.micros as f64 / self.timed as f64
    }

    fn plus(self, other: Self) -> Self {
        Self {
            successes: self.successes + other.successes,
            failures: self.failures + other.failures,
            timed: self.timed + other.timed,
            micros: self.micros.saturating_add(other.micros),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            successes: self.successes - other.successes,
            failures: self.failures - other.failures,
            timed: self.timed - other.timed,
            micros: self.micros.saturating_sub(other.micros),
        }
    }
}

/// Why an instance should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlier {
    /// It fails more often than the others.
    Fails,
    /// It is slower than the others.
    Slow,
}

impl Outlier {
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Fails => "requests to it fail more often than to the others",
            Self::Slow => "it answers more slowly than the others",
        }
    }
}

impl EjectionConfig {
    /// Whether instances are compared at all.
    pub(crate) fn compares(&self) -> bool {
        self.enabled && (self.success_rate.enabled || self.latency.factor > 0)
    }

    /// Who does worse than all the others together, the worst first. Each is compared with the others and not with a mean
    /// that it is part of: of two or three instances even one that always fails would hide in that.
    pub(crate) fn outliers(&self, counts: &[Counts]) -> Vec<(usize, Outlier)> {
        let all = counts.iter().copied().fold(Counts::default(), Counts::plus);
        let mut found: Vec<(usize, Outlier, f64)> = counts
            .iter()
            .enumerate()
            .filter_map(|(at, own)| {
                let others = all.minus(*own);
                let fails = self
                    .fails_by(*own, others)
                    .map(|by| (at, Outlier::Fails, 1e9 + by));
                fails.or_else(|| self.slow_by(*own, others).map(|by| (at, Outlier::Slow, by)))
            })
            .collect();
        found.sort_by(|one, other| other.2.total_cmp(&one.2));
        found.into_iter().map(|(at, why, _)| (at, why)).collect()
    }

    fn fails_by(&self, own: Counts, others: Counts) -> Option<f64> {
        let rule = &self.success_rate;
        let enough = |counts: Counts| counts.requests() >= u64::from(rule.minimum_requests);
        if !rule.enabled || !enough(own) || !enough(others) {
            return None;
        }
        let below = others.success_percent() - own.success_percent();
        (below >= f64::from(rule.below_others)).then_some(below)
    }

    fn slow_by(&self, own: Counts, others: Counts) -> Option<f64> {
        let rule = &self.latency;
        let enough = |counts: Counts| counts.timed >= u64::from(rule.minimum_requests);
        if rule.factor == 0 || !enough(own) || !enough(others) {
            return None;
        }
        let slow = own.mean_micros() >= rule.at_least.as_micros() as f64;
        let times = own.mean_micros() / others.mean_micros().max(1.0);
        (slow && times >= f64::from(rule.factor)).then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(successes: u64, failures: u64, millis: u64) -> Counts {
        Counts {
            successes,
            failures,
            timed: successes,
            micros: successes * millis * 1000,
        }
    }

    fn with_latency() -> EjectionConfig {
        let mut config = EjectionConfig::default();
        config.latency.factor = 3;
        config
    }

    #[test]
    fn one_of_two_that_fails_stands_out() {
        let config = EjectionConfig::default();
        let found = config.outliers(&[counts(100, 0, 1), counts(60, 40, 1)]);
        assert_eq!(found, [(1, Outlier::Fails)]);
        assert_eq!(config.outliers(&[counts(100, 0, 1), counts(80, 20, 1)]), []);
    }

    #[test]
    fn when_all_fail_alike_nobody_stands_out() {
        let config = EjectionConfig::default();
        assert_eq!(config.outliers(&[counts(0, 100, 1); 3]), []);
        assert_eq!(config.outliers(&[counts(50, 50, 1); 5]), []);
    }

    #[test]
    fn few_requests_say_nothing() {
        let config = with_latency();
        assert_eq!(config.outliers(&[counts(100, 0, 1), counts(0, 19, 1)]), []);
        assert_eq!(config.outliers(&[counts(5, 0, 1), counts(0, 100, 1)]), []);
        assert_eq!(
            config.outliers(&[counts(100, 0, 1), counts(19, 0, 1000)]),
            []
        );
    }

    #[test]
    fn the_slow_one_stands_out_where_that_is_asked_for_and_slow_is_slow() {
        let slow = [counts(100, 0, 20), counts(100, 0, 25), counts(100, 0, 200)];
        assert_eq!(EjectionConfig::default().outliers(&slow), []);
        assert_eq!(with_latency().outliers(&slow), [(2, Outlier::Slow)]);
        let quick = [counts(100, 0, 1), counts(100, 0, 90)];
        assert_eq!(with_latency().outliers(&quick), []);
    }

    #[test]
    fn the_worst_comes_first() {
        let config = EjectionConfig::default();
        let found = config.outliers(&[
            counts(100, 0, 1),
            counts(40, 60, 1),
            counts(0, 100, 1),
            counts(100, 0, 1),
            counts(100, 0, 1),
        ]);
        assert_eq!(found, [(2, Outlier::Fails), (1, Outlier::Fails)]);
    }

    proptest! {
        #[test]
        fn never_all_of_them(all in proptest::collection::vec((0_u64..200, 0_u64..200, 0_u64..2000), 1..8)) {
            let all: Vec<Counts> = all.into_iter().map(|(s, f, m)| counts(s, f, m)).collect();
            let mut config = with_latency();
            config.success_rate.enabled = false;
            prop_assert!(config.outliers(&all).len() < all.len());
            let config = EjectionConfig::default();
            prop_assert!(config.outliers(&all).len() < all.len());
        }
    }
}
