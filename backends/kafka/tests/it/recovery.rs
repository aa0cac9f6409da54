//! What the broker and its server go through, and what is left afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use trunkline_core::{Context, ErrorKind, Retry};
use trunkline_messaging::{MessageBroker, Subscribe, SubscriptionState};

use crate::place::{
    MOST_CONNECTIONS, Place, attached, close, detached, eventually, insist, settled, soon,
    take_all, tasks, to_topic, topic,
};

const GROUP: &str = "mail@order.created";

/// The number of a text `key/number` is not less than one that was handled before under its key, unless it is a repetition.
#[derive(Default)]
struct Seen {
    all: BTreeSet<String>,
    last: BTreeMap<String, u64>,
}

impl Seen {
    fn add(&mut self, text: &str) {
        let (key, number) = text.split_once('/').unwrap();
        let number: u64 = number.parse().unwrap();
        let is_new = self.all.insert(text.to_owned());
        let last = self.last.entry(key.to_owned()).or_default();
        assert!(
            !is_new || number >= *last,
            "{text} was first seen behind {last}"
        );
        *last = number.max(*last);
    }
}

fn keyed(key: usize, number: usize) -> (trunkline_messaging::Publish, String) {
    let text = format!("{key}/{number}");
    let mut publish = to_topic("order.created", &text);
    publish.message = publish.message.with_key(key.to_string());
    (publish, text)
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
    insist(&broker, keyed(0, 0).0).await;
    take_all(&mut subscription, &BTreeSet::from(["0/0".to_owned()])).await;
    let (state, stop) = (subscription.state(), AtomicBool::new(false));
    let rounds = AtomicUsize::new(0);
    let consume = async {
        let mut seen = Seen::default();
        loop {
            let delivery = subscription.next().await.expect("the stream goes on");
            let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
            settled(delivery.ack().await);
            if text == "end" {
                return seen.all;
            }
            seen.add(&text);
        }
    };
    let publish = async {
        let mut confirmed = BTreeSet::new();
        let mut number = 1;
        while !stop.load(Ordering::Relaxed) {
            // One of each key at a time: a later one is published when the one before is confirmed.
            let round = (0..20).map(|key| {
                let broker = &broker;
                async move {
                    let (publish, text) = keyed(key, number);
                    insist(broker, publish).await;
                    text
                }
            });
            confirmed.extend(futures_util::future::join_all(round).await);
            number += 1;
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        insist(&broker, to_topic("order.created", "end")).await;
        confirmed
    };
    let disturb = async {
        let before = tasks();
        for round in 0..2 {
            let enough = rounds.load(Ordering::Relaxed) + 5;
            eventually("load", async || {
                (rounds.load(Ordering::Relaxed) >= enough).then_some(())
            })
            .await;
            place.server.kill().unwrap();
            let mut red = state.clone();
            let red = red.wait_for(|state| *state != SubscriptionState::Attached);
            drop(soon("detaching", red).await.unwrap());
            let error = broker.health_check().await.unwrap_err();
            let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
            assert!(kinds.contains(&error.kind()), "round {round}: {error}");
            place.server.restart().unwrap();
            let mut green = state.clone();
            let green = green.wait_for(|state| *state == SubscriptionState::Attached);
            drop(soon("attaching", green).await.unwrap());
            eventually("health", async || broker.health_check().await.ok()).await;
        }
        stop.store(true, Ordering::Relaxed);
        before
    };
    let (seen, confirmed, before) =
        Box::pin(async { tokio::join!(consume, publish, disturb) }).await;
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
    eventually("exactly one member", async || {
        (place.members(GROUP) == Some(1)).then_some(())
    })
    .await;
    eventually(
        "no more tasks than before, nor connections than clients have",
        async || (tasks() <= before && place.connections() <= MOST_CONNECTIONS).then_some(()),
    )
    .await;
    close(&broker).await;
    eventually("no connection left", async || {
        (place.connections() == 0).then_some(())
    })
    .await;
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
    insist(&broker, to_topic("order.created", "before")).await;
    take_all(&mut subscription, &BTreeSet::from(["before".to_owned()])).await;
    place.server.pause().unwrap();
    let context = Context::new().with_timeout(Duration::from_millis(300));
    let hung = context
        .scope(broker.publish(to_topic("order.created", "unknown")))
        .await;
    let error = hung.unwrap_err();
    assert_eq!(error.retry(), Retry::IfIdempotent, "{error}");
    detached(&subscription).await;
    // The group may go without this member a moment before.
    eventually("health turns red", async || {
        broker.health_check().await.err()
    })
    .await;
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
    let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
    assert!(kinds.contains(&error.kind()), "{error}");
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    detached(&subscription).await;
    // Longer than the usual limit of a publish, and one call.
    let context = Context::new().with_timeout(Duration::from_secs(110));
    let publish = context.scope(broker.publish(to_topic("order.created", "early")));
    let start = async {
        // The publish has begun before, and finds nobody.
        broker.health_check().await.unwrap_err();
        place.server.restart().unwrap();
    };
    let (outcome, ()) = tokio::join!(biased; publish, start);
    outcome.unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("order.created", "late")).await;
    take_all(&mut subscription, &BTreeSet::from(["late".to_owned()])).await;
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_nothing_is_lost_or_out_of_order() {
    let Some(place) = Place::new() else {
        return;
    };
    let open = async || {
        let broker = trunkline_kafka::KafkaBroker::new(place.config().with_partitions(4)).unwrap();
        broker.connect().await.unwrap();
        broker
    };
    let publisher = open().await;
    let wanted = Subscribe::topics(topic("order.created"))
        .with_group("mail")
        .with_prefetch(20);
    let first = open().await;
    let mut stays = first.subscribe(wanted.clone()).await.unwrap();
    attached(&stays).await;
    let (stop, seen) = (
        AtomicBool::new(false),
        std::sync::Mutex::new(Seen::default()),
    );
    let handle = |delivery: trunkline_messaging::Delivery| {
        let seen = &seen;
        async move {
            let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
            seen.lock().unwrap().add(&text);
            settled(delivery.ack().await);
        }
    };
    let published = AtomicBool::new(false);
    let consume = async {
        while !stop.load(Ordering::Relaxed) {
            let next = tokio::time::timeout(Duration::from_millis(50), stays.next()).await;
            if let Ok(Some(delivery)) = next {
                handle(delivery).await;
            }
        }
    };
    let come_and_go = async {
        for _ in 0..2 {
            let broker = open().await;
            let mut comes = broker.subscribe(wanted.clone()).await.unwrap();
            attached(&comes).await;
            let mut taken = 0;
            // It gets its part.
            while taken < 20 {
                let delivery = soon("a delivery to the new member", comes.next())
                    .await
                    .unwrap();
                handle(delivery).await;
                taken += 1;
            }
            // One is in its hands when it goes: somebody else gets it.
            let held = soon("another delivery", comes.next()).await.unwrap();
            close(&broker).await;
            drop(held);
        }
        published.store(true, Ordering::Relaxed);
    };
    let publish = async {
        let mut confirmed = BTreeSet::new();
        let mut number = 1;
        while !published.load(Ordering::Relaxed) {
            let round = (0..20).map(|key| {
                let publisher = &publisher;
                async move {
                    let (publish, text) = keyed(key, number);
                    insist(publisher, publish).await;
                    text
                }
            });
            confirmed.extend(futures_util::future::join_all(round).await);
            number += 1;
        }
        confirmed
    };
    let all = async {
        let (confirmed, ()) = tokio::join!(publish, come_and_go);
        eventually("everything is handled", async || {
            confirmed.is_subset(&seen.lock().unwrap().all).then_some(())
        })
        .await;
        stop.store(true, Ordering::Relaxed);
    };
    Box::pin(async { tokio::join!(all, consume) }).await;
    eventually("exactly one member", async || {
        (place.members(GROUP) == Some(1)).then_some(())
    })
    .await;
    close(&first).await;
    close(&publisher).await;
}
