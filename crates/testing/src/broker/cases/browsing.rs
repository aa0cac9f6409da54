//! Looking at stored messages and removing them.

use trunkline_core::ErrorKind;
use trunkline_messaging::{
    AnyBroker, Browse, BrowsePage, Destination, MessageBroker, Subscribe, TopicName,
};

use crate::Scope;
use crate::broker::fixture::{
    ack, declare, has, nack, next, publish, refused, send, silent, subscribe, take, text, to_queue,
    topic,
};

/// A queue that can be looked into with these messages, by a broker with `browse` or `peek`.
async fn filled(broker: &AnyBroker, scope: &Scope, payloads: &[&str]) -> Option<TopicName> {
    let capabilities = broker.capabilities();
    let able = (capabilities.browse || capabilities.peek) && capabilities.queues;
    if !has(scope, able, "browse or peek") {
        return None;
    }
    let name = topic(scope, "work");
    declare(broker, scope, &name).await;
    for payload in payloads {
        send(broker, scope, to_queue(&name, payload)).await;
    }
    Some(name)
}

/// The same, by a broker with `browse` alone.
async fn filled_to_browse(
    broker: &AnyBroker,
    scope: &Scope,
    payloads: &[&str],
) -> Option<TopicName> {
    if !has(scope, broker.capabilities().browse, "browse") {
        return None;
    }
    filled(broker, scope, payloads).await
}

async fn browse(broker: &AnyBroker, scope: &Scope, browse: Browse) -> BrowsePage {
    scope
        .within("browsing", broker.browse(browse))
        .await
        .expect("it can be browsed")
}

fn texts(page: &BrowsePage) -> Vec<String> {
    page.messages
        .iter()
        .map(|stored| String::from_utf8_lossy(&stored.message.payload).into_owned())
        .collect()
}

fn positions(page: &BrowsePage) -> Vec<u64> {
    page.messages
        .iter()
        .map(|stored| stored.info.position.expect("a stored message has a place"))
        .collect()
}

/// Without the capability, looking is refused.
pub async fn without_browse_looking_is_refused(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if capabilities.browse {
        return;
    }
    refused(broker.queues().await, ErrorKind::Unsupported);
    let name = topic(scope, "work");
    let kept = Browse::new(Destination::Topic(name.clone()));
    refused(broker.browse(kept).await, ErrorKind::Unsupported);
    if capabilities.peek {
        return;
    }
    let queue = Browse::new(Destination::Queue(name.clone()));
    refused(broker.browse(queue).await, ErrorKind::Unsupported);
    refused(broker.remove(name, vec![1]).await, ErrorKind::Unsupported);
}

/// Looking at a queue consumes nothing.
pub async fn browsing_consumes_nothing(broker: &AnyBroker, scope: &Scope) {
    let Some(name) = filled(broker, scope, &["one", "two", "three"]).await else {
        return;
    };
    let queue = Destination::Queue(name.clone());
    for _ in 0..2 {
        let page = browse(broker, scope, Browse::new(queue.clone())).await;
        assert_eq!(texts(&page), ["one", "two", "three"]);
        assert_eq!(page.total.unwrap_or(3), 3);
        assert_eq!(page.next, None);
    }
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name)).await;
    for expected in ["one", "two", "three"] {
        let delivery = next(scope, &mut consumer).await;
        assert_eq!(text(&delivery), expected);
        if broker.capabilities().browse {
            assert_eq!(delivery.attempt(), 1);
        }
        ack(scope, delivery).await;
    }
    silent(scope, &mut consumer).await;
}

/// A message that another takes out of the queue meanwhile is missing from the next look, and positions stay what they were.
pub async fn positions_stay_what_they_were(broker: &AnyBroker, scope: &Scope) {
    // Two that carry the same are two.
    let Some(name) = filled(broker, scope, &["one", "two", "two", "three"]).await else {
        return;
    };
    let queue = Destination::Queue(name.clone());
    let before = browse(broker, scope, Browse::new(queue.clone())).await;
    assert_eq!(texts(&before), ["one", "two", "two", "three"]);
    let mut ascending = positions(&before);
    ascending.dedup();
    assert!(
        ascending.is_sorted() && ascending.len() == 4,
        "{ascending:?}"
    );
    let removed = broker.remove(name.clone(), vec![positions(&before)[1]]);
    assert_eq!(removed.await.expect("it can be removed"), 1);
    send(broker, scope, to_queue(&name, "four")).await;
    let after = browse(broker, scope, Browse::new(queue.clone())).await;
    assert_eq!(texts(&after), ["one", "two", "three", "four"]);
    let (before, after) = (positions(&before), positions(&after));
    assert_eq!(after[..3], [before[0], before[2], before[3]]);
    assert!(after[3] > before[3]);
    let again = broker.remove(name.clone(), vec![before[1]]);
    assert_eq!(again.await.expect("nothing is there any more"), 0);
    let behind = browse(broker, scope, Browse::new(queue).after(before[2])).await;
    assert_eq!(texts(&behind), ["three", "four"]);
}

/// A queue is looked at page by page.
pub async fn browsing_goes_page_by_page(broker: &AnyBroker, scope: &Scope) {
    let Some(name) = filled(broker, scope, &["a", "b", "c", "d", "e"]).await else {
        return;
    };
    let queue = Destination::Queue(name);
    let mut seen = Vec::new();
    let mut after = 0;
    let mut pages = 0;
    loop {
        let page = browse(
            broker,
            scope,
            Browse::new(queue.clone()).after(after).with_limit(2),
        )
        .await;
        assert!(page.messages.len() <= 2);
        seen.extend(texts(&page));
        pages += 1;
        match page.next {
            Some(position) => after = position,
            None => break,
        }
        assert!(pages < 10, "the pages never end");
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

/// A message in the hands of a consumer, or one to come again later, is still in its queue; one that is done is not.
pub async fn a_queue_shows_what_is_not_done(broker: &AnyBroker, scope: &Scope) {
    let Some(name) = filled_to_browse(broker, scope, &["held", "done", "again"]).await else {
        return;
    };
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name.clone())).await;
    let held = next(scope, &mut consumer).await;
    let done = next(scope, &mut consumer).await;
    ack(scope, done).await;
    let again = next(scope, &mut consumer).await;
    if broker.capabilities().delayed_redelivery {
        let later = std::time::Duration::from_secs(600);
        again.nack(Some(later)).await.expect("the nack is taken");
    } else if broker.capabilities().redelivery {
        nack(scope, again).await;
    } else {
        // It stays in hand.
        let page = browse(broker, scope, Browse::new(Destination::Queue(name))).await;
        assert_eq!(texts(&page), ["held", "again"]);
        ack(scope, again).await;
        return ack(scope, held).await;
    }
    let page = browse(broker, scope, Browse::new(Destination::Queue(name))).await;
    assert_eq!(texts(&page), ["held", "again"]);
    ack(scope, held).await;
}

/// Removed messages are gone; the others stay.
pub async fn removed_messages_are_gone(broker: &AnyBroker, scope: &Scope) {
    let Some(name) = filled(broker, scope, &["one", "two", "three"]).await else {
        return;
    };
    let queue = Destination::Queue(name.clone());
    let page = browse(broker, scope, Browse::new(queue.clone())).await;
    let all = positions(&page);
    let unknown = all.iter().max().expect("three positions") + 1000;
    let removed = broker
        .remove(name.clone(), vec![all[0], all[2], unknown])
        .await
        .expect("messages can be removed");
    assert_eq!(removed, 2, "only those that were there count");
    let page = browse(broker, scope, Browse::new(queue)).await;
    assert_eq!(texts(&page), ["two"]);
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name)).await;
    assert_eq!(take(scope, &mut consumer, 1).await, ["two"]);
    silent(scope, &mut consumer).await;
}

/// A message may be removed from the hands of its consumer, which is told when it settles.
pub async fn a_held_message_can_be_removed(broker: &AnyBroker, scope: &Scope) {
    let Some(name) = filled_to_browse(broker, scope, &["one", "two"]).await else {
        return;
    };
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name.clone())).await;
    let held = next(scope, &mut consumer).await;
    let position = held.info().position.expect("a stored message has a place");
    let removed = broker.remove(name, vec![position]).await;
    assert_eq!(removed.expect("it can be removed"), 1);
    refused(held.ack().await, ErrorKind::Conflict);
    assert_eq!(take(scope, &mut consumer, 1).await, ["two"]);
    silent(scope, &mut consumer).await;
}

/// What a topic keeps can be looked at, whether or not groups are done with it.
pub async fn a_topic_shows_what_is_kept(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.browse && capabilities.replay,
        "browse with replay",
    ) {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    for payload in ["one", "two"] {
        publish(broker, scope, &name, payload).await;
    }
    take(scope, &mut subscription, 2).await;
    let page = browse(broker, scope, Browse::new(Destination::Topic(name.clone()))).await;
    assert_eq!(texts(&page), ["one", "two"]);
    for stored in &page.messages {
        assert_eq!(stored.info.destination, Destination::Topic(name.clone()));
    }
}

/// Every queue is listed with its messages.
pub async fn queues_are_listed(broker: &AnyBroker, scope: &Scope) {
    let Some(name) = filled_to_browse(broker, scope, &["one", "two"]).await else {
        return;
    };
    let queues = broker.queues().await.expect("queues can be listed");
    let found = queues.iter().find(|queue| queue.name == name);
    assert_eq!(found.expect("the queue is listed").messages, 2);
}

/// Looking at a queue that does not exist is an error.
pub async fn a_missing_queue_cannot_be_browsed(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let able = (capabilities.browse || capabilities.peek) && capabilities.queues;
    if !has(scope, able, "browse or peek") {
        return;
    }
    let missing = topic(scope, "missing");
    let queue = Browse::new(Destination::Queue(missing.clone()));
    refused(broker.browse(queue).await, ErrorKind::NotFound);
    refused(broker.remove(missing, vec![1]).await, ErrorKind::NotFound);
}
