//! An observer that remembers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use trunkline_resilience::breaker::State;
use trunkline_resilience::{CircuitChange, Observer, Refusal, Target};

#[derive(Default)]
pub(crate) struct Watch {
    changes: Mutex<Vec<CircuitChange>>,
    refusals: Mutex<Vec<(String, Refusal)>>,
    retries: Mutex<Vec<(u32, Duration)>>,
    hedges: Mutex<(u32, u32)>,
}

impl Watch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn changes(&self) -> Vec<(State, State)> {
        let changes = self.changes.lock().unwrap();
        changes
            .iter()
            .map(|change| (change.from, change.to))
            .collect()
    }

    pub(crate) fn sequence(&self) -> Vec<u32> {
        let changes = self.changes.lock().unwrap();
        changes.iter().map(|change| change.sequence).collect()
    }

    pub(crate) fn refusals(&self) -> Vec<(String, Refusal)> {
        self.refusals.lock().unwrap().clone()
    }

    /// Hedges that started, and those that won.
    pub(crate) fn hedges(&self) -> (u32, u32) {
        *self.hedges.lock().unwrap()
    }

    pub(crate) fn retries(&self) -> Vec<(u32, Duration)> {
        self.retries.lock().unwrap().clone()
    }
}

impl Observer for Watch {
    fn circuit_changed(&self, change: &CircuitChange) {
        self.changes.lock().unwrap().push(change.clone());
    }

    fn refused(&self, target: &Target, refusal: Refusal) {
        self.refusals
            .lock()
            .unwrap()
            .push((target.to_string(), refusal));
    }

    fn hedging(&self, _: &Target) {
        self.hedges.lock().unwrap().0 += 1;
    }

    fn hedge_won(&self, _: &Target) {
        self.hedges.lock().unwrap().1 += 1;
    }

    fn retrying(&self, _: &Target, next: u32, delay: Duration) {
        self.retries.lock().unwrap().push((next, delay));
    }
}
