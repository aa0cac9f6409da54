//! What there is by name.

use trunkline_core::ErrorKind;
use trunkline_discovery::ServiceDiscoveryConfig;
use trunkline_events::EventStoreConfig;
use trunkline_manager::CommunicationManager;
use trunkline_messaging::{MessageBroker, MessageBrokerConfig};

use crate::scripted::{brokers_only, config};

fn manager(brokers: &[&str]) -> CommunicationManager {
    let with = |config: trunkline_manager::ConfigBuilder, name: &&str| {
        config.message_broker(*name, MessageBrokerConfig::memory())
    };
    let config = brokers.iter().fold(config(), with);
    CommunicationManager::new(config.build().unwrap())
}

#[tokio::test]
async fn x46_a_single_broker_is_the_default_and_several_must_be_named() {
    let one = manager(&["redis"]);
    assert_eq!(one.message_broker("default").unwrap().kind(), "memory");
    assert!(one.messaging().is_ok());
    let two = manager(&["rabbitmq", "redis"]);
    let error = two.message_broker("default").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("rabbitmq, redis"), "{error}");
    assert!(two.message_broker("redis").is_ok());
    let named = manager(&["redis", "default"]);
    assert!(named.messaging().is_ok());
}

#[tokio::test]
async fn man4_an_unknown_broker_lists_the_known_ones_however_it_is_asked_for() {
    let manager = manager(&["rabbitmq", "redis"]);
    manager.initialize().await.unwrap();
    let errors = [
        manager.message_broker("nonexistent").map(drop).unwrap_err(),
        manager.messaging_on("nonexistent").map(drop).unwrap_err(),
        manager
            .publish_message("nonexistent", "orders", "1")
            .await
            .unwrap_err(),
        manager
            .subscribe_to_topic("nonexistent", "orders", async |_| Ok(()))
            .await
            .unwrap_err(),
        manager
            .reconnect_message_broker("nonexistent")
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.message(),
            "there is no message broker `nonexistent`; known: rabbitmq, redis"
        );
    }
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn x49_an_empty_section_means_no_broker() {
    let manager = manager(&[]);
    manager.initialize().await.unwrap();
    assert!(manager.is_initialized());
    assert!(manager.list_message_brokers().is_empty());
    let error = manager.messaging().unwrap_err();
    assert_eq!(
        error.message(),
        "there is no message broker `default`: none is configured"
    );
    manager.shutdown().await.unwrap();
    assert!(manager.is_shutdown());
}

#[cfg(not(feature = "embedded"))]
#[tokio::test]
async fn x49_an_absent_section_means_none_without_the_embedded_broker() {
    let manager = CommunicationManager::new(trunkline_manager::CommunicationConfig::default());
    assert!(manager.list_message_brokers().is_empty());
    assert!(
        manager
            .health_status()
            .components
            .contains_key("service_discovery")
    );
    assert!(manager.event_store().is_err());
}

#[tokio::test]
async fn man4_discovery_and_event_store_are_there_or_say_why_not() {
    let full = manager(&[]);
    assert!(full.service_discovery().is_ok() && full.event_store().is_ok());
    let without = CommunicationManager::new(brokers_only().build().unwrap());
    let error = without.event_store().unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (
            ErrorKind::NotFound,
            "there is no event store: none is configured"
        )
    );
    // Services of the configuration are found without any registry.
    assert!(without.service_discovery().is_ok());
}

#[tokio::test]
async fn man9_a_kind_that_this_build_does_not_serve_is_a_typed_error_on_use() {
    let config = config()
        .service_discovery(ServiceDiscoveryConfig::new("zookeeper").with_required(false))
        .event_store(EventStoreConfig::new("postgres").with_required(false));
    let manager = CommunicationManager::new(config.build().unwrap());
    manager.initialize().await.unwrap();
    let health = manager.health_status();
    assert_eq!(health.overall_status, trunkline_core::Status::Degraded);
    for (key, name) in [
        ("service_discovery", "zookeeper"),
        ("event_store", "postgres"),
    ] {
        let status = health.component_status(key).unwrap();
        assert_eq!(status.status, trunkline_core::Status::Unhealthy, "{key}");
        assert!(
            status
                .last_error
                .as_ref()
                .unwrap()
                .contains(&format!("`{name}`")),
            "{status:?}"
        );
    }
    let errors = [
        manager.service_discovery().map(drop).unwrap_err(),
        manager.event_store().map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    manager.shutdown().await.unwrap();
}

#[cfg(not(feature = "kafka"))]
#[tokio::test]
async fn man9_a_broker_that_this_build_does_not_serve_is_a_typed_error_on_use() {
    let kafka = MessageBrokerConfig::new("kafka").with_required(false);
    let config = config().message_broker("kafka", kafka);
    let manager = CommunicationManager::new(config.build().unwrap());
    manager.initialize().await.unwrap();
    let health = manager.health_status();
    let status = health.component_status("message_broker_kafka").unwrap();
    assert_eq!(status.status, trunkline_core::Status::Unhealthy);
    assert!(
        status.last_error.as_ref().unwrap().contains("`kafka`"),
        "{status:?}"
    );
    let publish = manager.publish_message("kafka", "orders", "1").await;
    for error in [
        manager.message_broker("kafka").map(drop).unwrap_err(),
        publish.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert!(!manager.reconnect_message_broker("kafka").await.unwrap());
    manager.shutdown().await.unwrap();
}

#[cfg(not(feature = "embedded"))]
#[tokio::test]
async fn man9_a_kind_left_out_of_the_build_names_its_feature() {
    let config = config().message_broker("local", MessageBrokerConfig::embedded("/nowhere"));
    let manager = CommunicationManager::new(config.build().unwrap());
    let error = manager.initialize().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.message().contains("the feature `embedded`"),
        "{error}"
    );
    assert!(
        error.message().contains("correct `message_brokers.local`"),
        "{error}"
    );
}

#[tokio::test]
async fn man9_a_required_kind_that_is_not_served_fails_the_start_at_once() {
    let config = config().event_store(EventStoreConfig::new("postgres"));
    let manager = CommunicationManager::new(config.build().unwrap());
    // No clock is paused: it must not wait for the startup timeout.
    let started = tokio::time::timeout(std::time::Duration::from_secs(10), manager.initialize());
    let error = started.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`event_store`"), "{error}");
    assert!(!error.message().contains("start it"), "{error}");
}

#[tokio::test]
async fn man4_a_factory_that_panics_is_an_error_of_that_broker() {
    let config = config()
        .message_broker("bad", MessageBrokerConfig::new("bad").with_required(false))
        .message_broker("good", MessageBrokerConfig::memory());
    let manager = CommunicationManager::builder(config.build().unwrap())
        .broker("bad", |_| panic!("a bug in the factory"))
        .build();
    manager.initialize().await.unwrap();
    let error = manager.message_broker("bad").unwrap_err();
    assert!(error.message().contains("a bug in the factory"), "{error}");
    manager
        .publish_message("good", "orders", "1")
        .await
        .unwrap();
    manager.shutdown().await.unwrap();
}

#[cfg(feature = "http")]
mod http {
    use trunkline_core::Status;
    use trunkline_discovery::ServiceConfig;
    use trunkline_http::{HttpClientConfig, ServiceError};
    use trunkline_resilience::breaker::Control;
    use trunkline_resilience::config::ForcedState;

    use super::*;

    fn client() -> HttpClientConfig {
        let mut client = HttpClientConfig::default();
        client.base_url = Some("http://127.0.0.1:9".to_owned());
        client
    }

    #[tokio::test]
    async fn x46_a_configured_client_wins_then_a_service() {
        let mut users = ServiceConfig::default();
        users.host = Some("127.0.0.1".to_owned());
        let config = config()
            .http_client("users", client())
            .service("users", users);
        let manager = CommunicationManager::new(config.build().unwrap());
        assert_eq!(
            manager.http_client("users").unwrap().service_name(),
            "users"
        );
        assert_eq!(
            manager.http_client("payments").unwrap().service_name(),
            "payments"
        );
        let error = manager.http_client("no service name!").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("users"), "{error}");
        manager.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn x46_a_single_client_is_the_default_and_several_must_be_named() {
        let one =
            CommunicationManager::new(config().http_client("users", client()).build().unwrap());
        one.http().unwrap();
        one.http_client("users").unwrap();
        let clients: Vec<String> = one
            .health_status()
            .components
            .into_keys()
            .filter(|key| key.starts_with("http_client"))
            .collect();
        assert_eq!(clients, ["http_client_users"], "one client, not two");
        let config = config()
            .http_client("users", client())
            .http_client("mail", client());
        let two = CommunicationManager::new(config.build().unwrap());
        let error = two.http().unwrap_err();
        assert!(error.message().contains("users, mail"), "{error}");
        let none = manager(&[]).http().unwrap_err();
        assert!(none.message().contains("http_client.base_url"), "{none}");
    }

    #[tokio::test]
    async fn x20_a_client_is_shown_under_its_name() {
        let manager =
            CommunicationManager::new(config().http_client("users", client()).build().unwrap());
        manager.http_client("users").unwrap();
        let status = manager
            .health_status()
            .components
            .remove("http_client_users")
            .unwrap();
        assert_eq!(
            (status.name.as_str(), status.component_type.as_str()),
            ("users", "http_client")
        );
    }

    #[tokio::test]
    async fn a_circuit_is_held_and_let_go_by_configuration() {
        let forced = |force: Option<ForcedState>| {
            let mut client = client();
            client.circuit_breaker.force = force;
            client.retry.max_attempts = Some(1);
            config().http_client("users", client).build().unwrap()
        };
        let manager = CommunicationManager::new(forced(Some(ForcedState::Open)));
        let users = manager.http_client("users").unwrap();
        let shown = || {
            let mut components = manager.health_status().components;
            let status = components.remove("http_client_users").unwrap();
            (status.status, status.last_error)
        };
        let control = || manager.circuits().remove(0).control;
        // It was open before the client was shown.
        let held = "circuit of users is open".to_owned();
        assert_eq!(shown(), (Status::Degraded, Some(held.clone())));
        assert_eq!(control(), Control::ForcedOpen);
        let asked = async || users.get("/").send().await.map(drop).unwrap_err();
        assert!(matches!(asked().await, ServiceError::CircuitOpen(_)));

        // Nobody listens there, but it is asked again, and counts.
        manager.apply(forced(None)).unwrap();
        assert_eq!(shown(), (Status::Healthy, None));
        assert_eq!(control(), Control::Automatic);
        assert!(matches!(asked().await, ServiceError::ServiceUnavailable(_)));
        assert_eq!(manager.circuits().remove(0).failure_count, 1);

        manager.apply(forced(Some(ForcedState::Disabled))).unwrap();
        for _ in 0..6 {
            assert!(matches!(asked().await, ServiceError::ServiceUnavailable(_)));
        }
        assert_eq!(
            (control(), manager.circuits().remove(0).state),
            (Control::Disabled, "closed")
        );
        manager.apply(forced(Some(ForcedState::Open))).unwrap();
        assert_eq!(shown(), (Status::Degraded, Some(held)));
        assert!(matches!(asked().await, ServiceError::CircuitOpen(_)));
        manager.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn man1_clients_end_with_the_manager() {
        let manager =
            CommunicationManager::new(config().http_client("users", client()).build().unwrap());
        manager.initialize().await.unwrap();
        let used = manager.http().unwrap();
        manager.shutdown().await.unwrap();
        let error = used.get("/").no_retry().send().await.map(drop).unwrap_err();
        assert_eq!(
            trunkline_core::Error::from(error).kind(),
            ErrorKind::Cancelled
        );
        assert_eq!(
            manager.http_client("orders").map(drop).unwrap_err().kind(),
            ErrorKind::Cancelled
        );
    }
}
