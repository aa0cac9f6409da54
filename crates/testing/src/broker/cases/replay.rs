//! Where a new group begins.

use trunkline_core::{Clock, ErrorKind, SystemClock};
use trunkline_messaging::{AnyBroker, MessageBroker, Start, Subscribe};

use crate::Scope;
use crate::broker::fixture::{
    has, member, pattern, publish, refused, silent, subscribe, take, topic, under,
};

/// A new group that wants everything gets what is still kept, in order, then what comes.
pub async fn a_new_group_may_start_at_earliest(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let name = topic(scope, "orders");
    let wanted = member(&name, &scope.name("audit")).with_start(Start::Earliest);
    if !has(scope, capabilities.replay, "replay") {
        refused(broker.subscribe(wanted).await, ErrorKind::Unsupported);
        return;
    }
    for payload in ["one", "two", "three"] {
        publish(broker, scope, &name, payload).await;
    }
    let mut audit = subscribe(broker, scope, wanted).await;
    publish(broker, scope, &name, "four").await;
    let expected = ["one", "two", "three", "four"];
    assert_eq!(take(scope, &mut audit, 4).await, expected);
    silent(scope, &mut audit).await;
}

/// What other groups have acknowledged is kept all the same.
pub async fn what_others_finished_is_replayed(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().replay, "replay") {
        return;
    }
    let name = topic(scope, "orders");
    let mut mail = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    publish(broker, scope, &name, "one").await;
    take(scope, &mut mail, 1).await;
    let wanted = member(&name, &scope.name("audit")).with_start(Start::Earliest);
    let mut audit = subscribe(broker, scope, wanted).await;
    assert_eq!(take(scope, &mut audit, 1).await, ["one"]);
}

/// A new group may begin at a time.
pub async fn a_new_group_may_start_at_a_time(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().replay, "replay") {
        return;
    }
    let name = topic(scope, "orders");
    publish(broker, scope, &name, "before").await;
    let pause = std::time::Duration::from_millis(20);
    tokio::time::sleep(pause).await;
    let at = SystemClock.now();
    tokio::time::sleep(pause).await;
    publish(broker, scope, &name, "after").await;
    let wanted = member(&name, &scope.name("audit")).with_start(Start::At(at));
    let mut audit = subscribe(broker, scope, wanted).await;
    assert_eq!(take(scope, &mut audit, 1).await, ["after"]);
    silent(scope, &mut audit).await;
}

/// A group that is known goes on where it was, wherever a member would like to begin.
pub async fn a_known_group_does_not_start_again(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().replay, "replay") {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("audit"));
    let from_the_start = || member(&name, &group).with_start(Start::Earliest);
    publish(broker, scope, &name, "one").await;
    let mut audit = subscribe(broker, scope, from_the_start()).await;
    assert_eq!(take(scope, &mut audit, 1).await, ["one"]);
    drop(audit);
    let mut back = subscribe(broker, scope, from_the_start()).await;
    publish(broker, scope, &name, "two").await;
    assert_eq!(take(scope, &mut back, 1).await, ["two"]);
    silent(scope, &mut back).await;
}

/// A subscriber without a group begins where it says every time.
pub async fn a_subscriber_without_a_group_may_start_at_earliest(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().replay, "replay") {
        return;
    }
    let name = topic(scope, "orders");
    publish(broker, scope, &name, "one").await;
    for _ in 0..2 {
        let wanted = Subscribe::topics(name.clone()).with_start(Start::Earliest);
        let mut subscription = subscribe(broker, scope, wanted).await;
        assert_eq!(take(scope, &mut subscription, 1).await, ["one"]);
    }
}

/// Replay over several topics keeps the order in which they were published.
pub async fn replay_of_a_pattern_keeps_order(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.replay && capabilities.wildcards,
        "replay with wildcards",
    ) {
        return;
    }
    for (name, payload) in [("a", "one"), ("b", "two"), ("a", "three"), ("c.d", "four")] {
        publish(broker, scope, &under(scope, name), payload).await;
    }
    let wanted = Subscribe::topics(pattern(scope, "#"))
        .with_group(scope.name("audit"))
        .with_start(Start::Earliest);
    let mut audit = subscribe(broker, scope, wanted).await;
    let expected = ["one", "two", "three", "four"];
    assert_eq!(take(scope, &mut audit, 4).await, expected);
}
