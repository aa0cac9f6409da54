//! A policy at work: its values and its state, behind one handle that a reload can change.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use trunkline_core::SystemClock;

use super::EffectivePolicy;
use super::hedged::Hedging;
use super::run::{PolicyError, Run};
use crate::breaker::{Breaker, CircuitPer, InstanceCircuits};
use crate::bulkhead::Bulkhead;
use crate::call::{Attempt, Call};
use crate::chaos::Chaos;
use crate::concurrency::ConcurrencyLimiter;
use crate::failure::{Classify, Standard};
use crate::fallback::FallbackSettings;
use crate::observe::{Observers, Refusal};
use crate::ratelimit::RateLimiter;
use crate::retry::RetryBudget;
use crate::target::Target;
use crate::timeout::{Deadline, Elapsed, Limit, limited};

/// The values of a policy and the state that they govern.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) settings: Arc<EffectivePolicy>,
    pub(crate) breaker: Option<Arc<Breaker>>,
    /// In its place, where each instance has one.
    pub(crate) circuits: Option<Arc<InstanceCircuits>>,
    pub(crate) budget: Option<Arc<RetryBudget>>,
    pub(crate) rate_limit: Option<Arc<RateLimiter>>,
    pub(crate) bulkhead: Option<Arc<Bulkhead>>,
    pub(crate) concurrency: Option<Arc<ConcurrencyLimiter>>,
    pub(crate) chaos: Option<Box<Chaos>>,
    pub(crate) hedge: Option<Hedging>,
}

/// A policy at work for one target: carries calls through retry, breaker, bulkhead and attempt timeout, within the
/// deadline. Made by [`crate::PolicyRegistry::policy`], where a reload of the configuration reaches it, or alone by
/// [`Policy::new`].
///
/// ```
/// use trunkline_core::{Context, Error};
/// use trunkline_resilience::{Call, EffectivePolicy, Policy};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
/// let policy = Policy::new("users", EffectivePolicy::default());
/// let call = Call::new(&Context::new()).repeatable(true);
/// let name = policy
///     .run(call, |attempt| async move {
///         assert!(attempt.remaining().as_secs() < 31);
///         Ok::<_, Error>("Ada")
///     })
///     .await?;
/// assert_eq!(name, "Ada");
/// # Ok(()) }
/// ```
pub struct Policy {
    target: Target,
    engine: ArcSwap<Engine>,
    observers: Observers,
}

/// A policy as it is at one moment: its values and the state that they govern. Whoever looks at the values and then makes a
/// call asks for both once.
#[derive(Clone)]
pub struct Current(Arc<Engine>);

impl Current {
    /// The values.
    #[must_use]
    pub fn settings(&self) -> &Arc<EffectivePolicy> {
        &self.0.settings
    }

    /// The circuits of the instances, where each has its own: whoever chooses an instance asks its circuit, the policy does
    /// not.
    #[must_use]
    pub fn instance_circuits(&self) -> Option<&Arc<InstanceCircuits>> {
        self.0.circuits.as_ref()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("target", &self.target)
            .field("engine", &self.engine.load())
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// A policy with a state of its own.
    #[must_use]
    pub fn new(target: impl Into<Target>, settings: EffectivePolicy) -> Self {
        let target = target.into();
        let (mut breaker, mut circuits) = (None, None);
        if let Some(numbers) = settings.circuit_breaker {
            let (observers, clock) = (Observers::default(), SystemClock::shared());
            if numbers.per == CircuitPer::Instance {
                let made = InstanceCircuits::new(target.clone(), numbers, observers, clock);
                circuits = Some(Arc::new(made));
            } else {
                let made = Breaker::build(target.clone(), numbers, observers, clock).0;
                breaker = Some(Arc::new(made));
            }
        }
        let engine = Engine {
            breaker,
            circuits,
            budget: settings.retry.budget.map(RetryBudget::new).map(Arc::new),
            rate_limit: settings.rate_limit.map(RateLimiter::new).map(Arc::new),
            bulkhead: settings.bulkhead.map(Bulkhead::new).map(Arc::new),
            concurrency: settings
                .concurrency
                .map(|settings| Arc::new(ConcurrencyLimiter::new(target.clone(), settings))),
            chaos: settings.chaos.clone().map(Chaos::new).map(Box::new),
            hedge: settings.hedge.clone().map(|settings| Hedging {
                settings,
                latencies: Arc::default(),
            }),
            settings: Arc::new(settings),
        };
        Self::assemble(target, engine, Observers::default())
    }

    pub(crate) fn assemble(target: Target, engine: Engine, observers: Observers) -> Self {
        Self {
            target,
            engine: ArcSwap::from_pointee(engine),
            observers,
        }
    }

    /// Calls that run already end under the values they began with.
    pub(crate) fn replace(&self, engine: Engine) {
        self.engine.store(Arc::new(engine));
    }

    /// Whose policy it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The values in force, and the state that they govern.
    #[must_use]
    pub fn current(&self) -> Current {
        // Not a guard of it: a thread has a few of those that cost nothing, and a call holds it for as long as it takes.
        Current(self.engine.load_full())
    }

    /// The values in force.
    #[must_use]
    pub fn settings(&self) -> Arc<EffectivePolicy> {
        Arc::clone(&self.engine.load().settings)
    }

    /// The breaker, unless it is switched off or each instance has its own.
    #[must_use]
    pub fn breaker(&self) -> Option<Arc<Breaker>> {
        self.engine.load().breaker.clone()
    }

    /// The bulkhead, where there is one.
    #[must_use]
    pub fn bulkhead(&self) -> Option<Arc<Bulkhead>> {
        self.engine.load().bulkhead.clone()
    }

    /// The rate limit, where there is one.
    #[must_use]
    pub fn rate_limit(&self) -> Option<Arc<RateLimiter>> {
        self.engine.load().rate_limit.clone()
    }

    /// The adaptive concurrency limit, where there is one.
    #[must_use]
    pub fn concurrency(&self) -> Option<Arc<ConcurrencyLimiter>> {
        self.engine.load().concurrency.clone()
    }

    /// Takes the leave for an attempt that is made outside of [`Policy::run`] in place of one that failed, such as one at
    /// another version of a service, from the budget of retries. `false` when the budget is used up: then it is not to be
    /// made, and observers are told.
    #[must_use]
    pub fn takes_from_budget(&self) -> bool {
        let engine = self.engine.load();
        let Some(budget) = &engine.budget else {
            return true;
        };
        let now = Instant::now();
        let reserved = budget.reserve(now);
        let taken = reserved.is_some();
        match reserved {
            Some(reservation) => reservation.commit(now),
            None => self
                .observers
                .tell(|to| to.refused(&self.target, Refusal::RetryBudget)),
        }
        taken
    }

    /// Tells the observers that a call was refused outside of [`Policy::run`], such as by the circuits of all instances.
    pub fn refuses(&self, refusal: Refusal) {
        self.observers.tell(|to| to.refused(&self.target, refusal));
    }

    /// Makes a call and judges its results by the [`Standard`] rule. The operation is called once for each attempt.
    ///
    /// # Errors
    /// The error of the operation; or what the policy says: [`CircuitOpen`](crate::CircuitOpen),
    /// [`RateLimited`](crate::RateLimited), [`BulkheadFull`](crate::BulkheadFull), [`Overloaded`](crate::Overloaded),
    /// [`Elapsed`], [`DeadlineTooShort`](crate::DeadlineTooShort); after more
    /// than one attempt within [`RetryExhausted`](crate::RetryExhausted).
    ///
    /// # Panics
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt under way; every permit, place and reservation is given back.
    pub async fn run<T, E, F, Fut>(&self, call: Call, operation: F) -> Result<T, E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: PolicyError + 'static,
    {
        self.run_with(call, &Standard, operation).await
    }

    /// Like [`Policy::run`], with one's own judge, which may count an `Ok` as a failure and have it tried again.
    ///
    /// # Errors
    /// As [`Policy::run`]. An `Ok` that the judge counts as a failure is returned as it is when attempts end.
    ///
    /// # Panics
    /// As [`Policy::run`].
    ///
    /// # Cancel safety
    /// As [`Policy::run`].
    pub async fn run_with<T, E, F, Fut, C>(
        &self,
        call: Call,
        judge: &C,
        operation: F,
    ) -> Result<T, E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: PolicyError,
    {
        self.run_as(&self.current(), call, judge, operation).await
    }

    /// Like [`Policy::run_with`], under the values of a moment before.
    ///
    /// # Errors
    /// As [`Policy::run_with`].
    ///
    /// # Panics
    /// As [`Policy::run`].
    ///
    /// # Cancel safety
    /// As [`Policy::run`].
    pub async fn run_as<T, E, F, Fut, C>(
        &self,
        current: &Current,
        call: Call,
        judge: &C,
        operation: F,
    ) -> Result<T, E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: PolicyError,
    {
        let (began, deadline) = self.begin(&current.0, &call);
        self.start(&current.0, judge, &call, began, deadline)
            .call(operation)
            .await
    }

    /// Like [`Policy::run_with`], with a fallback that answers when the call has failed for good. It is given the
    /// result that it replaces and the deadline of the whole call, of which a slice is kept back for it.
    ///
    /// # Errors
    /// Those of the fallback; [`Elapsed`] when it takes longer than the deadline allows.
    ///
    /// # Panics
    /// As [`Policy::run`].
    ///
    /// # Cancel safety
    /// As [`Policy::run`].
    pub async fn run_or<T, E, F, Fut, C, G, Answer>(
        &self,
        call: Call,
        judge: &C,
        operation: F,
        fallback: G,
    ) -> Result<T, E>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: PolicyError,
        G: FnOnce(Result<T, E>, Deadline) -> Answer,
        Answer: Future<Output = Result<T, E>>,
    {
        let within = |call| self.run_with(call, judge, operation);
        self.answer_for(call, judge, within, fallback).await
    }

    /// The outermost part of [`Policy::run_or`] alone: the fallback around whatever makes the call, such as a cache with
    /// [`Policy::run_with`] inside. What makes it is told the call with the time that is left for it.
    ///
    /// # Errors
    /// As [`Policy::run_or`].
    ///
    /// # Panics
    /// As [`Policy::run`].
    ///
    /// # Cancel safety
    /// As [`Policy::run`].
    pub async fn answer_for<T, E, F, Fut, C, G, Answer>(
        &self,
        call: Call,
        judge: &C,
        make: F,
        fallback: G,
    ) -> Result<T, E>
    where
        F: FnOnce(Call) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: PolicyError,
        G: FnOnce(Result<T, E>, Deadline) -> Answer,
        Answer: Future<Output = Result<T, E>>,
    {
        let settings = self.settings();
        let began = Instant::now();
        let total = call.total.unwrap_or(settings.timeout.total);
        let deadline = Deadline::of_call(began, total, call.deadline);
        let configured = settings.fallback.as_ref();
        let reserve = configured.map_or(FallbackSettings::RESERVE, |fallback| fallback.reserve);
        let earlier = deadline.keeping(began, reserve);
        let mut call = call;
        // What makes the call may begin later.
        call.began = None;
        match earlier.limit {
            Limit::Deadline => call.deadline = Some(earlier.at),
            _ => call.total = Some(earlier.left(began)),
        }
        let result = make(call).await;
        if !judge.wants_fallback(&result) {
            return result;
        }
        let now = Instant::now();
        match limited(deadline.at, fallback(result, deadline)).await {
            Ok(answer) => answer,
            Err(_) => Err(Elapsed::new(deadline.limit, deadline.left(now)).into()),
        }
    }

    fn begin(&self, engine: &Engine, call: &Call) -> (Instant, Deadline) {
        let began = call.began.unwrap_or_else(Instant::now);
        let total = call.total.unwrap_or(engine.settings.timeout.total);
        (began, Deadline::of_call(began, total, call.deadline))
    }

    fn start<'a, C>(
        &'a self,
        engine: &'a Engine,
        judge: &'a C,
        call: &'a Call,
        began: Instant,
        deadline: Deadline,
    ) -> Run<'a, C> {
        Run {
            engine,
            target: &self.target,
            observers: &self.observers,
            judge,
            call,
            began,
            deadline,
        }
    }
}
