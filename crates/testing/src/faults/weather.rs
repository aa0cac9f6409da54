//! What the link is like now.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the link is like now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// How often all connections were reset.
    pub(super) resets: u64,
    pub(super) refuses: bool,
    pub(super) stalls: bool,
    pub(super) delay: Duration,
}

/// How many connections there are, and were.
#[derive(Debug, Default)]
pub(super) struct Counters {
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Counters {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    /// Another one, until the guard is dropped.
    pub(super) fn count(self: &Arc<Self>) -> Counted {
        self.accepted.fetch_add(1, Ordering::AcqRel);
        self.open.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(self))
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(super) struct Counted(Arc<Counters>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
