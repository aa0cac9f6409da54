//! Real time: what benchmarks are about.
#![expect(
    clippy::disallowed_methods,
    reason = "measures wall time; a paused clock has no place here"
)]

use std::time::{Duration, Instant};

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// `operations` divided by the seconds since the start.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of operations stays far below 2^52"
    )]
    pub fn per_second(&self, operations: u64) -> f64 {
        operations as f64 / self.seconds()
    }

    /// Nanoseconds since the start divided by `operations`.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of operations stays far below 2^52"
    )]
    pub fn nanoseconds_each(&self, operations: u64) -> f64 {
        self.seconds() * 1e9 / operations as f64
    }
}
