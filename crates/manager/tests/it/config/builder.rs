//! Configuration in code.

use std::time::Duration;

use indexmap::IndexMap;
use trunkline_core::ErrorKind;
use trunkline_discovery::ServiceConfig;
use trunkline_http::HttpClientConfig;
use trunkline_manager::{CommunicationConfig, Diagnostics};
use trunkline_messaging::{MessageBrokerConfig, TopicPolicy};

#[test]
fn the_defaults_are_those_of_the_guides() {
    let config = CommunicationConfig::default();
    assert!(config.check().is_empty(), "{}", config.check());
    assert_eq!(config.startup_timeout, Duration::from_secs(30));
    assert_eq!(config.health.interval, Duration::from_secs(30));
    assert!(config.enable_health_checks && config.enable_metrics && config.enable_tracing);
    assert!(config.security_integration && config.observability_enabled);
    assert_eq!(config.logging.correlation_header, "X-Correlation-ID");

    let broker = MessageBrokerConfig::default();
    assert_eq!(
        (broker.connection_pool_size, broker.prefetch_count),
        (10, 10)
    );
    assert_eq!(broker.connection_timeout, Duration::from_secs(10));
    assert!(broker.required && broker.dead_letter_queue);
    let client = HttpClientConfig::default();
    assert_eq!(
        (client.max_connections, client.max_keepalive_connections),
        (100, 20)
    );
    assert_eq!(client.keepalive_expiry, Duration::from_secs(30));
    let discovery = trunkline_discovery::ServiceDiscoveryConfig::default();
    let check = &discovery.health_check;
    assert_eq!(
        (
            check.interval.as_secs(),
            check.timeout.as_secs(),
            check.failure_threshold
        ),
        (30, 5, 3)
    );
    let gateway = trunkline_gateway::GatewayConfig::default();
    assert_eq!(
        (gateway.host.as_str(), gateway.port, gateway.prefix.as_str()),
        ("127.0.0.1", 8080, "/api/v1")
    );
    let server = trunkline_server::ServerConfig::default();
    assert_eq!(
        (server.port, server.health_path.as_str()),
        (8000, "/health")
    );
    assert!(!server.publish.enabled);
}

#[test]
fn the_first_example_of_the_guide_reads_alike() {
    let config = CommunicationConfig::builder()
        .message_broker(
            "rabbitmq",
            MessageBrokerConfig::from_url("amqp://guest:guest@localhost:5672/").unwrap(),
        )
        .message_broker(
            "redis",
            MessageBrokerConfig::from_url("redis://localhost:6379/0").unwrap(),
        )
        .enable_health_checks(true)
        .enable_security_integration(true)
        .build()
        .unwrap();
    let brokers = config.message_brokers.as_ref().unwrap();
    assert_eq!(brokers["rabbitmq"].display_url(), "amqp://localhost:5672");
    assert_eq!(brokers["redis"].connection.path.as_deref(), Some("0"));
    // One for each kind that this build leaves out.
    let served = [cfg!(feature = "rabbitmq"), cfg!(feature = "redis")];
    let left_out = served.iter().filter(|is_in| !**is_in).count();
    assert_eq!(config.check().warnings().count(), left_out);
    assert_eq!(config.check().errors().count(), 0);
}

#[test]
fn an_empty_map_of_brokers_means_none() {
    let config = CommunicationConfig::builder()
        .message_brokers(IndexMap::new())
        .build()
        .unwrap();
    assert!(config.message_brokers.unwrap().is_empty());
}

#[test]
fn mistakes_in_code_are_all_reported() {
    let mut broker = MessageBrokerConfig::memory();
    broker.prefetch_count = 0;
    let mut service = ServiceConfig::at("h", 80);
    service.retry.max_attempts = Some(0);
    let error = CommunicationConfig::builder()
        .message_broker("default", broker)
        .service("a", service.with_policy("nowhere"))
        .service("a b", ServiceConfig::default())
        .topic("a..b", TopicPolicy::default())
        .http_client("x", HttpClientConfig::new("not a url"))
        .health_interval(Duration::ZERO)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let found = error.find::<Diagnostics>().unwrap();
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 7, "{lines:#?}");
    for (key, part) in [
        ("message_brokers.default.prefetch_count", "out of range"),
        ("services.a.retry.max_attempts", "out of range"),
        ("services.a.policy", "there is no policy `nowhere`"),
        ("http_clients.x.base_url", "is not an HTTP URL"),
        ("health.interval", "it is zero"),
        ("", "`a b` is no service name"),
        ("", "`a..b` is no topic pattern"),
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with("code: ")
                && line.contains(key)
                && line.contains(part)),
            "{part}: {lines:#?}"
        );
    }
}

#[test]
fn what_was_written_comes_back_from_its_own_json() {
    let config = CommunicationConfig::builder()
        .service_name("orders")
        .message_broker("default", MessageBrokerConfig::memory().with_option("x", 1))
        .service(
            "users",
            ServiceConfig::at("u", 80).with_timeout(Duration::from_millis(1500)),
        )
        .topic("orders.*", TopicPolicy::default())
        .build()
        .unwrap();
    let json = serde_json::to_string(&config).unwrap();
    let files = super::Files::new(&[("communication.json", &json)]);
    assert_eq!(files.load(&[]).unwrap(), config);
    let direct: CommunicationConfig = serde_json::from_str(&json).unwrap();
    assert_eq!(direct, config);
}
