//! The texts printed in the guides load as they stand there, with the values printed there.

use std::time::Duration;

use trunkline_core::Secret;
use trunkline_discovery::{Protocol, ServiceName};
use trunkline_manager::{ConfigLoader, Environment};
use trunkline_telemetry::{LogFormat, LogLevel};

use super::Files;

const YAML: &str = include_str!("texts/communication.yaml");
const TOML: &str = include_str!("texts/settings.toml");
const VARIABLES: &str = include_str!("texts/environment.sh");

fn seconds(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count))
}

#[test]
fn the_printed_yaml_loads_verbatim() {
    let files = Files::new(&[("communication.yaml", YAML)]);
    let config = files.load(&[]).unwrap();

    let brokers = config.message_brokers.as_ref().unwrap();
    assert_eq!(brokers.len(), 1);
    let broker = &brokers["default"];
    assert_eq!(broker.kind, "rabbitmq");
    assert_eq!(
        broker.connection.host.as_deref(),
        Some("rabbitmq.example.com")
    );
    assert_eq!(broker.connection.port, Some(5672));
    assert_eq!(broker.connection.username.as_deref(), Some("service_user"));
    assert_eq!(
        broker.connection.password,
        Some(Secret::from("secure_password"))
    );
    assert!(broker.connection.ssl_enabled);

    let client = &config.http_clients["default"];
    assert_eq!(client.base_url.as_deref(), Some("https://api.example.com"));
    assert_eq!(client.timeout.connection, seconds(10));
    assert_eq!(client.timeout.read, seconds(30));
    assert_eq!(client.timeout.total, None);
    assert_eq!(client.circuit_breaker.enabled, Some(true));
    assert_eq!(client.circuit_breaker.failure_threshold, Some(5));

    let discovery = config.service_discovery.as_ref().unwrap();
    assert_eq!(discovery.kind, "consul");
    assert_eq!(
        discovery.connection.host.as_deref(),
        Some("consul.example.com")
    );
    assert_eq!(discovery.connection.port, Some(8500));

    assert_eq!(config.logging.level, LogLevel::Info);
    assert_eq!(config.logging.format, LogFormat::Json);
    assert_eq!(config.logging.correlation_header, "X-Correlation-ID");
    assert!(config.logging.enable_security_logging);

    assert_eq!(config.check(), *config.warnings());
    // It says what this version does not serve, and that the port is the one without TLS.
    let mut warnings = files.lines(config.warnings());
    for (feature, is_in, place) in [
        (
            "consul",
            cfg!(feature = "consul"),
            "21: warning: service_discovery.type:",
        ),
        (
            "rabbitmq",
            cfg!(feature = "rabbitmq"),
            "4: warning: message_broker.type:",
        ),
    ] {
        let needs = format!("it needs the feature `{feature}`");
        let at = warnings.iter().position(|line| line.contains(&needs));
        assert_eq!(at.is_none(), is_in, "{feature}: {warnings:?}");
        if let Some(at) = at {
            let unserved = warnings.remove(at);
            assert!(
                unserved.starts_with(&format!("communication.yaml:{place}")),
                "{unserved}"
            );
        }
    }
    assert_eq!(
        warnings,
        [
            "communication.yaml:6: warning: message_broker.port: TLS is on, but 5672 is the port without TLS; it is used \
             as written; allowed: 5671, or no port",
        ]
    );
}

#[test]
fn the_printed_toml_loads_verbatim() {
    let files = Files::new(&[("config/settings.toml", TOML)]);
    let config = files.load(&[]).unwrap();
    assert!(config.warnings().is_empty(), "{}", config.warnings());

    let user = config.service_config("user-service").unwrap();
    assert_eq!(config.service_config("user_service"), Some(user));
    assert_eq!(user.host.as_deref(), Some("localhost"));
    assert_eq!(user.port, Some(8001));
    assert_eq!(user.protocol, Protocol::Http);
    assert_eq!(user.timeout.total, seconds(30));
    assert_eq!(user.circuit_breaker.enabled, Some(true));
    assert_eq!(user.retry.max_attempts, Some(3));

    let payment = &config.services[&ServiceName::new("payment-service").unwrap()];
    assert_eq!(
        payment.base_url().as_deref(),
        Some("https://payments.example.com:443")
    );
    assert_eq!(payment.timeout.total, seconds(60));
    assert_eq!(payment.circuit_breaker.enabled, Some(true));
    assert_eq!(payment.circuit_breaker.failure_threshold, Some(3));
}

#[test]
fn variables_fill_the_printed_toml() {
    let files = Files::new(&[("config/settings.toml", TOML)]);
    let config = files
        .load(&[
            ("USER_SERVICE_HOST", "users.internal"),
            ("USER_SERVICE_PORT", "9001"),
            ("USER_SERVICE_TIMEOUT", "2.5"),
            ("PAYMENT_SERVICE_HOST", ""),
        ])
        .unwrap();
    let user = config.service_config("user-service").unwrap();
    assert_eq!(
        user.base_url().as_deref(),
        Some("http://users.internal:9001")
    );
    assert_eq!(user.timeout.total, Some(Duration::from_millis(2500)));
    let payment = config.service_config("payment-service").unwrap();
    assert_eq!(payment.host.as_deref(), Some("payments.example.com"));
}

#[test]
fn the_printed_variables_load_verbatim() {
    let pairs = VARIABLES.lines().filter_map(|line| line.split_once('='));
    let environment = Environment::from_pairs(pairs);
    let config = ConfigLoader::with_environment(environment)
        .only_environment()
        .load()
        .unwrap();

    let broker = &config.message_brokers.as_ref().unwrap()["default"];
    assert_eq!(broker.kind, "rabbitmq");
    assert_eq!(
        broker.connection.host.as_deref(),
        Some("rabbitmq.example.com")
    );
    assert_eq!(broker.connection.username.as_deref(), Some("service_user"));
    assert_eq!(
        broker.connection.password,
        Some(Secret::from("secure_password"))
    );
    let client = &config.http_clients["default"];
    assert_eq!(client.base_url.as_deref(), Some("https://api.example.com"));
    assert_eq!(client.timeout.total, seconds(30));
    assert_eq!(client.retry.max_attempts, Some(4));
    let discovery = config.service_discovery.as_ref().unwrap();
    assert_eq!(discovery.kind, "consul");
    assert_eq!(
        discovery.connection.host.as_deref(),
        Some("consul.example.com")
    );
    assert_eq!(discovery.connection.port, Some(8500));
    assert_eq!(config.logging.level, LogLevel::Info);
    assert_eq!(config.logging.format, LogFormat::Json);
    assert_eq!(config.logging.correlation_header, "X-Correlation-ID");
}

#[test]
fn the_same_settings_in_json_are_the_same_configuration() {
    let json = r#"{"communication": {
        "message_broker": {"type": "rabbitmq", "host": "rabbitmq.example.com", "port": 5672,
            "username": "service_user", "password": "secure_password", "ssl_enabled": true},
        "http_client": {"base_url": "https:\/\/api.example.com",
            "timeout": {"connection": 10.0, "read": 30.0},
            "circuit_breaker": {"enabled": true, "failure_threshold": 5}},
        "service_discovery": {"type": "consul", "host": "consul.example.com", "port": 8500},
        "logging": {"level": "INFO", "format": "json", "correlation_header": "X-Correlation-ID",
            "enable_security_logging": true}}}"#;
    let from_json = Files::new(&[("communication.json", json)])
        .load(&[])
        .unwrap();
    let from_yaml = Files::new(&[("communication.yaml", YAML)])
        .load(&[])
        .unwrap();
    assert_eq!(from_json, from_yaml);
}
