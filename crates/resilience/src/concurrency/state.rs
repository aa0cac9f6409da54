//! How the limit moves. Pure: told the time and what was seen since it was last asked.
//!
//! *Gradient* compares the latency of a window with the latency without load, the baseline. As long as a call takes no
//! more than `tolerance` times the baseline the limit grows by its square root; else it shrinks in proportion.
//!
//! The baseline decides everything, and a moving average of it drifts: under a load that is a little too high it rises
//! with the latency until the limit no longer binds. So it is never raised by what is seen under load. It falls with
//! every faster window and rises only by a *look*: either a window that happened to run at a quarter of the limit, or one
//! for which the limit is lowered to a quarter, so that the queue at the other side runs dry. Looks come every `recheck`,
//! and at once when the limit has fallen by half: before that is believed, it is checked whether the other side has become
//! slower by itself.
//!
//! *AIMD* adds one as long as all is well and takes a tenth away in a window with signs of overload.
//!
//! Both begin with a slow start, doubling until the first sign of load, and neither raises a limit that is not in use.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::{ConcurrencyAlgorithm, ConcurrencySettings};
use crate::timeout::later;

/// What was seen in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Window {
    /// Calls that succeeded.
    pub(super) calls: u64,
    /// What they took on the average, in nanoseconds.
    pub(super) mean: f64,
    /// Calls that ran out of time or were refused as too many by the other side.
    pub(super) overloads: u64,
    /// The most that ran at once.
    pub(super) peak: u32,
    /// Whether a call was refused.
    pub(super) refused: bool,
}

/// With fewer calls than this a window says nothing.
const ENOUGH: u64 = 10;
/// A window is at least as long.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
/// By how much one look may raise the baseline at most: what comes from somebody else's overload is then not believed at
/// once.
const MOST_RISE: f64 = 2.0;
/// The weight of a new window against the old baseline, where it falls or shows by itself.
const FRESH: f64 = 0.3;
/// What is left of the limit for a look.
const LOOK: f64 = 0.25;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Steady { look_at: Instant },
    Looking { until: Instant },
}

#[derive(Debug)]
pub(super) struct Machine {
    settings: ConcurrencySettings,
    limit: f64,
    slow_start: bool,
    /// Nanoseconds.
    baseline: Option<f64>,
    phase: Phase,
    /// The limit at the latest look.
    looked_at: f64,
    /// Counts the looks. Calls that began under another one say nothing about it.
    epoch: u32,
    /// The mean of the latest window, in nanoseconds.
    typical: f64,
}

impl Machine {
    pub(super) fn new(settings: ConcurrencySettings, now: Instant) -> Self {
        let settings = settings.within_bounds();
        Self {
            limit: f64::from(settings.initial),
            slow_start: true,
            baseline: pinned(&settings),
            phase: Phase::Steady {
                look_at: later(now, settings.recheck),
            },
            looked_at: f64::from(settings.initial),
            epoch: 0,
            typical: 0.0,
            settings,
        }
    }

    pub(super) fn settings(&self) -> &ConcurrencySettings {
        &self.settings
    }

    pub(super) fn reconfigure(&mut self, settings: ConcurrencySettings) {
        let settings = settings.within_bounds();
        if settings.algorithm != self.settings.algorithm {
            self.slow_start = true;
        }
        if settings.baseline != self.settings.baseline {
            self.baseline = pinned(&settings);
        }
        self.settings = settings;
        self.settle(self.limit);
    }

    /// Calls that may run at once now.
    pub(super) fn limit(&self) -> u32 {
        match self.phase {
            Phase::Steady { .. } => whole(self.limit),
            Phase::Looking { .. } => self.look_limit(),
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn baseline(&self) -> Option<Duration> {
        self.baseline
            .map(|nanos| Duration::from_nanos(nanos as u64))
    }

    pub(super) fn typical(&self) -> f64 {
        self.typical
    }

    /// Whether a window of so many results can be judged.
    pub(super) fn is_enough(&self, results: u64, now: Instant) -> bool {
        let over = match self.phase {
            Phase::Steady { .. } => false,
            Phase::Looking { until } => now >= until,
        };
        over || results >= ENOUGH
    }

    /// Judges a window. `jitter` is drawn from 0 to 1: looks of many processes do not come together.
    pub(super) fn window_ended(&mut self, window: Window, now: Instant, jitter: f64) {
        if window.calls > 0 {
            self.typical = window.mean;
        }
        match self.settings.algorithm {
            ConcurrencyAlgorithm::Aimd => self.aimd(window),
            ConcurrencyAlgorithm::Gradient => match self.phase {
                Phase::Looking { .. } => self.looked(window, now, jitter),
                Phase::Steady { look_at } => self.gradient(window, now, look_at, jitter),
            },
        }
    }

    fn aimd(&mut self, window: Window) {
        let too_slow = self
            .settings
            .max_latency
            .is_some_and(|most| window.calls > 0 && window.mean > most.as_nanos() as f64);
        // One call in a hundred that times out is no overload.
        if too_slow || window.overloads * 100 > window.calls {
            self.slow_start = false;
            return self.settle(self.limit * 0.9);
        }
        if self.in_use(window) {
            let grown = if self.slow_start {
                self.limit * 2.0
            } else {
                self.limit + 1.0
            };
            self.settle(grown);
        }
    }

    fn gradient(&mut self, window: Window, now: Instant, look_at: Instant, jitter: f64) {
        let results = window.calls + window.overloads;
        let refused = window.overloads as f64 / results.max(1) as f64;
        if window.calls < ENOUGH / 2 {
            // Hardly anything came back in time: there is no latency to compare.
            if window.overloads > 0 {
                self.slow_start = false;
                self.settle(self.limit * (1.0 - refused.min(0.5)));
            }
            return;
        }
        let measures = self.settings.baseline.is_none();
        let shows_itself = window.peak <= self.look_limit();
        let known = *self.baseline.get_or_insert(window.mean);
        if measures && (shows_itself || window.mean < known) {
            self.baseline = Some(known + (window.mean - known) * FRESH);
        }
        if measures && shows_itself {
            self.rest(now, jitter);
        }
        let known = self.baseline.unwrap_or(window.mean);
        let gradient = (self.settings.tolerance * known / window.mean).clamp(0.5, 1.0);
        let calm = gradient >= 1.0 && window.overloads * 100 <= window.calls;
        if !calm {
            self.slow_start = false;
        }
        if !self.in_use(window) && calm {
            return;
        }
        let kept = self.limit * gradient * (1.0 - refused.min(0.5));
        let grown = if self.slow_start {
            self.limit
        } else {
            self.limit.sqrt()
        };
        self.settle(if self.in_use(window) {
            kept + grown
        } else {
            kept
        });
        let fallen = self.limit <= self.looked_at / 2.0;
        self.looked_at = self.looked_at.max(self.limit);
        if measures && (now >= look_at || fallen) {
            self.epoch = self.epoch.wrapping_add(1);
            let patience = Duration::from_nanos((window.mean * 20.0) as u64);
            self.phase = Phase::Looking {
                until: later(now, patience.max(Duration::from_secs(1))),
            };
        }
    }

    /// A look is over: the limit is what it was, the baseline what was seen.
    fn looked(&mut self, window: Window, now: Instant, jitter: f64) {
        if window.calls >= ENOUGH / 2 {
            let known = self.baseline.unwrap_or(window.mean);
            self.baseline = Some(window.mean.min(known * MOST_RISE));
        }
        self.rest(now, jitter);
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// No look until it is time again, a tenth earlier or later.
    fn rest(&mut self, now: Instant, jitter: f64) {
        let pause = self
            .settings
            .recheck
            .mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0));
        self.phase = Phase::Steady {
            look_at: later(now, pause),
        };
        self.looked_at = self.limit;
    }

    /// Whether the limit binds: only then does it matter whether it is right.
    fn in_use(&self, window: Window) -> bool {
        window.refused || f64::from(window.peak) >= self.limit * 0.8
    }

    fn look_limit(&self) -> u32 {
        whole(self.limit * LOOK)
            .max(self.settings.min.min(whole(self.limit)) / 2)
            .max(1)
    }

    fn settle(&mut self, limit: f64) {
        self.limit = limit.clamp(self.settings.min.into(), self.settings.max.into());
    }
}

fn pinned(settings: &ConcurrencySettings) -> Option<f64> {
    settings.baseline.map(|span| span.as_nanos() as f64)
}

fn whole(limit: f64) -> u32 {
    limit as u32
}
