//! Messages that wait for their time, and what goes on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trunkline_core::Context;
use trunkline_kafka::KafkaBroker;
use trunkline_messaging::{
    Attempt, Delivery, Destination, HandlerError, LetterFilter, MessageBroker, Messaging, Publish,
    Subscribe, Topic,
};

use crate::place::{
    Place, attached, close, eventually, insist, settled, soon, take_all, to_topic, topic,
};

const ORDERS: Topic<String> = Topic::new("order.created");
const HOUR: Duration = Duration::from_secs(3600);

async fn connected(place: &Place) -> KafkaBroker {
    let broker = place.broker();
    broker.connect().await.unwrap();
    broker
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().payload.to_vec()).unwrap()
}

fn later(text: &str, delay: Duration) -> Publish {
    to_topic("order.created", text).with_delay(delay)
}

/// What was handled, and how often.
type Seen = Arc<Mutex<BTreeMap<String, Vec<u32>>>>;

/// One partition, one worker, and more messages that wait for another attempt than a consumer may hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_another_attempt_holds_up_nobody_behind_it() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await.erase();
    let messaging = Messaging::new(broker.clone());
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    let handler = move |order: String, Attempt(attempt): Attempt| {
        let mut seen = record.lock().unwrap();
        seen.entry(order.clone()).or_default().push(attempt);
        async move {
            match order.starts_with("bad") {
                true => Err(HandlerError::retry("not yet")),
                false => Ok(()),
            }
        }
    };
    let subscribing = messaging.subscribe(ORDERS).group("mail");
    let subscribing = subscribing.concurrency(1).prefetch(2).retry_delay(HOUR);
    let handler = subscribing.handle(handler).await.unwrap();
    soon("attaching", handler.attached()).await.unwrap();
    for number in 0..8 {
        let bad = messaging.to(ORDERS);
        // Those with a key keep its order, and wait where they are; the others go to the group's own queue.
        let bad = match number % 2 {
            0 => bad.key(format!("bad-{number}")),
            _ => bad,
        };
        let sent = bad.send(&format!("bad-{number}"));
        soon("a confirm", sent).await.unwrap();
    }
    for key in ["bad-0", "other"] {
        let sent = messaging.to(ORDERS).key(key).send(&format!("behind-{key}"));
        soon("a confirm", sent).await.unwrap();
    }
    soon("a confirm", messaging.to(ORDERS).send(&"behind".to_owned()))
        .await
        .unwrap();
    eventually("all that does not wait is handled", async || {
        let seen = seen.lock().unwrap();
        (seen.contains_key("behind") && seen.contains_key("behind-other")).then_some(())
    })
    .await;
    let seen = seen.lock().unwrap().clone();
    assert!(seen.values().all(|attempts| *attempts == [1]), "{seen:?}");
    // Its key is not free: the one before it is not done.
    assert!(!seen.contains_key("behind-bad-0"), "{seen:?}");
    drop(handler);
    let soon = tokio::time::Instant::now() + Duration::from_secs(30);
    broker.disconnect(soon).await.unwrap();
}

/// With a key and without one, the attempts are as many as allowed, and those of a key keep their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_counted_while_messages_wait_elsewhere() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await.erase();
    let messaging = Messaging::new(broker.clone());
    let seen: Arc<Mutex<Vec<(String, u32)>>> = Arc::default();
    let record = Arc::clone(&seen);
    let handler = move |order: String, Attempt(attempt): Attempt| {
        record.lock().unwrap().push((order.clone(), attempt));
        async move {
            match order.starts_with("bad") {
                true => Err(HandlerError::retry("never")),
                false => Ok(()),
            }
        }
    };
    let subscribing = messaging.subscribe(ORDERS).group("mail").max_attempts(3);
    let subscribing = subscribing.retry_delay(Duration::from_millis(200));
    let handler = subscribing.handle(handler).await.unwrap();
    soon("attaching", handler.attached()).await.unwrap();
    for (key, text) in [(Some("a"), "bad-a"), (Some("a"), "a"), (None, "bad")] {
        let outgoing = messaging.to(ORDERS);
        let outgoing = match key {
            Some(key) => outgoing.key(key),
            None => outgoing,
        };
        soon("a confirm", outgoing.send(&text.to_owned()))
            .await
            .unwrap();
    }
    let letters = messaging.dead_letters();
    eventually("two dead letters", async || {
        let page = letters.list("mail", &LetterFilter::default(), 0, 10).await;
        let attempts: Vec<u32> = page.ok()?.letters.iter().map(|one| one.attempts).collect();
        (attempts == [3, 3]).then_some(())
    })
    .await;
    eventually("the next of the key", async || {
        seen.lock()
            .unwrap()
            .contains(&("a".to_owned(), 1))
            .then_some(())
    })
    .await;
    let seen = seen.lock().unwrap().clone();
    let of = |text: &str| -> Vec<u32> {
        let mine = seen.iter().filter(|(order, _)| order == text);
        mine.map(|(_, attempt)| *attempt).collect()
    };
    assert_eq!(
        (of("bad-a"), of("bad"), of("a")),
        (vec![1, 2, 3], vec![1, 2, 3], vec![1])
    );
    let keyed: Vec<&str> = seen
        .iter()
        .map(|(order, _)| order.as_str())
        .filter(|order| *order != "bad")
        .collect();
    assert_eq!(keyed, ["bad-a", "bad-a", "bad-a", "a"]);
    drop(handler);
    let soon = tokio::time::Instant::now() + Duration::from_secs(30);
    broker.disconnect(soon).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_later_outlives_its_publisher_and_the_server() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let publisher = connected(&place).await;
    let mut sent = later("later", Duration::from_secs(3));
    sent.message = sent.message.with_key("k").with_header("colour", "red");
    sent.message = sent.message.with_content_type("text/plain");
    let expected = sent.message.clone();
    insist(&publisher, sent).await;
    close(&publisher).await;
    place.server.kill().unwrap();
    place.server.restart().unwrap();
    // It only listens: what waits is found by itself.
    let broker = connected(&place).await;
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    let delivery = soon("the message", subscription.next()).await.unwrap();
    let message = delivery.message();
    assert_eq!(
        (&message.id, &message.payload),
        (&expected.id, &expected.payload)
    );
    assert_eq!(
        (&message.key, &message.headers),
        (&expected.key, &expected.headers)
    );
    assert_eq!(message.content_type, expected.content_type);
    assert_eq!(
        delivery.info().destination,
        Destination::Topic(topic("order.created"))
    );
    settled(delivery.ack().await);
    close(&broker).await;
}

/// More than is held in memory, and for one partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_messages_wait_than_are_held_and_each_comes_once() {
    const MESSAGES: usize = 5000;
    let Some(place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await;
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted.with_prefetch(500)).await.unwrap();
    attached(&subscription).await;
    let delay = Duration::from_secs(4);
    let batch = (0..MESSAGES).map(|number| later(&number.to_string(), delay));
    let sent = soon("the confirms", broker.publish_batch(batch.collect())).await;
    assert!(sent.iter().all(Result::is_ok));
    // Far behind those, and of another length.
    insist(&broker, later("short", Duration::from_millis(500))).await;
    let mut seen = BTreeSet::new();
    while seen.len() < MESSAGES + 1 {
        let delivery = soon("a delivery", subscription.next()).await.unwrap();
        let text = text(&delivery);
        settled(delivery.ack().await);
        assert!(seen.insert(text.clone()), "{text} came twice");
    }
    close(&broker).await;
}

/// What waits is lost with the topic, and nothing else: what is published for later afterwards comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_delayed_messages_that_is_deleted_is_made_again_as_it_was() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await;
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    insist(&broker, later("before", Duration::from_millis(10))).await;
    take_all(&mut subscription, &BTreeSet::from(["before".to_owned()])).await;
    let waiting = Destination::Queue(topic("trunkline.delayed"));
    broker.delete_topic(waiting.clone()).await.unwrap();
    eventually("the topic is made again", async || {
        let publish = later("after", Duration::from_secs(2));
        let context = Context::new().with_timeout(Duration::from_secs(5));
        context.scope(broker.publish(publish)).await.ok()
    })
    .await;
    let found = broker.describe_topic(waiting).await.unwrap();
    assert_eq!(found.partitions, 11);
    take_all(&mut subscription, &BTreeSet::from(["after".to_owned()])).await;
    close(&broker).await;
}

#[tokio::test]
async fn what_cannot_be_delayed_is_refused() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await;
    let too_long = later("later", 24 * 30 * HOUR);
    let error = broker.publish(too_long).await.unwrap_err();
    assert_eq!(error.kind(), trunkline_core::ErrorKind::Invalid, "{error}");
    let own = || topic("trunkline.delayed");
    let error = broker.subscribe(Subscribe::queue(own())).await.unwrap_err();
    assert_eq!(error.kind(), trunkline_core::ErrorKind::Invalid, "{error}");
    let message = trunkline_messaging::Message::new("x");
    let publish = Publish::new(Destination::Queue(own()), message);
    let error = broker.publish(publish).await.unwrap_err();
    assert_eq!(error.kind(), trunkline_core::ErrorKind::Invalid, "{error}");
    insist(&broker, later("soon", Duration::from_millis(10))).await;
    assert!(broker.queues().await.unwrap().is_empty());
    close(&broker).await;
}

/// One is gone without a farewell, one comes and leaves in good order: whoever is left moves everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_moves_what_is_due_comes_and_goes_and_nothing_is_lost() {
    const MESSAGES: u64 = 400;
    let Some(place) = Place::new() else {
        return;
    };
    let (first, second) = (connected(&place).await, connected(&place).await);
    let wanted = || Subscribe::topics(topic("order.created"));
    let mut subscription = second.subscribe(wanted().with_group("mail")).await.unwrap();
    attached(&subscription).await;
    let batch = (0..MESSAGES).map(|number| {
        let delay = Duration::from_millis(20 * number);
        later(&number.to_string(), delay)
    });
    let sent = soon("the confirms", first.publish_batch(batch.collect())).await;
    assert!(sent.iter().all(Result::is_ok));
    let mut missing: BTreeSet<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let half = missing.len() / 2;
    let mut first = Some(first);
    let mut third = None;
    while !missing.is_empty() {
        let delivery = soon("a delivery", subscription.next()).await.unwrap();
        missing.remove(&text(&delivery));
        settled(delivery.ack().await);
        if missing.len() <= half * 3 / 2 && first.is_some() {
            first = None;
            let broker = connected(&place).await;
            let other = broker.subscribe(Subscribe::topics(topic("other"))).await;
            third = Some((broker, other.unwrap()));
        }
        if missing.len() <= half
            && let Some((broker, other)) = third.take()
        {
            drop(other);
            close(&broker).await;
        }
    }
    close(&second).await;
}
