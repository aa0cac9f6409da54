//! Which calls a breaker looks at, by its settings.

use tokio::time::Instant;

use super::settings::{BreakerSettings, WindowKind};
use crate::window::{CountWindow, Sample, TimeWindow, Totals};

#[derive(Debug)]
pub(super) enum Window {
    /// Failures in a row need no window.
    None,
    Count(CountWindow),
    Time(Box<TimeWindow>),
}

impl Window {
    pub(super) fn new(settings: &BreakerSettings, now: Instant) -> Self {
        match settings.window.kind {
            WindowKind::Consecutive if settings.slow_call.is_none() => Self::None,
            WindowKind::Consecutive | WindowKind::Count => {
                Self::Count(CountWindow::new(settings.window.size))
            }
            WindowKind::Time => {
                Self::Time(Box::new(TimeWindow::new(settings.window.duration, now)))
            }
        }
    }

    pub(super) fn record(&mut self, sample: Sample, now: Instant) {
        match self {
            Self::None => {}
            Self::Count(window) => window.record(sample),
            Self::Time(window) => window.record(sample, now),
        }
    }

    pub(super) fn record_successes(&mut self, calls: u64, at: Instant) {
        match self {
            Self::None => {}
            Self::Count(window) => window.record_successes(calls),
            Self::Time(window) => {
                let successes = Totals {
                    calls,
                    ..Totals::default()
                };
                window.add(successes, at);
            }
        }
    }

    pub(super) fn totals(&self, now: Instant) -> Totals {
        match self {
            Self::None => Totals::default(),
            Self::Count(window) => window.totals(),
            Self::Time(window) => window.totals(now),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::None => {}
            Self::Count(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }

    /// Fewest calls from which a share means something.
    pub(super) fn minimum(&self, settings: &BreakerSettings) -> u64 {
        let wanted = settings.window.minimum_calls;
        u64::from(match self {
            Self::Count(_) => wanted.min(settings.window.size),
            Self::None | Self::Time(_) => wanted,
        })
    }
}
