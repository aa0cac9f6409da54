//! Counts in metrics what the policies of publishing do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use trunkline_resilience::breaker::State;
use trunkline_resilience::chaos::Fault;
use trunkline_resilience::{CircuitChange, Observer, Refusal, Target};
use trunkline_telemetry::metrics::{CircuitPosition, Rejection};
use trunkline_telemetry::{Metrics, ResilienceMetrics};

/// Circuits whose handles are remembered. The policies bound the circuits well below.
const MOST_CIRCUITS: usize = 4096;

/// Shows the circuits of publishing under the name of the broker's component, by topic.
pub(crate) struct CircuitMetrics {
    metrics: Metrics,
    // A handle shows its circuit as closed when it is made, so that it is made once.
    circuits: Mutex<HashMap<Target, trunkline_telemetry::CircuitMetrics>>,
}

impl CircuitMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            metrics: metrics.clone(),
            circuits: Mutex::default(),
        })
    }

    fn of(&self, target: &Target) -> ResilienceMetrics {
        self.metrics.resilience(&target.service)
    }
}

impl Observer for CircuitMetrics {
    fn circuit_changed(&self, change: &CircuitChange) {
        let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let known = circuits.get(&change.target).cloned();
        let circuit = known.unwrap_or_else(|| {
            let endpoint = change.target.endpoint_label();
            let circuit = self.of(&change.target).circuit(&endpoint);
            if circuits.len() < MOST_CIRCUITS {
                circuits.insert(change.target.clone(), circuit.clone());
            }
            circuit
        });
        circuit.changed(match change.to {
            State::Closed => CircuitPosition::Closed,
            State::HalfOpen => CircuitPosition::HalfOpen,
            State::Open => CircuitPosition::Open,
        });
    }

    fn concurrency_changed(&self, target: &Target, limit: u32) {
        let endpoint = target.endpoint.as_deref().unwrap_or("*");
        self.of(target).concurrency_limit(endpoint, limit);
    }

    fn disturbed(&self, target: &Target, fault: Fault) {
        self.of(target).chaos(fault.as_str());
    }

    fn refused(&self, target: &Target, refusal: Refusal) {
        let service = self.of(target);
        match refusal {
            Refusal::RetryBudget => service.budget_exhausted(),
            Refusal::CircuitOpen => service.rejected(Rejection::CircuitOpen),
            Refusal::RateLimited => service.rejected(Rejection::RateLimited),
            Refusal::Overloaded => service.rejected(Rejection::Overloaded),
            Refusal::BulkheadFull => service.rejected(Rejection::BulkheadFull),
            Refusal::DeadlineTooShort => service.rejected(Rejection::Deadline),
            _ => service.rejected(Rejection::Other),
        }
    }
}
