//! Several handles on the same messages, and messages that outlive their broker.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_messaging::{AnyBroker, MessageBroker, Subscribe};

use crate::Scope;
use crate::broker::OpenBroker;
use crate::broker::fixture::{
    ack, declare, has, member, nack, next, publish, send, silent, subscribe, take, text, to_queue,
    topic,
};

async fn connected(harness: &dyn OpenBroker, scope: &Scope) -> AnyBroker {
    let broker = harness
        .open_boxed(scope)
        .await
        .expect("it was there a moment ago");
    broker.connect().await.expect("connects");
    broker
}

async fn close(broker: &AnyBroker) {
    let deadline = Instant::now() + Duration::from_secs(5);
    broker.disconnect(deadline).await.expect("disconnects");
}

/// What one handle publishes another receives, also to wildcards and queues.
pub async fn handles_see_each_other(harness: &dyn OpenBroker, scope: &Scope) {
    let here = connected(harness, scope).await;
    if has(scope, here.capabilities().shared, "shared") {
        let there = connected(harness, scope).await;
        let (name, queue) = (topic(scope, "orders"), topic(scope, "work"));
        let mut listener = subscribe(&there, scope, Subscribe::topics(name.clone())).await;
        publish(&here, scope, &name, "one").await;
        assert_eq!(take(scope, &mut listener, 1).await, ["one"]);
        if here.capabilities().queues {
            let mut worker = subscribe(&there, scope, Subscribe::queue(queue.clone())).await;
            send(&here, scope, to_queue(&queue, "two")).await;
            assert_eq!(take(scope, &mut worker, 1).await, ["two"]);
        }
        close(&there).await;
    }
    close(&here).await;
}

/// Members of a group compete across handles, and what one gives back another gets.
pub async fn groups_compete_across_handles(harness: &dyn OpenBroker, scope: &Scope) {
    let here = connected(harness, scope).await;
    let capabilities = here.capabilities();
    if has(
        scope,
        capabilities.shared && capabilities.groups && capabilities.redelivery,
        "shared groups with redelivery",
    ) {
        let there = connected(harness, scope).await;
        let (name, group) = (topic(scope, "orders"), scope.name("mail"));
        let wanted = member(&name, &group).with_prefetch(1);
        let mut first = subscribe(&here, scope, wanted.clone()).await;
        publish(&there, scope, &name, "one").await;
        let held = next(scope, &mut first).await;
        let mut second = subscribe(&there, scope, wanted).await;
        silent(scope, &mut second).await;
        drop(first);
        nack(scope, held).await;
        let again = next(scope, &mut second).await;
        assert_eq!(text(&again), "one");
        if capabilities.attempts {
            assert_eq!(again.attempt(), 2);
        }
        ack(scope, again).await;
        close(&there).await;
    }
    close(&here).await;
}

/// What a handle held when it was closed goes to another at once, not when its lease is over.
pub async fn a_closed_handle_gives_back(harness: &dyn OpenBroker, scope: &Scope) {
    let here = connected(harness, scope).await;
    let capabilities = here.capabilities();
    if !has(
        scope,
        capabilities.shared && capabilities.groups && capabilities.redelivery,
        "shared groups with redelivery",
    ) {
        close(&here).await;
        return;
    }
    let there = connected(harness, scope).await;
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let wanted = member(&name, &group).with_lease(Duration::from_secs(3600));
    let mut first = subscribe(&here, scope, wanted.clone()).await;
    publish(&there, scope, &name, "one").await;
    let held = next(scope, &mut first).await;
    let mut second = subscribe(&there, scope, wanted).await;
    // By now it knows when the lease is over, and has to be told that it need not wait.
    silent(scope, &mut second).await;
    close(&here).await;
    drop(held);
    assert_eq!(take(scope, &mut second, 1).await, ["one"]);
    close(&there).await;
}

/// What was confirmed is there after a restart: for groups, in queues, and with its attempts.
pub async fn confirmed_messages_survive_a_restart(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = connected(harness, scope).await;
    let capabilities = broker.capabilities();
    let able = capabilities.durable && capabilities.groups && capabilities.queues;
    if !has(scope, able, "durable") {
        close(&broker).await;
        return;
    }
    let (name, group, queue) = (
        topic(scope, "orders"),
        scope.name("mail"),
        topic(scope, "work"),
    );
    let wanted = member(&name, &group).with_lease(Duration::from_secs(1));
    let mut mail = subscribe(&broker, scope, wanted.clone()).await;
    declare(&broker, scope, &queue).await;
    for payload in ["done", "held", "fresh"] {
        publish(&broker, scope, &name, payload).await;
    }
    send(&broker, scope, to_queue(&queue, "work")).await;
    take(scope, &mut mail, 1).await;
    let held = next(scope, &mut mail).await;
    close(&broker).await;
    drop((held, mail, broker));

    let broker = connected(harness, scope).await;
    let mut mail = subscribe(&broker, scope, wanted).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let delivery = next(scope, &mut mail).await;
        let repeated = delivery.attempt() >= 2;
        // Without counting, what was fetched and never handed out may look like a repetition.
        let known = capabilities.attempts || repeated && text(&delivery) == "held";
        seen.push((text(&delivery), known.then_some(repeated)));
        ack(scope, delivery).await;
    }
    seen.sort();
    let fresh = capabilities.attempts.then_some(false);
    let expected = [("fresh".to_owned(), fresh), ("held".to_owned(), Some(true))];
    assert_eq!(seen, expected);
    let mut worker = subscribe(&broker, scope, Subscribe::queue(queue)).await;
    assert_eq!(take(scope, &mut worker, 1).await, ["work"]);
    close(&broker).await;
}
