//! What the policies tell whoever counts and draws: this crate knows no metrics.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::breaker::State;
use crate::chaos::Fault;
use crate::target::Target;

/// A circuit changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitChange {
    /// Whose circuit.
    pub target: Target,
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Counts the changes of this circuit. Observers are called outside the lock, so two changes close together may
    /// arrive in the other order: the higher number is the later one.
    pub sequence: u32,
    /// Failures that led to it.
    pub failures: u32,
}

/// Why a call was refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The circuit is open.
    CircuitOpen,
    /// More calls than the rate allows.
    RateLimited,
    /// Too many calls run and wait.
    BulkheadFull,
    /// As many calls run as the other side can take.
    Overloaded,
    /// Too little of the deadline is left to begin.
    DeadlineTooShort,
    /// The budget for retries is used up; the attempts before it did happen.
    RetryBudget,
}

impl Refusal {
    /// The reason as one word, as metrics show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::RateLimited => "rate_limited",
            Self::BulkheadFull => "bulkhead_full",
            Self::Overloaded => "overloaded",
            Self::DeadlineTooShort => "deadline_too_short",
            Self::RetryBudget => "retry_budget",
        }
    }
}

/// Is told what the policies do. Called on the task of the call, outside any lock: it has to be quick. A panic in it
/// is caught and logged.
pub trait Observer: Send + Sync + 'static {
    /// A circuit changed its state.
    fn circuit_changed(&self, change: &CircuitChange) {
        let _ = change;
    }

    /// A call, or a retry of it, was refused here.
    fn refused(&self, target: &Target, refusal: Refusal) {
        let _ = (target, refusal);
    }

    /// The first answer is late: the call is asked a second time beside it.
    fn hedging(&self, target: &Target) {
        let _ = target;
    }

    /// A hedge had the first good answer, or the last of the bad ones.
    fn hedge_won(&self, target: &Target) {
        let _ = target;
    }

    /// The adaptive concurrency limit of a target moved.
    fn concurrency_changed(&self, target: &Target, limit: u32) {
        let _ = (target, limit);
    }

    /// Something was made to go wrong with a call.
    fn disturbed(&self, target: &Target, fault: Fault) {
        let _ = (target, fault);
    }

    /// An attempt failed and attempt number `next` follows after `delay`.
    fn retrying(&self, target: &Target, next: u32, delay: Duration) {
        let _ = (target, next, delay);
    }
}

/// The observers of a registry or of a single breaker; fixed when it is built, so that telling them takes no lock.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.len())
    }
}

impl Observers {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    pub(crate) fn tell(&self, what: impl Fn(&dyn Observer)) {
        for observer in &self.0 {
            // Permits report on drop, also while a panic unwinds: a second panic would abort the process.
            if catch_unwind(AssertUnwindSafe(|| what(observer.as_ref()))).is_err() {
                tracing::error!(target: "trunkline", "an observer of the resilience policies panicked");
            }
        }
    }
}
