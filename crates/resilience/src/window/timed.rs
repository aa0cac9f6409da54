//! The calls of the last so many seconds.

use std::time::Duration;

use tokio::time::Instant;

use super::{Sample, Totals};

const SLOTS: usize = 10;

/// Calls by tenths of a span. A call leaves the window between nine and ten tenths after it was recorded.
#[derive(Clone, Debug)]
pub(crate) struct TimeWindow {
    origin: Instant,
    /// A tenth of the span, in nanoseconds, at least one.
    tenth: u64,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Which tenth since `origin` the totals belong to.
    tick: u64,
    totals: Totals,
}

impl TimeWindow {
    pub(crate) fn new(span: Duration, now: Instant) -> Self {
        let tenth = span.as_nanos() / SLOTS as u128;
        Self {
            origin: now,
            tenth: u64::try_from(tenth).unwrap_or(u64::MAX).max(1),
            slots: [Slot::default(); SLOTS],
        }
    }

    /// Time that runs backwards counts as standing still.
    fn tick(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX) / self.tenth
    }

    /// When the present tenth is over.
    pub(crate) fn next_tick(&self, now: Instant) -> Instant {
        let ticks = self.tick(now).saturating_add(1);
        let nanos = self.tenth.saturating_mul(ticks);
        self.origin
            .checked_add(Duration::from_nanos(nanos))
            .unwrap_or(now)
    }

    pub(crate) fn record(&mut self, sample: Sample, now: Instant) {
        self.slot(now).add(sample);
    }

    /// Adds many at once.
    pub(crate) fn add(&mut self, added: Totals, now: Instant) {
        let slot = self.slot(now);
        slot.calls += added.calls;
        slot.failures += added.failures;
        slot.slow += added.slow;
    }

    /// The totals of the present tenth.
    fn slot(&mut self, now: Instant) -> &mut Totals {
        let tick = self.tick(now);
        let index = usize::try_from(tick % SLOTS as u64).unwrap_or(0);
        let slot = &mut self.slots[index];
        // A thread that was held up for long may still add to a slot that has been reused: a little too late, not lost.
        if slot.tick < tick {
            *slot = Slot {
                tick,
                totals: Totals::default(),
            };
        }
        &mut slot.totals
    }

    pub(crate) fn totals(&self, now: Instant) -> Totals {
        let tick = self.tick(now);
        let oldest = tick.saturating_sub(SLOTS as u64 - 1);
        let mut sum = Totals::default();
        for slot in &self.slots {
            if (oldest..=tick).contains(&slot.tick) {
                sum.calls += slot.totals.calls;
                sum.failures += slot.totals.failures;
                sum.slow += slot.totals.slow;
            }
        }
        sum
    }

    pub(crate) fn clear(&mut self) {
        self.slots = [Slot::default(); SLOTS];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every call younger than nine tenths is counted, none older than the whole span is.
        #[test]
        fn counts_what_is_recent(
            calls in proptest::collection::vec((0u64..400, any::<bool>()), 0..100),
        ) {
            let start = Instant::now();
            let span = Duration::from_millis(1000);
            let mut window = TimeWindow::new(span, start);
            let mut at = start;
            let mut model: Vec<(Instant, bool)> = Vec::new();
            for (pause, failed) in calls {
                at += Duration::from_millis(pause);
                window.record(Sample { failed, slow: !failed }, at);
                model.push((at, failed));
                let within = |limit: u64, failed: bool| model
                    .iter()
                    .filter(|(when, f)| at - *when < Duration::from_millis(limit) && *f == failed)
                    .count() as u64;
                let totals = window.totals(at);
                prop_assert!(totals.failures >= within(900, true));
                prop_assert!(totals.failures <= within(1000, true));
                prop_assert!(totals.slow >= within(900, false));
                prop_assert!(totals.slow <= within(1000, false));
                prop_assert_eq!(totals.calls, totals.failures + totals.slow);
            }
        }
    }

    #[test]
    fn survives_a_span_of_nothing_and_time_that_runs_backwards() {
        let start = Instant::now();
        let mut window = TimeWindow::new(Duration::ZERO, start + Duration::from_secs(5));
        window.record(Sample::default(), start);
        assert_eq!(window.totals(start).calls, 1);
    }
}
