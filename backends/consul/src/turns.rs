//! How watches share the blocking queries that there may be at a time: agents bound the connections from one address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// The least that a query waits when there are many watches.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// Blocking queries at a time.
#[derive(Debug)]
pub(crate) struct Turns {
    places: Semaphore,
    count: u32,
    watches: AtomicU32,
    wait: Duration,
}

/// One watch, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watching(Arc<Turns>);

impl Turns {
    pub(crate) fn new(count: u32, wait: Duration) -> Self {
        let count = count.max(1);
        Self {
            places: Semaphore::new(
                usize::try_from(count)
                    .unwrap_or(Semaphore::MAX_PERMITS)
                    .min(Semaphore::MAX_PERMITS),
            ),
            count,
            watches: AtomicU32::new(0),
            wait,
        }
    }

    pub(crate) fn watching(self: &Arc<Self>) -> Watching {
        self.watches.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(self))
    }
}

impl Watching {
    /// A place, in the order of asking, and how long it may be held: less where others wait for it.
    pub(crate) async fn place(&self) -> (Option<SemaphorePermit<'_>>, Duration) {
        let turns = &*self.0;
        // Never closed.
        let place = turns.places.acquire().await.ok();
        let watches = turns.watches.load(Ordering::Relaxed).max(1);
        let wait = if watches > turns.count {
            let shared = turns
                .wait
                .mul_f64(f64::from(turns.count) / f64::from(watches));
            shared.max(SHORTEST_WAIT).min(turns.wait)
        } else {
            turns.wait
        };
        (place, wait)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_watches_than_places_hold_them_for_less() {
        let turns = Arc::new(Turns::new(2, Duration::from_secs(30)));
        let one = turns.watching();
        let two = turns.watching();
        assert_eq!(one.place().await.1, Duration::from_secs(30));
        let more: Vec<_> = (0..4).map(|_| turns.watching()).collect();
        assert_eq!(two.place().await.1, Duration::from_secs(10));
        let many: Vec<_> = (0..1000).map(|_| turns.watching()).collect();
        assert_eq!(two.place().await.1, SHORTEST_WAIT);
        drop((more, many));
        assert_eq!(two.place().await.1, Duration::from_secs(30));
    }

    #[tokio::test]
    async fn no_more_places_are_held_than_there_are() {
        let turns = Arc::new(Turns::new(1, Duration::from_secs(30)));
        let (one, two) = (turns.watching(), turns.watching());
        let (held, _) = one.place().await;
        let waiting = tokio::time::timeout(Duration::from_millis(10), two.place()).await;
        assert!(waiting.is_err());
        drop(held);
        assert!(two.place().await.0.is_some());
    }
}
