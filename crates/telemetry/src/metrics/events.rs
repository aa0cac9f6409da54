//! Events appended and published.

use super::instrument::{Counter, Gauge};
use super::table::{self, Table};

/// What is measured about one event store.
#[derive(Clone, Debug)]
pub struct EventStoreMetrics {
    appended: Counter,
}

impl EventStoreMetrics {
    pub(super) fn new(table: Option<&Table>, store: &str) -> Self {
        Self {
            appended: table::counter(table, |t| t.appended.series([store])),
        }
    }

    /// Events were appended.
    pub fn appended(&self, events: u64) {
        self.appended.add(events);
    }
}

/// What is measured about one relay.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    published: Counter,
    lag: Gauge,
}

impl RelayMetrics {
    pub(super) fn new(table: Option<&Table>, relay: &str) -> Self {
        Self {
            published: table::counter(table, |t| t.relayed.series([relay])),
            lag: table::gauge(table, |t| t.relay_lag.series([relay])),
        }
    }

    /// Events were published and their checkpoint is durable.
    pub fn published(&self, events: u64) {
        self.published.add(events);
    }

    /// How many events are appended and not yet published.
    pub fn lag(&self, events: u64) {
        self.lag.set(events);
    }
}
