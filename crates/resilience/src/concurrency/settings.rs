//! The numbers of an adaptive concurrency limit.

use std::time::Duration;

pub use crate::config::ConcurrencyAlgorithm;
use crate::policy::Scope;

/// How many calls may run at once, found out by itself; all numbers settled.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConcurrencySettings {
    /// How the limit is found.
    pub algorithm: ConcurrencyAlgorithm,
    /// The limit to begin with.
    pub initial: u32,
    /// It never falls below this.
    pub min: u32,
    /// It never rises above this.
    pub max: u32,
    /// Gradient: how many times slower than without load a call may be before the limit falls.
    pub tolerance: f64,
    /// Gradient: the latency without load, where it is known; else it is measured.
    pub baseline: Option<Duration>,
    /// Gradient: how often the latency without load is measured anew, where it does not show by itself.
    pub recheck: Duration,
    /// AIMD: a mean latency above this is overload, too.
    pub max_latency: Option<Duration>,
    /// Shares of the limit, in percent, that calls of low, normal and high priority may fill. Critical ones may fill all.
    pub shares: [u32; 3],
    /// Whose calls are counted together.
    pub scope: Scope,
}

impl Default for ConcurrencySettings {
    fn default() -> Self {
        Self {
            algorithm: ConcurrencyAlgorithm::Gradient,
            initial: 20,
            min: 4,
            max: 1000,
            tolerance: 1.5,
            baseline: None,
            recheck: Duration::from_secs(30),
            max_latency: None,
            shares: [70, 90, 95],
            scope: Scope::Service,
        }
    }
}

impl ConcurrencySettings {
    /// The same with what makes no sense moved to the nearest that does.
    pub(super) fn within_bounds(mut self) -> Self {
        self.min = self.min.max(1);
        self.max = self.max.max(self.min);
        self.initial = self.initial.clamp(self.min, self.max);
        if self.tolerance.is_nan() || self.tolerance < 1.0 {
            self.tolerance = 1.0;
        }
        self.shares = self.shares.map(|share| share.clamp(1, 100));
        self
    }
}
