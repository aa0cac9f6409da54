//! Rate limit, adaptive concurrency and chaos within a whole policy.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};
use trunkline_core::{Context, Error, ErrorKind, Retry};
use trunkline_resilience::breaker::State;
use trunkline_resilience::chaos::{Chaos, Fault};
use trunkline_resilience::{
    Call, CircuitOpen, EffectivePolicy, InjectedFault, Layer, Observer, Overloaded, Policy,
    PolicyConfig, PolicyLayers, PolicyRegistry, Priority, RateLimited, Refusal, Target,
};

const MILLI: Duration = Duration::from_millis(1);

fn settings(config: serde_json::Value) -> EffectivePolicy {
    let config: PolicyConfig = serde_json::from_value(config).unwrap();
    let layers = PolicyLayers::new().push(Layer::Service("s".into()), config, |_| None);
    layers.resolve().unwrap().policy
}

fn policy(config: serde_json::Value) -> Policy {
    Policy::new("users", settings(config))
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn refused(&self, target: &Target, refusal: Refusal) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{target} {}", refusal.as_str()));
    }

    fn disturbed(&self, target: &Target, fault: Fault) {
        self.0.lock().unwrap().push(format!("{target} {fault}"));
    }

    fn concurrency_changed(&self, target: &Target, limit: u32) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{target} limit {limit}"));
    }
}

fn observed(config: serde_json::Value) -> (Arc<Policy>, Arc<Told>) {
    let told = Arc::new(Told::default());
    let registry = PolicyRegistry::builder()
        .observer(Arc::clone(&told) as _)
        .build();
    let settings = Arc::new(settings(config));
    let policy = registry.policy(&Target::service("users"), |_| Arc::clone(&settings));
    (policy, told)
}

#[tokio::test(start_paused = true)]
async fn the_rate_paces_calls_and_refuses_those_that_would_wait_too_long() {
    let policy = policy(json!({"rate_limit": {"limit": 10, "burst": 1, "max_wait": "250ms"}}));
    let began = Instant::now();
    let calls = (0..5).map(|_| {
        policy.run(Call::default(), |_| async {
            Ok::<_, Error>(began.elapsed().as_millis())
        })
    });
    let ends = join_all(calls).await;
    let times: Vec<u128> = ends.iter().flatten().copied().collect();
    assert_eq!(times, [0, 100, 200]);
    let refused = ends[3].as_ref().unwrap_err();
    assert!(refused.find::<RateLimited>().is_some(), "{refused}");
    assert_eq!(policy.breaker().unwrap().snapshot().failure_count, 0);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_takes_a_turn() {
    let policy = policy(json!({
        "rate_limit": {"limit": 1, "burst": 2, "max_wait": "0s"},
        "retry": {"delay": "1ms", "max_attempts": 5},
    }));
    let made = AtomicU32::new(0);
    let result = policy
        .run(Call::default(), |_| async {
            made.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(Error::unavailable("down").with_retry(Retry::Safe))
        })
        .await;
    assert!(result.unwrap_err().find::<RateLimited>().is_some());
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_given_back_where_the_bulkhead_or_the_limit_refuses() {
    for inner in [
        json!({"bulkhead": {"max_concurrent": 1, "max_queue": 0}}),
        json!({"concurrency": {"algorithm": "aimd", "initial": 1, "min": 1}}),
    ] {
        let mut config = json!({"rate_limit": {"limit": 1, "per": "1m", "burst": 2}});
        config
            .as_object_mut()
            .unwrap()
            .extend(inner.as_object().unwrap().clone());
        let policy = policy(config);
        let slow = policy.run(Call::default(), |_| async {
            sleep(10 * MILLI).await;
            Ok::<_, Error>(())
        });
        let refused = async {
            for _ in 0..10 {
                let call = policy.run(Call::default(), |_| async { Ok::<_, Error>(()) });
                assert!(call.await.unwrap_err().find::<RateLimited>().is_none());
            }
        };
        let (slow, ()) = tokio::join!(slow, refused);
        slow.unwrap();
        assert_eq!(policy.rate_limit().unwrap().available(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_uses_no_turn_up() {
    let policy = policy(json!({
        "rate_limit": {"limit": 1, "per": "1m", "burst": 3},
        "circuit_breaker": {"failure_threshold": 1},
        "retry": false_retry(),
    }));
    let fail = || {
        policy.run(Call::default(), |_| async {
            Err::<(), _>(Error::unavailable("x"))
        })
    };
    fail().await.unwrap_err();
    for _ in 0..5 {
        assert!(fail().await.unwrap_err().find::<CircuitOpen>().is_some());
    }
    assert_eq!(policy.rate_limit().unwrap().available(), 2);
}

fn false_retry() -> serde_json::Value {
    json!({"enabled": false})
}

#[tokio::test(start_paused = true)]
async fn what_exceeds_the_limit_is_shed_and_the_context_says_what_matters() {
    let (policy, told) = observed(json!({
        "concurrency": {"algorithm": "gradient", "initial": 10, "min": 1},
    }));
    let call = |priority: Priority| {
        let context = priority.put_into(Context::new());
        policy.run(Call::new(&context), |_| async {
            sleep(MILLI).await;
            Ok::<_, Error>(())
        })
    };
    let low = (0..10).map(|_| call(Priority::Low));
    let critical = (0..10).map(|_| call(Priority::Critical));
    let ends = join_all(low.chain(critical)).await;
    let passed = |ends: &[Result<(), Error>]| ends.iter().filter(|end| end.is_ok()).count();
    assert_eq!((passed(&ends[..10]), passed(&ends[10..])), (7, 3));
    let refused = ends[8].as_ref().unwrap_err();
    assert_eq!(
        (refused.kind(), refused.retry()),
        (ErrorKind::Rejected, Retry::Safe)
    );
    assert_eq!(
        refused.find::<Overloaded>().unwrap().priority,
        Priority::Low
    );
    assert_eq!(told.0.lock().unwrap().len(), 10);
    assert_eq!(told.0.lock().unwrap()[0], "users overloaded");
    let measured = policy.concurrency().unwrap().measured();
    assert_eq!(measured.in_flight, 0);
    assert_eq!(policy.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_run_out_of_time_lower_the_limit_and_whoever_watches_is_told() {
    let (policy, told) = observed(json!({
        "concurrency": {"algorithm": "aimd", "initial": 20},
        "request_timeout": "200ms",
        "circuit_breaker": {"enabled": false},
        "retry": false_retry(),
    }));
    let calls = (0..15).map(|_| {
        policy.run(Call::default(), |_| async {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Error>(())
        })
    });
    assert!(join_all(calls).await.iter().all(Result::is_err));
    assert_eq!(policy.concurrency().unwrap().measured().limit, 18);
    assert_eq!(*told.0.lock().unwrap(), ["users limit 18"]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_our_own_is_not_taken_for_the_other_sides_latency() {
    let policy = policy(json!({
        "concurrency": {"algorithm": "gradient"},
        "rate_limit": {"limit": 10, "burst": 1, "max_wait": "10s"},
    }));
    let calls = (0..20).map(|_| {
        policy.run(Call::default(), |_| async {
            sleep(MILLI).await;
            Ok::<_, Error>(())
        })
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let baseline = policy.concurrency().unwrap().measured().baseline.unwrap();
    assert!(baseline < 3 * MILLI, "{baseline:?}");
}

#[tokio::test(start_paused = true)]
async fn injected_errors_are_seen_by_retry_and_breaker() {
    let (policy, told) = observed(json!({
        "chaos": {"enabled": true, "error": {"percent": 100}, "only": {"attempts": [1]}},
        "retry": {"delay": "1ms"},
    }));
    let sent = AtomicU32::new(0);
    policy
        .run(Call::default(), |attempt| {
            sent.fetch_add(1, Ordering::SeqCst);
            async move {
                assert_eq!(attempt.number, 2);
                Ok::<_, Error>(())
            }
        })
        .await
        .unwrap();
    assert_eq!(
        sent.load(Ordering::SeqCst),
        1,
        "the first attempt was not sent"
    );
    assert_eq!(*told.0.lock().unwrap(), ["users error"]);
}

#[tokio::test(start_paused = true)]
async fn an_injected_delay_runs_into_the_attempts_timeout_and_opens_the_circuit() {
    let policy = policy(json!({
        "chaos": {"enabled": true, "latency": {"percent": 100, "delay": "1s"}},
        "request_timeout": "200ms",
        "circuit_breaker": {"failure_threshold": 1},
        "retry": false_retry(),
    }));
    let began = Instant::now();
    let error = policy
        .run(Call::default(), |_| async { Ok::<_, Error>(()) })
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), began.elapsed()),
        (ErrorKind::Timeout, 200 * MILLI)
    );
    assert_eq!(policy.breaker().unwrap().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_was_processed_and_only_repeated_where_that_does_no_harm() {
    for (repeatable, sent_times) in [(false, 1), (true, 2)] {
        let policy = policy(json!({
            "chaos": {"enabled": true, "abort": {"percent": 100}, "only": {"attempts": [1]}},
            "retry": {"delay": "1ms"},
        }));
        let sent = AtomicU32::new(0);
        let result = policy
            .run(Call::default().repeatable(repeatable), |_| async {
                sent.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Error>(())
            })
            .await;
        assert_eq!(result.is_ok(), repeatable);
        if let Err(error) = result {
            assert_eq!(error.find::<InjectedFault>().unwrap().fault, Fault::Abort);
        }
        assert_eq!(sent.load(Ordering::SeqCst), sent_times);
    }
}

#[tokio::test(start_paused = true)]
async fn only_marked_calls_are_hit_where_that_is_asked() {
    let policy = policy(json!({
        "chaos": {"enabled": true, "error": {"percent": 100, "kind": "internal"}, "only": {"marked": true}},
    }));
    let call = |context: Context| policy.run(Call::new(&context), |_| async { Ok::<_, Error>(()) });
    call(Context::new()).await.unwrap();
    let error = call(Chaos::mark(Context::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test(start_paused = true)]
async fn chaos_that_is_not_switched_on_does_nothing() {
    let policy = policy(json!({"chaos": {"error": {"percent": 100}}}));
    assert!(policy.settings().chaos.is_none());
    policy
        .run(Call::default(), |_| async { Ok::<_, Error>(()) })
        .await
        .unwrap();
}

#[test]
fn values_out_of_range_are_all_found() {
    let config: PolicyConfig = serde_json::from_value(json!({
        "rate_limit": {"limit": 0, "per": "0s", "burst": 0},
        "concurrency": {"min": 9, "max": 3, "tolerance": 0.5, "low_percent": 101, "recheck": "0s"},
        "chaos": {"latency": {"percent": 101}, "error": {"percent": -1}, "only": {"attempts": [0], "endpoints": [""]}},
    }))
    .unwrap();
    let paths: Vec<&str> = config
        .problems()
        .iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(
        paths,
        [
            "rate_limit.limit",
            "rate_limit.burst",
            "rate_limit.per",
            "concurrency.min",
            "concurrency.tolerance",
            "concurrency.recheck",
            "concurrency.low_percent",
            "chaos.latency.percent",
            "chaos.error.percent",
            "chaos.only.endpoints",
            "chaos.only.attempts",
        ]
    );
}

#[test]
fn a_limit_counts_for_where_it_was_written_and_every_value_is_explained() {
    let config = |json| serde_json::from_value::<PolicyConfig>(json).unwrap();
    let explained = PolicyLayers::new()
        .push(
            Layer::Default("policies.default".into()),
            config(json!({"rate_limit": {"max_wait": "0s"}})),
            |_| None,
        )
        .push(
            Layer::Service("services.users".into()),
            config(json!({"concurrency": {"algorithm": "aimd"}})),
            |_| None,
        )
        .push(
            Layer::Endpoint("GET /users".into()),
            config(json!({"rate_limit": {"limit": 5}})),
            |_| None,
        )
        .resolve()
        .unwrap();
    let rate = explained.policy.rate_limit.unwrap();
    assert_eq!(
        (rate.limit, rate.burst, rate.max_wait),
        (5, 5, Duration::ZERO)
    );
    assert_eq!(rate.scope, trunkline_resilience::Scope::Endpoint);
    assert_eq!(
        explained.policy.concurrency.unwrap().scope,
        trunkline_resilience::Scope::Service
    );
    let origin = |path: &str| {
        let found = explained
            .explanations
            .iter()
            .find(|value| value.path == path);
        found
            .map(|value| (value.value.clone(), value.layer.to_string()))
            .unwrap()
    };
    assert_eq!(
        origin("rate_limit.limit"),
        ("5".into(), "GET /users".into())
    );
    assert_eq!(
        origin("rate_limit.max_wait"),
        ("0s".into(), "policies.default".into())
    );
    assert_eq!(
        origin("concurrency.algorithm"),
        ("aimd".into(), "services.users".into())
    );
    assert_eq!(
        origin("concurrency.baseline"),
        ("measured".into(), "built-in".into())
    );
    assert_eq!(origin("chaos.enabled"), ("false".into(), "built-in".into()));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_counted_and_measured() {
    let registry = PolicyRegistry::default();
    let make = |limit: u32| {
        Arc::new(settings(json!({
            "rate_limit": {"limit": limit, "per": "1m", "burst": 2},
            "concurrency": {"algorithm": "gradient", "max": limit},
        })))
    };
    let target = Target::service("users").with_endpoint("GET /users");
    let policy = registry.policy(&target, |_| make(60));
    policy.rate_limit().unwrap().try_acquire().unwrap();
    let before = policy.concurrency().unwrap();
    registry.reload(|_| make(10));
    assert!(Arc::ptr_eq(&before, &policy.concurrency().unwrap()));
    assert_eq!(before.measured().limit, 10);
    assert_eq!(policy.rate_limit().unwrap().available(), 1);
    let states = registry.concurrency_states();
    assert_eq!(
        (states.len(), &states[0].target),
        (1, &Target::service("users"))
    );
}
