//! What JetStream and its server go through, and what is left afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use trunkline_core::{Context, ErrorKind, Retry};
use trunkline_messaging::{
    Destination, Message, MessageBroker, Publish, Subscribe, SubscriptionState,
};

use crate::place::{
    Place, STREAM, attached, close, detached, eventually, insist, soon, take_all, tasks, to_topic,
    topic,
};

/// One consumer on the server, one pull of it, one connection of ours.
async fn one_of_each(place: &Place, subscriptions: usize) {
    eventually("one consumer with one pull", async || {
        let consumers = place.consumers().await;
        let waiting = consumers.first().map(|one| one["num_waiting"].as_u64());
        (consumers.len() == 1 && waiting == Some(Some(1))).then_some(())
    })
    .await;
    eventually("as many connections and subjects as before", async || {
        let connections = place.connections()?.len();
        (connections == 1 && place.subscriptions() == subscriptions).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_again_and_again_under_load_loses_nothing_confirmed() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("order.created"))
        .with_group("mail")
        .with_prefetch(50);
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("order.created", "first")).await;
    take_all(&mut subscription, &BTreeSet::from(["first".to_owned()])).await;
    let state = subscription.state();
    // Somebody waits, so that there is a pull.
    let (stop, first) = (Arc::new(AtomicBool::new(false)), tokio::sync::Notify::new());
    let consume = async {
        let mut seen = BTreeSet::new();
        first.notify_one();
        loop {
            let delivery = subscription.next().await.expect("the stream goes on");
            let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
            if text == "end" {
                drop(delivery.ack().await);
                return seen;
            }
            drop(delivery.ack().await);
            seen.insert(text);
        }
    };
    let publish = async {
        let mut confirmed = BTreeSet::new();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let batch = (number..number + 20).map(|number| {
                let text = number.to_string();
                let broker = &broker;
                async move {
                    insist(broker, to_topic("order.created", &text)).await;
                    text
                }
            });
            confirmed.extend(futures_util::future::join_all(batch).await);
            number += 20;
        }
        insist(&broker, to_topic("order.created", "end")).await;
        confirmed
    };
    let disturb = async {
        first.notified().await;
        eventually("a pull", async || {
            let consumers = place.consumers().await;
            (consumers.first()?["num_waiting"] == 1 || consumers.first()?["num_pending"] != 0)
                .then_some(())
        })
        .await;
        let (before, subjects) = (tasks(), place.subscriptions());
        for round in 0..5 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            place.server.kill().unwrap();
            let mut red = state.clone();
            soon(
                "detaching",
                red.wait_for(|state| *state != SubscriptionState::Attached),
            )
            .await
            .unwrap();
            let error = broker.health_check().await.unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Unavailable,
                "round {round}: {error}"
            );
            place.server.restart().unwrap();
            let mut green = state.clone();
            soon(
                "attaching",
                green.wait_for(|state| *state == SubscriptionState::Attached),
            )
            .await
            .unwrap();
            eventually("health", async || broker.health_check().await.ok()).await;
        }
        stop.store(true, Ordering::Relaxed);
        (before, subjects)
    };
    let (seen, confirmed, (before, subjects)) = soon(
        "the end",
        Box::pin(async { tokio::join!(consume, publish, disturb) }),
    )
    .await;
    let lost: Vec<&String> = confirmed.difference(&seen).collect();
    assert!(
        lost.is_empty(),
        "{} of {} were lost: {lost:?}",
        lost.len(),
        confirmed.len()
    );
    assert!(
        confirmed.len() > 100,
        "only {} were published",
        confirmed.len()
    );
    let next = async { drop(subscription.next().await) };
    tokio::select! {
        () = next => panic!("nothing more comes"),
        () = one_of_each(&place, subjects) => {}
    }
    eventually("no more tasks than before", async || {
        (tasks() <= before).then_some(())
    })
    .await;
    close(&broker).await;
}

#[tokio::test]
async fn connections_cut_by_the_server_come_back_once() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("order.created", "first")).await;
    take_all(&mut subscription, &BTreeSet::from(["first".to_owned()])).await;
    let (waiting, mut subjects, mut before) = (Duration::from_secs(3600), 0, 0);
    for round in 0..5 {
        let settled = async {
            one_of_each(
                &place,
                if round == 0 {
                    subjects_of(&place).await
                } else {
                    subjects
                },
            )
            .await;
            if round == 0 {
                (subjects, before) = (place.subscriptions(), tasks());
            }
            place.kick().await;
            let text = format!("after {round}");
            insist(&broker, to_topic("order.created", &text)).await;
            text
        };
        let wait = async {
            tokio::time::timeout(waiting, subscription.next())
                .await
                .unwrap()
                .unwrap()
        };
        let (text, delivery) = soon(
            "a delivery",
            Box::pin(async { tokio::join!(settled, wait) }),
        )
        .await;
        assert_eq!(delivery.message().payload, text);
        eventually("an acknowledgement", async || {
            broker.health_check().await.ok()
        })
        .await;
        delivery.ack().await.unwrap();
    }
    let next = async { drop(subscription.next().await) };
    tokio::select! {
        () = next => panic!("nothing more comes"),
        () = one_of_each(&place, subjects) => {}
    }
    eventually("no more tasks than before", async || {
        (tasks() <= before).then_some(())
    })
    .await;
    close(&broker).await;
    eventually("no connection left", async || {
        place.connections()?.is_empty().then_some(())
    })
    .await;
}

/// Once the subscription has its pull.
async fn subjects_of(place: &Place) -> usize {
    eventually("a pull", async || {
        let consumers = place.consumers().await;
        (consumers.first()?["num_waiting"] == 1).then_some(())
    })
    .await;
    place.subscriptions()
}

#[tokio::test]
async fn a_server_that_hangs_turns_readiness_red_and_green_again() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    place.server.pause().unwrap();
    let context = Context::new().with_timeout(Duration::from_millis(300));
    let hung = context
        .scope(broker.publish(to_topic("order.created", "unknown")))
        .await;
    let error = hung.unwrap_err();
    assert_eq!(error.retry(), Retry::IfIdempotent, "{error}");
    {
        let mut state = subscription.state();
        let next = async { drop(subscription.next().await) };
        let red = state.wait_for(|state| *state != SubscriptionState::Attached);
        tokio::select! {
            () = next => panic!("a server that hangs sends nothing"),
            red = soon("detaching", red) => drop(red.unwrap()),
        }
    }
    place.server.resume().unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("order.created", "after")).await;
    take_all(&mut subscription, &BTreeSet::from(["after".to_owned()])).await;
    close(&broker).await;
}

#[tokio::test]
async fn a_first_publish_and_a_first_subscription_wait_for_a_server_that_comes_late() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.server.kill().unwrap();
    let broker = place.broker();
    let error = broker.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let mut subscription = broker
        .subscribe(Subscribe::topics(topic("order.created")).with_group("mail"))
        .await
        .unwrap();
    detached(&subscription).await;
    let start = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        place.server.restart().unwrap();
    };
    let context = Context::new().with_timeout(Duration::from_secs(60));
    let publish = context.scope(broker.publish(to_topic("order.created", "early")));
    let (outcome, ()) = tokio::join!(publish, start);
    outcome.unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("order.created", "late")).await;
    take_all(&mut subscription, &BTreeSet::from(["late".to_owned()])).await;
    close(&broker).await;
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_made_again_behind_what_was_acknowledged() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    for text in ["one", "two"] {
        insist(&broker, to_topic("order.created", text)).await;
    }
    let one = soon("one", subscription.next()).await.unwrap();
    one.ack().await.unwrap();
    let name = place.consumers().await[0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    // While somebody waits, and while nobody does.
    for round in ["three", "four"] {
        place
            .ask(&format!("CONSUMER.DELETE.{STREAM}.{name}"), "")
            .await;
        insist(&broker, to_topic("order.created", round)).await;
        take_all(&mut subscription, &BTreeSet::from([round.to_owned()])).await;
    }
    assert_eq!(place.consumers().await.len(), 1);
    close(&broker).await;
}

#[tokio::test]
async fn streams_that_are_deleted_are_made_again() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let topics = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut topics = broker.subscribe(topics).await.unwrap();
    let mut queue = broker
        .subscribe(Subscribe::queue(topic("work")))
        .await
        .unwrap();
    attached(&topics).await;
    attached(&queue).await;
    place.ask(&format!("STREAM.DELETE.{STREAM}"), "").await;
    place
        .ask(&format!("STREAM.DELETE.{STREAM}-Q-work"), "")
        .await;
    insist(&broker, to_topic("order.created", "after")).await;
    take_all(&mut topics, &BTreeSet::from(["after".to_owned()])).await;
    let publish = Publish::new(Destination::Queue(topic("work")), Message::new("after"));
    // Somebody waits: the queue comes back with its consumer.
    let taken = BTreeSet::from(["after".to_owned()]);
    let send = eventually("the queue", async || {
        broker.publish(publish.clone()).await.ok()
    });
    tokio::join!(send, take_all(&mut queue, &taken));
    close(&broker).await;
}

#[tokio::test]
async fn a_publish_that_is_repeated_in_doubt_is_stored_once() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let on_purpose = to_topic("order.created", "twice");
    let first = insist(&broker, on_purpose.clone()).await;
    assert_ne!(insist(&broker, on_purpose).await.position, first.position);
    // The server has it in its socket, and answers nobody any more.
    let in_doubt = to_topic("order.created", "once");
    place.server.pause().unwrap();
    for _ in 0..2 {
        let context = Context::new().with_timeout(Duration::from_millis(300));
        let error = context
            .scope(broker.publish(in_doubt.clone()))
            .await
            .unwrap_err();
        assert_eq!(error.retry(), Retry::IfIdempotent, "{error}");
    }
    place.server.resume().unwrap();
    insist(&broker, in_doubt).await;
    let info = place.ask(&format!("STREAM.INFO.{STREAM}"), "").await;
    assert_eq!(info["state"]["messages"], 3, "{info}");
    close(&broker).await;
}

#[tokio::test]
async fn core_nats_listens_again_after_its_server_was_killed() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let broker = place.core();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("order.created", "first").mandatory()).await;
    take_all(&mut subscription, &BTreeSet::from(["first".to_owned()])).await;
    let (subjects, before) = (place.subscriptions(), tasks());
    for round in 0..5 {
        place.server.kill().unwrap();
        detached(&subscription).await;
        place.server.restart().unwrap();
        attached(&subscription).await;
        let text = round.to_string();
        insist(&broker, to_topic("order.created", &text).mandatory()).await;
        let again = take_all(&mut subscription, &BTreeSet::from([text])).await;
        assert!(again.is_empty(), "twice: {again:?}");
        eventually("as many connections and subjects as before", async || {
            let connections = place.connections()?.len();
            (connections == 1 && place.subscriptions() == subjects).then_some(())
        })
        .await;
    }
    eventually("no more tasks than before", async || {
        (tasks() <= before).then_some(())
    })
    .await;
    close(&broker).await;
}

#[tokio::test]
async fn a_lone_subscriber_that_is_gone_may_still_acknowledge() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let mut subscription = broker
        .subscribe(Subscribe::topics(topic("order.created")))
        .await
        .unwrap();
    assert_eq!(*subscription.state().borrow(), SubscriptionState::Attached);
    insist(&broker, to_topic("order.created", "one")).await;
    let delivery = soon("a delivery", subscription.next()).await.unwrap();
    drop(subscription);
    eventually("its place is gone", async || {
        place.consumers().await.is_empty().then_some(())
    })
    .await;
    delivery.ack().await.unwrap();
    close(&broker).await;
}

#[tokio::test]
async fn a_lone_subscriber_may_go_while_it_acknowledges() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    // Whether the server sees the acknowledgement or the end of the consumer first is up to chance.
    for _ in 0..30 {
        let mut subscription = broker
            .subscribe(Subscribe::topics(topic("order.created")))
            .await
            .unwrap();
        insist(&broker, to_topic("order.created", "one")).await;
        let delivery = soon("a delivery", subscription.next()).await.unwrap();
        drop(subscription);
        soon("an answer", delivery.ack()).await.unwrap();
    }
    close(&broker).await;
}

/// A wait that was given up must not go on fetching; and what nobody had in hand is no attempt, or a message that nobody has
/// tried would be a dead letter in the end.
#[tokio::test]
async fn a_message_that_nobody_takes_is_fetched_once() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut gone = broker.subscribe(wanted.clone()).await.unwrap();
    attached(&gone).await;
    let client = place.foreign().await;
    let advisories = "$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.>";
    let mut given_back = client.subscribe(advisories).await.unwrap();
    client.flush().await.unwrap();
    let next = async { drop(gone.next().await) };
    tokio::select! {
        () = next => panic!("nothing is there yet"),
        _ = subjects_of(&place) => {}
    }
    insist(&broker, to_topic("order.created", "one")).await;
    soon("giving it back", given_back.next()).await.unwrap();
    let mut other = broker.subscribe(wanted).await.unwrap();
    let one = soon("the message", other.next()).await.unwrap();
    assert_eq!(one.message().payload, "one");
    assert_eq!(one.attempt(), 1, "the first member fetched it, and no more");
    one.nack(None).await.unwrap();
    let one = soon("the message again", other.next()).await.unwrap();
    assert_eq!(one.attempt(), 2, "the second one had it");
    one.ack().await.unwrap();
    close(&broker).await;
}

/// A server that is killed has not always written down what it had handed out.
#[tokio::test]
async fn an_acknowledgement_reaches_a_server_that_has_forgotten_the_delivery() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    let state = place.consumer_state().unwrap();
    insist(&broker, to_topic("order.created", "one")).await;
    let one = soon("one", subscription.next()).await.unwrap();
    place.server.kill().unwrap();
    place.forget_since(&state);
    place.server.restart().unwrap();
    let again = soon("it comes again", subscription.next());
    let (acknowledged, again) = tokio::join!(one.ack(), again);
    acknowledged.unwrap();
    // It is done already, which is no error.
    again.unwrap().ack().await.unwrap();
    let left = place.consumers().await;
    assert_eq!(left[0]["num_ack_pending"], 0);
    close(&broker).await;
}
