//! Prefetch, order, and many at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use trunkline_messaging::{AnyBroker, MessageBroker, OrderingGuarantee, Subscribe};

use crate::Scope;
use crate::broker::fixture::{
    ack, collects, has, member, nack, next, publish, publish_keyed, silent, subscribe, take, text,
    topic,
};

/// No more deliveries come than may be unsettled.
pub async fn prefetch_is_honoured(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().redelivery, "redelivery") {
        return;
    }
    let name = topic(scope, "orders");
    let wanted = Subscribe::topics(name.clone()).with_prefetch(2);
    let mut subscription = subscribe(broker, scope, wanted).await;
    for payload in ["one", "two", "three"] {
        publish(broker, scope, &name, payload).await;
    }
    let first = next(scope, &mut subscription).await;
    let second = next(scope, &mut subscription).await;
    silent(scope, &mut subscription).await;
    ack(scope, first).await;
    let third = next(scope, &mut subscription).await;
    assert_eq!(text(&third), "three");
    drop(second);
    ack(scope, third).await;
    assert_eq!(take(scope, &mut subscription, 1).await, ["two"]);
}

/// Messages of one key come one after the other, whoever takes them.
pub async fn a_key_keeps_its_order(broker: &AnyBroker, scope: &Scope) {
    if !ordered(broker, scope) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let mut first = subscribe(broker, scope, member(&name, &group)).await;
    let mut second = subscribe(broker, scope, member(&name, &group)).await;
    for payload in ["one", "two", "three"] {
        publish_keyed(broker, scope, &name, "k", payload).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let delivery = scope
            .within("a delivery", async {
                tokio::select! {
                    delivery = first.next() => delivery,
                    delivery = second.next() => delivery,
                }
            })
            .await
            .expect("the streams go on");
        seen.push(text(&delivery));
        // While this one is held, nobody gets the next one of the key.
        let others = async {
            tokio::select! {
                delivery = first.next() => delivery,
                delivery = second.next() => delivery,
            }
        };
        scope.never("the next of the key", others).await;
        ack(scope, delivery).await;
    }
    assert_eq!(seen, ["one", "two", "three"]);
}

/// A message that comes again keeps its place before the others of its key.
pub async fn a_key_keeps_its_order_under_redelivery(broker: &AnyBroker, scope: &Scope) {
    let redelivers = has(scope, broker.capabilities().redelivery, "redelivery");
    if !(redelivers && ordered(broker, scope)) {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    for payload in ["one", "two"] {
        publish_keyed(broker, scope, &name, "k", payload).await;
    }
    let delivery = next(scope, &mut subscription).await;
    nack(scope, delivery).await;
    let delivery = next(scope, &mut subscription).await;
    assert_eq!(text(&delivery), "one");
    drop(delivery);
    let delivery = next(scope, &mut subscription).await;
    assert_eq!(text(&delivery), "one");
    if broker.capabilities().delayed_redelivery {
        let delay = std::time::Duration::from_millis(400);
        delivery.nack(Some(delay)).await.expect("the nack is taken");
    } else {
        nack(scope, delivery).await;
    }
    assert_eq!(take(scope, &mut subscription, 2).await, ["one", "two"]);
}

/// A key that is held does not hold up other keys, nor messages without one.
pub async fn keys_do_not_hold_each_other_up(broker: &AnyBroker, scope: &Scope) {
    if !ordered(broker, scope) {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    for payload in ["a1", "a2"] {
        publish_keyed(broker, scope, &name, "a", payload).await;
    }
    publish_keyed(broker, scope, &name, "b", "b1").await;
    publish(broker, scope, &name, "none").await;
    let held = next(scope, &mut subscription).await;
    assert_eq!(text(&held), "a1");
    let others: BTreeSet<String> = take(scope, &mut subscription, 2)
        .await
        .into_iter()
        .collect();
    assert_eq!(others, ["b1".to_owned(), "none".to_owned()].into());
    ack(scope, held).await;
    assert_eq!(take(scope, &mut subscription, 1).await, ["a2"]);
}

/// Each group has an order of its own: one that is slow with a key does not hold up another group.
pub async fn groups_do_not_share_keys(broker: &AnyBroker, scope: &Scope) {
    if !ordered(broker, scope) {
        return;
    }
    let name = topic(scope, "orders");
    let mut mail = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    let mut audit = subscribe(broker, scope, member(&name, &scope.name("audit"))).await;
    for payload in ["one", "two"] {
        publish_keyed(broker, scope, &name, "k", payload).await;
    }
    let held = next(scope, &mut mail).await;
    assert_eq!(take(scope, &mut audit, 2).await, ["one", "two"]);
    ack(scope, held).await;
    assert_eq!(take(scope, &mut mail, 1).await, ["two"]);
}

/// Many publishers and consumers at once: each message is handled exactly once, each key in order.
pub async fn many_at_once_lose_and_repeat_nothing(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().groups, "groups") {
        return;
    }
    const PUBLISHERS: usize = 32;
    const EACH: usize = 40;
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let wanted = member(&name, &group).with_prefetch(8);
    let mut consumers = Vec::new();
    for _ in 0..8 {
        consumers.push(subscribe(broker, scope, wanted.clone()).await);
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let name = &name;
        async move {
            for number in 0..EACH {
                let (key, payload) = (publisher.to_string(), format!("{publisher}/{number}"));
                publish_keyed(broker, scope, name, &key, &payload).await;
            }
        }
    });
    let (done, receive) = (
        std::sync::atomic::AtomicUsize::new(0),
        std::sync::Mutex::new(Vec::new()),
    );
    let consume = consumers.iter_mut().map(|consumer| {
        let (done, receive) = (&done, &receive);
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            while done.load(SeqCst) < PUBLISHERS * EACH {
                let wait = tokio::time::Duration::from_millis(50);
                let Ok(Some(delivery)) = tokio::time::timeout(wait, consumer.next()).await else {
                    continue;
                };
                receive
                    .lock()
                    .expect("nobody panicked")
                    .push((text(&delivery), delivery.attempt()));
                ack(scope, delivery).await;
                done.fetch_add(1, SeqCst);
            }
        }
    });
    futures_util::future::join(join_all(publishers), join_all(consume)).await;
    let received = receive.into_inner().expect("nobody panicked");
    check_each_once(&received, PUBLISHERS, EACH);
    if broker.capabilities().ordering == OrderingGuarantee::PerKey {
        check_order(&received);
    }
}

fn check_each_once(received: &[(String, u32)], publishers: usize, each: usize) {
    let distinct: BTreeSet<&str> = received.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(distinct.len(), publishers * each, "none is lost");
    assert_eq!(received.len(), distinct.len(), "none is repeated");
}

fn check_order(received: &[(String, u32)]) {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (text, _) in received {
        let (key, number) = text.split_once('/').expect("key and number");
        let number: usize = number.parse().expect("a number");
        let before = last.insert(key, number);
        assert!(
            before.is_none_or(|before| before < number),
            "{text} after {before:?}"
        );
    }
}

fn ordered(broker: &AnyBroker, scope: &Scope) -> bool {
    let capabilities = broker.capabilities();
    let ordered = capabilities.ordering == OrderingGuarantee::PerKey && capabilities.groups;
    has(scope, ordered, "order per key")
}

/// A slow consumer gets everything in the end.
pub async fn a_backlog_is_worked_off(broker: &AnyBroker, scope: &Scope) {
    if !collects(broker, scope) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    drop(subscribe(broker, scope, member(&name, &group)).await);
    let texts: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let batch = texts
        .iter()
        .map(|text| crate::broker::fixture::to_topic(&name, text))
        .collect();
    for outcome in scope.within("the batch", broker.publish_batch(batch)).await {
        outcome.expect("confirmed");
    }
    let mut back = subscribe(broker, scope, member(&name, &group)).await;
    assert_eq!(take(scope, &mut back, 500).await, texts);
    silent(scope, &mut back).await;
}
