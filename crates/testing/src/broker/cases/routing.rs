//! Wildcards and messages that find nobody.

use trunkline_core::ErrorKind;
use trunkline_messaging::{AnyBroker, MessageBroker, Routed, Subscribe};

use crate::Scope;
use crate::broker::fixture::{
    has, member, pattern, publish, refused, send, silent, subscribe, take, to_topic, topic, under,
};

/// Publishes one message to each topic, named after it, and expects those that fall under the pattern, in order.
async fn matching(
    broker: &AnyBroker,
    scope: &Scope,
    wildcard: &str,
    topics: &[&str],
    expected: &[&str],
) {
    if !has(scope, broker.capabilities().wildcards, "wildcards") {
        return;
    }
    let wanted = Subscribe::topics(pattern(scope, wildcard)).with_prefetch(100);
    let mut subscription = subscribe(broker, scope, wanted).await;
    for name in topics {
        publish(broker, scope, &under(scope, name), name).await;
    }
    assert_eq!(
        take(scope, &mut subscription, expected.len()).await,
        expected
    );
    silent(scope, &mut subscription).await;
}

/// `*` stands for one segment.
pub async fn star_is_one_segment(broker: &AnyBroker, scope: &Scope) {
    let topics = [
        "user.created",
        "user",
        "user.address.changed",
        "order.created",
    ];
    matching(broker, scope, "user.*", &topics, &["user.created"]).await;
}

/// `*` may stand in front and in the middle.
pub async fn star_stands_anywhere(broker: &AnyBroker, scope: &Scope) {
    let topics = [
        "user.eu.created",
        "order.eu.created",
        "user.eu.deleted",
        "user.created",
    ];
    let expected = ["user.eu.created", "order.eu.created"];
    matching(broker, scope, "*.eu.created", &topics, &expected).await;
}

/// `#` stands for any number of segments, none included.
pub async fn hash_is_any_number_of_segments(broker: &AnyBroker, scope: &Scope) {
    let topics = ["user", "user.created", "order", "user.address.changed"];
    let expected = ["user", "user.created", "user.address.changed"];
    matching(broker, scope, "user.#", &topics, &expected).await;
}

/// `#` may stand in the middle.
pub async fn hash_stands_anywhere(broker: &AnyBroker, scope: &Scope) {
    let topics = ["a.z", "a.b.z", "a.b.c.z", "a.b.c", "b.z"];
    matching(
        broker,
        scope,
        "a.#.z",
        &topics,
        &["a.z", "a.b.z", "a.b.c.z"],
    )
    .await;
}

/// A segment that begins like another is another.
pub async fn segments_match_whole(broker: &AnyBroker, scope: &Scope) {
    let topics = ["users.created", "user.created", "use.created"];
    matching(broker, scope, "user.*", &topics, &["user.created"]).await;
}

/// A topic that is used for the first time after the subscription is matched too, for groups as well.
pub async fn new_topics_are_matched(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.wildcards,
        "groups with wildcards",
    ) {
        return;
    }
    let all = Subscribe::topics(pattern(scope, "#")).with_group(scope.name("mail"));
    let mut subscription = subscribe(broker, scope, all).await;
    for round in 0..5 {
        let name = under(scope, &format!("new-{round}"));
        publish(broker, scope, &name, "one").await;
        assert_eq!(take(scope, &mut subscription, 1).await, ["one"]);
    }
}

/// A message that must find somebody and does not is refused, and kept for nobody.
pub async fn an_unroutable_mandatory_message_is_refused(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(scope, capabilities.mandatory, "mandatory") {
        return;
    }
    let name = topic(scope, "orders");
    let publish_it = || broker.publish(to_topic(&name, "one").mandatory());
    refused(publish_it().await, ErrorKind::NotFound);
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let receipt = publish_it().await.expect("now it finds somebody");
    assert_eq!(receipt.routed, Routed::Yes);
    assert_eq!(take(scope, &mut subscription, 1).await, ["one"]);
    silent(scope, &mut subscription).await;
}

/// A group whose members are away is somebody.
pub async fn a_group_counts_as_somebody(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.mandatory && capabilities.groups,
        "mandatory with groups",
    ) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let member = subscribe(broker, scope, member(&name, &group)).await;
    // A group outlives its members, unless nothing is kept for anybody: then it is whoever listens.
    let listening = (!capabilities.redelivery).then_some(member);
    let receipt = send(broker, scope, to_topic(&name, "one").mandatory()).await;
    assert_eq!(receipt.routed, Routed::Yes);
    drop(listening);
}
