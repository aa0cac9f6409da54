//! Policies at random, and the world they are used in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use trunkline_core::{ManualClock, Timestamp};
use trunkline_resilience::breaker::{BreakerSettings, SlowCallSettings, WindowKind};
use trunkline_resilience::bulkhead::BulkheadSettings;
use trunkline_resilience::chaos::{ChaosSettings, Fault};
use trunkline_resilience::concurrency::{ConcurrencyAlgorithm, ConcurrencySettings};
use trunkline_resilience::ratelimit::RateLimitSettings;
use trunkline_resilience::retry::{BudgetSettings, RetryBudget};
use trunkline_resilience::{
    CircuitChange, EffectivePolicy, Observer, Policy, PolicyRegistry, Refusal, Target,
};

use super::act;

/// Everything that callers share.
#[derive(Clone)]
pub(super) struct World {
    pub(super) registry: PolicyRegistry,
    pub(super) policy: Arc<Policy>,
    /// Used by itself as well as by whoever has no policy.
    pub(super) budget: Arc<RetryBudget>,
    pub(super) wall: ManualClock,
    /// The spans in these settings: milliseconds where time is virtual, less where it is real.
    pub(super) unit: Duration,
    pub(super) changes: Arc<AtomicUsize>,
}

/// Counts, and panics now and then: whoever observes must not be able to break what is observed.
struct Shaky {
    changes: Arc<AtomicUsize>,
    refusals: AtomicUsize,
}

impl Observer for Shaky {
    fn circuit_changed(&self, _: &CircuitChange) {
        if self.changes.fetch_add(1, Ordering::Relaxed) % 5 == 4 {
            act::panic_on_purpose();
        }
    }

    fn concurrency_changed(&self, _: &Target, limit: u32) {
        if limit % 7 == 3 {
            act::panic_on_purpose();
        }
    }

    fn disturbed(&self, _: &Target, _: Fault) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) % 89 == 88 {
            act::panic_on_purpose();
        }
    }

    fn refused(&self, _: &Target, _: Refusal) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) % 97 == 96 {
            act::panic_on_purpose();
        }
    }
}

impl World {
    pub(super) fn new(rng: &mut Rng, unit: Duration) -> Self {
        let wall = ManualClock::new(Timestamp::UNIX_EPOCH);
        let changes = Arc::new(AtomicUsize::new(0));
        let registry = PolicyRegistry::builder()
            .observer(Arc::new(Shaky {
                changes: Arc::clone(&changes),
                refusals: AtomicUsize::new(0),
            }))
            .clock(Arc::new(wall.clone()))
            .build();
        let settings = Arc::new(policy(rng, unit));
        let target = Target::service("fuzzed");
        let policy = registry.policy(&target, |_| Arc::clone(&settings));
        Self {
            registry,
            policy,
            budget: Arc::new(RetryBudget::new(budget(rng))),
            wall,
            unit,
            changes,
        }
    }

    /// Virtual time is counted in milliseconds, the real one in less.
    pub(super) fn has_real_time(&self) -> bool {
        self.unit < Duration::from_millis(1)
    }

    /// New numbers in the middle of everything.
    pub(super) fn reload(&self, rng: &mut Rng) {
        let settings = Arc::new(policy(rng, self.unit));
        self.registry.reload(|_| Arc::clone(&settings));
    }
}

fn budget(rng: &mut Rng) -> BudgetSettings {
    let mut budget = BudgetSettings::default();
    budget.percent = f64::from(rng.u32(0..100));
    budget.min_per_second = rng.u32(0..4);
    budget
}

fn policy(rng: &mut Rng, unit: Duration) -> EffectivePolicy {
    let mut policy = EffectivePolicy::default();
    let spans = |rng: &mut Rng, most: u32| unit * rng.u32(1..=most);
    policy.timeout.total = spans(rng, 2_000);
    policy.timeout.attempt = spans(rng, 500);
    policy.timeout.floor = unit * rng.u32(0..5);
    policy.timeout.fair = unit * rng.u32(0..200);
    policy.retry.max_attempts = rng.u32(1..5);
    policy.retry.delay = unit * rng.u32(0..50);
    policy.retry.budget = rng.bool().then(|| budget(rng));

    let mut breaker = BreakerSettings::default();
    breaker.failure_threshold = rng.u32(1..6);
    breaker.success_threshold = rng.u32(1..5);
    breaker.half_open_max_calls = rng.u32(1..5);
    breaker.recovery_timeout = unit * rng.u32(0..300);
    breaker.probe_timeout = spans(rng, 600);
    let kinds = [WindowKind::Consecutive, WindowKind::Count, WindowKind::Time];
    breaker.window.kind = kinds[rng.usize(0..3)];
    breaker.window.size = rng.u32(1..30);
    breaker.window.duration = spans(rng, 2_000);
    breaker.window.minimum_calls = rng.u32(1..10);
    breaker.window.failure_percent = f64::from(rng.u32(10..90));
    if rng.u8(0..3) == 0 {
        breaker.slow_call = Some(SlowCallSettings::new(spans(rng, 100), 50.0));
    }
    policy.circuit_breaker = Some(breaker);

    let mut bulkhead = BulkheadSettings::default();
    bulkhead.max_concurrent = rng.u32(1..12);
    bulkhead.max_queue = rng.u32(0..8);
    bulkhead.max_wait = unit * rng.u32(0..200);
    policy.bulkhead = Some(bulkhead);

    let mut rate = RateLimitSettings::new(rng.u32(1..8), spans(rng, 300));
    rate.burst = rng.u32(1..5);
    rate.max_wait = unit * rng.u32(0..2_000);
    policy.rate_limit = Some(rate);

    let mut limit = ConcurrencySettings::default();
    limit.min = rng.u32(1..5);
    limit.initial = rng.u32(1..20);
    limit.max = limit.min + rng.u32(0..30);
    limit.recheck = spans(rng, 1_000);
    if rng.bool() {
        limit.algorithm = ConcurrencyAlgorithm::Aimd;
        limit.max_latency = Some(spans(rng, 100));
    }
    policy.concurrency = Some(limit);

    if rng.bool() {
        let mut chaos = ChaosSettings::default();
        chaos.latency_percent = f64::from(rng.u32(0..20));
        chaos.latency = spans(rng, 100);
        chaos.error_percent = f64::from(rng.u32(0..20));
        chaos.abort_percent = f64::from(rng.u32(0..20));
        chaos.seed = Some(rng.u64(..));
        policy.chaos = Some(chaos);
    }
    policy
}
