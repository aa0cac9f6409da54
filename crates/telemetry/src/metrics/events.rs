//! Events appended and published.

use std::time::Duration;

use super::instrument::{Counter, Gauge, Seconds};
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
    age: Seconds,
}

impl RelayMetrics {
    pub(super) fn new(table: Option<&Table>, relay: &str) -> Self {
        Self {
            published: table::counter(table, |t| t.relayed.series([relay])),
            lag: table::gauge(table, |t| t.relay_lag.series([relay])),
            age: table::seconds(table, |t| t.relay_age.series([relay])),
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

    /// The age of the oldest event that is appended and not yet published; zero when there is none. A lag that is small
    /// and an age that grows mean that one event is stuck.
    pub fn age(&self, age: Duration) {
        self.age.set(age);
    }
}
