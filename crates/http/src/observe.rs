//! Turns what the policies tell into metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trunkline_resilience::breaker::State;
use trunkline_resilience::chaos::Fault;
use trunkline_resilience::{CircuitChange, Observer, Refusal, Target};
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::{
    CircuitMetrics, CircuitPosition, HttpClientEndpointMetrics, Rejection, ResilienceMetrics,
};

/// The endpoint under which calls are measured that no template fits.
pub(crate) const WHOLE: &str = "*";

/// Shows a circuit from its start, not from its first change.
pub(crate) fn show_circuit(metrics: &Metrics, target: &Target) {
    let circuits = metrics.resilience(&target.service);
    drop(circuits.circuit(&target.endpoint_label()));
}

/// Targets whose handles are remembered; the others are looked up each time.
const MOST_TARGETS: usize = 4096;

/// Counts changes of circuits, retries, hedges and refusals of a [`PolicyRegistry`](trunkline_resilience::PolicyRegistry) in
/// metrics: give it to the registry's builder as an observer.
#[derive(Debug)]
pub struct PolicyMetrics {
    metrics: Metrics,
    /// The state of each circuit is that of another registry's.
    beside: bool,
    known: Mutex<HashMap<Target, Arc<Handles>>>,
}

#[derive(Debug)]
struct Handles {
    service: ResilienceMetrics,
    circuit: CircuitMetrics,
    endpoint: HttpClientEndpointMetrics,
}

impl PolicyMetrics {
    /// Counts in these metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            metrics: metrics.clone(),
            beside: false,
            known: Mutex::default(),
        })
    }

    /// The same for a second registry with circuits for the same targets, such as for calls on behalf of others: all is
    /// counted together, and the state shown is that of the first registry's circuits.
    #[must_use]
    pub fn of_others(metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            metrics: metrics.clone(),
            beside: true,
            known: Mutex::default(),
        })
    }

    fn of(&self, target: &Target) -> Arc<Handles> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = known.get(target) {
            return Arc::clone(handles);
        }
        let endpoint = target.endpoint.as_deref().unwrap_or(WHOLE);
        let service = self.metrics.resilience(&target.service);
        let handles = Arc::new(Handles {
            circuit: service.circuit(&target.endpoint_label()),
            endpoint: self.metrics.http_client(&target.service).endpoint(endpoint),
            service,
        });
        if known.len() < MOST_TARGETS {
            known.insert(target.clone(), Arc::clone(&handles));
        }
        handles
    }
}

impl Observer for PolicyMetrics {
    fn circuit_changed(&self, change: &CircuitChange) {
        let to = match change.to {
            State::Closed => CircuitPosition::Closed,
            State::HalfOpen => CircuitPosition::HalfOpen,
            State::Open => CircuitPosition::Open,
        };
        // Of the instances, each of which has one, there is no end: they are counted together, and have no state together.
        if change.target.instance.is_some() {
            let mut endpoint = change.target.clone();
            endpoint.instance = None;
            self.of(&endpoint).circuit.one_changed(to);
        } else if self.beside {
            self.of(&change.target).circuit.one_changed(to);
        } else {
            self.of(&change.target).circuit.changed(to);
        }
    }

    fn refused(&self, target: &Target, refusal: Refusal) {
        let handles = self.of(target);
        match refusal {
            Refusal::RetryBudget => handles.service.budget_exhausted(),
            Refusal::CircuitOpen => handles.service.rejected(Rejection::CircuitOpen),
            Refusal::RateLimited => handles.service.rejected(Rejection::RateLimited),
            Refusal::Overloaded => handles.service.rejected(Rejection::Overloaded),
            Refusal::BulkheadFull => handles.service.rejected(Rejection::BulkheadFull),
            Refusal::DeadlineTooShort => handles.service.rejected(Rejection::Deadline),
            _ => handles.service.rejected(Rejection::Other),
        }
    }

    fn hedging(&self, target: &Target) {
        self.of(target).endpoint.hedged();
    }

    fn hedge_won(&self, target: &Target) {
        self.of(target).endpoint.hedge_won();
    }

    fn concurrency_changed(&self, target: &Target, limit: u32) {
        let endpoint = target.endpoint.as_deref().unwrap_or(WHOLE);
        self.metrics
            .resilience(&target.service)
            .concurrency_limit(endpoint, limit);
    }

    fn disturbed(&self, target: &Target, fault: Fault) {
        self.metrics
            .resilience(&target.service)
            .chaos(fault.as_str());
    }

    fn retrying(&self, target: &Target, _: u32, _: Duration) {
        self.of(target).endpoint.retried();
    }
}
