//! Counts of recent calls, by number and by time. Pure: whoever records says what time it is.

mod counting;
mod timed;

pub(crate) use counting::CountWindow;
pub(crate) use timed::TimeWindow;

/// What one finished call adds to a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
}

impl Totals {
    fn add(&mut self, sample: Sample) {
        self.calls += 1;
        self.failures += u64::from(sample.failed);
        self.slow += u64::from(sample.slow);
    }

    fn remove(&mut self, sample: Sample) {
        self.calls -= 1;
        self.failures -= u64::from(sample.failed);
        self.slow -= u64::from(sample.slow);
    }
}

/// Whether `part` is at least `percent` of `whole`.
pub(crate) fn reaches(part: u64, whole: u64, percent: f64) -> bool {
    whole > 0 && part as f64 * 100.0 >= percent * whole as f64
}
