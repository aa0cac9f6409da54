//! The health document.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use trunkline_core::{ErrorKind, ManualClock, SharedClock, Status};
use trunkline_manager::CommunicationManager;
use trunkline_messaging::{AnyBroker, MessageBrokerConfig};

use crate::scripted::{Scripted, brokers_only, config, optional_orders, orders, with_scripted};

/// The configuration and the moment of the document in the seed.
pub(crate) fn of_the_seed() -> CommunicationManager {
    let url = "amqp://guest:guest@localhost:5672/";
    let config =
        brokers_only().message_broker("rabbitmq", MessageBrokerConfig::from_url(url).unwrap());
    let clock: SharedClock =
        std::sync::Arc::new(ManualClock::new("2025-01-09T10:30:00Z".parse().unwrap()));
    CommunicationManager::builder(config.build().unwrap())
        .broker("rabbitmq", |_| Ok(AnyBroker::new(Scripted::default())))
        .clock(clock)
        .build()
}

pub(crate) fn document_of_the_seed() -> serde_json::Value {
    json!({
        "overall_status": "healthy",
        "components": {
            "message_broker_rabbitmq": {
                "name": "rabbitmq",
                "type": "message_broker_rabbitmq",
                "status": "healthy",
                "last_health_check": "2025-01-09T10:30:00Z",
                "error_count": 0,
                "last_error": null,
                "metadata": {
                    "connection_url": "amqp://localhost:5672",
                    "type": "rabbitmq",
                    "pool_size": 10
                }
            }
        },
        "timestamp": "2025-01-09T10:30:00Z"
    })
}

#[tokio::test]
async fn man5_x20_the_document_field_for_field() {
    let manager = of_the_seed();
    manager.initialize().await.unwrap();
    let shown = serde_json::to_value(manager.health_status()).unwrap();
    assert_eq!(shown, document_of_the_seed());
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn x20_the_keys_of_the_other_components() {
    let manager = CommunicationManager::new(config().build().unwrap());
    let health = manager.health_status();
    let of = |key: &str| {
        let status = health.component_status(key).unwrap();
        (status.name.clone(), status.component_type.clone())
    };
    assert_eq!(
        of("service_discovery"),
        (
            "service_discovery".to_owned(),
            "service_discovery_memory".to_owned()
        )
    );
    assert_eq!(
        of("event_store"),
        ("event_store".to_owned(), "event_store_memory".to_owned())
    );
}

#[tokio::test]
async fn x17_security_without_a_section_says_that_it_does_nothing() {
    for (on, told) in [(true, true), (false, false)] {
        let config = config().enable_security_integration(on).build().unwrap();
        let manager = CommunicationManager::new(config);
        let health = manager.health_status();
        let metadata = &health
            .component_status("service_discovery")
            .unwrap()
            .metadata;
        let said = metadata.get("security_integration");
        assert_eq!(said.is_some(), told);
        if let Some(said) = said {
            assert_eq!(said, "inactive: no security section");
        }
    }
}

#[tokio::test]
async fn x17_observability_off_switches_metrics_off_and_leaves_health() {
    for (config, kept) in [
        (config(), true),
        (config().enable_metrics(false), false),
        (config().observability_enabled(false), false),
    ] {
        let manager = CommunicationManager::new(config.build().unwrap());
        manager.initialize().await.unwrap();
        assert_eq!(manager.metrics().is_enabled(), kept);
        assert!(manager.health_check().await.is_healthy());
        manager.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn x19_the_last_known_at_once_and_a_check_now() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    manager.initialize().await.unwrap();
    broker.leave();
    let known = manager.health_status();
    assert!(known.is_healthy(), "nobody has looked since");
    let now = manager.health_check().await;
    assert!(!now.is_healthy());
    let status = now.component_status("message_broker_orders").unwrap();
    assert_eq!(status.status, Status::Unhealthy);
    assert_eq!(manager.health_status().overall_status, now.overall_status);
    let shown = serde_json::to_value(&now).unwrap();
    assert!(shown.get("status").is_none(), "one status, under one name");
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn x21_required_makes_unhealthy_and_optional_makes_degraded() {
    for (required, overall) in [(true, Status::Unhealthy), (false, Status::Degraded)] {
        let broker = Scripted::default();
        let settings = MessageBrokerConfig::new("scripted").with_required(required);
        let manager = with_scripted(config().message_broker("orders", settings), &broker).build();
        manager.initialize().await.unwrap();
        broker.leave();
        assert_eq!(manager.health_check().await.overall_status, overall);
        assert_eq!(manager.health().readiness().ready, !required);
        manager.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn x21_errors_are_counted_for_ever_and_the_last_one_is_kept_until_it_works_again() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    manager.initialize().await.unwrap();
    let status = async || {
        let health = manager.health_check().await;
        let status = health.component_status("message_broker_orders").unwrap();
        (status.error_count, status.last_error.clone())
    };
    broker.leave();
    status().await;
    let (count, last) = status().await;
    assert_eq!(count, 2);
    assert!(last.unwrap().contains("connection refused"));
    broker.come_back();
    assert_eq!(status().await, (2, None));
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man5_components_are_checked_in_the_background_at_an_interval() {
    let broker = Scripted::default();
    let settings = MessageBrokerConfig::new("scripted");
    let config = config()
        .message_broker("orders", settings)
        .health_interval(Duration::from_secs(10));
    let manager = with_scripted(config, &broker).build();
    manager.initialize().await.unwrap();
    broker.leave();
    sleep(Duration::from_secs(9)).await;
    assert!(manager.health_status().is_healthy());
    sleep(Duration::from_secs(2)).await;
    assert!(!manager.health_status().is_healthy());
    broker.come_back();
    sleep(Duration::from_secs(11)).await;
    assert!(manager.health_status().is_healthy());
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man5_a_check_that_panics_or_hangs_is_a_failed_check_and_not_the_last_one() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    manager.initialize().await.unwrap();
    broker.panic(true);
    sleep(Duration::from_secs(31)).await;
    let status = manager
        .health()
        .component_status("message_broker_orders")
        .unwrap();
    assert_eq!(status.status, Status::Unhealthy);
    assert!(status.last_error.unwrap().contains("a driver's bug"));
    broker.panic(false);
    sleep(Duration::from_secs(31)).await;
    assert!(
        manager.health_status().is_healthy(),
        "the checks ended with the panic"
    );
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man9_an_optional_part_that_is_away_is_shown_fails_typed_and_is_picked_up_later() {
    let broker = Scripted::default();
    broker.leave();
    let manager = optional_orders(&broker);
    manager.initialize().await.unwrap();
    assert!(manager.health().readiness().ready);
    assert_eq!(manager.health_status().overall_status, Status::Degraded);
    assert!(!manager.list_message_brokers()[0].connected);
    let error = manager
        .publish_message("orders", "orders", "1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    broker.come_back();
    sleep(Duration::from_secs(31)).await;
    assert!(manager.list_message_brokers()[0].connected);
    assert!(manager.health_status().is_healthy());
    manager
        .publish_message("orders", "orders", "1")
        .await
        .unwrap();
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man9_it_is_picked_up_also_where_checks_are_switched_off() {
    let broker = Scripted::default();
    broker.leave();
    let settings = MessageBrokerConfig::new("scripted").with_required(false);
    let config = config()
        .message_broker("orders", settings)
        .enable_health_checks(false);
    let manager = with_scripted(config, &broker).build();
    manager.initialize().await.unwrap();
    broker.come_back();
    sleep(Duration::from_secs(31)).await;
    assert!(manager.health_status().is_healthy());
    // And from then on nobody looks.
    broker.leave();
    sleep(Duration::from_secs(120)).await;
    assert!(manager.health_status().is_healthy());
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man9_a_part_that_stays_away_is_tried_at_growing_pauses_up_to_the_interval() {
    let broker = Scripted::default();
    broker.leave();
    let settings = MessageBrokerConfig::new("scripted").with_required(false);
    let config = config()
        .message_broker("orders", settings)
        .health_interval(Duration::from_secs(8));
    let manager = with_scripted(config, &broker).build();
    manager.initialize().await.unwrap();
    // At the start, then after 0.5 s, 1 s, 2 s, 4 s, 8 s, and every 8 s from then on: a little after the fifteenth.
    sleep(Duration::from_millis(
        500 + 1000 + 2000 + 4000 + 10 * 8000 + 100,
    ))
    .await;
    assert_eq!(broker.connects(), 1 + 4 + 10);

    // It has come, and goes away: the pauses begin anew.
    broker.come_back();
    sleep(Duration::from_secs(8)).await;
    assert!(manager.health_status().is_healthy());
    assert_eq!(broker.connects(), 16);
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man5_nothing_is_connected_by_a_check_before_the_start_or_after_the_stop() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    assert!(!manager.health_check().await.is_healthy());
    assert_eq!(broker.connects(), 0);
    manager.initialize().await.unwrap();
    manager.shutdown().await.unwrap();
    manager.health_check().await;
    assert_eq!(broker.connects(), 1);
    assert!(!manager.health().readiness().ready);
}

#[tokio::test]
async fn man11_detailed_metrics_switch_while_running() {
    let manager = CommunicationManager::new(config().build().unwrap());
    manager.initialize().await.unwrap();
    assert!(!manager.metrics().is_detailed());
    manager.set_detailed_metrics(true);
    assert!(manager.metrics().is_detailed());
    manager.set_detailed_metrics(false);
    assert!(!manager.metrics().is_detailed());
    manager.shutdown().await.unwrap();
    let detailed = CommunicationManager::new(config().detailed_metrics(true).build().unwrap());
    assert!(detailed.metrics().is_detailed());
}
