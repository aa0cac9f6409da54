//! Results that are not the end of it: the report to the circuit is made later, once, or not at all.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::advance;
use trunkline_core::Error;
use trunkline_resilience::breaker::{
    Breaker, BreakerSettings, LateReport, SlowCallSettings, State, WindowKind,
};
use trunkline_resilience::{Attempt, Call, Classify, EffectivePolicy, Outcome, Policy};

/// Keeps what it is handed.
#[derive(Default)]
struct Keeps(Mutex<Vec<LateReport>>);

impl Keeps {
    fn take(&self) -> LateReport {
        self.0.lock().unwrap().pop().unwrap()
    }
}

impl Classify<Result<(), Error>> for Keeps {
    fn outcome(&self, result: &Result<(), Error>) -> Outcome {
        match result {
            Ok(()) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }

    fn goes_on(&self, result: &mut Result<(), Error>) -> bool {
        result.is_ok()
    }

    fn hand_over(&self, _: &mut Result<(), Error>, _: &Attempt, report: LateReport) {
        self.0.lock().unwrap().push(report);
    }
}

fn policy(change: impl FnOnce(&mut BreakerSettings)) -> Policy {
    let mut settings = EffectivePolicy::default();
    let mut breaker = BreakerSettings::default();
    breaker.failure_threshold = 2;
    breaker.success_threshold = 1;
    change(&mut breaker);
    settings.circuit_breaker = Some(breaker);
    settings.retry.enabled = false;
    Policy::new("files", settings)
}

async fn call(policy: &Policy, judge: &Keeps) -> bool {
    let call = Call::default();
    let made = policy.run_with(call, judge, |_| async { Ok(()) }).await;
    made.is_ok()
}

fn state(policy: &Policy) -> State {
    policy.breaker().unwrap().state()
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_judged_by_its_end() {
    let (policy, judge) = (policy(|_| {}), Keeps::default());
    for _ in 0..2 {
        assert!(call(&policy, &judge).await);
        assert_eq!(state(&policy), State::Closed);
        judge.take().record(Outcome::Failure);
    }
    assert_eq!(state(&policy), State::Open);
}

/// Bodies may be long or have no end: a circuit that waited for them would stay half-open.
#[tokio::test(start_paused = true)]
async fn probes_are_judged_by_how_they_begin() {
    let (policy, judge) = (policy(|it| it.success_threshold = 2), Keeps::default());
    for _ in 0..3 {
        // The last one was let through while the circuit was closed.
        assert!(call(&policy, &judge).await);
    }
    let late = judge.take();
    for _ in 0..2 {
        judge.take().record(Outcome::Failure);
    }
    assert_eq!(state(&policy), State::Open);
    advance(Duration::from_secs(60)).await;
    assert!(call(&policy, &judge).await, "the first probe");
    assert_eq!(state(&policy), State::HalfOpen);
    assert!(call(&policy, &judge).await, "its place is free");
    assert_eq!(state(&policy), State::Closed);
    assert!(judge.0.lock().unwrap().is_empty(), "nothing more to report");
    late.record(Outcome::Failure);
    let seen = policy.breaker().unwrap().snapshot();
    assert_eq!(seen.failure_count, 0, "it is of an earlier time");
}

#[tokio::test(start_paused = true)]
async fn the_time_until_the_end_makes_no_call_slow() {
    let slow = Duration::from_secs(1);
    let change = |numbers: &mut BreakerSettings| {
        numbers.slow_call = Some(SlowCallSettings::new(slow, 50.0));
        numbers.window.kind = WindowKind::Count;
        numbers.window.minimum_calls = 2;
    };
    let (policy, judge) = (policy(change), Keeps::default());
    for _ in 0..10 {
        assert!(call(&policy, &judge).await);
        advance(slow * 5).await;
        judge.take().record(Outcome::Success);
    }
    assert_eq!(state(&policy), State::Closed);
    let breaker: std::sync::Arc<Breaker> = policy.breaker().unwrap();
    for _ in 0..20 {
        let Ok(permit) = breaker.try_acquire_owned() else {
            break;
        };
        permit.into_late(slow).record(Outcome::Success);
    }
    assert_eq!(state(&policy), State::Open, "the time to the answer does");
}
