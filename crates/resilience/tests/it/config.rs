use std::time::Duration;

use trunkline_core::{Error, ErrorKind};
use trunkline_resilience::config::{TimeoutConfig, WindowKind};
use trunkline_resilience::{InvalidPolicy, PolicyConfig};

fn read(json: serde_json::Value) -> Result<PolicyConfig, serde_json::Error> {
    serde_json::from_value(json)
}

#[test]
fn reads_every_field_and_writes_it_back() {
    let written = serde_json::json!({
        "timeout": { "connection": "5s", "read": "10s", "first_byte": "4s", "total": "20s", "pool": "1s", "floor": "2ms", "fair": "300ms" },
        "request_timeout": "3s",
        "retry": {
            "enabled": true, "max_attempts": 4, "strategy": "decorrelated", "delay": "500ms", "backoff": 1.5, "max_delay": "10s",
            "jitter": false, "max_elapsed": "15s",
            "budget": { "enabled": true, "percent": 10.0, "min_per_second": 5 },
            "on_status": [503], "on_error": ["unavailable", "timeout"], "methods": ["GET", "POST"]
        },
        "circuit_breaker": {
            "enabled": true, "force": "open", "failure_threshold": 3, "success_threshold": 1, "recovery_timeout": "30s",
            "half_open_max_calls": 2, "probe_timeout": "5s",
            "window": {
                "type": "time", "size": 50, "duration": "30s", "minimum_calls": 5, "failure_percent": 25.0
            },
            "slow_call": { "enabled": true, "duration": "2s", "percent": 80.0 }
        },
        "bulkhead": { "enabled": true, "max_concurrent": 10, "max_queue": 5, "max_wait": "100ms" },
        "hedge": {
            "enabled": true, "delay": "50ms", "percentile": 99.0, "min_delay": "2ms", "minimum_calls": 50,
            "max_hedges": 2, "methods": ["GET"]
        },
        "fallback": { "enabled": true, "service": "users-v1", "value": { "name": "?" }, "reserve": "1s" }
    });
    let policy = read(written.clone()).unwrap();
    assert_eq!(policy.retry.delay, Some(Duration::from_millis(500)));
    assert_eq!(policy.circuit_breaker.window.kind, Some(WindowKind::Time));
    assert!(policy.problems().is_empty());
    assert_eq!(serde_json::to_value(&policy).unwrap(), written);
}

#[test]
fn leaves_out_what_is_left_out() {
    let policy = read(serde_json::json!({})).unwrap();
    assert_eq!(policy, PolicyConfig::default());
    assert_eq!(
        serde_json::to_value(&policy).unwrap(),
        serde_json::json!({})
    );
}

#[test]
fn a_scalar_timeout_is_the_total_in_every_notation() {
    for text in ["30", "30.0", "\"30\"", "\"30s\"", "\"30000ms\""] {
        let policy: PolicyConfig =
            serde_json::from_str(&format!("{{\"timeout\": {text}}}")).unwrap();
        assert_eq!(
            policy.timeout,
            TimeoutConfig::total(Duration::from_secs(30)),
            "{text}"
        );
    }
    let policy = read(serde_json::json!({ "timeout": { "connect": 10.0, "read": 30.0 } })).unwrap();
    assert_eq!(policy.timeout.connection, Some(Duration::from_secs(10)));
    assert_eq!(policy.timeout.total, None);
}

#[test]
fn the_breakers_other_names_for_its_wait_mean_the_same() {
    for name in ["recovery_timeout", "timeout", "reset_timeout"] {
        let policy = read(serde_json::json!({ "circuit_breaker": { name: 30 } })).unwrap();
        let wait = policy.circuit_breaker.recovery_timeout;
        assert_eq!(wait, Some(Duration::from_secs(30)), "{name}");
    }
    let twice = serde_json::json!({ "circuit_breaker": { "timeout": 30, "recovery_timeout": 30 } });
    assert!(read(twice).is_err());
}

#[test]
fn refuses_unknown_keys_and_wrong_types() {
    for (wrong, told) in [
        (
            serde_json::json!({ "retries": {} }),
            "unknown field `retries`",
        ),
        (
            serde_json::json!({ "retry": { "attempts": 3 } }),
            "unknown field `attempts`",
        ),
        (
            serde_json::json!({ "timeout": { "write": 3 } }),
            "unknown field `write`",
        ),
        (
            serde_json::json!({ "timeout": "soon" }),
            "is not a duration",
        ),
        (serde_json::json!({ "timeout": -1 }), "is not a duration"),
        (
            serde_json::json!({ "timeout": true }),
            "expected a span of time",
        ),
        (
            serde_json::json!({ "circuit_breaker": { "window": { "type": "ring" } } }),
            "unknown variant `ring`",
        ),
        (
            serde_json::json!({ "retry": { "max_attempts": -1 } }),
            "invalid value",
        ),
    ] {
        let error = read(wrong.clone()).unwrap_err().to_string();
        assert!(error.contains(told), "{wrong}: {error}");
    }
}

#[test]
fn reports_every_value_out_of_range_at_once() {
    let policy = read(serde_json::json!({
        "timeout": { "total": 0, "read": "400d" },
        "request_timeout": 0,
        "retry": {
            "max_attempts": 0, "backoff": 0.5, "on_status": [42], "methods": ["GE T"],
            "budget": { "percent": 2000.0 }
        },
        "circuit_breaker": {
            "failure_threshold": 0, "window": { "failure_percent": 0.5, "size": 0 },
            "slow_call": { "percent": 101.0 }
        },
        "bulkhead": { "max_concurrent": 0 },
        "fallback": { "service": "" }
    }))
    .unwrap();
    let problems = policy.problems();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path).collect();
    assert_eq!(
        paths,
        [
            "timeout.read",
            "timeout.total",
            "request_timeout",
            "retry.max_attempts",
            "retry.backoff",
            "retry.budget.percent",
            "retry.on_status",
            "retry.methods",
            "circuit_breaker.failure_threshold",
            "circuit_breaker.window.size",
            "circuit_breaker.window.failure_percent",
            "circuit_breaker.slow_call.percent",
            "bulkhead.max_concurrent",
            "fallback.service",
        ]
    );
    assert_eq!(
        problems[3].to_string(),
        "retry.max_attempts: 0 is not allowed; allowed is 1 to 100"
    );
    let error = Error::from(InvalidPolicy { problems });
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("bulkhead.max_concurrent: 0"));
}

#[test]
fn not_a_number_is_out_of_range() {
    let mut policy = PolicyConfig::default();
    policy.retry.backoff = Some(f64::NAN);
    policy.circuit_breaker.window.failure_percent = Some(f64::NAN);
    assert_eq!(policy.problems().len(), 2);
}

/// The paths of all fields in the schema, down to what is no mapping of fixed fields.
fn leaves(
    schema: &serde_json::Value,
    root: &serde_json::Value,
    path: &str,
    found: &mut Vec<String>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        return leaves(root.pointer(pointer).unwrap(), root, path, found);
    }
    if let Some(all) = schema["anyOf"].as_array()
        && let Some(mapping) = all.iter().find(|one| one["properties"].is_object())
    {
        return leaves(mapping, root, path, found);
    }
    match schema["properties"].as_object() {
        None => found.push(path.to_owned()),
        Some(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(field, root, &path, found);
            }
        }
    }
}

#[test]
fn the_schema_the_reader_and_the_explanation_know_the_same_fields() {
    let schema = serde_json::to_value(schemars::schema_for!(PolicyConfig)).unwrap();
    let mut in_schema = Vec::new();
    leaves(&schema, &schema, "", &mut in_schema);
    in_schema.sort();
    let explained = trunkline_resilience::PolicyLayers::new().resolve().unwrap();
    let mut in_explanation: Vec<String> = explained
        .explanations
        .iter()
        .map(|explanation| explanation.path.to_owned())
        .collect();
    in_explanation.sort();
    assert_eq!(in_schema, in_explanation);
    assert!(in_schema.len() > 30);
    assert_eq!(schema["additionalProperties"], false);
}
