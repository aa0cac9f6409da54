//! Requests to other services.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use trunkline_core::ErrorKind;

use super::instrument::{ActiveGuard, Counter, Gauge, Latency, Slots};
use super::{Metrics, table};

/// What is measured about requests to one service.
#[derive(Clone, Debug)]
pub struct HttpClientMetrics {
    metrics: Metrics,
    service: Arc<str>,
    active: Gauge,
}

impl HttpClientMetrics {
    pub(super) fn new(metrics: Metrics, service: &str) -> Self {
        let active = table::gauge(metrics.table(), |t| t.http_client_active.series([service]));
        Self {
            service: service.into(),
            active,
            metrics,
        }
    }

    /// Counts a call as under way until the guard is dropped.
    pub fn active(&self) -> ActiveGuard {
        self.active.hold()
    }

    /// Handles of one endpoint, such as `GET /users/{id}`. Keep them; do not ask per call.
    #[must_use]
    pub fn endpoint(&self, endpoint: &str) -> HttpClientEndpointMetrics {
        let table = self.metrics.table();
        let retries = table::counter(table, |t| t.retries.series([&self.service, endpoint]));
        HttpClientEndpointMetrics(Arc::new(Endpoint {
            metrics: self.metrics.clone(),
            service: Arc::clone(&self.service),
            endpoint: endpoint.into(),
            retries,
            hedges: OnceLock::new(),
            version_fallbacks: OnceLock::new(),
            outcomes: Slots::default(),
        }))
    }

    /// Handles of the attempts at one instance, `host:port`; recorded while detailed metrics are on, and kept from the
    /// first attempt then: most programs never ask for them.
    #[must_use]
    pub fn attempts(&self, instance: &str) -> AttemptMetrics {
        AttemptMetrics(Arc::new(Attempts {
            metrics: self.metrics.clone(),
            service: Arc::clone(&self.service),
            instance: instance.into(),
            succeeded: OnceLock::new(),
            failed: OnceLock::new(),
        }))
    }
}

/// What is measured about calls of one endpoint.
#[derive(Clone, Debug)]
pub struct HttpClientEndpointMetrics(Arc<Endpoint>);

#[derive(Debug)]
struct Endpoint {
    metrics: Metrics,
    service: Arc<str>,
    endpoint: Box<str>,
    retries: Counter,
    /// Those that started, and those that won; shown once there is one.
    hedges: OnceLock<[Counter; 2]>,
    /// Shown once there is one.
    version_fallbacks: OnceLock<Counter>,
    outcomes: Slots<Outcome, (Latency, Counter)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    Error(ErrorKind),
}

impl HttpClientEndpointMetrics {
    /// A call was answered, after all its attempts. From 500 on it counts as a failed call too.
    pub fn answered(&self, status: u16, elapsed: Duration) {
        self.0.record(Outcome::Status(status), elapsed);
    }

    /// A call ended without an answer.
    pub fn failed(&self, kind: ErrorKind, elapsed: Duration) {
        self.0.record(Outcome::Error(kind), elapsed);
    }

    /// An attempt after the first was made.
    pub fn retried(&self) {
        self.0.retries.add(1);
    }

    /// A call was asked a second time beside the first.
    pub fn hedged(&self) {
        self.0.hedges()[0].add(1);
    }

    /// A call was passed on to another version of the service.
    pub fn fell_back_to_a_version(&self) {
        let Endpoint {
            service, endpoint, ..
        } = &*self.0;
        let table = self.0.metrics.table();
        let make = || table::counter(table, |t| t.version_fallbacks.series([service, endpoint]));
        self.0.version_fallbacks.get_or_init(make).add(1);
    }

    /// The second request's answer was taken.
    pub fn hedge_won(&self) {
        self.0.hedges()[1].add(1);
    }
}

impl Endpoint {
    fn hedges(&self) -> &[Counter; 2] {
        let labels = [&*self.service, &*self.endpoint];
        let table = self.metrics.table();
        self.hedges.get_or_init(|| {
            [
                table::counter(table, |t| t.hedges.series(labels)),
                table::counter(table, |t| t.hedges_won.series(labels)),
            ]
        })
    }

    fn record(&self, outcome: Outcome, elapsed: Duration) {
        if self.metrics.is_enabled() {
            let make = || self.instruments(outcome);
            self.outcomes.with(outcome, make, |(latency, errors)| {
                latency.observe(elapsed);
                errors.add(1);
            });
        }
    }

    fn instruments(&self, outcome: Outcome) -> (Latency, Counter) {
        let (status, error, failed) = match outcome {
            Outcome::Status(status) => {
                let text = status.to_string();
                let error = if status >= 400 {
                    text.clone()
                } else {
                    String::new()
                };
                (text, error, status >= 500)
            }
            Outcome::Error(kind) => (String::new(), kind.as_str().to_owned(), true),
        };
        let (service, endpoint) = (&*self.service, &*self.endpoint);
        let table = self.metrics.table();
        let latency = table::latency(table, |t| {
            t.http_client.series([service, endpoint, &status, &error])
        });
        let errors = table::counter(table.filter(|_| failed), |t| {
            t.call_errors.series([service, endpoint, &error])
        });
        (latency, errors)
    }
}

/// What is measured about attempts at one instance.
#[derive(Clone, Debug)]
pub struct AttemptMetrics(Arc<Attempts>);

#[derive(Debug)]
struct Attempts {
    metrics: Metrics,
    service: Arc<str>,
    instance: Box<str>,
    succeeded: OnceLock<Latency>,
    failed: OnceLock<Latency>,
}

impl AttemptMetrics {
    /// An attempt ended.
    pub fn observe(&self, succeeded: bool, elapsed: Duration) {
        if self.0.metrics.is_detailed() {
            self.0.latency(succeeded).observe(elapsed);
        }
    }
}

impl Attempts {
    fn latency(&self, succeeded: bool) -> &Latency {
        let (latency, outcome) = if succeeded {
            (&self.succeeded, "success")
        } else {
            (&self.failed, "failure")
        };
        latency.get_or_init(|| {
            table::latency(self.metrics.table(), |t| {
                t.http_attempts
                    .series([&self.service, &self.instance, outcome])
            })
        })
    }
}
