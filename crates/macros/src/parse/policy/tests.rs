//! Attributes and configuration say the same: every key of a policy, its limits and its words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use trunkline::__private::PolicyConfig;

use super::fields::{
    BULKHEAD, CACHED, CIRCUIT_BREAKER, FALLBACK, Field, HEALTH_CHECK, HEDGE, Kind, RATE_LIMIT,
    RETRY, TIMEOUT, U32, VERSION,
};

const TABLES: [(&str, &[Field]); 10] = [
    ("timeout", TIMEOUT),
    ("retry", RETRY),
    ("circuit_breaker", CIRCUIT_BREAKER),
    ("bulkhead", BULKHEAD),
    ("rate_limit", RATE_LIMIT),
    ("hedge", HEDGE),
    ("fallback", FALLBACK),
    ("cache", CACHED),
    ("health_check", HEALTH_CHECK),
    ("versions", VERSION),
];

/// What whoever runs a service decides, and not who writes its interface.
fn is_for_operators(key: &str) -> bool {
    ["circuit_breaker.force", "circuit_breaker.per"].contains(&key)
        || key.starts_with("chaos.")
        || key.starts_with("concurrency.")
}

/// The name in configuration.
fn configured(section: &str, field: &Field) -> String {
    match (section, field.key) {
        ("timeout", "request") => "request_timeout".to_owned(),
        (section, key) => format!("{section}.{key}"),
    }
}

/// The attributes' fields that lead to configuration, by their names there.
fn fields() -> BTreeMap<String, &'static Field> {
    let all = TABLES.into_iter().flat_map(|(section, table)| {
        let led = table.iter().filter(|field| !field.path.is_empty());
        led.map(move |field| (configured(section, field), field))
    });
    all.collect()
}

fn schema() -> Value {
    serde_json::to_value(schemars::schema_for!(PolicyConfig)).unwrap()
}

/// Follows references, and of several forms the one that `wanted` finds something in.
fn within<'a, T>(
    root: &'a Value,
    node: &'a Value,
    wanted: &dyn Fn(&'a Value) -> Option<T>,
) -> Option<T> {
    if let Some(found) = wanted(node) {
        return Some(found);
    }
    if let Some(name) = node.get("$ref").and_then(Value::as_str) {
        let name = name.trim_start_matches("#/$defs/");
        return within(root, &root["$defs"][name], wanted);
    }
    let forms = ["anyOf", "allOf"]
        .iter()
        .filter_map(|key| node.get(*key)?.as_array());
    forms.flatten().find_map(|form| within(root, form, wanted))
}

fn leaves<'a>(
    root: &'a Value,
    node: &'a Value,
    path: &str,
    found: &mut BTreeMap<String, &'a Value>,
) {
    let properties = |node: &'a Value| node.get("properties")?.as_object();
    match within(root, node, &properties) {
        Some(properties) => {
            for (key, node) in properties {
                let path = match path {
                    "" => key.clone(),
                    _ => format!("{path}.{key}"),
                };
                leaves(root, node, &path, found);
            }
        }
        None => {
            found.insert(path.to_owned(), node);
        }
    }
}

#[test]
fn every_key_of_a_policy_can_be_said_by_an_attribute() {
    let schema = schema();
    let mut configured = BTreeMap::new();
    leaves(&schema, &schema, "", &mut configured);
    let configured: BTreeSet<_> = configured
        .into_keys()
        .filter(|key| !is_for_operators(key))
        .collect();
    let said: BTreeSet<_> = fields().into_keys().collect();
    assert!(said.contains("timeout.first_byte"));
    assert_eq!(said, configured);
}

#[test]
fn the_limits_of_numbers_are_those_of_configuration() {
    let schema = schema();
    let mut configured = BTreeMap::new();
    leaves(&schema, &schema, "", &mut configured);
    let mut seen = 0;
    for (key, field) in fields() {
        let limit = |name: &str| configured[&key].get(name).and_then(Value::as_f64);
        let (low, high) = match field.kind {
            Kind::Whole(low, high) => (low as f64, high as f64),
            Kind::Number(low, high) => (low, high),
            _ => continue,
        };
        seen += 1;
        assert_eq!(limit("minimum").unwrap_or(0.0), low, "{key}");
        assert_eq!(limit("maximum").unwrap_or(U32 as f64), high, "{key}");
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn the_words_are_those_of_configuration() {
    fn words(root: &Value, node: &Value, found: &mut BTreeSet<String>) {
        found.extend(
            node.get("const")
                .and_then(Value::as_str)
                .map(ToOwned::to_owned),
        );
        let listed = node.get("enum").and_then(Value::as_array);
        let listed = listed.into_iter().flatten().filter_map(Value::as_str);
        found.extend(listed.map(ToOwned::to_owned));
        if let Some(name) = node.get("$ref").and_then(Value::as_str) {
            words(
                root,
                &root["$defs"][name.trim_start_matches("#/$defs/")],
                found,
            );
        }
        let forms = ["anyOf", "oneOf", "allOf"].iter();
        let forms = forms.filter_map(|key| node.get(*key)?.as_array()).flatten();
        for form in forms.chain(node.get("items")) {
            words(root, form, found);
        }
    }

    let schema = schema();
    let mut configured = BTreeMap::new();
    leaves(&schema, &schema, "", &mut configured);
    let mut seen = 0;
    for (key, field) in fields() {
        let (Kind::Word(known) | Kind::Words(known)) = field.kind else {
            continue;
        };
        seen += 1;
        let said: BTreeSet<String> = known.known().map(ToOwned::to_owned).collect();
        let mut found = BTreeSet::new();
        words(&schema, configured[&key], &mut found);
        assert_eq!(said, found, "{key}");
    }
    assert!(seen > 4, "{seen}");
}
