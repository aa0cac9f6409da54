//! How many messages to fetch at once: one, and more while they are taken as fast as they come.
//!
//! What is fetched and not taken counts as an attempt at the server when it is given back. So a slow consumer fetches what it
//! is waiting for, and only one that keeps taking gets a stock.

use std::time::Duration;

use tokio::time::Instant;

/// A message taken within this is taken fast.
const FAST: Duration = Duration::from_millis(2);
/// One taken after this is taken slowly.
const SLOW: Duration = Duration::from_millis(10);
/// So many must be taken fast, one by one, before more than one is fetched at once.
const STREAK: u32 = 32;
/// Most that are fetched at once, however fast.
const MOST: u32 = 512;

/// The pace of one consumer.
#[derive(Debug)]
pub(crate) struct Pace {
    batch: u32,
    streak: u32,
    since: Option<(Instant, u32)>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            batch: 1,
            streak: 0,
            since: None,
        }
    }

    /// How many to keep fetched or asked for.
    pub(crate) fn stock(&self) -> u32 {
        self.batch
    }

    /// Messages were asked for.
    pub(crate) fn asked(&mut self, now: Instant, count: u32) {
        if let Some((since, before)) = self.since {
            let each = now.saturating_duration_since(since) / before.max(1);
            if each <= FAST {
                self.streak = self.streak.saturating_add(before);
            } else if each > SLOW {
                self.rest();
            }
            if self.streak >= STREAK {
                self.batch = self.batch.saturating_mul(2).min(MOST);
            }
        }
        self.since = Some((now, count));
    }

    /// Nothing is taken.
    pub(crate) fn rest(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_grows_while_messages_are_taken_fast_and_goes_when_they_are_not() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        for _ in 0..50 {
            pace.asked(now, pace.stock());
            now += Duration::from_micros(500);
        }
        assert_eq!(pace.stock(), MOST);
        let mut few = Pace::new();
        for _ in 0..STREAK {
            few.asked(now, 1);
        }
        assert_eq!(few.stock(), 1, "a few say nothing");
        now += Duration::from_secs(60);
        pace.asked(now, pace.stock());
        assert_eq!(pace.stock(), 1);
    }
}
