//! Parts on local disk.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use trunkline_core::{ErrorKind, Status};
use trunkline_discovery::{ServiceInstance, ServiceName};
use trunkline_events::{Event, EventStore as _, EventStoreConfig, RelayConfig, StreamName};
use trunkline_manager::{CommunicationConfig, CommunicationManager};
use trunkline_messaging::{HandlerError, MessageBrokerConfig};
use trunkline_telemetry::{Install, LoggingConfig};

use crate::scripted::{Scripted, config};

/// Nothing but a name and a directory.
fn nothing_configured(directory: &std::path::Path) -> CommunicationManager {
    let config = CommunicationConfig::builder()
        .service_name("order-service")
        .embedded_path(directory)
        .logging(LoggingConfig::default().with_install(Install::Never))
        .build()
        .unwrap();
    CommunicationManager::new(config)
}

#[tokio::test(flavor = "multi_thread")]
async fn x49_absent_sections_mean_embedded_parts() {
    let directory = tempfile::tempdir().unwrap();
    let manager = nothing_configured(directory.path());
    manager.initialize().await.unwrap();
    let listed = manager.list_message_brokers();
    assert_eq!(
        (
            listed.len(),
            listed[0].name.as_str(),
            listed[0].broker_type.as_str()
        ),
        (1, "default", "embedded")
    );
    let health = manager.health_check().await;
    assert!(health.is_healthy(), "{health:?}");
    let keys: Vec<&str> = health.components.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["event_store", "message_broker_default", "service_discovery"]
    );
    let url = &health.components["message_broker_default"].metadata["connection_url"];
    assert_eq!(url, &format!("embedded://{}", directory.path().display()));
    manager.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn man1_what_was_confirmed_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut heard) = mpsc::unbounded_channel();
    let handler = move |message: serde_json::Value| {
        let sent = sender.send(message).map_err(HandlerError::retry);
        async move { sent }
    };
    let first = nothing_configured(directory.path());
    first.initialize().await.unwrap();
    first
        .subscribe_to_topic("default", "orders", handler.clone())
        .await
        .unwrap();
    first
        .publish_message("default", "orders", "before")
        .await
        .unwrap();
    let wait = Duration::from_secs(20);
    assert_eq!(
        timeout(wait, heard.recv()).await.unwrap().unwrap(),
        "before"
    );
    let stream = StreamName::of("order", "1").unwrap();
    let created = Event::new("order.created", "1", &json!({})).unwrap();
    first
        .event_store()
        .unwrap()
        .append_event(&stream, created)
        .await
        .unwrap();
    let kept = (
        first.event_store().unwrap(),
        first.service_discovery().unwrap(),
    );
    first.shutdown().await.unwrap();
    assert_eq!(
        kept.0.health_check().await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert_eq!(
        kept.1.services().await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );

    // While nobody listens.
    let second = nothing_configured(directory.path());
    second.initialize().await.unwrap();
    second
        .publish_message("default", "orders", "between")
        .await
        .unwrap();
    second.shutdown().await.unwrap();

    let third = nothing_configured(directory.path());
    third.initialize().await.unwrap();
    third
        .subscribe_to_topic("default", "orders", handler)
        .await
        .unwrap();
    assert_eq!(
        timeout(wait, heard.recv()).await.unwrap().unwrap(),
        "between"
    );
    third.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn man4_services_of_one_directory_find_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (
        nothing_configured(directory.path()),
        nothing_configured(directory.path()),
    );
    one.initialize().await.unwrap();
    other.initialize().await.unwrap();
    let name = ServiceName::new("users").unwrap();
    let instance = ServiceInstance::new(name.clone(), "127.0.0.1", 8001);
    let registration = one
        .service_discovery()
        .unwrap()
        .register_current_service(instance, one.health())
        .unwrap();
    let found = other.service_discovery().unwrap().instances(&name);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    found.ready(deadline).await.unwrap();
    registration.deregister(deadline).await.unwrap();
    one.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn man1_the_relay_publishes_what_the_last_work_appended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let relay = RelayConfig::default();
    let built = config()
        .message_broker("default", MessageBrokerConfig::embedded(path))
        .event_store(EventStoreConfig::embedded(path).with_relay(relay))
        .build()
        .unwrap();
    let manager = CommunicationManager::new(built);
    manager.initialize().await.unwrap();
    assert_eq!(
        manager.health_status().components["event_relay"].status,
        Status::Healthy
    );
    let stream = StreamName::of("order", "1").unwrap();
    let created = Event::new("order.created", "1", &json!({ "total": 5 })).unwrap();
    manager
        .event_store()
        .unwrap()
        .append_event(&stream, created)
        .await
        .unwrap();
    // Nobody waited for the relay: the stop does.
    manager.shutdown().await.unwrap();

    let reader = nothing_configured(directory.path());
    reader.initialize().await.unwrap();
    let broker = reader.message_broker("default").unwrap();
    let topic = trunkline_messaging::TopicName::new("order.created").unwrap();
    let stored = trunkline_messaging::MessageBroker::browse(
        &broker,
        trunkline_messaging::Browse::new(trunkline_messaging::Destination::Topic(topic)),
    );
    assert_eq!(stored.await.unwrap().messages.len(), 1);
    reader.shutdown().await.unwrap();
}

#[tokio::test]
async fn man9_a_relay_without_its_optional_store_degrades() {
    let broker = Scripted::default();
    let store = EventStoreConfig::new("postgres")
        .with_required(false)
        .with_relay(RelayConfig::default());
    let built = config()
        .message_broker("default", MessageBrokerConfig::new("scripted"))
        .event_store(store);
    let manager = crate::scripted::with_scripted(built, &broker).build();
    manager.initialize().await.unwrap();
    let health = manager.health_status();
    assert_eq!(health.overall_status, Status::Degraded);
    assert_eq!(health.components["event_relay"].status, Status::Unhealthy);
    manager.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn man9_a_directory_that_cannot_be_used_says_which_and_how_to_mend_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let built = config()
        .message_broker(
            "local",
            MessageBrokerConfig::embedded(file.to_str().unwrap()),
        )
        .startup_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = CommunicationManager::new(built)
        .initialize()
        .await
        .unwrap_err();
    let text = error.to_string();
    for part in [
        file.to_str().unwrap(),
        "message_broker_local",
        "`message_brokers.local`",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}
