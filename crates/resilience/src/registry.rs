//! The policies of a process: their state by target, kept across reloads of the configuration, bounded in number.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use trunkline_core::{SharedClock, SystemClock};

use crate::breaker::{
    Breaker, BreakerSettings, Change, CircuitPer, Control, InstanceCircuits, Snapshot,
};
use crate::bulkhead::{Bulkhead, BulkheadSettings, Occupancy};
use crate::chaos::Chaos;
use crate::concurrency::{ConcurrencyLimiter, Measured};
use crate::declared::Declared;
use crate::hedge::Latencies;
use crate::observe::{Observer, Observers};
use crate::policy::{EffectivePolicy, Engine, Hedging, Policy, Scope};
use crate::ratelimit::RateLimiter;
use crate::retry::{BudgetSettings, RetryBudget};
use crate::target::Target;

/// What can be seen of one circuit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CircuitStatus {
    /// Whose circuit.
    pub target: Target,
    /// Its state.
    pub circuit: Snapshot,
}

/// What can be seen of one bulkhead.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct BulkheadStatus {
    /// Whose bulkhead.
    pub target: Target,
    /// How full it is.
    pub occupancy: Occupancy,
}

/// What can be seen of one adaptive concurrency limit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ConcurrencyStatus {
    /// Whose limit.
    pub target: Target,
    /// What was found out.
    pub measured: Measured,
}

/// Makes policies and keeps their state: circuits by service, endpoint and instance, budgets and bulkheads by service
/// or endpoint, as each is scoped. Cheap to clone; clones share everything.
///
/// Targets are bounded: beyond [`PolicyRegistryBuilder::max_targets`] new endpoints share the state of their service,
/// and beyond twice as many new services share one state under the name `*`.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::{EffectivePolicy, PolicyRegistry, Target};
///
/// let registry = PolicyRegistry::default();
/// let target = Target::service("users").with_endpoint("GET /users/{id}");
/// let policy = registry.policy(&target, |_| Arc::new(EffectivePolicy::default()));
/// assert!(Arc::ptr_eq(&policy, &registry.policy(&target, |_| unreachable!("it is there already"))));
/// assert_eq!(registry.circuit_states().len(), 1);
/// ```
#[derive(Clone)]
pub struct PolicyRegistry(Arc<Inner>);

struct Inner {
    states: RwLock<States>,
    observers: Observers,
    clock: SharedClock,
    max_targets: usize,
}

#[derive(Default)]
struct States {
    policies: HashMap<Target, Arc<Policy>>,
    /// What authors of interfaces wrote; not forgotten with the target, as it is part of the code.
    declared: HashMap<Target, Arc<Declared>>,
    breakers: HashMap<Target, Arc<Breaker>>,
    /// Switched off by a reload. Kept so that the changes of a circuit go on being counted where it is switched on again.
    off: HashMap<Target, Arc<Breaker>>,
    /// Where each instance has a circuit of its own.
    circuits: HashMap<Target, Arc<InstanceCircuits>>,
    /// Counts the reloads.
    generation: u64,
    budgets: HashMap<Target, Arc<RetryBudget>>,
    bulkheads: HashMap<Target, Arc<Bulkhead>>,
    rate_limits: HashMap<Target, Arc<RateLimiter>>,
    concurrency: HashMap<Target, Arc<ConcurrencyLimiter>>,
    /// What answers took, where calls are hedged by it.
    latencies: HashMap<Target, Arc<Latencies>>,
}

/// Sets up a [`PolicyRegistry`].
#[derive(Debug)]
pub struct PolicyRegistryBuilder {
    observers: Observers,
    clock: SharedClock,
    max_targets: usize,
}

impl PolicyRegistryBuilder {
    /// Is told of every change of a circuit, every retry and every refusal.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.add(observer);
        self
    }

    /// Where the times of failures come from. Default: the machine's clock.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// How many targets have a state of their own. Default 1024.
    #[must_use]
    pub const fn max_targets(mut self, targets: usize) -> Self {
        self.max_targets = targets;
        self
    }

    /// Makes the registry, empty.
    #[must_use]
    pub fn build(self) -> PolicyRegistry {
        PolicyRegistry(Arc::new(Inner {
            states: RwLock::default(),
            observers: self.observers,
            clock: self.clock,
            max_targets: self.max_targets,
        }))
    }
}

impl Default for PolicyRegistry {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl fmt::Debug for PolicyRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("PolicyRegistry")
            .field("policies", &states.policies.len())
            .field("circuits", &states.breakers.len())
            .finish_non_exhaustive()
    }
}

impl PolicyRegistry {
    /// Starts setting one up.
    #[must_use]
    pub fn builder() -> PolicyRegistryBuilder {
        PolicyRegistryBuilder {
            observers: Observers::default(),
            clock: SystemClock::shared(),
            max_targets: 1024,
        }
    }

    /// The policy of a target: the one that is there, else one made of `settings`. The closure is told for whom, which
    /// past the bound is the whole service; it is asked again where a reload came in between. Keep the handle: a reload
    /// reaches it.
    #[must_use]
    pub fn policy(
        &self,
        target: &Target,
        settings: impl Fn(&Target) -> Arc<EffectivePolicy>,
    ) -> Arc<Policy> {
        loop {
            let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(policy) = states.policies.get(target) {
                return Arc::clone(policy);
            }
            let bounded = self.0.bounded(target, states.policies.len());
            if let Some(policy) = states.policies.get(&bounded) {
                return Arc::clone(policy);
            }
            let generation = states.generation;
            drop(states);
            // The caller's closure runs outside the lock; whoever comes first decides.
            let settings = settings(&bounded);
            let mut states = self.0.write();
            if let Some(policy) = states.policies.get(&bounded) {
                return Arc::clone(policy);
            }
            if states.generation != generation {
                continue;
            }
            let mut untold = Untold::default();
            let engine = self.0.engine(&mut states, &bounded, settings, &mut untold);
            let observers = self.0.observers.clone();
            let policy = Arc::new(Policy::assemble(bounded.clone(), engine, observers));
            states.policies.insert(bounded, Arc::clone(&policy));
            drop(states);
            untold.tell();
            return policy;
        }
    }

    /// A breaker without a policy around it, such as that of one instance: the one that is there, else a new one.
    #[must_use]
    pub fn breaker(&self, target: &Target, settings: BreakerSettings) -> Arc<Breaker> {
        let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(breaker) = states.breakers.get(target) {
            return Arc::clone(breaker);
        }
        let bounded = self.0.bounded(target, states.breakers.len());
        drop(states);
        let mut untold = Untold::default();
        let mut states = self.0.write();
        let breaker = self
            .0
            .keep_breaker(&mut states, &bounded, settings, &mut untold);
        drop(states);
        untold.tell();
        breaker
    }

    /// Gives every policy new values and keeps all state, as a reload of the configuration does. What a limit counts
    /// starts anew only where its scope changes. A circuit that is switched off is forgotten: switched on again it is
    /// closed. What [`PolicyRegistry::policy`] is given must speak of the new configuration by now: a policy that is made
    /// meanwhile asks it again.
    pub fn reload(&self, mut settings: impl FnMut(&Target) -> Arc<EffectivePolicy>) {
        let policies: Vec<Arc<Policy>> = {
            let mut states = self.0.write();
            states.generation += 1;
            states.policies.values().map(Arc::clone).collect()
        };
        for policy in policies {
            self.renew(&policy, settings(policy.target()));
        }
    }

    /// Gives one policy new values and keeps its state.
    fn renew(&self, policy: &Policy, settings: Arc<EffectivePolicy>) {
        let mut untold = Untold::default();
        let mut states = self.0.write();
        let target = policy.target();
        let engine = self.0.engine(&mut states, target, settings, &mut untold);
        for (breaker, numbers) in engine.breaker.iter().zip(engine.settings.circuit_breaker) {
            untold.note(breaker, breaker.reconfigure_untold(numbers));
        }
        for (circuits, numbers) in engine.circuits.iter().zip(engine.settings.circuit_breaker) {
            untold.0.extend(circuits.reconfigure_untold(numbers));
        }
        for (budget, numbers) in engine.budget.iter().zip(engine.settings.retry.budget) {
            budget.reconfigure(numbers);
        }
        for (bulkhead, numbers) in engine.bulkhead.iter().zip(engine.settings.bulkhead) {
            bulkhead.reconfigure(numbers);
        }
        for (limiter, numbers) in engine.rate_limit.iter().zip(engine.settings.rate_limit) {
            limiter.reconfigure(numbers);
        }
        for (limiter, numbers) in engine.concurrency.iter().zip(engine.settings.concurrency) {
            limiter.reconfigure(numbers);
        }
        if engine.breaker.is_none()
            && let Some(breaker) = states.switch_off(target)
        {
            // Calls that run already no longer change it. Under the lock: a reload that switches it on again comes after.
            untold.note(&breaker, breaker.force_untold(Control::Disabled));
        }
        if engine.circuits.is_none()
            && let Some(circuits) = states.circuits.remove(target)
        {
            untold.0.extend(circuits.forget_all_untold());
        }
        policy.replace(engine);
        drop(states);
        untold.tell();
    }

    /// Takes what the author of an interface wrote at the method that calls a target. A policy that is there already
    /// gets its values anew from `settings`, which finds what was written by [`PolicyRegistry::declared`]. Of two
    /// methods for one target the first one decides.
    ///
    /// # Errors
    /// What another method declared before, where it is not the same.
    pub fn declare(
        &self,
        target: &Target,
        declared: Declared,
        settings: impl Fn(&Target) -> Arc<EffectivePolicy>,
    ) -> Result<(), Arc<Declared>> {
        if let Some(known) = self.declared(target) {
            return match known.policy == declared.policy {
                true => Ok(()),
                false => Err(known),
            };
        }
        let target = target.unversioned();
        let policies: Vec<Arc<Policy>> = {
            let mut states = self.0.write();
            let declared = Arc::new(declared);
            states.declared.entry(target.clone()).or_insert(declared);
            // A policy that is being made meanwhile asks for its values again.
            states.generation += 1;
            let known = states.policies.iter();
            let same = known.filter(|(known, _)| known.unversioned() == target);
            same.map(|(_, policy)| Arc::clone(policy)).collect()
        };
        for policy in policies {
            self.renew(&policy, settings(policy.target()));
        }
        Ok(())
    }

    /// What the author of an interface wrote at the method that calls a target, in whichever version.
    #[must_use]
    pub fn declared(&self, target: &Target) -> Option<Arc<Declared>> {
        let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
        let declared = match &target.version {
            None => states.declared.get(target),
            Some(_) => states.declared.get(&target.unversioned()),
        };
        declared.map(Arc::clone)
    }

    /// Everything that authors of interfaces wrote, by target.
    #[must_use]
    pub fn declarations(&self) -> Vec<(Target, Arc<Declared>)> {
        let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
        let all = states.declared.iter();
        let mut all: Vec<_> = all
            .map(|(target, declared)| (target.clone(), Arc::clone(declared)))
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Forgets the targets that are gone, such as instances that discovery no longer knows. Handles that are still held
    /// go on working; asked for again, a target starts anew.
    pub fn retain(&self, mut keep: impl FnMut(&Target) -> bool) {
        let mut states = self.0.write();
        states.policies.retain(|target, _| keep(target));
        states.breakers.retain(|target, _| keep(target));
        states.off.retain(|target, _| keep(target));
        states.circuits.retain(|target, _| keep(target));
        states.budgets.retain(|target, _| keep(target));
        states.bulkheads.retain(|target, _| keep(target));
        states.rate_limits.retain(|target, _| keep(target));
        states.concurrency.retain(|target, _| keep(target));
        states.latencies.retain(|target, _| keep(target));
    }

    /// Every circuit, by service, endpoint and instance.
    #[doc(alias = "get_circuit_state")]
    #[must_use]
    pub fn circuit_states(&self) -> Vec<CircuitStatus> {
        let breakers: Vec<Arc<Breaker>> = {
            let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
            let of_instances = states.circuits.values().flat_map(|it| it.all());
            let alone = states.breakers.values().map(Arc::clone);
            alone.chain(of_instances).collect()
        };
        let mut all: Vec<CircuitStatus> = breakers
            .iter()
            .map(|breaker| CircuitStatus {
                target: breaker.target().clone(),
                circuit: breaker.snapshot(),
            })
            .collect();
        all.sort_by(|one, other| one.target.cmp(&other.target));
        all
    }

    /// Every bulkhead, by service and endpoint.
    #[must_use]
    pub fn bulkhead_states(&self) -> Vec<BulkheadStatus> {
        let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<BulkheadStatus> = states
            .bulkheads
            .iter()
            .map(|(target, bulkhead)| BulkheadStatus {
                target: target.clone(),
                occupancy: bulkhead.occupancy(),
            })
            .collect();
        all.sort_by(|one, other| one.target.cmp(&other.target));
        all
    }

    /// Every adaptive concurrency limit, by service and endpoint.
    #[must_use]
    pub fn concurrency_states(&self) -> Vec<ConcurrencyStatus> {
        let limiters: Vec<Arc<ConcurrencyLimiter>> = {
            let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
            states.concurrency.values().map(Arc::clone).collect()
        };
        let mut all: Vec<ConcurrencyStatus> = limiters
            .iter()
            .map(|limiter| ConcurrencyStatus {
                target: limiter.target().clone(),
                measured: limiter.measured(),
            })
            .collect();
        all.sort_by(|one, other| one.target.cmp(&other.target));
        all
    }

    /// The circuit of a target, where it has one already.
    #[must_use]
    pub fn circuit(&self, target: &Target) -> Option<Arc<Breaker>> {
        let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
        let alone = states.breakers.get(target).map(Arc::clone);
        alone.or_else(|| {
            let instance = target.instance.as_deref()?;
            let whole = Target {
                instance: None,
                ..target.clone()
            };
            states.circuits.get(&whole)?.known(instance)
        })
    }

    /// Forgets the circuits of an instance of a service that has left, at all endpoints. One that was open counts as closed
    /// from now on; calls that are still under way there change nothing any more.
    pub fn forget_instance(&self, service: &str, instance: &str) {
        let circuits: Vec<Arc<InstanceCircuits>> = {
            let states = self.0.states.read().unwrap_or_else(PoisonError::into_inner);
            let of_service = states.circuits.iter();
            let of_service = of_service.filter(|(target, _)| *target.service == *service);
            of_service
                .map(|(_, circuits)| Arc::clone(circuits))
                .collect()
        };
        for circuits in circuits {
            circuits.forget(instance);
        }
    }
}

/// Changes of circuits that were made under the lock of the states. Observers may ask the registry, so that they are told
/// when it is free again.
#[derive(Default)]
#[must_use]
struct Untold(Vec<(Arc<Breaker>, Change)>);

impl Untold {
    fn note(&mut self, breaker: &Arc<Breaker>, change: Option<Change>) {
        self.0
            .extend(change.map(|change| (Arc::clone(breaker), change)));
    }

    fn tell(self) {
        for (breaker, change) in self.0 {
            breaker.tell(Some(change));
        }
    }
}

impl States {
    fn switch_off(&mut self, target: &Target) -> Option<Arc<Breaker>> {
        let (target, breaker) = self.breakers.remove_entry(target)?;
        self.off.insert(target, Arc::clone(&breaker));
        Some(breaker)
    }
}

impl Inner {
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, States> {
        self.states.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target itself while there is room, then its service, then everybody.
    fn bounded(&self, target: &Target, known: usize) -> Target {
        if known < self.max_targets {
            return target.clone();
        }
        if known < self.max_targets.saturating_mul(2) {
            return Target::service(Arc::clone(&target.service));
        }
        Target::service("*")
    }

    fn engine(
        &self,
        states: &mut States,
        target: &Target,
        settings: Arc<EffectivePolicy>,
        untold: &mut Untold,
    ) -> Engine {
        let (mut breaker, mut circuits) = (None, None);
        if let Some(numbers) = settings.circuit_breaker {
            match numbers.per {
                CircuitPer::Endpoint => {
                    breaker = Some(self.keep_breaker(states, target, numbers, untold));
                }
                CircuitPer::Instance => {
                    let made = || {
                        let (observers, clock) = (self.observers.clone(), Arc::clone(&self.clock));
                        InstanceCircuits::new(target.clone(), numbers, observers, clock)
                    };
                    circuits = Some(keep(&mut states.circuits, target.clone(), made));
                }
            }
        }
        let budget = settings.retry.budget.map(|numbers| {
            let key = scoped(target, numbers.scope);
            keep(&mut states.budgets, key, || new_budget(numbers))
        });
        let bulkhead = settings.bulkhead.map(|numbers| {
            let key = scoped(target, numbers.scope);
            keep(&mut states.bulkheads, key, || new_bulkhead(numbers))
        });
        let rate_limit = settings.rate_limit.map(|numbers| {
            let key = scoped(target, numbers.scope);
            keep(&mut states.rate_limits, key, || RateLimiter::new(numbers))
        });
        let concurrency = settings.concurrency.map(|numbers| {
            let key = scoped(target, numbers.scope);
            let made = || ConcurrencyLimiter::build(key.clone(), numbers, self.observers.clone());
            keep(&mut states.concurrency, key.clone(), made)
        });
        let hedge = settings.hedge.clone().map(|numbers| Hedging {
            settings: numbers,
            latencies: keep(&mut states.latencies, target.clone(), Latencies::new),
        });
        Engine {
            chaos: settings.chaos.clone().map(Chaos::new).map(Box::new),
            settings,
            breaker,
            circuits,
            budget,
            rate_limit,
            bulkhead,
            concurrency,
            hedge,
        }
    }

    fn keep_breaker(
        &self,
        states: &mut States,
        target: &Target,
        settings: BreakerSettings,
        untold: &mut Untold,
    ) -> Arc<Breaker> {
        if let Some((target, breaker)) = states.off.remove_entry(target) {
            untold.note(&breaker, breaker.force_untold(Control::Automatic));
            untold.note(&breaker, breaker.reconfigure_untold(settings));
            states.breakers.insert(target, breaker);
        }
        if let Some(breaker) = states.breakers.get(target) {
            return Arc::clone(breaker);
        }
        let (observers, clock) = (self.observers.clone(), Arc::clone(&self.clock));
        let (breaker, change) = Breaker::build(target.clone(), settings, observers, clock);
        let breaker = Arc::new(breaker);
        untold.note(&breaker, change);
        states.breakers.insert(target.clone(), Arc::clone(&breaker));
        breaker
    }
}

fn keep<T>(known: &mut HashMap<Target, Arc<T>>, key: Target, make: impl FnOnce() -> T) -> Arc<T> {
    Arc::clone(known.entry(key).or_insert_with(|| Arc::new(make())))
}

fn scoped(target: &Target, scope: Scope) -> Target {
    match scope {
        Scope::Service => Target::service(Arc::clone(&target.service)),
        Scope::Endpoint => target.clone(),
    }
}

fn new_budget(settings: BudgetSettings) -> RetryBudget {
    RetryBudget::new(settings)
}

fn new_bulkhead(settings: BulkheadSettings) -> Bulkhead {
    Bulkhead::new(settings)
}
