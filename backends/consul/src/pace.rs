//! How often a watch may ask: a service that never rests, or a server that does not wait, must not be asked all the time.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Questions that may follow each other at once.
const BURST: u32 = 10;

/// Afterwards one question in this time.
const EVERY: Duration = Duration::from_millis(100);

/// Longest wait after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Lets questions through at a bounded rate, and backs off from failures.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the questions so far are paid for.
    paid_until: Instant,
    failures: u32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            paid_until: Instant::now(),
            failures: 0,
        }
    }

    /// Waits until another question may be asked.
    pub(crate) async fn turn(&mut self) {
        let now = Instant::now();
        self.paid_until = self.paid_until.max(now) + EVERY;
        sleep_until(self.paid_until - EVERY * BURST).await;
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Waits longer after each failure, with jitter so that not all watches come back at the same moment.
    pub(crate) async fn after_failure(&mut self) {
        let longest = (EVERY * 2_u32.saturating_pow(self.failures)).min(LONGEST_PAUSE);
        self.failures = (self.failures + 1).min(16);
        tokio::time::sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_are_bounded_and_a_few_go_at_once() {
        let begun = Instant::now();
        let mut pace = Pace::new();
        for _ in 0..BURST {
            pace.turn().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            pace.turn().await;
        }
        let took = begun.elapsed();
        assert!((EVERY * 49..=EVERY * 51).contains(&took), "{took:?}");
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..BURST {
            pace.turn().await;
        }
        assert_eq!(
            begun.elapsed(),
            Duration::ZERO,
            "quiet times give the burst back, and no more"
        );
        pace.turn().await;
        assert!(begun.elapsed() > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_and_never_too_long() {
        let mut pace = Pace::new();
        let mut all = Vec::new();
        for _ in 0..30 {
            let begun = Instant::now();
            pace.after_failure().await;
            all.push(begun.elapsed());
        }
        assert!(all[0] <= EVERY + Duration::from_millis(1), "{all:?}");
        assert!(
            all[29] >= LONGEST_PAUSE / 2 && all[29] <= LONGEST_PAUSE + EVERY,
            "{all:?}"
        );
        pace.succeeded();
        let begun = Instant::now();
        pace.after_failure().await;
        assert!(begun.elapsed() <= EVERY + Duration::from_millis(1));
    }
}
