//! Answers that are kept.

use super::instrument::{Counter, Gauge};
use super::{Metrics, table};

/// How a request met the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// Answered from the cache.
    Hit,
    /// Answered from the cache past its time.
    Stale,
    /// Kept, and the other side said that it still holds.
    Revalidated,
    /// Not kept: the other side answered.
    Miss,
    /// Answered by what another call that was under way got.
    Shared,
}

impl CacheOutcome {
    const ALL: [Self; 5] = [
        Self::Hit,
        Self::Stale,
        Self::Revalidated,
        Self::Miss,
        Self::Shared,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Shared => "shared",
        }
    }
}

/// What is measured about the cache of calls to one service.
#[derive(Clone, Debug)]
pub struct CacheMetrics([Counter; CacheOutcome::ALL.len()]);

impl CacheMetrics {
    pub(super) fn new(metrics: &Metrics, service: &str) -> Self {
        let counter = |outcome: CacheOutcome| {
            table::counter(metrics.table(), |t| {
                t.cache_requests.series([service, outcome.as_str()])
            })
        };
        Self(CacheOutcome::ALL.map(counter))
    }

    /// A request met the cache.
    pub fn met(&self, outcome: CacheOutcome) {
        self.0[outcome as usize].add(1);
    }
}

/// What is measured about the memory of a cache.
#[derive(Clone, Debug)]
pub struct CacheStoreMetrics {
    evictions: Counter,
    bytes: Gauge,
}

impl CacheStoreMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let table = metrics.table();
        Self {
            evictions: table::counter(table, |t| t.cache_evictions.clone()),
            bytes: table::gauge(table, |t| t.cache_bytes.clone()),
        }
    }

    /// An answer made room for others.
    pub fn evicted(&self) {
        self.evictions.add(1);
    }

    /// So many bytes are kept now.
    pub fn holds(&self, bytes: u64) {
        self.bytes.set(bytes);
    }
}
