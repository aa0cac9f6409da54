//! The generic cell rate algorithm on one atomic word. Pure: told the time, in nanoseconds since any beginning.
//!
//! The word is the time at which a caller who keeps exactly to the rate would come next. Who comes earlier than that by
//! more than the burst is worth is early, and by exactly as much.

use crate::sync::{AtomicU64, Ordering};

/// Counts calls against a rate. One word is changed for a call that passes, none for one that does not.
#[derive(Debug)]
pub(crate) struct Gcra {
    next: AtomicU64,
    /// Nanoseconds between two calls that keep to the rate.
    interval: AtomicU64,
    /// How early a call may come: one interval for each call of the burst.
    tolerance: AtomicU64,
}

/// A turn that was taken: it begins after a wait, and can be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Nanoseconds until it begins.
    pub(crate) wait: u64,
    before: u64,
    after: u64,
}

impl Gcra {
    pub(crate) fn new(interval: u64, burst: u32) -> Self {
        let gcra = Self {
            next: AtomicU64::new(0),
            interval: AtomicU64::new(1),
            tolerance: AtomicU64::new(1),
        };
        gcra.set(interval, burst);
        gcra
    }

    /// Takes another rate and keeps what was counted. Gives the interval back that there was.
    pub(crate) fn set(&self, interval: u64, burst: u32) -> u64 {
        let interval = interval.max(1);
        let tolerance = interval.saturating_mul(burst.max(1).into());
        self.tolerance.store(tolerance, Ordering::Relaxed);
        self.interval.swap(interval, Ordering::Relaxed)
    }

    /// Takes another rate for good. A call that was made weighs what it weighs at the new rate where that is faster: who
    /// raises one call an hour to a hundred a second does not wait for the hour. It weighs no more where the rate is slower.
    pub(crate) fn reconfigure(&self, now: u64, interval: u64, burst: u32) {
        let interval = interval.max(1);
        let before = self.set(interval, burst);
        if interval >= before {
            return;
        }
        let lighter = |next: u64| {
            let owed = u128::from(next.saturating_sub(now));
            let owed = owed * u128::from(interval) / u128::from(before);
            now.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX))
        };
        let mut known = self.next.load(Ordering::Relaxed);
        while known > now {
            let (order, new) = (Ordering::Relaxed, lighter(known));
            match self.next.compare_exchange_weak(known, new, order, order) {
                Ok(_) => return,
                Err(newer) => known = newer,
            }
        }
    }

    /// Takes the next turn, if it begins within `patience`; else says when it would.
    #[inline]
    pub(crate) fn take(&self, now: u64, patience: u64) -> Result<Turn, u64> {
        let interval = self.interval.load(Ordering::Relaxed);
        let earliest = now.saturating_add(self.tolerance.load(Ordering::Relaxed));
        let mut known = self.next.load(Ordering::Relaxed);
        loop {
            // What was not used is not saved up beyond the burst.
            let before = known.max(now);
            let after = before.saturating_add(interval);
            let wait = after.saturating_sub(earliest);
            if wait > patience {
                return Err(wait);
            }
            match self.next.compare_exchange_weak(
                known,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Ok(Turn {
                        wait,
                        before,
                        after,
                    });
                }
                Err(newer) => known = newer,
            }
        }
    }

    /// Gives a turn back that was not used. One that others have queued up behind passes unused: given to somebody else,
    /// it would come at the same time as theirs.
    pub(crate) fn give_back(&self, turn: Turn) -> bool {
        let (after, before) = (turn.after, turn.before);
        self.next
            .compare_exchange(after, before, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Calls that would pass now without a wait.
    pub(crate) fn free(&self, now: u64) -> u64 {
        let interval = self.interval.load(Ordering::Relaxed);
        let earliest = now.saturating_add(self.tolerance.load(Ordering::Relaxed));
        let known = self.next.load(Ordering::Relaxed).max(now);
        earliest.saturating_sub(known) / interval
    }

    /// Whether nothing of it is used up: then forgetting it changes nothing.
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        self.next.load(Ordering::Relaxed) <= now
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let gcra = Gcra::new(100, 3);
        for _ in 0..3 {
            assert_eq!(gcra.take(1_000, 0).map(|turn| turn.wait), Ok(0));
        }
        assert_eq!(gcra.take(1_000, 0), Err(100));
        assert_eq!(gcra.take(1_099, 0), Err(1));
        assert!(gcra.take(1_100, 0).is_ok());
        assert_eq!(gcra.take(1_100, 0), Err(100));
        assert_eq!(gcra.free(1_000_000), 3);
    }

    #[test]
    fn a_turn_given_back_is_there_again_unless_others_wait_behind_it() {
        let gcra = Gcra::new(100, 1);
        let turn = gcra.take(0, 0).unwrap();
        gcra.give_back(turn);
        let first = gcra.take(0, 0).unwrap();
        let second = gcra.take(0, 1_000).unwrap();
        assert_eq!(second.wait, 100);
        gcra.give_back(first);
        assert_eq!(gcra.take(0, 1_000).unwrap().wait, 200);
    }

    proptest! {
        /// In no stretch of time do more calls begin than the burst and what the rate grants in it, whoever waits, gives
        /// back or comes late.
        #[test]
        fn never_more_than_burst_and_rate(
            interval in 1u64..500,
            burst in 1u32..20,
            calls in proptest::collection::vec((0u64..400, 0u64..1_000, any::<bool>()), 1..200),
        ) {
            let gcra = Gcra::new(interval, burst);
            let mut now = 0;
            let mut begun = Vec::new();
            for (pause, patience, gives_back) in calls {
                now += pause;
                match gcra.take(now, patience) {
                    Ok(turn) if gives_back => {
                        gcra.give_back(turn);
                    }
                    Ok(turn) => begun.push(now + turn.wait),
                    Err(wait) => prop_assert!(wait > patience),
                }
            }
            begun.sort_unstable();
            for (first, from) in begun.iter().enumerate() {
                for (last, to) in begun.iter().enumerate().skip(first) {
                    let calls = (last - first + 1) as u64;
                    prop_assert!(calls <= u64::from(burst) + (to - from) / interval);
                }
            }
        }

        /// What it says about the wait is true: one earlier is too early, at that time it passes.
        #[test]
        fn the_hint_is_exact(interval in 1u64..500, burst in 1u32..10, taken in 0u64..30, now in 0u64..1_000) {
            let gcra = Gcra::new(interval, burst);
            for _ in 0..taken {
                gcra.take(now, 0).ok();
            }
            if let Err(wait) = gcra.take(now, 0) {
                prop_assert!(gcra.take(now + wait - 1, 0).is_err());
                prop_assert!(gcra.take(now + wait, 0).is_ok());
            }
        }
    }
}
