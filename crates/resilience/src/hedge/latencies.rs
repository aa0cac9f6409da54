//! How long answers took lately, as percentiles.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::HedgeSettings;

/// Time that one half of the memory covers: the whole looks back one to two of these.
const HALF: Duration = Duration::from_secs(15);

/// How long a percentile that was worked out is used.
const FRESH: Duration = Duration::from_millis(100);

/// Parts of each doubling: one bucket is at most an eighth wider than the latencies it holds.
const PARTS: u32 = 8;

/// Doublings of a microsecond: up to 67 seconds.
const DOUBLINGS: u32 = 26;

const BUCKETS: usize = (PARTS * DOUBLINGS) as usize;

/// Latencies of the last half minute, in buckets, so that recording one is an addition and a percentile needs no list.
///
/// Counted without a lock: at the turn of a half a few may be lost or counted late, which moves a percentile by nothing
/// that matters.
pub struct Latencies {
    origin: Instant,
    /// Counts the halves since `origin`; the present one is `halves[half % 2]`.
    half: AtomicU64,
    halves: [Box<[AtomicU32]>; 2],
    /// Milliseconds since `origin`, plus one, at which `known` was worked out.
    worked_out: AtomicU64,
    /// The percentile in nanoseconds; 0 while too little is known.
    known: AtomicU64,
}

impl Latencies {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let half = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self {
            origin: Instant::now(),
            half: AtomicU64::new(0),
            halves: [half(), half()],
            worked_out: AtomicU64::new(0),
            known: AtomicU64::new(0),
        }
    }

    /// Counts an answer that took so long.
    pub fn record(&self, latency: Duration, now: Instant) {
        let half = self.turn(now);
        self.halves[half][bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// The latency below which this share of answers (in percent) lay, rounded up to its bucket; and how many answers
    /// are known. `None` without any.
    #[must_use]
    pub fn percentile(&self, percent: f64, now: Instant) -> Option<(Duration, u64)> {
        self.turn(now);
        let count = |bucket: usize| -> u64 {
            let counts = self.halves.iter();
            counts
                .map(|half| u64::from(half[bucket].load(Ordering::Relaxed)))
                .sum()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        if total == 0 {
            return None;
        }
        let wanted = total as f64 * percent / 100.0;
        let mut below = 0;
        for bucket in 0..BUCKETS {
            below += count(bucket);
            if below as f64 >= wanted {
                return Some((upper_end(bucket), total));
            }
        }
        Some((upper_end(BUCKETS - 1), total))
    }

    /// The wait before a hedge; `None` as long as too little is known.
    pub(crate) fn delay(&self, settings: &HedgeSettings, now: Instant) -> Option<Duration> {
        if settings.delay.is_some() {
            return settings.delay;
        }
        let stamp = self.stamp(now);
        let last = self.worked_out.load(Ordering::Relaxed);
        let fresh = u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX);
        let known = if last == 0 || stamp.saturating_sub(last) >= fresh {
            self.work_out(settings, now, stamp)
        } else {
            self.known.load(Ordering::Relaxed)
        };
        (known > 0).then(|| Duration::from_nanos(known))
    }

    fn work_out(&self, settings: &HedgeSettings, now: Instant, stamp: u64) -> u64 {
        let enough = |(_, calls): &(Duration, u64)| *calls >= u64::from(settings.minimum_calls);
        let percentile = self.percentile(settings.percentile, now).filter(enough);
        let known = percentile.map_or(0, |(latency, _)| {
            let delay = latency.max(settings.min_delay);
            u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX).max(1)
        });
        self.known.store(known, Ordering::Relaxed);
        self.worked_out.store(stamp, Ordering::Relaxed);
        known
    }

    fn stamp(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.origin).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Moves on to the half that this moment lies in, and says which it is.
    fn turn(&self, now: Instant) -> usize {
        let past = now.saturating_duration_since(self.origin).as_nanos() / HALF.as_nanos();
        let present = u64::try_from(past).unwrap_or(u64::MAX);
        let known = self.half.load(Ordering::Relaxed);
        if present > known {
            let won =
                self.half
                    .compare_exchange(known, present, Ordering::Relaxed, Ordering::Relaxed);
            if won.is_ok() {
                self.clear(present);
                if present > known + 1 {
                    self.clear(present + 1);
                }
            }
        }
        usize::from(present.max(known) % 2 == 1)
    }

    fn clear(&self, half: u64) {
        for count in &self.halves[usize::from(half % 2 == 1)] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = Instant::now();
        f.debug_struct("Latencies")
            .field("p50", &self.percentile(50.0, now))
            .field("p95", &self.percentile(95.0, now))
            .finish_non_exhaustive()
    }
}

/// Which bucket a latency belongs to: its doubling of a microsecond, and the eighth within.
fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let doubling = micros.ilog2();
    let start = 1_u64 << doubling;
    let part = (micros - start).saturating_mul(u64::from(PARTS)) >> doubling;
    let index = u64::from(doubling * PARTS) + part;
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn upper_end(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    let (doubling, part) = (bucket / u64::from(PARTS), bucket % u64::from(PARTS));
    let start = 1_u64 << doubling;
    let width = start as f64 / f64::from(PARTS);
    let micros = start as f64 + width * (part + 1) as f64;
    Duration::from_nanos((micros * 1000.0).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_ends_above_its_latencies_and_not_far_above(micros in 1_u64..60_000_000) {
            let latency = Duration::from_micros(micros);
            let end = upper_end(bucket(latency));
            prop_assert!(end > latency);
            prop_assert!(end <= latency.mul_f64(1.13) + Duration::from_micros(1));
        }

        #[test]
        fn a_percentile_is_that_of_the_sorted_list(
            mut micros in proptest::collection::vec(1_u64..1_000_000, 1..300),
            percent in 1.0_f64..=100.0,
        ) {
            let now = Instant::now();
            let known = Latencies::new();
            for latency in &micros {
                known.record(Duration::from_micros(*latency), now);
            }
            micros.sort_unstable();
            let rank = (micros.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
            let exact = Duration::from_micros(micros[rank - 1]);
            let (found, count) = known.percentile(percent, now).unwrap();
            prop_assert_eq!(count, micros.len() as u64);
            prop_assert!(found > exact && found <= exact.mul_f64(1.13) + Duration::from_micros(1));
        }
    }

    #[test]
    fn forgets_within_half_a_minute() {
        let known = Latencies::new();
        let start = known.origin;
        known.record(Duration::from_secs(5), start);
        known.record(Duration::from_millis(1), start + HALF);
        assert_eq!(known.percentile(99.0, start + HALF).unwrap().1, 2);
        let (latency, count) = known.percentile(99.0, start + HALF * 2).unwrap();
        assert_eq!(count, 1);
        assert!(latency < Duration::from_millis(2));
        known.record(Duration::from_millis(1), start + HALF * 2);
        assert_eq!(known.percentile(99.0, start + HALF * 9), None);
    }

    #[test]
    fn too_few_answers_say_nothing_and_a_wait_is_never_too_short() {
        let known = Latencies::new();
        let settings = HedgeSettings::default();
        let mut now = known.origin;
        for _ in 1..settings.minimum_calls {
            known.record(Duration::from_micros(100), now);
        }
        assert_eq!(known.delay(&settings, now), None);
        known.record(Duration::from_micros(100), now);
        assert_eq!(known.delay(&settings, now), None, "worked out a moment ago");
        now += FRESH;
        assert_eq!(known.delay(&settings, now), Some(settings.min_delay));
    }

    #[test]
    fn extremes_have_a_bucket() {
        let known = Latencies::new();
        let now = known.origin;
        known.record(Duration::ZERO, now);
        known.record(Duration::MAX, now);
        assert_eq!(known.percentile(100.0, now).unwrap().1, 2);
    }
}
