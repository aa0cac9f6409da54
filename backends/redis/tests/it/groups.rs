//! Groups and places beside the suite.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_messaging::{
    Destination, Message, MessageBroker, Publish, Settlement, Subscribe, TopicName, TopicPattern,
};
use trunkline_redis::RedisBroker;

use crate::place::{config, soon};

fn to(topic: &str, text: &str) -> Publish {
    let topic = Destination::Topic(TopicName::new(topic).unwrap());
    Publish::new(topic, Message::new(text.to_owned()))
}

#[tokio::test]
async fn what_a_subscriber_without_a_group_holds_may_be_settled_after_it_is_dropped() {
    let Some(config) = config("late-ack") else {
        return;
    };
    let broker = RedisBroker::new(config).unwrap();
    broker.connect().await.unwrap();
    for pattern in ["order.created", "order.*"] {
        broker.publish(to("order.created", "one")).await.unwrap();
        let wanted = Subscribe::topics(TopicPattern::new(pattern).unwrap())
            .with_start(trunkline_messaging::Start::Earliest);
        let mut subscription = broker.subscribe(wanted).await.unwrap();
        let held = soon(subscription.next()).await.unwrap();
        drop(subscription);
        // Long enough for its place to go, were it to go at once.
        tokio::time::sleep(Duration::from_millis(300)).await;
        soon(held.ack()).await.unwrap();
    }
    broker
        .disconnect(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pattern_forwards_to_a_queue() {
    let Some(config) = config("wild-forward") else {
        return;
    };
    let broker = RedisBroker::new(config).unwrap();
    broker.connect().await.unwrap();
    let queue = Destination::Queue(TopicName::new("dead.mailer").unwrap());
    broker.declare(queue.clone()).await.unwrap();
    let wanted = Subscribe::topics(TopicPattern::new("user.*").unwrap()).with_group("mailer");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    let mut state = subscription.state();
    let attached = trunkline_messaging::SubscriptionState::Attached;
    soon(state.wait_for(|state| *state == attached))
        .await
        .unwrap();
    broker.publish(to("user.created", "one")).await.unwrap();
    let held = soon(subscription.next()).await.unwrap();
    let forward = Publish::new(queue, held.message().clone());
    soon(held.settle(Settlement::Forward(Box::new(forward))))
        .await
        .unwrap();
    assert_eq!(broker.queues().await.unwrap()[0].messages, 1);
    broker
        .disconnect(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_dropped_while_it_fetches_keeps_nothing() {
    let Some(config) = config("dropped-fetch") else {
        return;
    };
    let broker = RedisBroker::new(config).unwrap();
    broker.connect().await.unwrap();
    // Its lease would outlast the test.
    let wanted = || {
        Subscribe::topics(TopicName::new("order.created").unwrap())
            .with_group("mail")
            .with_lease(Duration::from_secs(3600))
    };
    drop(broker.subscribe(wanted()).await.unwrap());
    broker.publish(to("order.created", "one")).await.unwrap();
    for round in 1..=60 {
        let mut subscription = broker.subscribe(wanted()).await.unwrap();
        let held = soon(subscription.next()).await.unwrap();
        assert_eq!(
            held.attempt(),
            round,
            "what was not handed out does not count"
        );
        // Given back, it is fetched again at once, by the one that goes.
        soon(held.nack(None)).await.unwrap();
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        drop(subscription);
    }
    broker
        .disconnect(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
}
