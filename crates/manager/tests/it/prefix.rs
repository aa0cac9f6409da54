//! Environments that share a directory under prefixes of their own.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use trunkline_discovery::{ServiceInstance, ServiceName};
use trunkline_events::{Event, EventStore as _, EventStoreConfig, RelayConfig, StreamName};
use trunkline_manager::{CommunicationConfig, CommunicationManager, ConfigBuilder};
use trunkline_messaging::inbox::{Claim, ClaimRequest, InboxStore as _};
use trunkline_messaging::{Browse, Destination, MessageBroker as _, TopicName};
use trunkline_telemetry::{Install, LoggingConfig};

const PATIENCE: Duration = Duration::from_secs(20);

fn plain(directory: &Path) -> ConfigBuilder {
    CommunicationConfig::builder()
        .service_name("orders")
        .embedded_path(directory)
        .logging(LoggingConfig::default().with_install(Install::Never))
}

async fn running(config: ConfigBuilder) -> CommunicationManager {
    let manager = CommunicationManager::new(config.build().unwrap());
    manager.initialize().await.unwrap();
    manager
}

#[tokio::test(flavor = "multi_thread")]
async fn cfg11_the_dot_at_the_end_of_a_prefix_may_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let staging = running(plain(directory.path()).prefix("staging")).await;
    let outside = running(plain(directory.path())).await;
    let instance = ServiceInstance::new(ServiceName::new("users").unwrap(), "127.0.0.1", 8001);
    let registration = staging
        .service_discovery()
        .unwrap()
        .register_current_service(instance, staging.health())
        .unwrap();
    let seen = outside.service_discovery().unwrap();
    let name = ServiceName::new("staging.users").unwrap();
    let deadline = Instant::now() + PATIENCE;
    seen.instances(&name).ready(deadline).await.unwrap();
    staging
        .publish_message("default", "order.created", "1")
        .await
        .unwrap();
    let topic = Destination::Topic(TopicName::new("staging.order.created").unwrap());
    let broker = outside.message_broker("default").unwrap();
    assert_eq!(
        broker
            .browse(Browse::new(topic))
            .await
            .unwrap()
            .messages
            .len(),
        1
    );
    registration.deregister(deadline).await.unwrap();
    staging.shutdown().await.unwrap();
    outside.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cfg11_environments_that_share_a_directory_do_not_dedup_against_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let staging = running(plain(directory.path()).prefix("staging.")).await;
    let production = running(plain(directory.path()).prefix("production.")).await;
    let claim = || ClaimRequest::new("mail/order.created", "message-1");
    let done = staging.inbox().claim(claim()).await.unwrap();
    let Claim::Granted(token) = done else {
        panic!("nobody did it before: {done:?}");
    };
    staging
        .inbox()
        .complete(token, "sent".into(), PATIENCE)
        .await
        .unwrap();
    let again = staging.inbox().claim(claim()).await.unwrap();
    assert_eq!(again, Claim::Done("sent".into()));
    let other = production.inbox().claim(claim()).await.unwrap();
    assert!(matches!(other, Claim::Granted(_)), "{other:?}");
    staging.shutdown().await.unwrap();
    production.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cfg11_each_environment_has_a_checkpoint_of_its_own_in_a_shared_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = || EventStoreConfig::default().with_relay(RelayConfig::default());
    for prefix in ["staging", "production."] {
        let config = plain(directory.path()).prefix(prefix).event_store(store());
        let manager = running(config).await;
        let created = Event::new("order.created", prefix, &json!({})).unwrap();
        let stream = StreamName::of("order", prefix).unwrap();
        let events = manager.event_store().unwrap();
        events.append_event(&stream, created).await.unwrap();
        // The stop waits for the relay.
        manager.shutdown().await.unwrap();
    }
    let reader = running(plain(directory.path())).await;
    let events = reader.event_store().unwrap();
    let checkpoints = [
        events.checkpoint("relay").await.unwrap(),
        events.checkpoint("staging.relay").await.unwrap(),
        events.checkpoint("production.relay").await.unwrap(),
    ];
    assert_eq!(checkpoints, [0, 1, 2]);
    reader.shutdown().await.unwrap();
}
