//! A histogram without locks, whose cache lines threads do not share.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Copies of the counts; a thread writes to one of them.
const SHARDS: usize = 4;

/// Counts in one cache line.
const LINE: usize = 8;

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

fn shard() -> usize {
    SHARD.with(|slot| match slot.get() {
        Some(shard) => shard,
        None => {
            let shard = NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS;
            slot.set(Some(shard));
            shard
        }
    })
}

/// Upper bounds of the buckets, and how a raw value is shown.
#[derive(Debug)]
pub(super) struct Bounds {
    raw: Box<[u64]>,
    shown: Box<[f64]>,
    /// What one raw unit is worth in the unit shown.
    scale: f64,
}

impl Bounds {
    /// Bounds in seconds for values in nanoseconds.
    pub(super) fn seconds(shown: &[f64]) -> Arc<Self> {
        let raw = shown.iter().map(|bound| (bound * 1e9).round() as u64);
        Arc::new(Self {
            raw: raw.collect(),
            shown: shown.into(),
            scale: 1e-9,
        })
    }

    /// Bounds in bytes for values in bytes.
    pub(super) fn bytes(raw: &[u64]) -> Arc<Self> {
        Arc::new(Self {
            raw: raw.into(),
            shown: raw.iter().map(|bound| *bound as f64).collect(),
            scale: 1.0,
        })
    }

    fn stride(&self) -> usize {
        // The sum, each bound, the bucket above the last bound, and a line that keeps the shards apart.
        (self.raw.len() + 2).next_multiple_of(LINE) + LINE
    }
}

/// Clones share the counts.
#[derive(Clone, Debug)]
pub(super) struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Arc<Bounds>,
    /// Per shard: the sum, then one count a bucket.
    cells: Box<[AtomicU64]>,
}

impl Histogram {
    pub(super) fn new(bounds: Arc<Bounds>) -> Self {
        let cells = (0..SHARDS * bounds.stride()).map(|_| AtomicU64::new(0));
        let cells = cells.collect();
        Self(Arc::new(Inner { bounds, cells }))
    }

    /// Counts a raw value: nanoseconds or bytes, as the bounds say.
    pub(super) fn observe(&self, value: u64) {
        let Inner { bounds, cells } = &*self.0;
        let bucket = bounds.raw.partition_point(|bound| *bound < value);
        let start = shard() * bounds.stride();
        cells[start].fetch_add(value, Ordering::Relaxed);
        cells[start + 1 + bucket].fetch_add(1, Ordering::Relaxed);
    }

    fn column(&self, at: usize) -> u64 {
        let Inner { bounds, cells } = &*self.0;
        let shards = cells.chunks_exact(bounds.stride());
        let values = shards.map(|shard| shard[at].load(Ordering::Relaxed));
        values.fold(0, u64::wrapping_add)
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let bounds = &self.0.bounds;
        let above = std::iter::once(&f64::INFINITY);
        let buckets: Vec<(f64, u64)> = (bounds.shown.iter().chain(above).enumerate())
            .map(|(index, bound)| (*bound, self.column(index + 1)))
            .collect();
        // From the buckets, so that the count never contradicts them.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.column(0) as f64 * bounds.scale;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(histogram: &Histogram, buckets: usize) -> Vec<u64> {
        (1..=buckets).map(|at| histogram.column(at)).collect()
    }

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let histogram = Histogram::new(Bounds::seconds(&[0.001, 0.01]));
        for nanos in [
            0,
            1_000_000,
            1_000_001,
            10_000_000,
            10_000_001,
            u64::MAX / 2,
        ] {
            histogram.observe(nanos);
        }
        assert_eq!(counts(&histogram, 3), [2, 2, 2]);
    }

    #[test]
    fn threads_lose_no_count() {
        let histogram = Histogram::new(Bounds::bytes(&[10]));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| histogram.observe(3)));
            }
        });
        assert_eq!(counts(&histogram, 2), [80_000, 0]);
        assert_eq!(histogram.column(0), 240_000);
    }
}
