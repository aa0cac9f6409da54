//! The numbers of a circuit breaker.

use std::time::Duration;

use super::state::Control;
pub use crate::config::{CircuitPer, WindowKind};

/// The numbers of a circuit breaker, all of them settled.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerSettings {
    /// Who decides, until somebody says otherwise by [`Breaker::force`](super::Breaker::force).
    pub control: Control,
    /// Who has a circuit of their own. A breaker by itself is one circuit: this is for the policy that makes it.
    pub per: CircuitPer,
    /// Failures in a row that open the circuit, where the window is [`WindowKind::Consecutive`].
    pub failure_threshold: u32,
    /// Successful probes that close it again.
    pub success_threshold: u32,
    /// How long an open circuit refuses everything before it lets a probe through.
    pub recovery_timeout: Duration,
    /// Probes under way at once while it is half-open.
    pub half_open_max_calls: u32,
    /// A probe that has not reported by then no longer blocks the next one.
    pub probe_timeout: Duration,
    /// Which calls are looked at.
    pub window: WindowSettings,
    /// Whether slow calls open the circuit too.
    pub slow_call: Option<SlowCallSettings>,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            control: Control::Automatic,
            per: CircuitPer::Endpoint,
            failure_threshold: 5,
            success_threshold: 2,
            recovery_timeout: Duration::from_secs(60),
            half_open_max_calls: 1,
            probe_timeout: Duration::from_secs(60),
            window: WindowSettings::default(),
            slow_call: None,
        }
    }
}

/// Longer spans are mistakes, and points in time that far ahead cannot always be represented.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl BreakerSettings {
    /// The same with what makes no sense (a threshold of zero, a wait of centuries) moved to the nearest that does.
    pub(super) fn within_bounds(mut self) -> Self {
        self.failure_threshold = self.failure_threshold.max(1);
        self.success_threshold = self.success_threshold.max(1);
        self.half_open_max_calls = self.half_open_max_calls.max(1);
        self.recovery_timeout = self.recovery_timeout.min(A_YEAR);
        self.probe_timeout = self.probe_timeout.min(A_YEAR);
        self.window.size = self.window.size.max(1);
        self.window.duration = self.window.duration.min(A_YEAR);
        self
    }
}

/// Which calls a circuit breaker looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct WindowSettings {
    /// Failures in a row, or their share among calls by count or by time.
    pub kind: WindowKind,
    /// Calls that a count window holds. Slow calls are counted in such a window also where failures are counted in a
    /// row.
    pub size: u32,
    /// Time that a time window covers, in tenths.
    pub duration: Duration,
    /// With fewer calls than this (but never more than `size`) a share opens nothing.
    pub minimum_calls: u32,
    /// Share of failures that opens the circuit, in percent.
    pub failure_percent: f64,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self {
            kind: WindowKind::Consecutive,
            size: 100,
            duration: Duration::from_secs(60),
            minimum_calls: 20,
            failure_percent: 50.0,
        }
    }
}

/// When slow calls open the circuit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SlowCallSettings {
    /// A call that takes this long or longer is slow.
    pub duration: Duration,
    /// Share of slow calls that opens the circuit, in percent.
    pub percent: f64,
}

impl SlowCallSettings {
    /// Opens the circuit when this share (in percent) of calls takes at least this long.
    #[must_use]
    pub const fn new(duration: Duration, percent: f64) -> Self {
        Self { duration, percent }
    }
}
