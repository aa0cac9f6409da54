//! The last so many calls.

use super::{Sample, Totals};

/// A ring of the last `size` calls.
#[derive(Clone, Debug)]
pub(crate) struct CountWindow {
    ring: Vec<Sample>,
    size: usize,
    /// Where the next sample goes once the ring is full.
    next: usize,
    totals: Totals,
}

impl CountWindow {
    /// The ring grows with the calls: a window of many that sees few stays small.
    pub(crate) fn new(size: u32) -> Self {
        Self {
            ring: Vec::new(),
            size: usize::try_from(size).unwrap_or(usize::MAX).max(1),
            next: 0,
            totals: Totals::default(),
        }
    }

    pub(crate) fn record(&mut self, sample: Sample) {
        if self.ring.len() < self.size {
            self.ring.push(sample);
        } else if let Some(oldest) = self.ring.get_mut(self.next) {
            self.totals.remove(*oldest);
            *oldest = sample;
            self.next = (self.next + 1) % self.size;
        }
        self.totals.add(sample);
    }

    /// Records so many successes in a row.
    pub(crate) fn record_successes(&mut self, calls: u64) {
        // More than fill the ring push everything else out and nothing more.
        for _ in 0..calls.min(self.size as u64) {
            self.record(Sample::default());
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn clear(&mut self) {
        self.ring.clear();
        self.next = 0;
        self.totals = Totals::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn summed(samples: &VecDeque<Sample>) -> Totals {
        let mut totals = Totals::default();
        for sample in samples {
            totals.add(*sample);
        }
        totals
    }

    proptest! {
        #[test]
        fn equals_a_queue_of_the_last_calls(
            size in 1u32..20,
            calls in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u8..50), 0..200),
        ) {
            let mut window = CountWindow::new(size);
            let mut model = VecDeque::new();
            for (failed, slow, special) in calls {
                if special == 0 {
                    window.clear();
                    model.clear();
                }
                if special == 1 {
                    window.record_successes(7);
                    model.extend([Sample::default(); 7]);
                    while model.len() > size as usize {
                        model.pop_front();
                    }
                }
                let sample = Sample { failed, slow };
                window.record(sample);
                model.push_back(sample);
                if model.len() > size as usize {
                    model.pop_front();
                }
                prop_assert_eq!(window.totals(), summed(&model));
            }
        }
    }
}
