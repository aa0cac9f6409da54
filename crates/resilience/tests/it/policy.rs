use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use trunkline_core::{Context, Error, ErrorKind, Retry};
use trunkline_resilience::breaker::State;
use trunkline_resilience::retry::Stopped;
use trunkline_resilience::timeout::Limit;
use trunkline_resilience::{
    BulkheadFull, Call, CircuitOpen, DeadlineTooShort, EffectivePolicy, Elapsed, Layer, Outcome,
    Policy, PolicyConfig, PolicyLayers, PolicyRegistry, Refusal, RetryExhausted, Standard, Target,
};

use crate::watch::Watch;

const SECOND: Duration = Duration::from_secs(1);

fn settings(json: serde_json::Value) -> EffectivePolicy {
    let config: PolicyConfig = serde_json::from_value(json).unwrap();
    PolicyLayers::new()
        .push(Layer::Service("services.users".into()), config, |_| None)
        .resolve()
        .unwrap()
        .policy
}

fn policy(json: serde_json::Value) -> Policy {
    Policy::new("users", settings(json))
}

fn down() -> Error {
    Error::unavailable("down").with_retry(Retry::Safe)
}

async fn hang() -> Result<(), Error> {
    std::future::pending().await
}

fn no_jitter() -> serde_json::Value {
    serde_json::json!({ "retry": { "jitter": false } })
}

#[tokio::test(start_paused = true)]
async fn every_attempt_counts_for_the_breaker_which_then_refuses_at_once() {
    let policy = policy(no_jitter());
    let made = Cell::new(0);
    let call = || {
        policy.run(Call::default(), |_| {
            made.set(made.get() + 1);
            async { Err::<(), _>(down()) }
        })
    };
    let first = call().await.unwrap_err();
    assert_eq!(
        first.find::<RetryExhausted>().unwrap().stopped,
        Stopped::Attempts
    );
    assert_eq!(policy.breaker().unwrap().state(), State::Closed);
    // With three attempts and a threshold of five the second call opens the circuit and is refused its third attempt
    // only in so far as the fifth failure was its second.
    let second = call().await.unwrap_err();
    assert_eq!(made.get(), 5);
    let exhausted = second.find::<RetryExhausted>().unwrap();
    assert_eq!(
        (exhausted.attempts, exhausted.stopped),
        (3, Stopped::Refused)
    );
    assert!(second.find::<CircuitOpen>().is_some());
    assert_eq!(policy.breaker().unwrap().state(), State::Open);

    let began = Instant::now();
    let third = call().await.unwrap_err();
    assert_eq!((made.get(), began.elapsed()), (5, Duration::ZERO));
    assert!(
        third.find::<RetryExhausted>().is_none(),
        "one refusal speaks for itself"
    );
    assert!(third.find::<CircuitOpen>().unwrap().retry_after > 50 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_neither_success_nor_failure() {
    let policy = policy(serde_json::json!({
        "bulkhead": { "max_concurrent": 1, "max_queue": 0 },
        "circuit_breaker": { "failure_threshold": 2 }
    }));
    let place = policy.bulkhead().unwrap();
    let _taken = place.try_acquire().unwrap();
    policy.breaker().unwrap().try_acquire().unwrap().failure();
    for _ in 0..10 {
        let error = policy.run(Call::default(), |_| hang()).await.unwrap_err();
        assert!(error.find::<BulkheadFull>().is_some());
    }
    let circuit = policy.breaker().unwrap().snapshot();
    assert_eq!((circuit.state, circuit.failure_count), (State::Closed, 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_its_own_time_and_a_slow_one_is_tried_again_where_that_does_no_harm() {
    let policy = policy(serde_json::json!({ "request_timeout": 2, "retry": { "jitter": false } }));
    let began = Instant::now();
    let call = Call::default().repeatable(true);
    let result = policy
        .run(call, |attempt| async move {
            assert_eq!(attempt.remaining(), 2 * SECOND);
            if attempt.number < 3 {
                hang().await?;
            }
            Ok::<_, Error>(attempt.number)
        })
        .await;
    assert_eq!(result.unwrap(), 3);
    assert_eq!(began.elapsed(), (2 + 1 + 2 + 2) * SECOND);
    let error = policy.run(Call::default(), |_| hang()).await.unwrap_err();
    let elapsed = error.find::<Elapsed>().unwrap();
    assert_eq!((elapsed.limit, elapsed.after), (Limit::Attempt, 2 * SECOND));
    assert!(
        error.find::<RetryExhausted>().is_none(),
        "it may have been processed"
    );
    assert_eq!(policy.breaker().unwrap().snapshot().failure_count, 1);
}

/// `request_timeout` is one attempt's, and no attempt lasts past the total.
#[tokio::test(start_paused = true)]
async fn x_8_an_attempt_lasts_as_long_as_request_timeout_and_never_past_the_total() {
    let built_in = EffectivePolicy::default().timeout;
    assert_eq!(
        (built_in.attempt, built_in.total),
        (30 * SECOND, 30 * SECOND)
    );
    let policy = policy(serde_json::json!({
        "timeout": "10s", "request_timeout": "4s",
        "retry": { "max_attempts": 5, "delay": 0 }
    }));
    let began = Instant::now();
    let given = std::sync::Mutex::new(Vec::new());
    let call = Call::default().repeatable(true);
    let error = policy
        .run(call, |attempt| {
            given.lock().unwrap().push(attempt.remaining());
            hang()
        })
        .await
        .unwrap_err();
    assert_eq!(
        given.into_inner().unwrap(),
        [4 * SECOND, 4 * SECOND, 2 * SECOND]
    );
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let exhausted = error.find::<RetryExhausted>().unwrap();
    assert_eq!(
        (exhausted.attempts, exhausted.stopped),
        (3, Stopped::Deadline)
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_lasts_longer_than_the_total_or_the_callers_deadline() {
    let policy = policy(
        serde_json::json!({ "timeout": 10, "request_timeout": 4, "retry": { "jitter": false, "max_attempts": 9 } }),
    );
    let began = Instant::now();
    let call = Call::default().repeatable(true);
    let error = policy.run(call, |_| hang()).await.unwrap_err();
    assert_eq!(
        began.elapsed(),
        9 * SECOND,
        "4 s, 1 s wait, 4 s, and no time for 2 s more"
    );
    assert_eq!(error.kind(), ErrorKind::Timeout);

    let began = Instant::now();
    let call = call.with_total(3 * SECOND);
    let error = policy.run(call, |_| hang()).await.unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(error.find::<Elapsed>().unwrap().limit, Limit::Total);

    let began = Instant::now();
    let call = call.with_total(3 * SECOND).with_began(began);
    advance(2 * SECOND).await;
    policy.run(call, |_| hang()).await.unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND, "it counts from its beginning");

    let began = Instant::now();
    let context = Context::new().with_timeout(SECOND);
    let error = policy
        .run(Call::new(&context), |_| hang())
        .await
        .unwrap_err();
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(error.find::<Elapsed>().unwrap().limit, Limit::Deadline);
}

#[tokio::test(start_paused = true)]
async fn the_options_of_one_call_come_last() {
    let policy = policy(no_jitter());
    let call = Call::default()
        .repeatable(true)
        .with_total(5 * SECOND)
        .with_attempt_timeout(SECOND)
        .with_max_attempts(2);
    let made = Cell::new(0);
    let error = policy
        .run(call, |_| {
            made.set(made.get() + 1);
            hang()
        })
        .await
        .unwrap_err();
    assert_eq!((made.get(), error.kind()), (2, ErrorKind::Timeout));
}

#[tokio::test(start_paused = true)]
async fn with_too_little_time_left_nothing_is_started_and_nobody_blamed() {
    let policy = policy(
        serde_json::json!({ "timeout": { "floor": "10ms" }, "circuit_breaker": { "failure_threshold": 1 } }),
    );
    let context = Context::new().with_timeout(Duration::from_millis(10));
    let error = policy
        .run(Call::new(&context), |_| async {
            panic!("started") as Result<(), Error>
        })
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Timeout, Retry::Safe)
    );
    assert!(error.find::<DeadlineTooShort>().is_some());
    assert_eq!(policy.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_next_to_no_time_open_no_circuit() {
    let policy = policy(serde_json::json!({ "circuit_breaker": { "failure_threshold": 1 } }));
    let within = |milliseconds: u64| {
        let span = Duration::from_millis(milliseconds);
        Call::new(&Context::new().with_timeout(span))
    };
    // The endpoint takes 600 ms.
    let slow = |_| async {
        sleep(Duration::from_millis(600)).await;
        Ok::<_, Error>(())
    };
    for milliseconds in [2, 50, 499] {
        let cut = policy.run(within(milliseconds), slow).await.unwrap_err();
        assert_eq!(cut.find::<Elapsed>().unwrap().limit, Limit::Deadline);
        // The next hop honours the same deadline, and may be the first to say so.
        let told = policy.run(within(milliseconds), |_| async {
            Err::<(), _>(Error::timeout("504 from users").with_retry(Retry::Never))
        });
        assert_eq!(told.await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    let circuit = policy.breaker().unwrap().snapshot();
    assert_eq!((circuit.state, circuit.failure_count), (State::Closed, 0));

    // Who does not answer at all within a time that was fair, or refuses the connection however short it was, fails.
    assert!(policy.run(within(500), slow).await.is_err());
    assert_eq!(policy.breaker().unwrap().state(), State::Open);
    policy.breaker().unwrap().reset();
    let refused = policy.run(within(2), |_| async { Err::<(), _>(down()) });
    assert!(refused.await.is_err());
    assert_eq!(policy.breaker().unwrap().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_opens_its_circuit_under_ordinary_deadlines_and_short_timeouts() {
    let patient = policy(serde_json::json!({}));
    for _ in 0..5 {
        let context = Context::new().with_timeout(SECOND);
        assert!(patient.run(Call::new(&context), |_| hang()).await.is_err());
    }
    assert_eq!(patient.breaker().unwrap().state(), State::Open);

    // A short timeout of the policy's own is the operator's word, not the caller's.
    let quick = policy(serde_json::json!({ "request_timeout": "20ms" }));
    for _ in 0..5 {
        let context = Context::new().with_timeout(SECOND / 4);
        assert!(quick.run(Call::new(&context), |_| hang()).await.is_err());
    }
    assert_eq!(quick.breaker().unwrap().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_place_counts_against_the_deadline_but_not_as_a_slow_call() {
    let policy = Arc::new(policy(serde_json::json!({
        "bulkhead": { "max_concurrent": 1, "max_wait": "10s" },
        "circuit_breaker": { "slow_call": { "duration": "2s", "percent": 1 }, "window": { "minimum_calls": 1 } }
    })));
    let place = policy
        .bulkhead()
        .unwrap()
        .acquire_owned(None)
        .await
        .unwrap();
    let own = Arc::clone(&policy);
    let waits = trunkline_core::task::spawn("waits", async move {
        own.run(Call::default(), |attempt| async move {
            assert!(attempt.remaining() <= 25 * SECOND);
            Ok::<_, Error>(())
        })
        .await
    });
    sleep(5 * SECOND).await;
    drop(place);
    waits.await.unwrap().unwrap();
    assert_eq!(policy.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn who_waited_is_refused_when_the_circuit_has_opened_meanwhile() {
    for limits in [
        serde_json::json!({ "bulkhead": { "max_concurrent": 1, "max_wait": "10s" } }),
        serde_json::json!({ "rate_limit": { "limit": 1, "per": "1s", "burst": 1, "max_wait": "10s" } }),
    ] {
        let mut settings = limits.clone();
        settings["circuit_breaker"] = serde_json::json!({ "failure_threshold": 1 });
        settings["retry"] = serde_json::json!({ "enabled": false });
        let policy = policy(settings);
        let failing = policy.run(Call::default(), |_| async {
            sleep(SECOND / 2).await;
            Err::<(), _>(down())
        });
        let made = Cell::new(false);
        let waiting = policy.run(Call::default(), |_| {
            made.set(true);
            async { Ok::<_, Error>(()) }
        });
        let (failed, waited) = tokio::join!(failing, waiting);
        failed.unwrap_err();
        assert!(
            waited.unwrap_err().find::<CircuitOpen>().is_some(),
            "{limits}"
        );
        assert!(!made.get(), "{limits}");
        // Nothing was kept: the place is free, and the turn.
        policy.breaker().unwrap().reset();
        sleep(SECOND).await;
        let ok = policy.run(Call::default(), |_| async { Ok::<_, Error>(()) });
        ok.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_place_is_held_between_attempts() {
    let policy = policy(
        serde_json::json!({ "bulkhead": { "max_concurrent": 1, "max_queue": 0 }, "retry": { "jitter": false } }),
    );
    let failing = policy.run(Call::default(), |attempt| async move {
        if attempt.number == 1 {
            Err(down())
        } else {
            Ok(())
        }
    });
    let (first, second) = tokio::join!(failing, async {
        sleep(SECOND / 2).await;
        policy
            .run(Call::default(), |_| async { Ok::<_, Error>(()) })
            .await
    });
    first.unwrap();
    second.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cancelled_anywhere_it_gives_everything_back() {
    let policy = policy(serde_json::json!({
        "bulkhead": { "max_concurrent": 1, "max_queue": 1 },
        "circuit_breaker": { "failure_threshold": 1, "recovery_timeout": "1s" },
        "retry": { "jitter": false }
    }));
    policy.breaker().unwrap().try_acquire().unwrap().failure();
    for _ in 0..5 {
        advance(2 * SECOND).await;
        let probe = policy.run(Call::default(), |_| hang());
        assert!(tokio::time::timeout(SECOND, probe).await.is_err());
        assert_eq!(policy.bulkhead().unwrap().occupancy().running, 0);
    }
    policy
        .run(Call::default(), |_| async { Ok::<_, Error>(()) })
        .await
        .unwrap();
    policy
        .run(Call::default(), |_| async { Ok::<_, Error>(()) })
        .await
        .unwrap();
    assert_eq!(policy.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_gets_the_cause_and_a_slice_of_the_deadline() {
    let policy =
        policy(serde_json::json!({ "timeout": 4, "fallback": { "value": 0, "reserve": "500ms" } }));
    let began = Instant::now();
    let answer = policy
        .run_or(
            Call::default(),
            &Standard,
            |_| async { hang().await.map(|()| 1) },
            |result, deadline| async move {
                assert_eq!(began.elapsed(), Duration::from_millis(3500));
                assert_eq!(deadline.left(Instant::now()), SECOND / 2);
                let cause: Error = result.unwrap_err();
                assert!(cause.find::<Elapsed>().is_some());
                Ok(0)
            },
        )
        .await;
    assert_eq!(answer.unwrap(), 0);

    let slow = policy
        .run_or(
            Call::default(),
            &Standard,
            |_| async { Err::<u8, _>(down()) },
            |_, _| async { std::future::pending().await },
        )
        .await;
    assert_eq!(slow.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_answers_refusals_but_not_proper_answers() {
    let policy = policy(serde_json::json!({}));
    let missing = async |policy: &Policy| {
        let call = policy.run_or(
            Call::default(),
            &Standard,
            |_| async { Err::<u8, _>(Error::not_found("no user 7")) },
            |_, _| async { Ok(0) },
        );
        call.await
    };
    assert_eq!(
        missing(&policy).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    policy
        .breaker()
        .unwrap()
        .force(trunkline_resilience::breaker::Control::ForcedOpen);
    assert_eq!(missing(&policy).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_parts_it_still_bounds_the_time() {
    let policy = policy(serde_json::json!({
        "retry": { "enabled": false, "budget": { "enabled": false } }, "circuit_breaker": { "enabled": false }
    }));
    assert!(policy.breaker().is_none() && policy.bulkhead().is_none());
    let began = Instant::now();
    assert!(policy.run(Call::default(), |_| hang()).await.is_err());
    assert_eq!(began.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn observers_hear_of_retries_and_refusals() {
    let watch = Watch::new();
    let registry = PolicyRegistry::builder().observer(watch.clone()).build();
    let effective = Arc::new(settings(serde_json::json!({
        "retry": { "jitter": false, "budget": { "percent": 0, "min_per_second": 0 } },
        "bulkhead": { "max_concurrent": 1, "max_queue": 0 }
    })));
    let target = Target::service("users").with_endpoint("GET /");
    let policy = registry.policy(&target, |_| Arc::clone(&effective));
    let failed = policy
        .run(Call::default(), |_| async { Err::<(), _>(down()) })
        .await;
    assert!(failed.is_err());
    let place = policy
        .bulkhead()
        .unwrap()
        .acquire_owned(None)
        .await
        .unwrap();
    assert!(policy.run(Call::default(), |_| hang()).await.is_err());
    drop(place);
    let late = Context::new().with_timeout(Duration::ZERO);
    assert!(policy.run(Call::new(&late), |_| hang()).await.is_err());
    policy
        .breaker()
        .unwrap()
        .force(trunkline_resilience::breaker::Control::ForcedOpen);
    assert!(policy.run(Call::default(), |_| hang()).await.is_err());
    let refusals: Vec<_> = watch.refusals();
    assert!(refusals.iter().all(|(target, _)| target == "users GET /"));
    let reasons: Vec<_> = refusals.into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(
        reasons,
        [
            Refusal::RetryBudget,
            Refusal::BulkheadFull,
            Refusal::DeadlineTooShort,
            Refusal::CircuitOpen
        ]
    );
    assert!(watch.retries().is_empty());

    let plain = registry.policy(&Target::service("orders"), |_| {
        Arc::new(settings(no_jitter()))
    });
    let failed = plain
        .run(Call::default(), |_| async { Err::<(), _>(down()) })
        .await;
    assert!(failed.is_err());
    assert_eq!(watch.retries(), [(2, SECOND), (3, 2 * SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn an_ok_that_counts_as_a_failure_goes_all_the_way() {
    let policy = policy(no_jitter());
    let judge = |result: &Result<u16, Error>| match result {
        Ok(500..) => Outcome::Failure,
        _ => Outcome::Success,
    };
    let call = Call::default().repeatable(true);
    let answer = policy
        .run_with(call, &judge, |_| async { Ok::<_, Error>(503) })
        .await;
    assert_eq!(answer.unwrap(), 503);
    assert_eq!(policy.breaker().unwrap().snapshot().failure_count, 3);
}

#[tokio::test]
async fn a_call_may_run_on_any_thread() {
    let policy = Arc::new(Policy::new("users", EffectivePolicy::default()));
    let work = async move {
        let name = String::from("Ada");
        let name = &name;
        policy
            .run(Call::default(), |attempt| async move {
                tokio::task::yield_now().await;
                Ok::<_, Error>(format!("{name} {}", attempt.number))
            })
            .await
    };
    let spawned = trunkline_core::task::spawn("call", work);
    assert_eq!(spawned.await.unwrap().unwrap(), "Ada 1");
}

#[tokio::test(start_paused = true)]
async fn retries_are_paid_for_by_calls() {
    let policy = policy(serde_json::json!({
        "retry": { "jitter": false, "budget": { "percent": 100, "min_per_second": 0 } },
        "circuit_breaker": { "enabled": false }
    }));
    let once = policy.run(Call::default(), |attempt| async move {
        if attempt.is_retry() {
            Ok(())
        } else {
            Err(down())
        }
    });
    once.await.unwrap();
    let failed = policy.run(Call::default(), |_| async { Err::<(), _>(down()) });
    let error = failed.await.unwrap_err();
    let exhausted = error.find::<RetryExhausted>().unwrap();
    assert_eq!(
        (exhausted.attempts, exhausted.stopped),
        (2, Stopped::Budget)
    );
}

/// On the real clock: a paused one stands still while a task is busy.
#[tokio::test]
async fn an_operation_that_never_rests_is_ended_too() {
    let policy = policy(serde_json::json!({ "request_timeout": "10ms" }));
    let error = policy
        .run(Call::default(), |_| async {
            for _ in 0..100_000_000_u64 {
                tokio::task::coop::consume_budget().await;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap_err();
    assert!(error.find::<Elapsed>().is_some());
}
