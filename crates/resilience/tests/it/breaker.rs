use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{advance, sleep};
use trunkline_core::{Error, ErrorKind, Retry};
use trunkline_resilience::breaker::{
    Breaker, BreakerSettings, CallError, Control, SlowCallSettings, State, WindowKind,
};
use trunkline_resilience::{CircuitChange, CircuitOpen, Observer, Outcome, Target};

use crate::watch::Watch;

const SECOND: Duration = Duration::from_secs(1);

fn failing_once() -> BreakerSettings {
    let mut settings = BreakerSettings::default();
    settings.failure_threshold = 1;
    settings.success_threshold = 1;
    settings
}

async fn half_open() -> Arc<Breaker> {
    let breaker = Arc::new(Breaker::new("users", failing_once()));
    breaker.try_acquire().unwrap().failure();
    advance(60 * SECOND).await;
    breaker
}

#[tokio::test(start_paused = true)]
async fn opens_after_failures_probes_and_closes_and_tells_it() {
    let watch = Watch::new();
    let target = Target::service("users").with_endpoint("GET /users/{id}");
    let breaker = Breaker::observed(target, BreakerSettings::default(), watch.clone());
    for _ in 0..5 {
        let failed = breaker
            .call(async { Err::<(), _>(Error::unavailable("down")) })
            .await;
        assert!(matches!(failed, Err(CallError::Failed(_))));
    }
    advance(10 * SECOND).await;
    let Err(CallError::Open(open)) = breaker.call(async { Ok::<_, Error>(()) }).await else {
        panic!("it is open");
    };
    assert_eq!(&*open.service, "users");
    assert_eq!(open.endpoint.as_deref(), Some("GET /users/{id}"));
    assert_eq!(open.retry_after, 50 * SECOND);
    let seen = breaker.snapshot();
    assert_eq!((seen.state, seen.failure_count), (State::Open, 5));
    assert_eq!((seen.since, seen.retry_after), (10 * SECOND, 50 * SECOND));
    assert!(seen.last_failure_time.is_some());

    advance(50 * SECOND).await;
    for _ in 0..2 {
        breaker.call(async { Ok::<_, Error>(()) }).await.unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot().failure_count, 0);
    assert_eq!(
        watch.changes(),
        [
            (State::Closed, State::Open),
            (State::Open, State::HalfOpen),
            (State::HalfOpen, State::Closed)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_future_is_not_polled_when_it_is_open() {
    let breaker = Breaker::new("users", failing_once());
    breaker.try_acquire().unwrap().failure();
    let refused = breaker
        .call(async { panic!("it was polled") as Result<(), Error> })
        .await;
    assert!(matches!(refused, Err(CallError::Open(_))));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_becomes_a_core_error_that_says_nothing_was_sent() {
    let breaker = Breaker::new("users", failing_once());
    breaker.force(Control::ForcedOpen);
    async fn call(breaker: &Breaker) -> trunkline_core::Result<()> {
        breaker.call(async { Ok::<_, Error>(()) }).await?;
        Ok(())
    }
    let error = call(&breaker).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.retry(), Retry::Safe);
    assert_eq!(
        error.find::<CircuitOpen>().unwrap().retry_after,
        60 * SECOND
    );
    assert_eq!(
        error.to_string(),
        "circuit of users is open, next try in 1m"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_panics_or_is_dropped_frees_its_place() {
    let breaker = half_open().await;
    for _ in 0..3 {
        let call = breaker.call(async {
            sleep(SECOND).await;
            Ok::<_, Error>(())
        });
        let cancelled = tokio::time::timeout(SECOND / 2, call).await;
        assert!(cancelled.is_err());
        let panicked =
            AssertUnwindSafe(breaker.call(async { panic!("on purpose") as Result<(), Error> }));
        assert!(panicked.catch_unwind().await.is_err());
        drop(breaker.try_acquire().unwrap());
        drop(breaker.try_acquire_owned().unwrap());
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.call(async { Ok::<_, Error>(()) }).await.unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_for_ever_is_replaced() {
    let breaker = half_open().await;
    let hung = breaker.try_acquire().unwrap();
    assert!(hung.is_probe());
    let refused = breaker.try_acquire().unwrap_err();
    assert!(refused.retry_after <= SECOND);
    advance(60 * SECOND).await;
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
    hung.failure();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_ok_may_count_as_a_failure_and_an_error_may_not() {
    let breaker = Breaker::new("users", failing_once());
    let judge = |status: &Result<u16, Error>| match status {
        Ok(500..) => Outcome::Failure,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Ignored,
    };
    let missing = async { Err(Error::not_found("no user 7")) };
    assert!(breaker.call_with(judge, missing).await.is_err());
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(
        breaker.call_with(judge, async { Ok(503) }).await.unwrap(),
        503
    );
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn only_what_speaks_against_the_other_side_counts() {
    let breaker = Breaker::new("users", failing_once());
    for error in [
        Error::not_found("no user 7"),
        Error::invalid("name is missing"),
        Error::cancelled("the caller left"),
        Error::rejected("bulkhead is full"),
    ] {
        let result = breaker.call(async { Err::<(), _>(error) }).await;
        assert!(matches!(result, Err(CallError::Failed(_))));
        assert_eq!(breaker.state(), State::Closed);
    }
    let result = breaker
        .call(async { Err::<(), _>(Error::timeout("no answer")) })
        .await;
    assert!(result.is_err());
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it() {
    let mut settings = BreakerSettings::default();
    settings.window.kind = WindowKind::Time;
    settings.window.minimum_calls = 3;
    settings.slow_call = Some(SlowCallSettings::new(SECOND, 60.0));
    let breaker = Breaker::new("users", settings);
    for pause in [SECOND, SECOND / 2, SECOND / 2, SECOND, SECOND] {
        assert_eq!(breaker.state(), State::Closed);
        let call = breaker.call(async {
            sleep(pause).await;
            Ok::<_, Error>(())
        });
        call.await.unwrap();
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_our_own_does_not_make_a_call_slow() {
    let mut settings = BreakerSettings::default();
    settings.window.minimum_calls = 1;
    settings.slow_call = Some(SlowCallSettings::new(SECOND, 1.0));
    let breaker = Breaker::new("users", settings);
    let mut permit = breaker.try_acquire().unwrap();
    sleep(2 * SECOND).await;
    permit.restart_clock();
    permit.success();
    assert_eq!(breaker.state(), State::Closed);
    let permit = breaker.try_acquire().unwrap();
    sleep(2 * SECOND).await;
    permit.success();
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_operator_decides_until_the_decision_is_handed_back() {
    let breaker = Breaker::new("users", failing_once());
    breaker.force(Control::ForcedOpen);
    advance(3600 * SECOND).await;
    assert!(breaker.try_acquire().is_err());
    assert_eq!(breaker.snapshot().control, Control::ForcedOpen);
    breaker.force(Control::Disabled);
    for _ in 0..10 {
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!(breaker.state(), State::Closed);
    breaker.reset();
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.state(), State::Open);
}

struct Panics;

impl Observer for Panics {
    fn circuit_changed(&self, _: &CircuitChange) {
        panic!("on purpose");
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_harms_nothing() {
    let breaker = Breaker::observed("users", failing_once(), Arc::new(Panics));
    breaker.try_acquire().unwrap().failure();
    assert_eq!(breaker.state(), State::Open);
    advance(60 * SECOND).await;
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn windows_count_successes_too_and_forget_them_in_time() {
    for (kind, later) in [(WindowKind::Count, 16), (WindowKind::Time, 1)] {
        let mut settings = BreakerSettings::default();
        settings.window.kind = kind;
        let breaker = Breaker::new("users", settings);
        for _ in 0..10 {
            breaker.try_acquire().unwrap().success();
        }
        for _ in 0..5 {
            breaker.try_acquire().unwrap().failure();
        }
        let seen = breaker.snapshot();
        assert_eq!((seen.calls, seen.failure_count), (15, 5));
        advance(61 * SECOND).await;
        breaker.try_acquire().unwrap().success();
        assert_eq!(breaker.snapshot().calls, later, "{kind:?}");
    }
}
