//! How long an instance takes to answer, as one number that forgets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How fast the past is forgotten: after this time without answers an estimate is worth a third.
const MEMORY: Duration = Duration::from_secs(10);

/// What a failed first answer counts as: a fast refusal must not look like a fast answer.
const FAILED_FIRST: Duration = Duration::from_secs(1);

/// An exponentially weighted mean that follows a peak at once and forgets it slowly. Time and estimate share one atomic
/// word, so readers and writers need no lock; of two writers at the same moment one may be lost.
#[derive(Debug)]
pub(super) struct LatencyEstimate {
    origin: Instant,
    /// Milliseconds since the origin above (wrapping), and the mean in microseconds as the bits of an `f32` below.
    /// 0 means never measured.
    word: AtomicU64,
}

impl LatencyEstimate {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            origin,
            word: AtomicU64::new(0),
        }
    }

    /// The estimate in microseconds as of now, or `None` when there was no answer yet.
    pub(super) fn micros(&self, now: Instant) -> Option<f32> {
        let (at, mean) = self.read()?;
        Some(mean * fading(self.age(at, now)))
    }

    /// Takes an answer into account.
    pub(super) fn observe(&self, latency: Duration, now: Instant) {
        let latency = micros(latency);
        let mean = match self.read() {
            Some((at, mean)) if latency < mean => {
                let kept = fading(self.age(at, now));
                mean * kept + latency * (1.0 - kept)
            }
            _ => latency,
        };
        self.write(mean, now);
    }

    /// Takes a failure into account, which never makes an instance look faster.
    pub(super) fn observe_failure(&self, latency: Duration, now: Instant) {
        let latency = micros(latency);
        let mean = match self.read() {
            Some((_, mean)) => mean.max(latency),
            None => micros(FAILED_FIRST).max(latency),
        };
        self.write(mean, now);
    }

    /// Takes into account that an answer took longer than this.
    pub(super) fn observe_at_least(&self, latency: Duration, now: Instant) {
        let latency = micros(latency);
        if self.micros(now).is_none_or(|mean| mean < latency) {
            self.write(latency, now);
        }
    }

    /// Milliseconds since a stamp. Another thread's clock reading may be a little later than this one's: that is no age, and
    /// above all not one of fifty days, which would forget a peak.
    fn age(&self, at: u32, now: Instant) -> u32 {
        let age = self.stamp(now).wrapping_sub(at);
        if age > u32::MAX / 2 { 0 } else { age }
    }

    fn read(&self) -> Option<(u32, f32)> {
        let word = self.word.load(Ordering::Relaxed);
        (word != 0).then(|| ((word >> 32) as u32, f32::from_bits(word as u32)))
    }

    fn write(&self, mean: f32, now: Instant) {
        let word = u64::from(self.stamp(now)) << 32 | u64::from(mean.to_bits());
        self.word.store(word, Ordering::Relaxed);
    }

    fn stamp(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.origin).as_millis() as u32
    }
}

fn micros(span: Duration) -> f32 {
    // At least a little, so that the word is never 0.
    (span.as_secs_f32() * 1e6).max(1.0)
}

/// What is left of an estimate after so many milliseconds.
fn fading(millis: u32) -> f32 {
    if millis == 0 {
        return 1.0;
    }
    (-(millis as f32) / MEMORY.as_millis() as f32).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_peak_at_once_and_forgets_it_slowly() {
        let start = Instant::now();
        let estimate = LatencyEstimate::new(start);
        assert_eq!(estimate.micros(start), None);
        estimate.observe(Duration::from_millis(1), start);
        estimate.observe(Duration::from_millis(100), start);
        assert!((estimate.micros(start).unwrap() - 100_000.0).abs() < 1.0);
        let later = start + MEMORY;
        let faded = estimate.micros(later).unwrap();
        assert!((30_000.0..40_000.0).contains(&faded), "{faded}");
        estimate.observe(Duration::from_millis(1), later);
        let mixed = estimate.micros(later).unwrap();
        assert!((30_000.0..40_000.0).contains(&mixed), "{mixed}");
    }

    /// Of two threads that read the clock one after the other the later one may write first.
    #[test]
    fn a_clock_that_is_a_little_behind_forgets_nothing() {
        let start = Instant::now();
        let estimate = LatencyEstimate::new(start);
        let behind = start + Duration::from_millis(5);
        estimate.observe(Duration::from_millis(100), start + Duration::from_millis(6));
        assert!((estimate.micros(behind).unwrap() - 100_000.0).abs() < 1.0);
        estimate.observe(Duration::from_millis(1), behind);
        assert!((estimate.micros(behind).unwrap() - 100_000.0).abs() < 1.0);
    }

    #[test]
    fn what_was_given_up_on_only_makes_it_look_slower() {
        let start = Instant::now();
        let estimate = LatencyEstimate::new(start);
        estimate.observe_at_least(Duration::from_millis(50), start);
        assert!((estimate.micros(start).unwrap() - 50_000.0).abs() < 1.0);
        estimate.observe_at_least(Duration::from_millis(1), start);
        assert!((estimate.micros(start).unwrap() - 50_000.0).abs() < 1.0);
    }

    #[test]
    fn a_fast_failure_does_not_look_fast() {
        let start = Instant::now();
        let estimate = LatencyEstimate::new(start);
        estimate.observe_failure(Duration::from_micros(50), start);
        assert!(estimate.micros(start).unwrap() >= 1_000_000.0);
        let known = LatencyEstimate::new(start);
        known.observe(Duration::from_millis(20), start);
        known.observe_failure(Duration::from_micros(50), start);
        assert!((known.micros(start).unwrap() - 20_000.0).abs() < 1.0);
    }
}
