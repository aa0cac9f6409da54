//! What the policies did.

use std::sync::{Arc, OnceLock};

use super::instrument::{Counter, Gauge};
use super::{Metrics, table};

/// What is measured about the policies of one service.
#[derive(Clone, Debug)]
pub struct ResilienceMetrics(Arc<Service>);

#[derive(Debug)]
struct Service {
    metrics: Metrics,
    service: Box<str>,
    budget: Counter,
    rejections: [OnceLock<Counter>; Rejection::ALL.len()],
}

impl ResilienceMetrics {
    pub(super) fn new(metrics: Metrics, service: &str) -> Self {
        let budget = table::counter(metrics.table(), |t| t.budget_exhausted.series([service]));
        Self(Arc::new(Service {
            metrics,
            service: service.into(),
            budget,
            rejections: std::array::from_fn(|_| OnceLock::new()),
        }))
    }

    /// Handles of one circuit. It is shown from now on, as closed until it changes; asking again changes nothing.
    #[must_use]
    pub fn circuit(&self, endpoint: &str) -> CircuitMetrics {
        let Service {
            metrics, service, ..
        } = &*self.0;
        let table = metrics.table();
        let transition = |to: CircuitPosition| {
            table::counter(table, |t| {
                t.circuit_transitions
                    .series([service, endpoint, to.as_str()])
            })
        };
        CircuitMetrics {
            // A new one shows 0, which is closed.
            state: table::gauge(table, |t| t.circuit_state.series([service, endpoint])),
            transitions: CircuitPosition::ALL.map(transition),
        }
    }

    /// A call was refused before it was sent.
    pub fn rejected(&self, reason: Rejection) {
        let Service {
            metrics,
            service,
            rejections,
            ..
        } = &*self.0;
        let make = || {
            table::counter(metrics.table(), |t| {
                t.rejections.series([service, reason.as_str()])
            })
        };
        rejections[reason as usize].get_or_init(make).add(1);
    }

    /// The adaptive concurrency limit of an endpoint moved; `*` stands for all of them.
    pub fn concurrency_limit(&self, endpoint: &str, limit: u32) {
        let Service {
            metrics, service, ..
        } = &*self.0;
        let gauge = table::gauge(metrics.table(), |t| {
            t.concurrency_limit.series([service, endpoint])
        });
        gauge.set(limit.into());
    }

    /// Something was made to go wrong with a call: `latency`, `error`, `abort`.
    pub fn chaos(&self, fault: &str) {
        let Service {
            metrics, service, ..
        } = &*self.0;
        table::counter(metrics.table(), |t| t.chaos_faults.series([service, fault])).add(1);
    }

    /// The budget refused a retry.
    pub fn budget_exhausted(&self) {
        self.0.budget.add(1);
    }
}

/// What is measured about one circuit.
#[derive(Clone, Debug)]
pub struct CircuitMetrics {
    state: Gauge,
    transitions: [Counter; 3],
}

impl CircuitMetrics {
    /// The circuit changed.
    pub fn changed(&self, to: CircuitPosition) {
        self.state.set(to as u64);
        self.one_changed(to);
    }

    /// One of several circuits changed that are counted together.
    pub fn one_changed(&self, to: CircuitPosition) {
        self.transitions[to as usize].add(1);
    }
}

/// The state of a circuit, as the metric shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitPosition {
    /// Calls pass.
    Closed,
    /// Single calls pass, to find out.
    HalfOpen,
    /// No call passes.
    Open,
}

impl CircuitPosition {
    const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Why a call was refused before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The circuit is open.
    CircuitOpen,
    /// More calls than the rate allows.
    RateLimited,
    /// Too many calls are under way.
    BulkheadFull,
    /// As many calls are under way as the other side can take.
    Overloaded,
    /// No connection became free in time.
    PoolExhausted,
    /// No instance is known.
    NoInstance,
    /// Too little time was left.
    Deadline,
    /// Anything else.
    Other,
}

impl Rejection {
    const ALL: [Self; 8] = [
        Self::CircuitOpen,
        Self::RateLimited,
        Self::BulkheadFull,
        Self::Overloaded,
        Self::PoolExhausted,
        Self::NoInstance,
        Self::Deadline,
        Self::Other,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::RateLimited => "rate_limited",
            Self::BulkheadFull => "bulkhead_full",
            Self::Overloaded => "overloaded",
            Self::PoolExhausted => "pool_exhausted",
            Self::NoInstance => "no_instance",
            Self::Deadline => "deadline",
            Self::Other => "other",
        }
    }
}
