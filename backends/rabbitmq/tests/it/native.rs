//! Exchanges, queues and bindings of RabbitMQ's own, and what its queues can do.

use std::time::Duration;

use futures_util::future::join_all;
use trunkline_core::ErrorKind;
use trunkline_messaging::{
    Destination, Message, MessageBroker as _, Publish, Routed, Subscribe, TopicName,
};
use trunkline_rabbitmq::{Binding, Exchange, ExchangeKind, Queue, QueueType};
use trunkline_testing::servers::rabbitmq;

use crate::fixture::{
    attached, connected, disconnect, group, name, queue_of, receive, to_topic, unsettled, until,
    with_server, within,
};

fn queue(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

#[test]
fn exchanges_of_every_kind_route() {
    with_server(async |server| {
        let broker = connected(server).await;
        for (kind, key, routed, unrouted) in [
            (ExchangeKind::Direct, "a", "a", Some("b")),
            (ExchangeKind::Topic, "a.*", "a.b", Some("a.b.c")),
            (ExchangeKind::Fanout, "", "anything", None),
        ] {
            let (exchange, target) = (name("exchange").to_string(), name("queue").to_string());
            broker
                .declare_exchange(Exchange::new(&exchange).with_kind(kind))
                .await
                .unwrap();
            broker.declare_queue(Queue::new(&target)).await.unwrap();
            broker
                .bind(Binding::new(&target, &exchange, key))
                .await
                .unwrap();
            let receipt = broker
                .publish_to(&exchange, routed, Message::new("1"))
                .await
                .unwrap();
            assert_eq!(receipt.routed, Routed::Yes);
            if let Some(key) = unrouted {
                let receipt = broker
                    .publish_to(&exchange, key, Message::new("2"))
                    .await
                    .unwrap();
                assert_eq!(receipt.routed, Routed::No);
            }
            assert_eq!(broker.queue_status(&target).await.unwrap().messages, 1);
            assert_eq!(broker.delete_queue(&target).await.unwrap(), 1);
            broker.delete_exchange(&exchange).await.unwrap();
        }
        let plain = name("plain").to_string();
        broker
            .declare_exchange(Exchange::new(&plain))
            .await
            .unwrap();
        let other = Exchange::new(&plain).with_kind(ExchangeKind::Fanout);
        let error = broker.declare_exchange(other).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Conflict,
            "direct is what it was: {}",
            error.report()
        );
        disconnect(&broker).await;
    });
}

#[test]
fn a_rejected_message_goes_to_the_dead_letter_queue() {
    with_server(async |server| {
        let broker = connected(server).await;
        let work = name("work");
        let letters = broker.setup_dead_letter_queue(work.as_str()).await.unwrap();
        assert_eq!(letters, format!("{work}.dlq"));
        let mut consumer = broker
            .subscribe(Subscribe::queue(queue(&letters)))
            .await
            .unwrap();
        attached(&consumer).await;
        // A subscriber takes the queue as it is: it would declare one without dead letters.
        let message = Message::new("poison").with_id("poison");
        broker
            .publish(Publish::new(Destination::Queue(work.clone()), message))
            .await
            .unwrap();
        let mut worker = broker
            .subscribe(Subscribe::queue(work.clone()))
            .await
            .unwrap();
        attached(&worker).await;
        let delivery = within("a delivery", worker.next()).await.unwrap();
        delivery.reject().await.unwrap();
        assert_eq!(receive(&mut consumer).await, "poison");
        disconnect(&broker).await;
    });
}

#[test]
fn priorities_are_kept() {
    with_server(async |server| {
        let broker = connected(server).await;
        let target = name("work");
        let priority = Queue::new(target.as_str())
            .with_type(QueueType::Classic)
            .with_argument("x-max-priority", 10);
        broker.declare_queue(priority).await.unwrap();
        for (id, priority) in [("low", "1"), ("high", "9")] {
            let message = Message::new(id)
                .with_id(id)
                .with_header("priority", priority);
            let publish = Publish::new(Destination::Queue(target.clone()), message);
            broker.publish(publish).await.unwrap();
        }
        let mut worker = broker.subscribe(Subscribe::queue(target)).await.unwrap();
        let first = within("a delivery", worker.next()).await.unwrap();
        assert_eq!(first.message().headers.get("priority"), Some("9"));
        first.ack().await.unwrap();
        assert_eq!(receive(&mut worker).await, "low");
        disconnect(&broker).await;
    });
}

/// The driver gives a returned message to whichever confirm comes first; each sender must hear of its own all the same.
#[test]
fn every_sender_hears_whether_its_own_message_found_somebody() {
    with_server(async |server| {
        let broker = connected(server).await;
        let there = name("there");
        let listener = broker
            .subscribe(Subscribe::topics(there.clone()))
            .await
            .unwrap();
        attached(&listener).await;
        let nobody = name("nobody");
        for _ in 0..5 {
            let publishes = (0..200).map(|number| {
                let (broker, is_heard) = (&broker, number % 3 == 0);
                let topic = if is_heard { &there } else { &nobody };
                let publish = to_topic(topic, &number.to_string());
                async move { (is_heard, broker.publish(publish).await.unwrap().routed) }
            });
            for (is_heard, routed) in within("the publishes", join_all(publishes)).await {
                assert_eq!(routed, if is_heard { Routed::Yes } else { Routed::No });
            }
        }
        disconnect(&broker).await;
    });
}

#[test]
fn a_full_queue_refuses() {
    with_server(async |server| {
        let broker = connected(server).await;
        let target = name("small");
        let small = Queue::new(target.as_str())
            .with_type(QueueType::Classic)
            .with_argument("x-max-length", 2)
            .with_argument("x-overflow", "reject-publish");
        broker.declare_queue(small).await.unwrap();
        let send = || {
            let publish = Publish::new(Destination::Queue(target.clone()), Message::new("x"));
            broker.publish(publish)
        };
        for _ in 0..2 {
            send().await.unwrap();
        }
        let error = send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", error.report());
        disconnect(&broker).await;
    });
}

/// Messages that nobody wants when they are due must not hold up those behind them. The server moves 32 at a time.
#[test]
fn delayed_messages_without_a_taker_hold_up_no_others() {
    with_server(async |server| {
        let broker = connected(server).await;
        let (nobody, there, gone) = (name("nobody"), name("there"), name("gone"));
        let mut listener = broker
            .subscribe(Subscribe::topics(there.clone()))
            .await
            .unwrap();
        attached(&listener).await;
        let delay = Duration::from_millis(400);
        let unwanted: Vec<_> = (0..100)
            .map(|number| to_topic(&nobody, &number.to_string()).with_delay(delay))
            .collect();
        for outcome in within("a batch", broker.publish_batch(unwanted)).await {
            outcome.unwrap();
        }
        broker
            .publish(to_topic(&there, "wanted").with_delay(delay))
            .await
            .unwrap();
        assert_eq!(receive(&mut listener).await, "wanted");

        broker
            .declare(Destination::Queue(gone.clone()))
            .await
            .unwrap();
        let to_queue = |queue: &TopicName, id: &str| {
            let message = Message::new(id.to_owned()).with_id(id);
            Publish::new(Destination::Queue(queue.clone()), message).with_delay(delay)
        };
        let lost: Vec<_> = (0..100)
            .map(|number| to_queue(&gone, &number.to_string()))
            .collect();
        for outcome in within("a batch", broker.publish_batch(lost)).await {
            outcome.unwrap();
        }
        broker.delete_queue(gone.as_str()).await.unwrap();
        let work = name("work");
        let missing = broker.publish(to_queue(&work, "early")).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{}", missing.report());
        let mut worker = broker
            .subscribe(Subscribe::queue(work.clone()))
            .await
            .unwrap();
        attached(&worker).await;
        broker.publish(to_queue(&work, "wanted")).await.unwrap();
        assert_eq!(receive(&mut worker).await, "wanted");
        disconnect(&broker).await;
    });
}

#[test]
fn a_delayed_message_that_expires_while_it_waits_does_not_come() {
    with_server(async |server| {
        let broker = connected(server).await;
        let topic = name("orders");
        let mut listener = broker
            .subscribe(Subscribe::topics(topic.clone()))
            .await
            .unwrap();
        attached(&listener).await;
        let (soon, later) = (Duration::from_millis(300), Duration::from_secs(600));
        let error = broker
            .publish(
                to_topic(&topic, "never")
                    .with_delay(later)
                    .with_expiry(soon),
            )
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let due = to_topic(&topic, "due").with_delay(soon).with_expiry(later);
        broker.publish(due).await.unwrap();
        assert_eq!(receive(&mut listener).await, "due");
        disconnect(&broker).await;
    });
}

/// Acknowledgements are told to the server together; what is not done must not be among them, however late it is.
#[test]
fn what_is_held_while_others_are_done_comes_again() {
    with_server(async |server| {
        let broker = connected(server).await;
        let topic = name("orders");
        let mut consumer = broker
            .subscribe(group(&topic).with_prefetch(40))
            .await
            .unwrap();
        attached(&consumer).await;
        let batch = (0..200)
            .map(|number| to_topic(&topic, &number.to_string()))
            .collect();
        for outcome in within("a batch", broker.publish_batch(batch)).await {
            outcome.unwrap();
        }
        let mut held = Vec::new();
        for number in 0..200 {
            let delivery = within("a delivery", consumer.next()).await.unwrap();
            assert_eq!(delivery.message().id, number.to_string());
            if number % 50 == 7 {
                held.push(delivery);
            } else if number % 50 == 8 {
                delivery.reject().await.unwrap();
            } else {
                delivery.ack().await.unwrap();
            }
        }
        // Those that are done are gone for good, those in hand are not, when the connection goes with all of it.
        until("the acknowledgements", async || {
            unsettled(server, &queue_of(&topic)) == held.len()
        })
        .await;
        rabbitmq::control(server.site(), &["close_all_connections", "test"]).unwrap();
        let mut again = Vec::new();
        for _ in 0..held.len() {
            let delivery = within("a repetition", consumer.next()).await.unwrap();
            assert!(delivery.attempt() >= 2);
            again.push(delivery.message().id.clone());
            delivery.ack().await.unwrap();
        }
        assert_eq!(again, ["7", "57", "107", "157"]);
        for late in held {
            let error = late.ack().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
        }
        until("an empty queue", async || {
            unsettled(server, &queue_of(&topic)) == 0
        })
        .await;
        disconnect(&broker).await;
    });
}
