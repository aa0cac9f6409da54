//! Who waits for a place, and how many places are owed.

use crate::sync::{AtomicUsize, Ordering};

/// Counts the queue and the debt of a bulkhead.
#[derive(Debug)]
pub(crate) struct Tally {
    waiting: AtomicUsize,
    /// Places that a smaller limit has taken away while calls still held them: not given back when those end.
    debt: AtomicUsize,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            debt: AtomicUsize::new(0),
        }
    }

    /// Joins the queue, unless there are so many in it.
    pub(crate) fn join(&self, most: usize) -> Option<Queued<'_>> {
        // Not counted and taken back: whoever asks in between would be refused for nothing.
        let joined = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < most).then_some(waiting + 1)
            });
        // Made only where it joined: dropping it leaves the queue.
        joined.is_ok().then(|| Queued(self))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// So many places more are owed.
    pub(crate) fn owe(&self, places: usize) {
        self.debt.fetch_add(places, Ordering::AcqRel);
    }

    /// Pays back up to `most` places that are owed; says how many.
    pub(crate) fn pay(&self, most: usize) -> usize {
        if self.owed() == 0 {
            return 0;
        }
        self.debt
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |owed| {
                (owed > 0).then(|| owed - owed.min(most))
            })
            .map_or(0, |owed| owed.min(most))
    }

    pub(crate) fn owed(&self) -> usize {
        self.debt.load(Ordering::Relaxed)
    }
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Queued<'a>(&'a Tally);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
