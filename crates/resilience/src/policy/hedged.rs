//! An attempt that is hedged: several of them beside each other, each through breaker, bulkhead and timeout.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::run::{PolicyError, Run, Step};
use crate::call::Attempt;
use crate::failure::{Classify, Outcome};
use crate::hedge::{HedgeSettings, Latencies, Race, Raced, Told, Verdict, race};
use crate::observe::Refusal;
use crate::retry::{Plan, Reservation};

/// How the attempts of a call are hedged.
#[derive(Debug)]
pub(crate) struct Hedging {
    pub(crate) settings: HedgeSettings,
    pub(crate) latencies: std::sync::Arc<Latencies>,
}

impl<'r, C> Run<'r, C> {
    /// How to hedge this call, if it may be.
    pub(super) fn hedging(&self) -> Option<&'r Hedging> {
        let hedging = self.engine.hedge.as_ref()?;
        (self.call.hedge && self.call.repeatable).then_some(hedging)
    }

    /// Makes an attempt and hedges it. What its hedges failed with is put into the plan.
    pub(super) async fn hedged<T, E, F, Fut>(
        &self,
        hedging: &'r Hedging,
        now: Instant,
        reservation: Option<Reservation<'r>>,
        operation: &mut F,
        plan: &mut Plan<'_, C, E>,
    ) -> Step<T, E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: PolicyError,
    {
        let number = plan.number();
        let rules = Race {
            settings: &hedging.settings,
            latencies: &hedging.latencies,
            budget: self.engine.budget.as_deref(),
            began: now,
            allowed: hedging.settings.max_hedges,
        };
        // Requests beside each other take turns at it, and each only to make its future.
        let shared = Mutex::new(operation);
        let mut own = reservation;
        let start = |hedge, paid: Option<Reservation<'r>>| {
            let (own, shared) = (own.take(), &shared);
            async move {
                // The retry that this is was paid for already; a hedge brings its own.
                let began = if hedge == 0 { now } else { Instant::now() };
                let operation = &mut |attempt| {
                    let mut operation = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    operation(attempt)
                };
                let paid = own.or(paid);
                self.attempt(number, hedge, began, paid, operation).await
            }
        };
        let verdict = |step: &Step<T, E>| match step {
            Step::Refused(..) => Verdict::Refused,
            Step::Made(result) => match self.judge.outcome(result) {
                Outcome::Success => Verdict::Good,
                Outcome::Failure | Outcome::Ignored => Verdict::Bad,
            },
        };
        let tell = |told| match told {
            Told::Started => self.observers.tell(|to| to.hedging(self.target)),
            Told::NoBudget => {
                let refusal = Refusal::RetryBudget;
                self.observers.tell(|to| to.refused(self.target, refusal));
            }
        };
        let Raced {
            result,
            by_hedge,
            failed,
        } = race(rules, start, verdict, tell).await;
        if by_hedge {
            self.observers.tell(|to| to.hedge_won(self.target));
        }
        for (_, step) in failed {
            if let Step::Made(result) = step {
                plan.beside(result);
            }
        }
        result
    }
}
