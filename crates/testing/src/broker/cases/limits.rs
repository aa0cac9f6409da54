//! A broker that is full.

use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Context, ErrorKind, Retry};
use trunkline_messaging::{
    AnyBroker, Browse, Destination, MessageBroker, Publish, Settlement, Subscribe, TopicName,
};

use crate::Scope;
use crate::broker::OpenBroker;
use crate::broker::fixture::{
    ack, declare, has, next, publish, refused, send, subscribe, take, to_queue, to_topic, topic,
};

const ROOM: usize = 10;
const BYTES: usize = 64 * 1024;
/// There is room for one of them, and for something small beside it.
const LARGE: usize = 40 * 1024;

async fn small(harness: &dyn OpenBroker, scope: &Scope) -> Option<(AnyBroker, TopicName)> {
    let Some(broker) = harness.open_limited_boxed(scope, ROOM).await else {
        has(scope, false, "limits");
        return None;
    };
    broker.connect().await.expect("connects");
    let name = topic(scope, "work");
    declare(&broker, scope, &name).await;
    for number in 0..ROOM {
        send(&broker, scope, to_queue(&name, &number.to_string())).await;
    }
    Some((broker, name))
}

async fn close(broker: &AnyBroker) {
    let deadline = Instant::now() + Duration::from_secs(5);
    broker.disconnect(deadline).await.expect("disconnects");
}

/// A full broker makes publishers wait until their deadline, then says that it is full. Nothing was published, so a
/// repetition is safe.
pub async fn a_full_broker_refuses_at_the_deadline(harness: &dyn OpenBroker, scope: &Scope) {
    let Some((broker, name)) = small(harness, scope).await else {
        return;
    };
    let context = Context::new().with_timeout(Duration::from_millis(100));
    let outcome = context.scope(broker.publish(to_queue(&name, "more")));
    let error = refused(
        scope.within("giving up", outcome).await,
        ErrorKind::Exhausted,
    );
    assert_eq!(error.retry(), Retry::Safe);
    let batch: Vec<Publish> = (0..3).map(|n| to_queue(&name, &n.to_string())).collect();
    let context = Context::new().with_timeout(Duration::from_millis(100));
    for outcome in context.scope(broker.publish_batch(batch)).await {
        refused(outcome, ErrorKind::Exhausted);
    }
    close(&broker).await;
}

/// A publisher that waits goes on as soon as there is room.
pub async fn a_waiting_publisher_goes_on(harness: &dyn OpenBroker, scope: &Scope) {
    let Some((broker, name)) = small(harness, scope).await else {
        return;
    };
    let mut consumer = subscribe(&broker, scope, Subscribe::queue(name.clone())).await;
    let waiting = (0..5).map(|_| broker.publish(to_queue(&name, "more")));
    let waiting = futures_util::future::join_all(waiting);
    let make_room = async {
        for _ in 0..ROOM {
            let delivery = next(scope, &mut consumer).await;
            ack(scope, delivery).await;
        }
    };
    let (outcomes, ()) = scope
        .within("room", futures_util::future::join(waiting, make_room))
        .await;
    for outcome in outcomes {
        outcome.expect("published when there was room");
    }
    close(&broker).await;
}

/// Dead letters go through a full broker: one message goes, one comes.
pub async fn a_forward_passes_a_full_broker(harness: &dyn OpenBroker, scope: &Scope) {
    let Some((broker, name)) = small(harness, scope).await else {
        return;
    };
    if has(
        scope,
        broker.capabilities().atomic_forward,
        "atomic_forward",
    ) {
        let dead = topic(scope, "dead");
        declare(&broker, scope, &dead).await;
        let mut consumer = subscribe(&broker, scope, Subscribe::queue(name)).await;
        for _ in 0..ROOM {
            let delivery = next(scope, &mut consumer).await;
            let forward = to_queue(&dead, "dead");
            scope
                .within(
                    "a forward",
                    delivery.settle(Settlement::Forward(Box::new(forward))),
                )
                .await
                .expect("a forward is not held up");
        }
    }
    close(&broker).await;
}

/// A broker with a queue that has room for so many bytes, and a large message in it.
async fn small_in_bytes(harness: &dyn OpenBroker, scope: &Scope) -> Option<(AnyBroker, TopicName)> {
    let Some(broker) = harness.open_limited_bytes_boxed(scope, BYTES).await else {
        has(scope, false, "limits in bytes");
        return None;
    };
    broker.connect().await.expect("connects");
    let name = topic(scope, "work");
    declare(&broker, scope, &name).await;
    send(&broker, scope, to_queue(&name, &"x".repeat(LARGE))).await;
    Some((broker, name))
}

/// A broker can be full of bytes: what is small still fits, and what is large fits when something large has gone.
pub async fn a_full_broker_counts_bytes(harness: &dyn OpenBroker, scope: &Scope) {
    let Some((broker, name)) = small_in_bytes(harness, scope).await else {
        return;
    };
    let large = || to_queue(&name, &"x".repeat(LARGE));
    let context = Context::new().with_timeout(Duration::from_millis(100));
    let outcome = context.scope(broker.publish(large()));
    let error = refused(
        scope.within("giving up", outcome).await,
        ErrorKind::Exhausted,
    );
    assert_eq!(error.retry(), Retry::Safe);
    send(&broker, scope, to_queue(&name, "small")).await;
    let mut consumer = subscribe(&broker, scope, Subscribe::queue(name.clone())).await;
    take(scope, &mut consumer, 1).await;
    send(&broker, scope, large()).await;
    close(&broker).await;
}

/// A message that is larger than all the room there is would wait for nothing. It is refused at once, and nothing else
/// goes for it.
pub async fn what_never_fits_is_refused_at_once(harness: &dyn OpenBroker, scope: &Scope) {
    let Some((broker, _)) = small_in_bytes(harness, scope).await else {
        return;
    };
    let name = topic(scope, "orders");
    publish(&broker, scope, &name, "kept").await;
    let oversized = to_topic(&name, &"x".repeat(BYTES + 1));
    let outcome = broker.publish(oversized.clone());
    refused(scope.within("refusing", outcome).await, ErrorKind::Invalid);
    let batch = vec![oversized, to_topic(&name, "small")];
    let mut outcomes = scope.within("a batch", broker.publish_batch(batch)).await;
    outcomes.pop().expect("two").expect("the small one fits");
    refused(outcomes.pop().expect("two"), ErrorKind::Invalid);
    if broker.capabilities().browse {
        let browse = Browse::new(Destination::Topic(name));
        let page = broker.browse(browse).await.expect("a page");
        assert_eq!(page.messages.len(), 2, "what is kept stays");
    }
    close(&broker).await;
}

/// When there is no room for one of a batch, those behind it wait with it, even if they would fit.
pub async fn a_batch_waits_in_its_order(harness: &dyn OpenBroker, scope: &Scope) {
    let Some((broker, name)) = small_in_bytes(harness, scope).await else {
        return;
    };
    let mut consumer = subscribe(&broker, scope, Subscribe::queue(name.clone())).await;
    let batch = vec![
        to_queue(&name, &"y".repeat(LARGE)),
        to_queue(&name, "small"),
    ];
    let mut batch = pin!(broker.publish_batch(batch));
    scope.never("a batch without room", batch.as_mut()).await;
    take(scope, &mut consumer, 1).await;
    let rest = take(scope, &mut consumer, 2);
    let (outcomes, rest) = scope
        .within("room", futures_util::future::join(batch, rest))
        .await;
    for outcome in outcomes {
        outcome.expect("published when there was room");
    }
    let sizes: Vec<usize> = rest.iter().map(String::len).collect();
    assert_eq!(sizes, [LARGE, "small".len()], "in the order given");
    close(&broker).await;
}
