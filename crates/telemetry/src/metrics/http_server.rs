//! Requests served.

use std::sync::Arc;
use std::time::Duration;

use super::instrument::{ActiveGuard, Gauge, Latency, Slots};
use super::{Metrics, table};

/// What is measured about requests served.
#[derive(Clone, Debug)]
pub struct HttpServerMetrics {
    metrics: Metrics,
    active: Gauge,
}

impl HttpServerMetrics {
    pub(super) fn new(metrics: Metrics) -> Self {
        let active = table::gauge(metrics.table(), |t| t.http_server_active.clone());
        Self { metrics, active }
    }

    /// Counts a request as being served until the guard is dropped.
    pub fn active(&self) -> ActiveGuard {
        self.active.hold()
    }

    /// Handles of one route by its template, such as `/users/{id}`; never by a raw path.
    #[must_use]
    pub fn route(&self, method: &str, template: &str) -> RouteMetrics {
        RouteMetrics(Arc::new(Route {
            metrics: self.metrics.clone(),
            method: method.into(),
            template: template.into(),
            statuses: Slots::default(),
        }))
    }
}

/// What is measured about one route.
#[derive(Clone, Debug)]
pub struct RouteMetrics(Arc<Route>);

#[derive(Debug)]
struct Route {
    metrics: Metrics,
    method: Box<str>,
    template: Box<str>,
    statuses: Slots<u16, Latency>,
}

impl RouteMetrics {
    /// A request was answered.
    pub fn served(&self, status: u16, elapsed: Duration) {
        let Route {
            metrics, statuses, ..
        } = &*self.0;
        if metrics.is_enabled() {
            statuses.with(
                status,
                || self.latency(status),
                |latency| latency.observe(elapsed),
            );
        }
    }

    fn latency(&self, status: u16) -> Latency {
        let text = status.to_string();
        let error = if status >= 500 { text.as_str() } else { "" };
        let Route {
            metrics,
            method,
            template,
            ..
        } = &*self.0;
        table::latency(metrics.table(), |t| {
            t.http_server.series([method, template, &text, error])
        })
    }
}
