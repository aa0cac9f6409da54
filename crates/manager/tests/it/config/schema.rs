//! The schema for editors.

use serde_json::Value;
use trunkline_manager::config::schema;

fn follow<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => follow(
            root,
            root.pointer(reference.trim_start_matches('#')).unwrap(),
        ),
        None => schema,
    }
}

/// Every reference leads somewhere.
fn check_references(root: &Value, schema: &Value) {
    match schema {
        Value::Object(object) => {
            if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                assert!(
                    root.pointer(reference.trim_start_matches('#')).is_some(),
                    "{reference}"
                );
            }
            object
                .values()
                .for_each(|value| check_references(root, value));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(root, item)),
        _ => {}
    }
}

#[test]
fn it_takes_what_the_reader_takes() {
    let root = schema();
    check_references(&root, &root);
    let properties = &root["properties"];
    for word in [
        "communication",
        "message_broker",
        "message_brokers",
        "http_client",
        "services",
        "event_sourcing",
        "$schema",
    ] {
        assert!(properties.get(word).is_some(), "{word}");
    }
    assert!(root.get("additionalProperties").is_none());
    let inner = follow(&root, &properties["communication"]);
    assert_eq!(inner["additionalProperties"], false);
    assert!(inner["properties"].get("logging").is_some());

    let service = &root["$defs"]["ServiceConfig"];
    let long = &service["anyOf"][0]["properties"];
    for word in [
        "host",
        "url",
        "circuit_breaker_enabled",
        "retry_attempts",
        "max_retries",
        "failure_threshold",
    ] {
        assert!(long.get(word).is_some(), "{word}");
    }
    let level = root["$defs"]["LogLevel"]["anyOf"][1]["pattern"]
        .as_str()
        .unwrap();
    for spelling in ["[iI][nN][fF][oO]", "[wW][aA][rR][nN][iI][nN][gG]", "\\$\\{"] {
        assert!(level.contains(spelling), "{level}");
    }
    let kinds = root["$defs"]["MessageBrokerConfig"]["anyOf"][0]["properties"]["type"]["examples"]
        .to_string();
    assert!(
        kinds.contains("embedded") && kinds.contains("rabbitmq"),
        "{kinds}"
    );

    // A port may be `${PORT:8001}`.
    assert!(
        long["port"]["anyOf"][1]["pattern"]
            .as_str()
            .unwrap()
            .contains("\\$"),
        "{}",
        long["port"]
    );
}

#[test]
fn every_setting_is_described() {
    fn check(path: &str, schema: &Value) {
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (key, property) in properties {
                let described = property
                    .get("description")
                    .and_then(Value::as_str)
                    .is_some_and(|text| !text.is_empty());
                assert!(
                    described || key == "communication" || key == "$schema",
                    "{path}.{key}: {property}"
                );
            }
        }
        for variant in schema
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            check(path, variant);
        }
    }
    let root = schema();
    check("", &root);
    for (name, definition) in root["$defs"].as_object().unwrap() {
        check(name, definition);
    }
}
