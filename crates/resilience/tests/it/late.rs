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

#[tokio::test(start_paused = true)]
async fn a_probe_that_goes_on_keeps_its_place_and_gives_it_back() {
    let (policy, judge) = (policy(|_| {}), Keeps::default());
    for _ in 0..2 {
        assert!(call(&policy, &judge).await);
        judge.take().record(Outcome::Failure);
    }
    advance(Duration::from_secs(60)).await;
    assert!(call(&policy, &judge).await, "the probe");
    assert!(!call(&policy, &judge).await, "its place is taken");
    drop(judge.take());
    assert_eq!(state(&policy), State::HalfOpen, "it has said nothing");
    assert!(call(&policy, &judge).await, "its place is free");
    // One that never ends does not block for ever.
    let endless = judge.take();
    advance(Duration::from_secs(60)).await;
    assert!(call(&policy, &judge).await);
    judge.take().record(Outcome::Success);
    assert_eq!(state(&policy), State::Closed);
    endless.record(Outcome::Failure);
    assert_eq!(state(&policy), State::Closed, "it comes too late");
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
