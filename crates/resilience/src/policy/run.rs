//! Carries a call through the policy: retry, breaker, rate limit, bulkhead, adaptive concurrency, attempt timeout, in this
//! order from outside to inside.

use std::future::Future;

use tokio::time::{Instant, sleep};

use super::Engine;
use crate::breaker::{Breaker, CircuitOpen, Permit};
use crate::bulkhead::BulkheadFull;
use crate::call::{Attempt, Call};
use crate::chaos::InjectedFault;
use crate::concurrency::{self, Overloaded};
use crate::failure::{Classify, Outcome};
use crate::observe::{Observers, Refusal};
use crate::ratelimit::RateLimited;
use crate::retry::{Bounds, Next, Plan, Reservation, RetryExhausted, Stopped};
use crate::target::Target;
use crate::timeout::{Deadline, DeadlineTooShort, Elapsed, Limit, limited};

/// Errors that can say what a policy has to say. `trunkline_core::Error` can; so can any error with these conversions.
pub trait PolicyError:
    From<CircuitOpen>
    + From<RateLimited>
    + From<BulkheadFull>
    + From<Overloaded>
    + From<InjectedFault>
    + From<Elapsed>
    + From<DeadlineTooShort>
    + From<RetryExhausted<Self>>
{
}

impl<E> PolicyError for E where
    E: From<CircuitOpen>
        + From<RateLimited>
        + From<BulkheadFull>
        + From<Overloaded>
        + From<InjectedFault>
        + From<Elapsed>
        + From<DeadlineTooShort>
        + From<RetryExhausted<E>>
{
}

/// One call under way.
pub(super) struct Run<'a, C> {
    pub(super) engine: &'a Engine,
    pub(super) target: &'a Target,
    pub(super) observers: &'a Observers,
    pub(super) judge: &'a C,
    pub(super) call: &'a Call,
    pub(super) began: Instant,
    pub(super) deadline: Deadline,
}

/// How an attempt ended.
pub(super) enum Step<T, E> {
    /// It was made, and this came of it.
    Made(Result<T, E>),
    /// It was refused here.
    Refused(E, Refusal),
}

impl<C> Run<'_, C> {
    pub(super) async fn call<T, E, F, Fut>(&self, mut operation: F) -> Result<T, E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: PolicyError,
    {
        let budget = self.engine.budget.as_deref();
        if let Some(budget) = budget {
            budget.deposit(self.began);
        }
        let mut plan = Plan::new(
            &self.engine.settings.retry,
            budget,
            self.judge,
            self.bounds(),
        );
        let mut now = self.began;
        let mut reservation = None;
        loop {
            let number = plan.number();
            // In a block of its own: a result is large, and would be kept for as long as the next attempt is waited for.
            let delay = {
                let step = match self.hedging() {
                    None => {
                        let attempt = self.attempt(number, 0, now, reservation, &mut operation);
                        attempt.await
                    }
                    // In a box of its own: few calls are hedged, and all would be as large.
                    Some(hedging) => {
                        let operation = &mut operation;
                        Box::pin(self.hedged(hedging, now, reservation, operation, &mut plan)).await
                    }
                };
                let result = match step {
                    Step::Made(result) => result,
                    Step::Refused(error, refusal) => {
                        self.observers.tell(|to| to.refused(self.target, refusal));
                        return Err(plan.refused(error));
                    }
                };
                if plan.is_over(&result) {
                    return result;
                }
                match plan.after(result) {
                    Next::Done(result, stopped) => {
                        if stopped == Some(Stopped::Budget) {
                            let refusal = Refusal::RetryBudget;
                            self.observers.tell(|to| to.refused(self.target, refusal));
                        }
                        return result;
                    }
                    Next::Again(delay, reserved) => {
                        let next = plan.number();
                        self.observers
                            .tell(|to| to.retrying(self.target, next, delay));
                        reservation = reserved;
                        delay
                    }
                }
            };
            sleep(delay).await;
            now = Instant::now();
        }
    }

    fn bounds(&self) -> Bounds {
        let settings = &self.engine.settings;
        Bounds {
            repeatable: self.call.repeatable,
            attempts: self.call.max_attempts.unwrap_or(settings.retry.attempts()),
            began: self.began,
            deadline: Some(self.deadline.at),
            floor: settings.timeout.floor,
        }
    }

    pub(super) async fn attempt<T, E, F, Fut>(
        &self,
        number: u32,
        hedge: u32,
        now: Instant,
        reservation: Option<Reservation<'_>>,
        operation: &mut F,
    ) -> Step<T, E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: PolicyError,
    {
        let mut now = now;
        if let Err(short) = self.enough_left(now) {
            return Step::Refused(short.into(), Refusal::DeadlineTooShort);
        }
        let mut permit = match self.permit(None) {
            Ok(permit) => permit,
            Err(open) => return Step::Refused(open.into(), Refusal::CircuitOpen),
        };
        let mut turn = None;
        if let Some(limiter) = self.engine.rate_limit.as_deref() {
            turn = limiter.try_enter(now);
            if turn.is_none() {
                match Box::pin(limiter.enter(now, Some(self.deadline.at))).await {
                    Ok(won) => turn = Some(won),
                    Err(limited) => return Step::Refused(limited.into(), Refusal::RateLimited),
                }
                now = Instant::now();
                permit = match self.permit(permit) {
                    Ok(permit) => permit,
                    Err(open) => return Step::Refused(open.into(), Refusal::CircuitOpen),
                };
                if let Err(short) = self.enough_left(now) {
                    return Step::Refused(short.into(), Refusal::DeadlineTooShort);
                }
            }
        }
        let mut _place = None;
        if let Some(bulkhead) = self.engine.bulkhead.as_deref() {
            _place = bulkhead.try_acquire();
            if _place.is_none() {
                match bulkhead.acquire(Some(self.deadline.at)).await {
                    Ok(won) => _place = Some(won),
                    Err(full) => return Step::Refused(full.into(), Refusal::BulkheadFull),
                }
                // The wait in the queue is ours: it neither counts against the attempt nor makes it slow.
                now = Instant::now();
                permit = match self.permit(permit) {
                    Ok(permit) => permit,
                    Err(open) => return Step::Refused(open.into(), Refusal::CircuitOpen),
                };
                if let Err(short) = self.enough_left(now) {
                    return Step::Refused(short.into(), Refusal::DeadlineTooShort);
                }
            }
        }
        let slot = match self.engine.concurrency.as_deref() {
            None => None,
            Some(limiter) => match limiter.enter(self.call.priority, now) {
                Ok(slot) => Some(slot),
                Err(full) => return Step::Refused(full.into(), Refusal::Overloaded),
            },
        };
        // Now it is made: what was taken for it is used.
        if let Some(turn) = turn {
            turn.keep();
        }
        if let Some(reservation) = reservation {
            reservation.commit(now);
        }
        let span = self
            .call
            .attempt
            .unwrap_or(self.engine.settings.timeout.attempt);
        let end = self.deadline.of_attempt(now, span);
        let attempt = Attempt {
            number,
            hedge,
            began: now,
            deadline: end.at,
            fair: !self.is_unfair(end, now),
        };
        let ended = match self.engine.chaos.as_deref() {
            None => limited(end.at, operation(attempt)).await,
            Some(chaos) => Box::pin(self.disturbed(chaos, attempt, operation)).await,
        };
        match ended {
            Ok(mut result) => {
                if let Some(slot) = slot {
                    let unfair = !attempt.fair && self.judge.ran_out_of_time(&result);
                    let outcome = match unfair {
                        true => Outcome::Ignored,
                        false => concurrency::outcome_of(self.judge, &result),
                    };
                    slot.record_at(outcome, Instant::now());
                }
                if let Some(permit) = permit {
                    let outcome = self.judge.outcome(&result);
                    if outcome == Outcome::Success
                        && let Some(breaker) = &self.engine.breaker
                        // A probe is judged by how it begins: what is long or has no end would keep the circuit half-open.
                        && !permit.is_probe()
                        && self.judge.goes_on(&mut result)
                    {
                        let report = permit.into_late(breaker, attempt.began.elapsed());
                        self.judge.hand_over(&mut result, &attempt, report);
                        return Step::Made(result);
                    }
                    let unfair = !attempt.fair && self.judge.ran_out_of_time(&result);
                    let ignored = outcome == Outcome::Failure
                        && (unfair || self.judge.concerns_one_place(&attempt));
                    permit.record(if ignored { Outcome::Ignored } else { outcome });
                }
                Step::Made(result)
            }
            Err(_) => {
                let outcome = match attempt.fair {
                    true => Outcome::Failure,
                    false => Outcome::Ignored,
                };
                if let Some(slot) = slot {
                    slot.record_at(outcome, Instant::now());
                }
                if let Some(permit) = permit {
                    let ignored = self.judge.concerns_one_place(&attempt);
                    permit.record(if ignored { Outcome::Ignored } else { outcome });
                }
                Step::Made(Err(Elapsed::new(end.limit, end.left(now)).into()))
            }
        }
    }

    /// Whether the caller gave an attempt so little time that running out of it says nothing about the other side.
    fn is_unfair(&self, end: Deadline, began: Instant) -> bool {
        end.limit == Limit::Deadline && end.left(began) < self.engine.settings.timeout.fair
    }

    /// Leave of the circuit, asked for again after a wait of ours: it may have opened meanwhile, and the wait does not make
    /// the call slow.
    fn permit(&self, before: Option<Permit<'_>>) -> Result<Option<Permit<'_>>, CircuitOpen> {
        drop(before);
        let breaker = self.engine.breaker.as_deref();
        breaker.map(Breaker::try_acquire).transpose()
    }

    fn enough_left(&self, now: Instant) -> Result<(), DeadlineTooShort> {
        let floor = self.engine.settings.timeout.floor;
        // Compared as points in time: this is asked of every attempt.
        if now
            .checked_add(floor)
            .is_none_or(|least| self.deadline.at <= least)
        {
            let left = self.deadline.left(now);
            return Err(DeadlineTooShort::new(left, floor));
        }
        Ok(())
    }
}
