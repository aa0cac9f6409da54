//! Another configuration while a manager runs.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};
use trunkline_core::{ErrorKind, Result};
use trunkline_manager::{CommunicationConfig, CommunicationManager, ConfigBuilder};
use trunkline_messaging::MessageBrokerConfig;
use trunkline_resilience::PolicyConfig;
use trunkline_telemetry::LogLevel;

use crate::config::Files;
use crate::scripted::{Scripted, brokers_only, with_scripted};

const PATIENCE: Duration = Duration::from_secs(20);

/// What applies now, to be changed.
fn changed(manager: &CommunicationManager) -> ConfigBuilder {
    CommunicationConfig::clone(&manager.config()).into_builder()
}

fn policy(json: serde_json::Value) -> PolicyConfig {
    serde_json::from_value(json).unwrap()
}

fn impatient(attempts: u32, threshold: u32) -> PolicyConfig {
    policy(json!({
        "retry": { "max_attempts": attempts, "delay": "1ms" },
        "circuit_breaker": { "failure_threshold": threshold }
    }))
}

async fn publish(manager: &CommunicationManager) -> Result<()> {
    manager.publish_message("orders", "order.created", &1).await
}

/// A running manager whose broker has gone away.
async fn without_broker(broker: &Scripted) -> CommunicationManager {
    let settings = MessageBrokerConfig::new("scripted").with_required(false);
    let config = brokers_only()
        .message_broker("orders", settings)
        .policy("default", impatient(2, 100));
    let manager = with_scripted(config, broker).build();
    manager.initialize().await.unwrap();
    broker.leave();
    manager
}

#[tokio::test(start_paused = true)]
async fn cfg8_retries_thresholds_and_levels_change_at_once_and_state_survives() {
    let broker = Scripted::default();
    let manager = without_broker(&broker).await;
    publish(&manager).await.unwrap_err();
    assert_eq!(broker.publishes(), 2);

    let mut config = changed(&manager)
        .policy("default", impatient(4, 7))
        .debug_mode(true)
        .drain_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    config.logging.level = LogLevel::Trace;
    config.detailed_metrics = true;
    let applied = manager.apply(config).unwrap();
    assert_eq!(
        applied.changed,
        [
            "debug_mode",
            "detailed_metrics",
            "drain_timeout",
            "logging.level",
            "policies.default.circuit_breaker.failure_threshold",
            "policies.default.retry.max_attempts",
        ]
    );
    assert!(applied.needs_restart.is_empty());
    assert_eq!(manager.logs().level(), LogLevel::Trace);
    assert!(manager.metrics().is_detailed());
    assert_eq!(manager.config().drain_timeout, Duration::from_secs(1));

    publish(&manager).await.unwrap_err();
    assert_eq!(broker.publishes(), 2 + 4);
    // Six failures so far, of which two are from before.
    publish(&manager).await.unwrap_err();
    assert_eq!(broker.publishes(), 7, "the seventh opened the circuit");
    manager
        .apply(
            changed(&manager)
                .policy("default", impatient(1, 9))
                .build()
                .unwrap(),
        )
        .unwrap();
    publish(&manager).await.unwrap_err();
    assert_eq!(broker.publishes(), 7, "a reload closes no circuit");
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cfg8_what_cannot_be_used_is_refused_and_what_cannot_change_is_named() {
    let manager = without_broker(&Scripted::default()).await;
    let mut wrong = CommunicationConfig::clone(&manager.config());
    wrong.startup_timeout = Duration::ZERO;
    wrong.logging.level = LogLevel::Trace;
    let refused = manager.apply(wrong).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert_eq!(manager.logs().level(), LogLevel::Info);
    assert_eq!(manager.config().startup_timeout, Duration::from_secs(30));

    let applied = manager
        .apply(changed(&manager).prefix("staging.").build().unwrap())
        .unwrap();
    assert_eq!(applied.needs_restart, ["prefix"]);
    // It is waiting still, and no news.
    manager.logs().set_level(LogLevel::Warn);
    let applied = manager
        .apply(changed(&manager).debug_mode(true).build().unwrap())
        .unwrap();
    assert_eq!(applied.changed, ["debug_mode"]);
    assert_eq!(applied.needs_restart, ["prefix"]);
    assert_eq!(
        manager.logs().level(),
        LogLevel::Warn,
        "what was switched by hand stays"
    );
    manager.shutdown().await.unwrap();
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect(what);
}

#[tokio::test]
async fn cfg8_a_manager_follows_its_files() {
    let base =
        "message_brokers: {}\nservice_discovery: {enabled: false}\nevent_store: {type: none}\n";
    let with = |more: &str| format!("{base}{more}");
    let files = Files::new(&[("communication.yaml", base)]);
    let config = files.loader(&[]).load().unwrap();
    let manager = CommunicationManager::new(
        config
            .into_builder()
            .service_name("orders")
            .build()
            .unwrap(),
    );
    // The file has changed since.
    files.write(
        "communication.yaml",
        &with("policies: {default: {retry: {max_attempts: 5}}}\n"),
    );
    let watch = manager
        .watch_with(files.loader(&[]), Duration::from_millis(20), |loaded| {
            loaded.service_name("orders")
        })
        .await
        .unwrap();
    let attempts = |manager: &CommunicationManager| {
        let config = manager.config();
        config
            .policies
            .get("default")
            .and_then(|policy| policy.retry.max_attempts)
    };
    assert_eq!(attempts(&manager), Some(5));

    files.write("communication.yaml", &with("logging: {level: debug}\n"));
    until("the change is applied", || {
        manager.logs().level() == LogLevel::Debug
    })
    .await;
    assert_eq!(attempts(&manager), None);
    assert_eq!(manager.config().service.name.as_deref(), Some("orders"));

    files.write("communication.yaml", &with("logging: {level: loud}\n"));
    let mut states = watch.subscribe();
    let refused = states.wait_for(|state| state.rejected.is_some());
    drop(timeout(PATIENCE, refused).await.unwrap().unwrap());
    files.write("communication.yaml", &with("logging: {level: warn}\n"));
    until("a mended file is applied", || {
        manager.logs().level() == LogLevel::Warn
    })
    .await;

    manager.shutdown().await.unwrap();
    let late = manager
        .watch(files.loader(&[]), PATIENCE)
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Cancelled);
}

#[cfg(feature = "http")]
mod http {
    use trunkline_discovery::{ServiceConfig, ServiceDiscoveryConfig};
    use trunkline_resilience::breaker::State;
    use trunkline_telemetry::metrics::Format;

    use super::*;
    use crate::scripted::config;

    /// A port that refuses connections.
    fn closed_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn cfg8_a_client_that_is_there_already_has_the_new_numbers() {
        let users: ServiceConfig =
            serde_json::from_value(json!({ "host": "127.0.0.1", "port": closed_port() })).unwrap();
        let config = config()
            .service_discovery(ServiceDiscoveryConfig::static_only())
            .service("users", users)
            .policy("default", impatient(2, 100));
        let manager = CommunicationManager::new(config.build().unwrap());
        manager.initialize().await.unwrap();
        let client = manager.http_client("users").unwrap();
        client.get("/users/1").send().await.unwrap_err();
        let failures = |manager: &CommunicationManager| manager.circuits()[0].failure_count;
        assert_eq!(failures(&manager), 2);
        let config = changed(&manager).policy("default", impatient(3, 100));
        manager.apply(config.build().unwrap()).unwrap();
        client.get("/users/1").send().await.unwrap_err();
        assert_eq!(failures(&manager), 5);
        manager.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn circuits_of_publishing_are_listed_and_counted() {
        let broker = Scripted::default();
        let manager = without_broker(&broker).await;
        let config = changed(&manager).policy("default", impatient(1, 1));
        manager.apply(config.build().unwrap()).unwrap();
        publish(&manager).await.unwrap_err();
        publish(&manager).await.unwrap_err();
        let circuit = &manager.circuits()[0];
        assert_eq!(
            (
                circuit.service.as_str(),
                circuit.endpoint.as_deref(),
                circuit.state
            ),
            ("message_broker_orders", Some("order.created"), "open")
        );
        let state = &manager.circuit_states()[0];
        assert_eq!(state.circuit.state, State::Open);
        let text = manager.metrics().render(Format::Prometheus).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("service=\"message_broker_orders\""))
            .collect();
        for (name, value) in [("circuit_state", " 2"), ("rejections", " 1")] {
            assert!(
                lines
                    .iter()
                    .any(|line| line.contains(name) && line.ends_with(value)),
                "{name}: {lines:#?}"
            );
        }
        manager.shutdown().await.unwrap();
    }
}
