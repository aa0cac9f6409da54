//! The schema for editors: what files may say, the guides' words and short forms included.

use serde_json::{Map, Value, json};

use super::{ROOT, Schemas};
use crate::config::kinds::{self, Area};
use crate::config::seeds::words::{self, How};

/// The JSON schema (draft 2020-12) of configuration files, for editors.
///
/// It takes what the reader takes: other words, short forms and `${VARIABLE:default}` in place of any single value. The
/// reader finds more than it does, such as references to policies that do not exist.
#[must_use]
pub fn schema() -> Value {
    let schemas = Schemas::of_build();
    let mut root = schemas.root_value().clone();
    let mut definitions = root
        .as_object_mut()
        .and_then(|root| root.remove("$defs"))
        .and_then(|definitions| match definitions {
            Value::Object(definitions) => Some(definitions),
            _ => None,
        })
        .unwrap_or_default();
    for (name, definition) in &mut definitions {
        widen(name, definition);
    }
    widen(ROOT, &mut root);
    let mut file = root;
    let mut inner = file.clone();
    strip_meta(&mut inner);
    definitions.insert(ROOT.to_owned(), inner);
    if let Some(object) = file.as_object_mut() {
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            let section = json!({"$ref": format!("#/$defs/{ROOT}")});
            properties.insert("communication".to_owned(), section);
            properties.insert("$schema".to_owned(), json!({"type": "string"}));
        }
        // The root of a file may hold the application's own sections.
        object.remove("additionalProperties");
        object.insert("title".to_owned(), "Trunkline configuration".into());
        object.insert("$defs".to_owned(), Value::Object(definitions));
    }
    file
}

fn strip_meta(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("title");
    }
}

/// Adds to a section what may be written in it, and to its values what they may be written as.
fn widen(name: &str, definition: &mut Value) {
    match definition.get_mut("anyOf") {
        Some(Value::Array(variants)) => {
            for variant in variants {
                widen_object(name, variant);
            }
        }
        _ => widen_object(name, definition),
    }
    widen_words(name, definition);
}

/// One of some words: in any case, other words that mean the same, or `${VARIABLE:default}`.
fn widen_words(name: &str, definition: &mut Value) {
    let known = super::Scalar::words(definition);
    if known.is_empty() {
        return;
    }
    let mut spellings: Vec<String> = known.into_iter().map(any_case).collect();
    spellings.extend(words::values(name).map(any_case));
    let pattern = format!("^({})$|\\$\\{{", spellings.join("|"));
    let exact = definition.take();
    *definition = json!({"anyOf": [exact, {"type": "string", "pattern": pattern}]});
}

/// A pattern for a word in any case; `_` may be `-`.
fn any_case(word: &str) -> String {
    word.chars()
        .map(|c| match c {
            '_' => "[_-]".to_owned(),
            c => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
        })
        .collect()
}

fn widen_object(name: &str, definition: &mut Value) {
    let Some(object) = definition.as_object_mut() else {
        return;
    };
    let Some(Value::Object(properties)) = object.get_mut("properties") else {
        return;
    };
    for property in properties.values_mut() {
        widen_value(property);
    }
    for (word, described) in other_words(name) {
        properties.entry(word).or_insert(described);
    }
    if let Some(short) = short_form(name) {
        let long = Value::Object(std::mem::take(object));
        *definition = json!({"anyOf": [long, short]});
    }
}

fn other_words(section: &str) -> Map<String, Value> {
    let mut others = Map::new();
    for rule in words::RULES.iter().filter(|rule| rule.applies_to(section)) {
        if rule.word.contains('.') {
            continue;
        }
        let text = match rule.how {
            How::Same => format!("The same as `{}`.", rule.target),
            How::OneMore => format!(
                "Retries after the first attempt: `{}` is one more.",
                rule.target
            ),
            How::Millis => format!("`{}`, a bare number in milliseconds.", rule.target),
        };
        others.insert(rule.word.to_owned(), json!({"description": text}));
    }
    for word in words::url_words(section) {
        let text = "An address, in place of its parts: host, port and what else it says.";
        others.insert(
            (*word).to_owned(),
            json!({"description": text, "type": "string"}),
        );
    }
    others
}

/// A section that may be written as a single value.
fn short_form(section: &str) -> Option<Value> {
    let short = match section {
        "CircuitBreakerConfig" | "BudgetConfig" | "HealthCheckConfig" | "PublishRouteConfig" => {
            json!({"type": "boolean", "description": "Whether it is enabled."})
        }
        "ConcurrencyConfig" => json!({"type": ["boolean", "string"]}),
        "RetryConfig" | "BulkheadConfig" | "RateLimitConfig" => {
            json!({"type": ["boolean", "integer", "string"]})
        }
        "LoadBalancerConfig"
        | "ServiceInfo"
        | "HttpClientConfig"
        | "EmbeddedConfig"
        | "ServiceConfig"
        | "MessageBrokerConfig"
        | "ServiceDiscoveryConfig"
        | "EventStoreConfig" => json!({"type": ["string", "null"]}),
        _ => return None,
    };
    Some(short)
}

fn area_of(format: &str) -> Option<Area> {
    match format {
        "broker-kind" => Some(Area::MessageBroker),
        "registry-kind" => Some(Area::ServiceDiscovery),
        "event-store-kind" => Some(Area::EventStore),
        _ => None,
    }
}

/// A single value may be `${VARIABLE:default}`; numbers and truths may be texts then.
fn widen_value(property: &mut Value) {
    let Some(object) = property.as_object_mut() else {
        return;
    };
    let format = object.get("format").and_then(Value::as_str);
    if let Some(area) = format.and_then(area_of) {
        let known = kinds::KINDS.iter().filter(|kind| kind.area == area);
        let names: Vec<&str> = known.map(|kind| kind.name).collect();
        object.insert("examples".to_owned(), names.into());
    }
    let single = match object.get("type") {
        Some(Value::String(kind)) => matches!(kind.as_str(), "integer" | "number" | "boolean"),
        Some(Value::Array(kinds)) => {
            kinds
                .iter()
                .any(|kind| matches!(kind.as_str(), Some("integer" | "number" | "boolean")))
                && !kinds.iter().any(|kind| kind == "string")
        }
        _ => false,
    };
    if single {
        let described = object.remove("description");
        let plain = Value::Object(std::mem::take(object));
        *property = json!({"anyOf": [plain, {"type": "string", "pattern": "\\$\\{"}]});
        if let (Some(object), Some(described)) = (property.as_object_mut(), described) {
            object.insert("description".to_owned(), described);
        }
    }
}
