use std::time::Duration;

use trunkline_resilience::config::WindowKind;
use trunkline_resilience::{
    EffectivePolicy, Explanation, Layer, PolicyConfig, PolicyLayers, Scope,
};

fn config(json: serde_json::Value) -> PolicyConfig {
    serde_json::from_value(json).unwrap()
}

fn nowhere(_: &str) -> Option<String> {
    None
}

fn resolve(layers: &PolicyLayers<'_>) -> EffectivePolicy {
    layers.resolve().unwrap().policy
}

#[test]
fn built_in_values_are_those_of_the_seeds() {
    let policy = resolve(&PolicyLayers::new());
    assert_eq!(policy, EffectivePolicy::default());
    assert_eq!(policy.timeout.connection, Duration::from_secs(10));
    assert_eq!(policy.timeout.read, Duration::from_secs(30));
    assert_eq!(policy.timeout.total, Duration::from_secs(30));
    assert_eq!(policy.timeout.attempt, Duration::from_secs(30));
    let retry = &policy.retry;
    assert_eq!((retry.attempts(), retry.delay), (3, Duration::from_secs(1)));
    assert!((retry.backoff - 2.0).abs() < f64::EPSILON && retry.jitter);
    let budget = retry.budget.unwrap();
    assert_eq!((budget.percent, budget.min_per_second), (20.0, 10));
    let breaker = policy.circuit_breaker.unwrap();
    assert_eq!(
        (breaker.failure_threshold, breaker.success_threshold),
        (5, 2)
    );
    assert_eq!(breaker.recovery_timeout, Duration::from_secs(60));
    assert_eq!(breaker.window.kind, WindowKind::Consecutive);
    assert_eq!((policy.bulkhead, policy.fallback), (None, None));
}

#[test]
fn the_strongest_layer_that_sets_a_field_wins_whatever_the_order_of_pushing() {
    let set = |attempts: u32, extra: serde_json::Value| {
        let mut config = config(extra);
        config.retry.max_attempts = Some(attempts);
        config
    };
    let none = serde_json::json!({});
    let all = [
        (Layer::Call("call".into()), set(7, none.clone())),
        (
            Layer::Attribute("attribute".into()),
            set(2, serde_json::json!({ "request_timeout": 2 })),
        ),
        (
            Layer::Service("services.users".into()),
            set(5, serde_json::json!({ "retry": { "delay": 5 } })),
        ),
        (
            Layer::Default("policies.default".into()),
            set(3, serde_json::json!({ "retry": { "backoff": 3.0 } })),
        ),
        (Layer::Endpoint("endpoint".into()), set(6, none)),
        (
            Layer::Named("policies.critical".into()),
            set(4, serde_json::json!({ "retry": { "delay": 4 } })),
        ),
    ];
    for strongest in [7, 6, 5, 4, 3, 2] {
        let mut layers = PolicyLayers::new();
        for (layer, config) in &all {
            if config.retry.max_attempts <= Some(strongest) {
                layers = layers.push(layer.clone(), config.clone(), nowhere);
            }
        }
        let policy = resolve(&layers);
        assert_eq!(policy.retry.max_attempts, strongest);
        assert_eq!(policy.timeout.attempt, Duration::from_secs(2));
        let delay = match strongest {
            2 | 3 => 1,
            4 => 4,
            _ => 5,
        };
        assert_eq!(policy.retry.delay, Duration::from_secs(delay));
    }
}

fn explanation<'a>(all: &'a [Explanation], path: &str) -> &'a Explanation {
    all.iter()
        .find(|explanation| explanation.path == path)
        .unwrap()
}

#[test]
fn every_value_is_explained() {
    let service = config(serde_json::json!({
        "timeout": 60, "circuit_breaker": { "failure_threshold": 3 }
    }));
    let default =
        config(serde_json::json!({ "retry": { "enabled": false }, "timeout": { "read": "5s" } }));
    let explained = PolicyLayers::new()
        .push(
            Layer::Service("services.payment-service".into()),
            service,
            |path| {
                assert_ne!(path, "timeout.read", "asked only about what it decides");
                Some(format!("config/settings.toml:{}", path.len()))
            },
        )
        .push(Layer::Default("policies.default".into()), default, nowhere)
        .resolve()
        .unwrap();
    let all = &explained.explanations;
    let total = explanation(all, "timeout.total");
    assert_eq!(total.value, "1m");
    assert_eq!(total.layer.to_string(), "services.payment-service");
    assert_eq!(total.origin.as_deref(), Some("config/settings.toml:13"));
    let threshold = explanation(all, "circuit_breaker.failure_threshold");
    assert_eq!(threshold.value, "3");
    let enabled = explanation(all, "retry.enabled");
    assert_eq!(
        (enabled.value.as_str(), enabled.origin.as_ref()),
        ("false", None)
    );
    assert_eq!(enabled.layer.to_string(), "policies.default");
    let backoff = explanation(all, "retry.backoff");
    assert_eq!(
        (backoff.value.as_str(), &backoff.layer),
        ("2", &Layer::BuiltIn)
    );
    assert_eq!(explained.policy.retry.attempts(), 1);
}

#[test]
fn a_limit_counts_the_calls_of_whoever_set_it() {
    let limited = config(serde_json::json!({
        "bulkhead": { "max_concurrent": 5 }, "retry": { "budget": { "percent": 50 } }
    }));
    for (layer, scope) in [
        (Layer::Default("d".into()), Scope::Service),
        (Layer::Service("s".into()), Scope::Service),
        (Layer::Attribute("a".into()), Scope::Endpoint),
        (Layer::Endpoint("e".into()), Scope::Endpoint),
    ] {
        let policy = resolve(&PolicyLayers::new().push(layer, limited.clone(), nowhere));
        assert_eq!(policy.bulkhead.unwrap().scope, scope);
        assert_eq!(policy.retry.budget.unwrap().scope, scope);
    }
    let wait = config(serde_json::json!({ "bulkhead": { "max_wait": "5s" } }));
    let policy = resolve(
        &PolicyLayers::new()
            .push(Layer::Service("s".into()), limited, nowhere)
            .push(Layer::Endpoint("e".into()), wait, nowhere),
    );
    let bulkhead = policy.bulkhead.unwrap();
    assert_eq!(bulkhead.scope, Scope::Service);
    assert_eq!((bulkhead.max_concurrent, bulkhead.max_queue), (5, 5));
    assert_eq!(bulkhead.max_wait, Duration::from_secs(5));
}

#[test]
fn parts_are_switched_on_by_their_main_field_and_off_by_a_stronger_layer() {
    let on = config(serde_json::json!({
        "bulkhead": { "max_concurrent": 5 },
        "fallback": { "value": { "items": [] } },
        "circuit_breaker": { "slow_call": { "duration": "2s" } }
    }));
    let off = config(serde_json::json!({
        "bulkhead": { "enabled": false }, "fallback": { "enabled": false },
        "circuit_breaker": { "slow_call": { "enabled": false } }, "retry": { "budget": { "enabled": false } }
    }));
    let service = PolicyLayers::new().push(Layer::Service("s".into()), on.clone(), nowhere);
    let policy = resolve(&service);
    assert!(policy.bulkhead.is_some() && policy.fallback.is_some());
    let slow = policy.circuit_breaker.unwrap().slow_call.unwrap();
    assert_eq!(
        (slow.duration, slow.percent),
        (Duration::from_secs(2), 50.0)
    );

    let both = PolicyLayers::new()
        .push(Layer::Service("s".into()), on, nowhere)
        .push(Layer::Endpoint("e".into()), off, nowhere);
    let policy = resolve(&both);
    assert_eq!((policy.bulkhead, policy.fallback), (None, None));
    assert_eq!(policy.circuit_breaker.unwrap().slow_call, None);
    assert_eq!(policy.retry.budget, None);

    let breaker_off = config(serde_json::json!({ "circuit_breaker": { "enabled": false } }));
    let policy =
        resolve(&PolicyLayers::new().push(Layer::Service("s".into()), breaker_off, nowhere));
    assert_eq!(policy.circuit_breaker, None);
}

#[test]
fn a_probe_has_as_long_as_the_recovery_unless_something_else_is_said() {
    let recovery = config(serde_json::json!({ "circuit_breaker": { "recovery_timeout": "30s" } }));
    let policy = resolve(&PolicyLayers::new().push(Layer::Service("s".into()), recovery, nowhere));
    assert_eq!(
        policy.circuit_breaker.unwrap().probe_timeout,
        Duration::from_secs(30)
    );
}

#[test]
fn problems_of_all_layers_are_reported_together() {
    let one = config(serde_json::json!({ "retry": { "max_attempts": 0 } }));
    let two = config(serde_json::json!({ "request_timeout": 0 }));
    let invalid = PolicyLayers::new()
        .push(Layer::Service("s".into()), one, nowhere)
        .push(Layer::Endpoint("e".into()), two, nowhere)
        .resolve()
        .unwrap_err();
    assert_eq!(invalid.problems.len(), 2);
}
