//! Messages whose consumers end with them in hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::names::message_header as header;
use trunkline_core::{Context, Lifecycle as _};
use trunkline_messaging::{
    Attempt, HandlerError, Message, MessageBroker as _, Messaging, Subscribe, TopicName,
};
use trunkline_rabbitmq::RabbitMqBroker;
use trunkline_testing::servers::Server;

use crate::fixture::{
    attached, config, connected, cut, detached, disconnect, group, name, queue_of, settled, until,
    with_server, within,
};

/// A service on a broker of its own, and the queue of its dead letters.
async fn service(server: &Server) -> (Messaging, TopicName) {
    let broker = RabbitMqBroker::new(config(&server.url())).unwrap().erase();
    until("connecting", async || broker.connect().await.is_ok()).await;
    let group = name("service");
    let letters = TopicName::new(format!("{group}.dlq")).unwrap();
    let messaging = Messaging::builder(broker).service(group.as_str()).build();
    (messaging, letters)
}

async fn publish(messaging: &Messaging, topic: &TopicName) {
    let context = Context::new().with_timeout(Duration::from_secs(20));
    let published = messaging.publish(topic, &1);
    context.scope(published).await.unwrap();
}

/// The only dead letter.
async fn letter(messaging: &Messaging, letters: TopicName) -> Message {
    let broker = messaging.broker();
    let mut dead = broker.subscribe(Subscribe::queue(letters)).await.unwrap();
    attached(&dead).await;
    let delivery = within("a dead letter", dead.next()).await.unwrap();
    let message = delivery.message().clone();
    delivery.ack().await.unwrap();
    message
}

async fn end(messaging: Messaging) {
    let soon = Instant::now() + Duration::from_millis(100);
    // Handlers that never end are ended by force.
    drop(messaging.drain(soon).await);
    let deadline = Instant::now() + Duration::from_secs(30);
    messaging.broker().disconnect(deadline).await.unwrap();
}

#[test]
fn a_message_that_ends_every_consumer_is_given_up() {
    with_server(async |server| {
        let (messaging, letters) = service(server).await;
        let topic = name("poison");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let handler = move |attempt: Attempt| {
            record.lock().unwrap().push(attempt.0);
            std::future::pending::<()>()
        };
        let subscribing = messaging.subscribe(topic.clone()).max_attempts(1);
        let subscribing = subscribing
            .max_crashes(2)
            .timeout(Duration::from_secs(3600));
        subscribing.handle(handler).await.unwrap();
        within("attaching", messaging.ready()).await.unwrap();
        publish(&messaging, &topic).await;
        for deliveries in 1..=3 {
            let enough = async || seen.lock().unwrap().len() == deliveries;
            until("another delivery", enough).await;
            assert_eq!(
                seen.lock().unwrap().last(),
                u32::try_from(deliveries).ok().as_ref()
            );
            cut(server);
        }
        let letter = letter(&messaging, letters).await;
        assert_eq!(letter.headers.get(header::DEAD_REASON), Some("crashes"));
        assert_eq!(letter.headers.get(header::ATTEMPTS), Some("4"));
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
        end(messaging).await;
    });
}

#[test]
fn what_lay_unread_does_not_count() {
    with_server(async |server| {
        let broker = connected(server).await;
        let topic = name("orders");
        let mut subscription = broker
            .subscribe(group(&topic).with_prefetch(10))
            .await
            .unwrap();
        attached(&subscription).await;
        settled(server, &queue_of(&topic)).await;
        for id in ["held", "behind", "last"] {
            crate::fixture::publish(&broker, &topic, id).await;
        }
        for attempt in 1..=3 {
            let held = within("a delivery", subscription.next()).await.unwrap();
            assert_eq!(
                (held.message().id.as_str(), held.attempt()),
                ("held", attempt)
            );
            // The others are here by now, or come on the next connection.
            cut(server);
            detached(&subscription).await;
            attached(&subscription).await;
            held.ack().await.unwrap_err();
        }
        for (id, attempt) in [("held", 4), ("behind", 1), ("last", 1)] {
            let delivery = within("a delivery", subscription.next()).await.unwrap();
            assert_eq!(
                (delivery.message().id.as_str(), delivery.attempt()),
                (id, attempt)
            );
            delivery.ack().await.unwrap();
        }
        disconnect(&broker).await;
    });
}

#[test]
fn consumers_that_ended_are_no_failures() {
    with_server(async |server| {
        let (messaging, letters) = service(server).await;
        let topic = name("unlucky");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let handler = move |attempt: Attempt| {
            let number = {
                let mut seen = record.lock().unwrap();
                seen.push(attempt.0);
                seen.len()
            };
            async move {
                if number <= 2 {
                    std::future::pending::<()>().await;
                }
                Err::<(), _>(HandlerError::retry("failed"))
            }
        };
        let subscribing = messaging.subscribe(topic.clone()).max_attempts(2);
        let subscribing = subscribing
            .retry_delay(Duration::ZERO)
            .timeout(Duration::from_secs(3600));
        subscribing.handle(handler).await.unwrap();
        within("attaching", messaging.ready()).await.unwrap();
        publish(&messaging, &topic).await;
        for deliveries in 1..=2 {
            let enough = async || seen.lock().unwrap().len() == deliveries;
            until("another delivery", enough).await;
            cut(server);
        }
        let letter = letter(&messaging, letters).await;
        assert_eq!(letter.headers.get(header::DEAD_REASON), Some("attempts"));
        assert_eq!(
            seen.lock().unwrap().len(),
            4,
            "two failures, as it was told"
        );
        end(messaging).await;
    });
}
