//! What happens when the server goes away and comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use trunkline_core::{Context, ErrorKind, Retry, task};
use trunkline_messaging::{
    Destination, Message, MessageBroker as _, Routed, Subscribe, SubscriptionState,
};
use trunkline_rabbitmq::{Binding, Exchange, ExchangeKind, Queue, QueueType, RabbitMqBroker};
use trunkline_testing::servers::{Server, rabbitmq};

use crate::fixture::{
    attached, config, connected, connections, consumers, detached, disconnect, group, name,
    publish, queue_of, receive, settled, to_topic, unread, until, with_server, within,
};

/// Publishers and a consumer that go on while something happens to the server. Afterwards nothing confirmed is missing,
/// there is one consumer, and neither tasks nor connections nor channels have grown.
async fn under_load(
    server: &mut Server,
    rounds: usize,
    mut fault: impl AsyncFnMut(&mut Server, &RabbitMqBroker),
) {
    let broker = Arc::new(connected(server).await);
    let topic = name("orders");
    let mut subscription = broker
        .subscribe(group(&topic).with_prefetch(50))
        .await
        .unwrap();
    attached(&subscription).await;
    settled(server, &queue_of(&topic)).await;
    publish(&broker, &topic, "first").await;
    assert_eq!(receive(&mut subscription).await, "first");
    broker.health_check().await.unwrap();
    let before = connections(server);
    let tasks = Handle::current().metrics().num_alive_tasks();

    let stop = Arc::new(AtomicBool::new(false));
    let confirmed = Arc::new(Mutex::new(BTreeSet::new()));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (broker, topic) = (Arc::clone(&broker), topic.clone());
            let (stop, confirmed) = (Arc::clone(&stop), Arc::clone(&confirmed));
            task::spawn("publisher", async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("{publisher}/{number}");
                    let context = Context::new().with_timeout(Duration::from_secs(5));
                    if context
                        .scope(broker.publish(to_topic(&topic, &id)))
                        .await
                        .is_ok()
                    {
                        confirmed.lock().unwrap().insert(id);
                        number += 1;
                    }
                }
            })
        })
        .collect();
    let received = Arc::new(Mutex::new(BTreeSet::new()));
    let consumer = {
        let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
        let confirmed = Arc::clone(&confirmed);
        task::spawn("consumer", async move {
            loop {
                let id = receive(&mut subscription).await;
                received.lock().unwrap().insert(id);
                let missing = confirmed
                    .lock()
                    .unwrap()
                    .difference(&received.lock().unwrap())
                    .count();
                if stop.load(Ordering::Relaxed) && missing == 0 {
                    return subscription;
                }
            }
        })
    };
    for _ in 0..rounds {
        let so_far = confirmed.lock().unwrap().len();
        let more = async || confirmed.lock().unwrap().len() >= so_far + 100;
        until("a hundred confirms", more).await;
        fault(server, &broker).await;
        until("health", async || broker.health_check().await.is_ok()).await;
    }
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        within("the end of a publisher", publisher).await.unwrap();
    }
    // One more, so that the consumer looks again.
    publish(&broker, &topic, "last").await;
    confirmed.lock().unwrap().insert("last".to_owned());
    let subscription = within("every confirmed message", consumer).await.unwrap();

    assert_eq!(*subscription.state().borrow(), SubscriptionState::Attached);
    until("one consumer", async || {
        consumers(server, &queue_of(&topic)) == 1
    })
    .await;
    until("as many connections and channels as before", async || {
        let now = connections(server);
        now.0 <= before.0 && now.1 <= before.1
    })
    .await;
    until("as many tasks as before", async || {
        Handle::current().metrics().num_alive_tasks() <= tasks
    })
    .await;
    disconnect(&broker).await;
    drop(subscription);
    until("no task left", async || {
        Handle::current().metrics().num_alive_tasks() == 0
    })
    .await;
}

#[test]
fn nothing_confirmed_is_lost_when_the_server_is_killed() {
    with_server(async |server| {
        under_load(server, 3, async |server, _| {
            server.kill().unwrap();
            server.restart().unwrap();
        })
        .await;
    });
}

#[test]
fn nothing_confirmed_is_lost_when_the_server_cuts_connections() {
    with_server(async |server| {
        under_load(server, 3, async |server, _| {
            rabbitmq::control(server.site(), &["close_all_connections", "test"]).unwrap();
        })
        .await;
    });
}

#[test]
fn nothing_confirmed_is_lost_when_the_server_hangs() {
    with_server(async |server| {
        under_load(server, 2, async |server, broker| {
            server.pause().unwrap();
            // The connections are given up, and new ones do not come about.
            until("red health", async || broker.health_check().await.is_err()).await;
            server.resume().unwrap();
        })
        .await;
    });
}

#[test]
fn health_and_subscriptions_tell_that_the_server_is_down() {
    with_server(async |server| {
        let broker = connected(server).await;
        let topic = name("orders");
        let mut subscription = broker.subscribe(group(&topic)).await.unwrap();
        attached(&subscription).await;
        settled(server, &queue_of(&topic)).await;
        publish(&broker, &topic, "zero").await;
        assert_eq!(receive(&mut subscription).await, "zero");
        server.kill().unwrap();
        detached(&subscription).await;
        until("red health", async || broker.health_check().await.is_err()).await;
        let error = broker.health_check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        let context = Context::new().with_timeout(Duration::from_millis(300));
        let error = context
            .scope(broker.publish(to_topic(&topic, "one")))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unavailable, Retry::Safe)
        );
        server.restart().unwrap();
        attached(&subscription).await;
        until("green health", async || broker.health_check().await.is_ok()).await;
        publish(&broker, &topic, "two").await;
        // The acknowledgement of the one before may have died with the server.
        while receive(&mut subscription).await != "two" {}
        disconnect(&broker).await;
    });
}

#[test]
fn what_is_in_flight_when_the_connection_is_lost_may_have_been_processed() {
    with_server(async |server| {
        let broker = Arc::new(connected(server).await);
        let topic = name("orders");
        publish(&broker, &topic, "first").await;
        let payload = "second".repeat(20);
        server.pause().unwrap();
        let waiting = {
            let (broker, publish) = (Arc::clone(&broker), to_topic(&topic, &payload));
            let context = Context::new().with_timeout(Duration::from_secs(200));
            task::spawn(
                "publish",
                context.scope(async move { broker.publish(publish).await }),
            )
        };
        // The server sends nothing any more, so the confirm cannot come before the end. A heartbeat has eight bytes.
        until("the message at the server", async || unread(server) > 64).await;
        server.kill().unwrap();
        let error = within("the end of the publish", waiting)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        assert_eq!(error.retry(), Retry::IfIdempotent, "{}", error.report());
        disconnect(&broker).await;
    });
}

#[test]
fn a_server_that_comes_late_is_waited_for() {
    with_server(async |server| {
        server.stop().unwrap();
        let broker = Arc::new(RabbitMqBroker::new(config(&server.url())).unwrap());
        let error = within("an attempt", broker.connect()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        let (topic, queue) = (name("orders"), name("work"));
        let mut subscription = broker.subscribe(group(&topic)).await.unwrap();
        let mut worker = broker
            .subscribe(Subscribe::queue(queue.clone()))
            .await
            .unwrap();
        detached(&subscription).await;
        let early = {
            let (broker, publish) = (Arc::clone(&broker), to_topic(&topic, "early"));
            let context = Context::new().with_timeout(Duration::from_secs(200));
            task::spawn(
                "publish",
                context.scope(async move { broker.publish(publish).await }),
            )
        };
        server.restart().unwrap();
        let receipt = within("the early publish", early).await.unwrap().unwrap();
        assert_eq!(receipt.id, "early");
        attached(&subscription).await;
        attached(&worker).await;
        publish(&broker, &topic, "late").await;
        // The early one may have come before the group did.
        while receive(&mut subscription).await != "late" {}
        let work = Message::new("work").with_id("work");
        let work = trunkline_messaging::Publish::new(Destination::Queue(queue), work);
        broker.publish(work).await.unwrap();
        assert_eq!(receive(&mut worker).await, "work");
        disconnect(&broker).await;
    });
}

#[test]
fn a_consumer_whose_queue_is_deleted_comes_back_once() {
    with_server(async |server| {
        let broker = connected(server).await;
        let topic = name("orders");
        let mut subscription = broker.subscribe(group(&topic)).await.unwrap();
        for round in 0..3 {
            attached(&subscription).await;
            assert_eq!(
                broker
                    .queue_status(&queue_of(&topic))
                    .await
                    .unwrap()
                    .consumers,
                1
            );
            let gone = subscription.state();
            let mut gone = gone.clone();
            gone.mark_unchanged();
            broker.delete_queue(&queue_of(&topic)).await.unwrap();
            within("noticing", gone.changed()).await.unwrap();
            attached(&subscription).await;
            publish(&broker, &topic, &round.to_string()).await;
            assert_eq!(receive(&mut subscription).await, round.to_string());
        }
        assert_eq!(consumers(server, &queue_of(&topic)), 1);
        disconnect(&broker).await;
    });
}

#[test]
fn a_channel_that_the_server_closes_is_opened_again() {
    with_server(async |server| {
        let broker = connected(server).await;
        let topic = name("orders");
        let mut subscription = broker.subscribe(group(&topic)).await.unwrap();
        attached(&subscription).await;
        let (connections_before, _) = connections(server);
        for round in 0..5 {
            // An exchange that is not there closes the channel, whichever of them it is.
            let key = round.to_string();
            let lost = broker
                .publish_to("no-such-exchange", &key, Message::new("x"))
                .await;
            assert!(lost.is_err());
            let missing = broker.queue_status("no-such-queue").await.unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound, "{}", missing.report());
            publish(&broker, &topic, &key).await;
            assert_eq!(receive(&mut subscription).await, key);
        }
        broker.health_check().await.unwrap();
        assert_eq!(
            connections(server).0,
            connections_before,
            "the connection is the same"
        );
        disconnect(&broker).await;
    });
}

#[test]
fn what_was_declared_is_there_again_after_a_restart() {
    with_server(async |server| {
        let broker = connected(server).await;
        let (exchange, queue) = (name("exchange").to_string(), name("queue").to_string());
        // They do not survive by themselves.
        let mut transient = Exchange::new(&exchange).with_kind(ExchangeKind::Headers);
        transient.durable = false;
        let mut place = Queue::new(&queue).with_type(QueueType::Classic);
        place.durable = false;
        broker.declare_exchange(transient).await.unwrap();
        broker.declare_queue(place).await.unwrap();
        let binding = Binding::new(&queue, &exchange, "")
            .with_argument("x-match", "all")
            .with_argument("kind", "order");
        broker.bind(binding).await.unwrap();
        let order = || Message::new("order").with_header("kind", "order");
        let receipt = broker.publish_to(&exchange, "", order()).await.unwrap();
        assert_eq!(receipt.routed, Routed::Yes);
        server.kill().unwrap();
        server.restart().unwrap();
        until("the topology", async || {
            let again = broker.publish_to(&exchange, "", order()).await;
            again.is_ok_and(|receipt| receipt.routed == Routed::Yes)
        })
        .await;
        let other = Message::new("other").with_header("kind", "other");
        let receipt = broker.publish_to(&exchange, "", other).await.unwrap();
        assert_eq!(receipt.routed, Routed::No);
        disconnect(&broker).await;
    });
}

#[test]
fn a_subscriber_without_a_group_misses_nothing_over_a_restart() {
    with_server(async |server| {
        let broker = connected(server).await;
        let topic = name("orders");
        let mut subscription = broker
            .subscribe(Subscribe::topics(topic.clone()))
            .await
            .unwrap();
        attached(&subscription).await;
        let other = connected(server).await;
        publish(&other, &topic, "one").await;
        assert_eq!(receive(&mut subscription).await, "one");
        server.kill().unwrap();
        server.restart().unwrap();
        publish(&other, &topic, "two").await;
        attached(&subscription).await;
        while receive(&mut subscription).await != "two" {}
        disconnect(&broker).await;
        disconnect(&other).await;
    });
}

#[test]
fn publishers_wait_while_the_server_holds_them_back() {
    with_server(async |server| {
        let broker = Arc::new(connected(server).await);
        let topic = name("orders");
        let mut subscription = broker.subscribe(group(&topic)).await.unwrap();
        attached(&subscription).await;
        publish(&broker, &topic, "before").await;
        let held = within("a delivery", subscription.next()).await.unwrap();
        rabbitmq::control(server.site(), &["set_vm_memory_high_watermark", "0"]).unwrap();
        until("health that tells", async || {
            // The server says so to whoever publishes.
            let context = Context::new().with_timeout(Duration::from_millis(200));
            drop(
                context
                    .scope(broker.publish(to_topic(&topic, "probe")))
                    .await,
            );
            let health = broker.health_check().await;
            health.is_err_and(|error| error.kind() == ErrorKind::Exhausted)
        })
        .await;
        let context = Context::new().with_timeout(Duration::from_millis(300));
        let error = context
            .scope(broker.publish(to_topic(&topic, "late")))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Exhausted, Retry::Safe)
        );
        // Acknowledgements go another way.
        within("an acknowledgement", held.ack()).await.unwrap();
        let waiting = {
            let (broker, publish) = (Arc::clone(&broker), to_topic(&topic, "patient"));
            let context = Context::new().with_timeout(Duration::from_secs(200));
            task::spawn(
                "publish",
                context.scope(async move { broker.publish(publish).await }),
            )
        };
        rabbitmq::control(server.site(), &["set_vm_memory_high_watermark", "0.4"]).unwrap();
        within("the patient publish", waiting)
            .await
            .unwrap()
            .unwrap();
        loop {
            let id = receive(&mut subscription).await;
            assert_ne!(id, "late", "what was refused as unsent must not come");
            if id == "patient" {
                break;
            }
        }
        until("green health", async || broker.health_check().await.is_ok()).await;
        disconnect(&broker).await;
    });
}

#[test]
fn a_server_that_hangs_does_not_hold_up_the_end() {
    with_server(async |server| {
        // Without heartbeats nobody notices before the end.
        let patient = config(&server.url()).with_heartbeat(Duration::from_secs(300));
        let broker = RabbitMqBroker::new(patient).unwrap();
        until("connecting", async || broker.connect().await.is_ok()).await;
        broker.health_check().await.unwrap();
        server.pause().unwrap();
        // Nothing was to be flushed, so there is nothing to complain of.
        disconnect(&broker).await;
        server.resume().unwrap();
    });
}
