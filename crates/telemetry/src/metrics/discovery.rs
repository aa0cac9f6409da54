//! Finding services.

use std::time::Duration;

use super::instrument::{Counter, Gauge, Latency, Seconds};
use super::table::{self, Table};

/// What is measured about finding one service.
#[derive(Clone, Debug)]
pub struct DiscoveryMetrics {
    resolved: Latency,
    unresolved: Latency,
    healthy: Gauge,
    unhealthy: Gauge,
    ejected: Gauge,
    changes: Counter,
    stale: Seconds,
}

impl DiscoveryMetrics {
    pub(super) fn new(table: Option<&Table>, service: &str) -> Self {
        let resolve = |outcome| table::latency(table, |t| t.resolve.series([service, outcome]));
        let instances = |status| table::gauge(table, |t| t.instances.series([service, status]));
        Self {
            resolved: resolve("success"),
            unresolved: resolve("failure"),
            healthy: instances("healthy"),
            unhealthy: instances("unhealthy"),
            ejected: instances("ejected"),
            changes: table::counter(table, |t| t.discovery_changes.series([service])),
            stale: table::seconds(table, |t| t.discovery_stale.series([service])),
        }
    }

    /// The registry was asked and answered, or failed to.
    pub fn resolved(&self, succeeded: bool, elapsed: Duration) {
        let latency = if succeeded {
            &self.resolved
        } else {
            &self.unresolved
        };
        latency.observe(elapsed);
    }

    /// How many instances are known: those that may be called, those that say they are unhealthy, and those that were
    /// taken out for failing.
    pub fn instances(&self, healthy: usize, unhealthy: usize, ejected: usize) {
        self.healthy.set(healthy as u64);
        self.unhealthy.set(unhealthy as u64);
        self.ejected.set(ejected as u64);
    }

    /// The instances changed.
    pub fn changed(&self) {
        self.changes.add(1);
    }

    /// The age of the last answer while the registry is away; zero when it is back.
    pub fn stale(&self, age: Duration) {
        self.stale.set(age);
    }
}

/// What is measured about announcing own instances.
#[derive(Clone, Debug)]
pub struct RegistrationMetrics {
    new: Counter,
    lost: Counter,
    again: Counter,
}

impl RegistrationMetrics {
    pub(super) fn new(table: Option<&Table>) -> Self {
        let outcome = |outcome| table::counter(table, |t| t.registrations.series([outcome]));
        Self {
            new: outcome("new"),
            lost: outcome("lost"),
            again: outcome("again"),
        }
    }

    /// An instance was announced; not for the first time where it was lost before.
    pub fn announced(&self, again: bool) {
        let counter = if again { &self.again } else { &self.new };
        counter.add(1);
    }

    /// An announcement was lost: the registry has forgotten it, or its time ran out while nobody could renew it.
    pub fn lost(&self) {
        self.lost.add(1);
    }
}
