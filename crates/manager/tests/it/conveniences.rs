//! Short ways to what is used most.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use trunkline_messaging::HandlerError;
use trunkline_messaging::inbox::{Claim, ClaimRequest, InboxStore as _};

use crate::scripted::in_memory;

#[tokio::test]
async fn man8_a_hundred_plain_strings_published_at_once() {
    let manager = in_memory();
    manager.initialize().await.unwrap();
    let (sender, mut each) = mpsc::unbounded_channel();
    for i in 0..100 {
        let sender = sender.clone();
        let handler = move |message| {
            let sent = sender.send(message).map_err(HandlerError::retry);
            async move { sent }
        };
        let topic = format!("topic-{i}");
        manager
            .subscribe_to_topic("default", &topic, handler)
            .await
            .unwrap();
    }
    let publishing = (0..100).map(|i| {
        let manager = manager.clone();
        async move {
            let (topic, message) = (format!("topic-{i}"), format!("message-{i}"));
            manager.publish_message("default", &topic, &message).await
        }
    });
    try_join_all(publishing).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 100 {
        got.push(
            timeout(Duration::from_secs(20), each.recv())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    let number = |value: &serde_json::Value| -> u32 {
        value
            .as_str()
            .unwrap()
            .strip_prefix("message-")
            .unwrap()
            .parse()
            .unwrap()
    };
    got.sort_by_key(number);
    let expected: Vec<_> = (0..100).map(|i| json!(format!("message-{i}"))).collect();
    assert_eq!(got, expected);
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man8_a_subscription_gets_what_is_published_and_a_failed_message_again() {
    let manager = in_memory();
    manager.initialize().await.unwrap();
    let (sender, mut heard) = mpsc::unbounded_channel();
    let handler = move |message: serde_json::Value| {
        let first = sender.send(message);
        async move {
            first.map_err(HandlerError::dead_letter)?;
            Ok(())
        }
    };
    manager
        .subscribe_to_topic("default", "order.*", handler)
        .await
        .unwrap();
    let order = json!({ "event": "order_created", "order": { "id": 1 } });
    manager
        .publish_message("default", "order.events", &order)
        .await
        .unwrap();
    let got = timeout(Duration::from_secs(20), heard.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, order);
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man8_the_messaging_of_the_manager_names_the_service() {
    let manager = in_memory();
    manager.initialize().await.unwrap();
    let broker = manager.message_broker("default").unwrap();
    let topic = trunkline_messaging::TopicName::new("orders").unwrap();
    let subscribe = trunkline_messaging::Subscribe::topics(topic).with_group("audit");
    let mut raw = trunkline_messaging::MessageBroker::subscribe(&broker, subscribe)
        .await
        .unwrap();
    manager
        .messaging()
        .unwrap()
        .publish("orders", &json!({ "id": 1 }))
        .await
        .unwrap();
    let delivery = timeout(Duration::from_secs(20), raw.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(delivery.message().payload, r#"{"id":1}"#);
    assert_eq!(
        delivery.message().headers.get("service"),
        Some("order-service")
    );
    delivery.ack().await.unwrap();
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man8_the_inbox_is_one_for_everybody_and_ends_with_the_manager() {
    let directory = tempfile::tempdir().unwrap();
    let config = crate::scripted::config()
        .embedded_path(directory.path())
        .build()
        .unwrap();
    let manager = trunkline_manager::CommunicationManager::new(config);
    manager.initialize().await.unwrap();
    let claim = || ClaimRequest::new("orders", "1");
    let first = manager.inbox().claim(claim()).await.unwrap();
    assert!(matches!(first, Claim::Granted(_)), "{first:?}");
    let second = manager.inbox().claim(claim()).await.unwrap();
    assert!(matches!(second, Claim::InProgress { .. }), "{second:?}");
    manager.shutdown().await.unwrap();
}
