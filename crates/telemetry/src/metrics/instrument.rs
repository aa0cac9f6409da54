//! The instruments behind the handles: switched off they hold nothing, switched on they touch atomics alone.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter;
use prometheus_client::metrics::gauge;

use super::histogram::Histogram;

/// Different keys that a handle remembers; further ones are looked up each time.
const SLOTS: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Counter(pub(super) Option<counter::Counter>);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        if let Some(counter) = &self.0 {
            counter.inc_by(count);
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(pub(super) Option<gauge::Gauge>);

impl Gauge {
    pub(super) fn set(&self, value: u64) {
        if let Some(gauge) = &self.0 {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// One more, until the guard is dropped.
    pub(super) fn hold(&self) -> ActiveGuard {
        if let Some(gauge) = &self.0 {
            gauge.inc();
        }
        ActiveGuard(self.clone())
    }
}

pub(super) type RealGauge = gauge::Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Default)]
pub(super) struct Seconds(pub(super) Option<RealGauge>);

impl Seconds {
    pub(super) fn set(&self, span: Duration) {
        if let Some(gauge) = &self.0 {
            gauge.set(span.as_secs_f64());
        }
    }
}

/// Counts something as under way until it is dropped.
#[derive(Debug)]
#[must_use = "it counts only while it is held"]
pub struct ActiveGuard(Gauge);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0.0 {
            gauge.dec();
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Latency(pub(super) Option<Histogram>);

impl Latency {
    pub(super) fn observe(&self, elapsed: Duration) {
        if let Some(histogram) = &self.0 {
            histogram.observe(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// A histogram that records only while detailed metrics are on.
#[derive(Clone, Debug, Default)]
pub(super) struct Detailed(pub(super) Option<(Arc<AtomicBool>, Histogram)>);

impl Detailed {
    pub(super) fn observe(&self, value: u64) {
        if let Some((on, histogram)) = &self.0
            && on.load(Ordering::Relaxed)
        {
            histogram.observe(value);
        }
    }
}

/// Instruments of one handle that differ in a last label, such as the status: found without a lock once seen.
#[derive(Debug)]
pub(super) struct Slots<K, M>([OnceLock<(K, M)>; SLOTS]);

impl<K, M> Default for Slots<K, M> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl<K: Copy + Eq, M> Slots<K, M> {
    /// Hands the instrument of `key` to `with`, made by `make` when it is not known yet.
    pub(super) fn with(&self, key: K, make: impl Fn() -> M, with: impl FnOnce(&M)) {
        for slot in &self.0 {
            let (known, instrument) = slot.get_or_init(|| (key, make()));
            if *known == key {
                return with(instrument);
            }
        }
        with(&make());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_more_keys_than_slots_still_work() {
        let made = std::cell::Cell::new(0);
        let slots = Slots::<u16, u16>::default();
        for round in 0..3 {
            for key in 0..10u16 {
                let make = || {
                    made.set(made.get() + 1);
                    key
                };
                slots.with(key, make, |found| assert_eq!(*found, key));
            }
            assert_eq!(made.get(), 10 + round * 2);
        }
    }
}
