//! Brokers listed, and connected again.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use trunkline_core::{ErrorKind, Status};
use trunkline_manager::CommunicationManager;
use trunkline_messaging::MessageBrokerConfig;

use crate::scripted::{Scripted, config, optional_orders, orders, with_scripted};

#[tokio::test]
async fn man6_brokers_are_listed_with_their_state() {
    let broker = Scripted::default();
    let config = config()
        .message_broker("test", MessageBrokerConfig::memory())
        .message_broker("orders", MessageBrokerConfig::new("scripted"));
    let manager = with_scripted(config, &broker).build();
    assert!(
        manager
            .list_message_brokers()
            .iter()
            .all(|broker| !broker.connected)
    );
    manager.initialize().await.unwrap();
    broker.leave();
    manager.health_check().await;
    let listed = serde_json::to_value(manager.list_message_brokers()).unwrap();
    assert_eq!(
        listed,
        json!([
            { "name": "test", "connected": true, "type": "memory", "status": "healthy" },
            { "name": "orders", "connected": false, "type": "scripted", "status": "unhealthy" },
        ])
    );
    manager.shutdown().await.unwrap();
    assert!(
        manager
            .list_message_brokers()
            .iter()
            .all(|broker| !broker.connected)
    );
}

#[tokio::test(start_paused = true)]
async fn man6_reconnecting_says_whether_it_works() {
    let broker = Scripted::default();
    broker.leave();
    let manager = optional_orders(&broker);
    let early = manager
        .reconnect_message_broker("orders")
        .await
        .unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Cancelled);
    manager.initialize().await.unwrap();
    assert!(!manager.reconnect_message_broker("orders").await.unwrap());
    broker.come_back();
    assert!(manager.reconnect_message_broker("orders").await.unwrap());
    // The only one is the default as well.
    assert!(manager.reconnect_message_broker("default").await.unwrap());
    assert!(manager.health_status().is_healthy());
    manager.shutdown().await.unwrap();
    let late = manager
        .reconnect_message_broker("orders")
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn man6_a_connection_that_hangs_does_not_hold_up_who_reconnects() {
    let broker = Scripted::default();
    broker.hang();
    let manager = optional_orders(&broker);
    manager.initialize().await.unwrap();
    let began = Instant::now();
    assert!(!manager.reconnect_message_broker("orders").await.unwrap());
    assert!(began.elapsed() <= Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn man6_a_broker_that_connects_and_does_not_work_is_no_recovery() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    manager.initialize().await.unwrap();
    broker.fall_ill();
    manager.health_check().await;
    let mut reports = manager.health().subscribe();
    assert!(!manager.reconnect_message_broker("orders").await.unwrap());
    while let Ok(report) = reports.try_recv() {
        assert_eq!(
            report.status.status,
            Status::Unhealthy,
            "it was healthy for a moment"
        );
    }
    manager.shutdown().await.unwrap();
}

/// Error recovery as the guide has it: reconnect after a failed publish, then publish again.
async fn publish_with_recovery(manager: &CommunicationManager) -> trunkline_core::Result<()> {
    let message = json!({ "test": "message" });
    if let Err(error) = manager.publish_message("orders", "orders", &message).await {
        if !manager.reconnect_message_broker("orders").await? {
            return Err(error);
        }
        manager
            .publish_message("orders", "orders", &message)
            .await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn man6_the_error_recovery_example() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    manager.initialize().await.unwrap();
    broker.leave();
    publish_with_recovery(&manager).await.unwrap_err();
    broker.come_back();
    publish_with_recovery(&manager).await.unwrap();
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man6_a_broker_that_refuses_at_first_is_reconnected_by_itself() {
    let broker = Scripted::default();
    broker.refuse(4);
    let manager = optional_orders(&broker);
    manager.initialize().await.unwrap();
    let began = Instant::now();
    while !manager.list_message_brokers()[0].connected {
        sleep(Duration::from_millis(50)).await;
        assert!(began.elapsed() < Duration::from_secs(60), "it never came");
    }
    assert_eq!(broker.connects(), 5);
    manager.shutdown().await.unwrap();
}
