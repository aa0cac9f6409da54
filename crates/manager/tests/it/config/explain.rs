//! `policy explain`: every effective value with its origin.

use trunkline_core::ErrorKind;
use trunkline_manager::{PolicyExplanation, Setting};
use trunkline_messaging::TopicName;
use trunkline_resilience::PolicyConfig;

use super::Files;

const TEXT: &str = "\
policies:
  default:
    retry: {max_attempts: 4, delay: 2s}
  critical:
    circuit_breaker: {failure_threshold: 9}
services:
  user-service:
    policy: critical
    timeout: 10
    endpoints:
      GET /users/{id}:
        retry_attempts: 2
topics:
  \"#\": {publish: {retry: {max_attempts: 8}}}
  order.created: {publish: {request_timeout: 1s}, consume: {retry: {max_attempts: 5}}}
message_brokers:
  default: {type: memory, retry_policy: {delay: 100ms}}
";

fn setting<'e>(explained: &'e PolicyExplanation, path: &str) -> &'e Setting {
    explained
        .settings
        .iter()
        .find(|setting| setting.path == path)
        .unwrap()
}

#[test]
fn every_value_has_its_origin() {
    let files = Files::new(&[("communication.yaml", TEXT)]);
    let variable = "TRUNKLINE__SERVICES__USER_SERVICE__RECOVERY_TIMEOUT";
    let config = files.load(&[(variable, "5s")]).unwrap();
    let mut own = PolicyConfig::default();
    own.request_timeout = Some(std::time::Duration::from_secs(3));
    let service = config.service_config("user-service").unwrap().clone();
    let mut changed = service;
    changed.request_timeout = own.request_timeout;
    let config = config
        .into_builder()
        .service("user-service", changed)
        .build()
        .unwrap();

    let explained = config
        .explain("User_Service", Some("GET /users/1"))
        .unwrap();
    assert_eq!(explained.service, "user-service");
    assert_eq!(explained.endpoint.as_deref(), Some("GET /users/{id}"));
    let origin = |path: &str| {
        let found = setting(&explained, path);
        let origin = found
            .origin
            .replace(&format!("{}/", files.path().display()), "");
        (found.value.clone(), origin, found.layer.clone())
    };
    let of = |value: &str, origin: &str, layer: &str| {
        (value.to_owned(), origin.to_owned(), layer.to_owned())
    };
    assert_eq!(
        origin("retry.max_attempts"),
        of(
            "2",
            "communication.yaml:12",
            "services.user-service.endpoints.\"GET /users/{id}\""
        )
    );
    assert_eq!(
        origin("retry.delay"),
        of("2s", "communication.yaml:3", "policies.default")
    );
    assert_eq!(
        origin("circuit_breaker.failure_threshold"),
        of("9", "communication.yaml:5", "policies.critical")
    );
    assert_eq!(
        origin("timeout.total"),
        of("10s", "communication.yaml:9", "services.user-service")
    );
    assert_eq!(
        origin("circuit_breaker.recovery_timeout"),
        of(
            "5s",
            &format!("environment variable {variable}"),
            "services.user-service"
        )
    );
    assert_eq!(
        origin("request_timeout"),
        of("3s", "code", "services.user-service")
    );
    assert_eq!(origin("retry.backoff"), of("2", "default", "built-in"));
    assert_eq!(explained.policy.retry.max_attempts, 2);

    let shown = explained.to_string();
    assert!(
        shown.starts_with("user-service GET /users/{id}\n"),
        "{shown}"
    );
    let json = serde_json::to_value(&explained).unwrap();
    assert!(json["settings"].as_array().unwrap().len() > 20);
}

#[test]
fn the_policy_that_an_endpoint_names_replaces_the_services() {
    let text = "policies:\n  slow: {timeout: 60, retry: {max_attempts: 9}}\n  fast: {timeout: 1}\nservices:\n  a:\n    policy: slow\n\
                \x20   endpoints: {\"GET /x\": {policy: fast}}\n";
    let config = Files::new(&[("communication.yaml", text)])
        .load(&[])
        .unwrap();
    let policy = |endpoint| {
        config
            .policy_layers("a", Some(endpoint))
            .resolve()
            .unwrap()
            .policy
    };
    assert_eq!(policy("GET /x").timeout.total.as_secs(), 1);
    assert_eq!(policy("GET /x").retry.max_attempts, 3);
    assert_eq!(policy("GET /y").timeout.total.as_secs(), 60);
}

#[test]
fn what_is_not_configured_is_said() {
    let files = Files::new(&[("communication.yaml", TEXT)]);
    let config = files.load(&[]).unwrap();
    let unknown = config.explain("user-servce", None).unwrap();
    let note = unknown.note.as_deref().unwrap();
    assert!(
        note.contains("has no settings") && note.contains("did you mean `user-service`?"),
        "{note}"
    );
    assert_eq!(setting(&unknown, "retry.max_attempts").value, "4");
    let other = config.explain("user-service", Some("POST /users")).unwrap();
    assert!(
        other
            .note
            .as_deref()
            .unwrap()
            .contains("those of the service apply")
    );
    assert_eq!(setting(&other, "retry.max_attempts").value, "4");
    assert_eq!(
        config.explain("a b", None).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn topics_take_the_more_specific_pattern_over_the_broker() {
    let config = Files::new(&[("communication.yaml", TEXT)])
        .load(&[])
        .unwrap();
    let topic = TopicName::new("order.created").unwrap();
    let publish = config
        .publish_policy_layers("default", &topic)
        .resolve()
        .unwrap()
        .policy;
    assert_eq!(publish.retry.max_attempts, 8);
    assert_eq!(publish.timeout.attempt.as_secs(), 1);
    assert_eq!(publish.retry.delay.as_millis(), 100);
    let consume = config
        .consume_policy_layers("default", &topic)
        .resolve()
        .unwrap()
        .policy;
    assert_eq!(consume.retry.max_attempts, 5);
    let other = TopicName::new("user.created").unwrap();
    let consume = config
        .consume_policy_layers("default", &other)
        .resolve()
        .unwrap()
        .policy;
    assert_eq!(consume.retry.max_attempts, 4);
}

#[test]
fn the_gateways_own_settings_are_over_those_of_the_service() {
    let text = format!(
        "{TEXT}gateway:\n  services:\n    user_service: {{timeout: 3, endpoints: {{GET /users/{{id}}: {{retry: false}}}}}}\n"
    );
    let text = text.replace("{GET /users/{id}:", "{\"GET /users/{id}\":");
    let config = Files::new(&[("communication.yaml", &text)])
        .load(&[])
        .unwrap();
    let policy = config
        .gateway_policy_layers("user-service", Some("GET /users/1"))
        .resolve()
        .unwrap()
        .policy;
    assert_eq!(policy.timeout.total.as_secs(), 3);
    assert!(!policy.retry.enabled);
    assert_eq!(policy.retry.max_attempts, 2);
    assert_eq!(policy.circuit_breaker.unwrap().failure_threshold, 9);
    let direct = config
        .policy_layers("user-service", None)
        .resolve()
        .unwrap()
        .policy;
    assert_eq!(direct.timeout.total.as_secs(), 10);
}

#[test]
fn versions_are_explained_by_service_and_endpoint() {
    let text = "services:\n  users:\n    versions: {order: [v2, v1], by: header}\n    endpoints:\n      \
                GET /users/{id}: {versions: {order: [v1]}}\n";
    let config = Files::new(&[("communication.yaml", text)])
        .load(&[])
        .unwrap();
    let of = |endpoint| {
        let explained = config.explain("users", endpoint).unwrap();
        ["order", "by", "name", "on_error"].map(|key| {
            let found = setting(&explained, &format!("versions.{key}"));
            (found.value.clone(), found.layer.clone())
        })
    };
    let pair = |value: &str, layer: &str| (value.to_owned(), layer.to_owned());
    let built_in = [
        pair("API-Version", "built-in"),
        pair(
            "[unavailable, timeout, rejected, unsupported, internal]",
            "built-in",
        ),
    ];
    let [order, by, name, on_error] = of(None);
    assert_eq!(order, pair("[v2, v1]", "services.users"));
    assert_eq!(by, pair("header", "services.users"));
    assert_eq!([name, on_error], built_in);
    let [order, ..] = of(Some("GET /users/1"));
    assert_eq!(order.0, "[v1]");
    assert!(order.1.contains("GET /users/{id}"), "{}", order.1);
}
