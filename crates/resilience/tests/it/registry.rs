use std::cell::Cell;
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use trunkline_core::{Error, ManualClock, Retry, Timestamp};
use trunkline_resilience::breaker::{BreakerSettings, Control, State};
use trunkline_resilience::{
    Call, CircuitChange, EffectivePolicy, Layer, Observer, PolicyConfig, PolicyLayers,
    PolicyRegistry, Target,
};

use crate::watch::Watch;

fn settings(layer: Layer, json: serde_json::Value) -> Arc<EffectivePolicy> {
    let config: PolicyConfig = serde_json::from_value(json).unwrap();
    let layers = PolicyLayers::new().push(layer, config, |_| None);
    Arc::new(layers.resolve().unwrap().policy)
}

fn of_service(json: serde_json::Value) -> Arc<EffectivePolicy> {
    settings(Layer::Service("s".into()), json)
}

fn endpoint(name: &str) -> Target {
    Target::service("users").with_endpoint(name)
}

#[tokio::test(start_paused = true)]
async fn endpoints_have_their_own_circuit_and_share_what_their_service_limits() {
    let registry = PolicyRegistry::default();
    let limited = of_service(serde_json::json!({ "bulkhead": { "max_concurrent": 1 } }));
    let one = registry.policy(&endpoint("GET /a"), |_| Arc::clone(&limited));
    let two = registry.policy(&endpoint("GET /b"), |_| Arc::clone(&limited));
    assert!(!Arc::ptr_eq(
        &one.breaker().unwrap(),
        &two.breaker().unwrap()
    ));
    assert!(Arc::ptr_eq(
        &one.bulkhead().unwrap(),
        &two.bulkhead().unwrap()
    ));

    let own = settings(
        Layer::Endpoint("e".into()),
        serde_json::json!({ "bulkhead": { "max_concurrent": 1 } }),
    );
    let three = registry.policy(&endpoint("GET /c"), |_| Arc::clone(&own));
    assert!(!Arc::ptr_eq(
        &one.bulkhead().unwrap(),
        &three.bulkhead().unwrap()
    ));
    let names: Vec<_> = registry
        .bulkhead_states()
        .iter()
        .map(|b| b.target.to_string())
        .collect();
    assert_eq!(names, ["users", "users GET /c"]);
}

#[tokio::test(start_paused = true)]
async fn the_retry_budget_is_shared_by_the_endpoints_of_a_service() {
    let registry = PolicyRegistry::default();
    let broke = of_service(serde_json::json!({
        "retry": { "max_attempts": 2, "budget": { "percent": 0, "min_per_second": 1 } },
        "circuit_breaker": { "enabled": false }
    }));
    let calls = (0..15).map(|number| {
        let target = endpoint(&format!("GET /{}", number % 3));
        let policy = registry.policy(&target, |_| Arc::clone(&broke));
        async move {
            let call = policy.run(Call::default(), |attempt| async move {
                if attempt.number == 1 {
                    return Err(Error::unavailable("down").with_retry(Retry::Safe));
                }
                Ok(())
            });
            call.await.is_ok()
        }
    });
    let results = futures_util::future::join_all(calls).await;
    let retried = results.into_iter().filter(|retried| *retried).count();
    assert_eq!(
        retried, 10,
        "one a second over ten seconds, by three endpoints"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_numbers_and_keeps_the_state() {
    let registry = PolicyRegistry::default();
    let target = endpoint("GET /a");
    let policy = registry.policy(&target, |_| {
        of_service(serde_json::json!({ "bulkhead": { "max_concurrent": 2 } }))
    });
    let breaker = policy.breaker().unwrap();
    for _ in 0..5 {
        breaker.try_acquire().unwrap().failure();
    }
    let bulkhead = policy.bulkhead().unwrap();
    let _place = bulkhead.try_acquire().unwrap();

    registry.reload(|reloaded| {
        assert_eq!(*reloaded, target);
        of_service(serde_json::json!({
            "bulkhead": { "max_concurrent": 1 }, "circuit_breaker": { "recovery_timeout": "10s" }
        }))
    });
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.snapshot().retry_after, Duration::from_secs(10));
    assert!(bulkhead.try_acquire().is_none());
    assert_eq!(
        policy.settings().circuit_breaker.unwrap().recovery_timeout,
        Duration::from_secs(10)
    );
    assert!(Arc::ptr_eq(&breaker, &policy.breaker().unwrap()));

    registry.reload(|_| of_service(serde_json::json!({ "circuit_breaker": { "enabled": false } })));
    assert!(policy.breaker().is_none() && policy.bulkhead().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_a_reload_switches_off_is_gone_and_comes_back_closed() {
    let watch = Watch::new();
    let registry = PolicyRegistry::builder().observer(watch.clone()).build();
    let target = endpoint("GET /a");
    let policy = registry.policy(&target, |_| of_service(serde_json::json!({})));
    let breaker = policy.breaker().unwrap();
    let early = breaker.try_acquire().unwrap();
    for _ in 0..5 {
        breaker.try_acquire().unwrap().failure();
    }
    registry.reload(|_| of_service(serde_json::json!({ "circuit_breaker": { "enabled": false } })));
    assert!(registry.circuit_states().is_empty());
    assert!(registry.circuit(&target).is_none());
    early.failure();
    assert_eq!(
        watch.changes(),
        [(State::Closed, State::Open), (State::Open, State::Closed)],
        "who shows it hears that it is no longer open"
    );

    registry.reload(|_| {
        of_service(serde_json::json!({ "circuit_breaker": { "failure_threshold": 2 } }))
    });
    let circuit = registry.circuit_states().remove(0).circuit;
    assert_eq!((circuit.state, circuit.failure_count), (State::Closed, 0));
    let breaker = policy.breaker().unwrap();
    for _ in 0..2 {
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(watch.changes().len(), 3);
    assert!(watch.sequence().is_sorted_by(|one, next| one < next));
}

/// Else it would keep the old values until the next reload.
#[test]
fn a_policy_that_is_made_during_a_reload_has_the_new_values() {
    let registry = PolicyRegistry::default();
    let asked = Cell::new(0);
    let policy = registry.policy(&endpoint("GET /a"), |_| {
        asked.set(asked.get() + 1);
        if asked.get() == 1 {
            registry.reload(|_| unreachable!("there is no policy yet"));
        }
        of_service(serde_json::json!({ "retry": { "max_attempts": asked.get() } }))
    });
    assert_eq!(policy.settings().retry.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn targets_are_bounded() {
    let registry = PolicyRegistry::builder().max_targets(3).build();
    let plain = || Arc::new(EffectivePolicy::default());
    for number in 0..100 {
        let path = format!("GET /{number}");
        let policy = registry.policy(&endpoint(&path), |_| plain());
        let own = number < 3;
        assert_eq!(policy.target().endpoint.is_some(), own, "{number}");
    }
    let whole = registry.policy(&endpoint("GET /new"), |_| {
        unreachable!("the service has one")
    });
    assert_eq!(*whole.target(), Target::service("users"));
    for number in 0..100 {
        let policy = registry.policy(&Target::service(format!("s{number}")), |_| plain());
        assert_eq!(&*policy.target().service == "*", number >= 2, "{number}");
    }
    assert_eq!(registry.circuit_states().len(), 7);
    for number in 0..100 {
        let target = Target::service("users").with_instance(format!("10.0.0.{number}:80"));
        let breaker = registry.breaker(&target, BreakerSettings::default());
        assert_eq!(breaker.target(), &Target::service("*"));
    }
}

#[tokio::test(start_paused = true)]
async fn circuits_can_be_seen_in_order() {
    let at: Timestamp = "2025-01-09T10:30:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::new(at));
    let registry = PolicyRegistry::builder().clock(clock).build();
    let plain = || Arc::new(EffectivePolicy::default());
    let users = registry.policy(&endpoint("GET /b"), |_| plain());
    let _orders = registry.policy(&Target::service("orders"), |_| plain());
    let instance = Target::service("users").with_instance("10.0.0.1:80");
    let _instance = registry.breaker(&instance, BreakerSettings::default());
    let failed = users
        .run(Call::default(), |_| async {
            Err::<(), _>(Error::unavailable("down"))
        })
        .await;
    assert!(failed.is_err());
    let seen = registry.circuit_states();
    let names: Vec<_> = seen
        .iter()
        .map(|status| status.target.to_string())
        .collect();
    assert_eq!(names, ["orders", "users@10.0.0.1:80", "users GET /b"]);
    assert_eq!(seen[2].circuit.failure_count, 1);
    assert_eq!(seen[2].circuit.last_failure_time, Some(at));
    assert_eq!(
        (
            seen[0].circuit.failure_count,
            seen[0].circuit.last_failure_time
        ),
        (0, None)
    );
    assert!(registry.circuit(&instance).is_some());
    let shown = serde_json::to_value(&seen[2]).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({
            "target": { "service": "users", "endpoint": "GET /b", "instance": null },
            "circuit": {
                "state": "closed", "control": "automatic", "failure_count": 1, "calls": 0,
                "last_failure_time": "2025-01-09T10:30:00Z", "since": "0s", "retry_after": "0s"
            }
        })
    );

    registry.retain(|target| target.instance.is_none());
    assert_eq!(registry.circuit_states().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_operator_holds_a_circuit_by_configuration_and_lets_it_go() {
    let settings = |json: serde_json::Value| {
        let config: PolicyConfig = serde_json::from_value(json).unwrap();
        let layers = PolicyLayers::new().push(Layer::Service("s".into()), config, |_| None);
        Arc::new(layers.resolve().unwrap().policy)
    };
    let open = settings(serde_json::json!({ "circuit_breaker": { "force": "open" } }));
    let registry = PolicyRegistry::default();
    let policy = registry.policy(&"users".into(), |_| Arc::clone(&open));
    let breaker = policy.breaker().unwrap();
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.try_acquire().is_err());
    let free = settings(serde_json::json!({}));
    registry.reload(|_| Arc::clone(&free));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot().control, Control::Automatic);
    // What is forced in code is not undone by a reload that says nothing about it.
    breaker.force(Control::ForcedClosed);
    registry.reload(|_| Arc::clone(&free));
    assert_eq!(breaker.snapshot().control, Control::ForcedClosed);
    registry.reload(|_| Arc::clone(&open));
    assert_eq!(breaker.snapshot().control, Control::ForcedOpen);
    // Out of the way, and still in sight.
    let disabled = settings(serde_json::json!({ "circuit_breaker": { "force": "disabled" } }));
    registry.reload(|_| Arc::clone(&disabled));
    for _ in 0..10 {
        breaker.try_acquire().unwrap().failure();
    }
    let seen = registry.circuit_states().remove(0).circuit;
    assert_eq!(
        (seen.state, seen.control),
        (State::Closed, Control::Disabled)
    );
    assert_eq!(seen.failure_count, 0);
    registry.reload(|_| Arc::clone(&free));
    assert_eq!(breaker.snapshot().control, Control::Automatic);
}

/// Looks at every circuit when it is told of one.
#[derive(Default)]
struct Asking {
    registry: OnceLock<PolicyRegistry>,
    seen: Mutex<Vec<(State, usize)>>,
}

impl Observer for Asking {
    fn circuit_changed(&self, change: &CircuitChange) {
        let known = self.registry.get().unwrap().circuit_states().len();
        self.seen.lock().unwrap().push((change.to, known));
    }
}

/// A lock that is held meanwhile would keep it waiting for ever.
#[test]
fn an_observer_may_ask_the_registry_whoever_changed_the_circuit() {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let asking = Arc::new(Asking::default());
        let registry = PolicyRegistry::builder().observer(asking.clone()).build();
        assert!(asking.registry.set(registry.clone()).is_ok());
        let circuit = |json| of_service(serde_json::json!({ "circuit_breaker": json }));
        let open = || circuit(serde_json::json!({ "force": "open" }));
        let _made = registry.policy(&endpoint("GET /a"), |_| open());
        registry.reload(|_| circuit(serde_json::json!({})));
        registry.reload(|_| open());
        registry.reload(|_| circuit(serde_json::json!({ "enabled": false })));
        registry.reload(|_| open());
        let mut alone = BreakerSettings::default();
        alone.control = Control::ForcedOpen;
        let _alone = registry.breaker(&Target::service("users").with_instance("i:1"), alone);
        done.send(asking.seen.lock().unwrap().clone()).unwrap();
    });
    // Far longer than it takes: a deadlock is not to hang the tests.
    let seen = ended.recv_timeout(Duration::from_secs(60));
    let (open, closed) = (State::Open, State::Closed);
    let expected = [
        (open, 1),
        (closed, 1),
        (open, 1),
        (closed, 0),
        (open, 1),
        (open, 2),
    ];
    assert_eq!(seen.expect("observers are told outside the lock"), expected);
}

#[test]
fn a_circuit_that_two_reloads_switch_off_and_on_is_never_left_disabled() {
    let registry = PolicyRegistry::default();
    let on = of_service(serde_json::json!({}));
    let off = of_service(serde_json::json!({ "circuit_breaker": { "enabled": false } }));
    let policy = registry.policy(&endpoint("GET /a"), |_| Arc::clone(&on));
    let together = Barrier::new(2);
    for round in 0..5_000 {
        thread::scope(|scope| {
            for settings in [&on, &off] {
                scope.spawn(|| {
                    together.wait();
                    registry.reload(|_| Arc::clone(settings));
                });
            }
        });
        if let Some(breaker) = policy.breaker() {
            let control = breaker.snapshot().control;
            assert_eq!(control, Control::Automatic, "round {round}");
        }
        registry.reload(|_| Arc::clone(&on));
    }
}
