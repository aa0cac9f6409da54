//! A broker that is full.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Context, ErrorKind, Retry};
use trunkline_messaging::{AnyBroker, MessageBroker, Publish, Settlement, Subscribe, TopicName};

use crate::Scope;
use crate::broker::OpenBroker;
use crate::broker::fixture::{ack, declare, has, next, refused, send, subscribe, to_queue, topic};

const ROOM: usize = 10;

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
