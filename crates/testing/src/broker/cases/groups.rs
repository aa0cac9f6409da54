//! Consumer groups.

use std::collections::BTreeSet;

use trunkline_core::ErrorKind;
use trunkline_messaging::{AnyBroker, MessageBroker, Subscribe};

use crate::Scope;
use crate::broker::fixture::{
    ack, collects, has, member, next, pattern, publish, refused, silent, subscribe, take, text,
    topic, under,
};

/// Each group gets everything.
pub async fn groups_get_a_copy_each(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().groups, "groups") {
        return;
    }
    let name = topic(scope, "orders");
    let mut mail = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    let mut audit = subscribe(broker, scope, member(&name, &scope.name("audit"))).await;
    for payload in ["one", "two"] {
        publish(broker, scope, &name, payload).await;
    }
    assert_eq!(take(scope, &mut mail, 2).await, ["one", "two"]);
    assert_eq!(take(scope, &mut audit, 2).await, ["one", "two"]);
}

/// A delivery names its group.
pub async fn a_delivery_names_its_group(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().groups, "groups") {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let mut mail = subscribe(broker, scope, member(&name, &group)).await;
    publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut mail).await;
    assert_eq!(delivery.info().group.as_deref(), Some(group.as_str()));
    ack(scope, delivery).await;
}

/// What one member holds, another does not get; what it does not take, the other gets.
pub async fn members_of_a_group_compete(broker: &AnyBroker, scope: &Scope) {
    if !collects(broker, scope) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let one_at_a_time = || member(&name, &group).with_prefetch(1);
    let mut first = subscribe(broker, scope, one_at_a_time()).await;
    let mut second = subscribe(broker, scope, one_at_a_time()).await;
    for payload in ["one", "two"] {
        publish(broker, scope, &name, payload).await;
    }
    let held = next(scope, &mut first).await;
    let other = next(scope, &mut second).await;
    let both: BTreeSet<String> = [text(&held), text(&other)].into();
    assert_eq!(both, ["one".to_owned(), "two".to_owned()].into());
    ack(scope, held).await;
    ack(scope, other).await;
    silent(scope, &mut first).await;
    silent(scope, &mut second).await;
}

/// A group collects messages while none of its members is there.
pub async fn a_group_outlives_its_members(broker: &AnyBroker, scope: &Scope) {
    if !collects(broker, scope) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    drop(subscribe(broker, scope, member(&name, &group)).await);
    for payload in ["one", "two"] {
        publish(broker, scope, &name, payload).await;
    }
    let mut back = subscribe(broker, scope, member(&name, &group)).await;
    assert_eq!(take(scope, &mut back, 2).await, ["one", "two"]);
}

/// A new group begins with what comes after it.
pub async fn a_new_group_starts_at_latest(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().groups, "groups") {
        return;
    }
    let name = topic(scope, "orders");
    publish(broker, scope, &name, "before").await;
    let mut mail = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    publish(broker, scope, &name, "after").await;
    assert_eq!(take(scope, &mut mail, 1).await, ["after"]);
    silent(scope, &mut mail).await;
}

/// What is acknowledged does not come again, to nobody of the group.
pub async fn a_group_goes_on_where_it_was(broker: &AnyBroker, scope: &Scope) {
    if !collects(broker, scope) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let mut mail = subscribe(broker, scope, member(&name, &group)).await;
    publish(broker, scope, &name, "one").await;
    assert_eq!(take(scope, &mut mail, 1).await, ["one"]);
    drop(mail);
    publish(broker, scope, &name, "two").await;
    let mut back = subscribe(broker, scope, member(&name, &group)).await;
    assert_eq!(take(scope, &mut back, 1).await, ["two"]);
    silent(scope, &mut back).await;
}

/// The same name with another pattern is another group: neither takes from the other, both get what both want.
pub async fn one_name_with_two_patterns_is_two_groups(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.wildcards,
        "groups with wildcards",
    ) {
        return;
    }
    let group = scope.name("mail");
    let (created, deleted) = (under(scope, "user.created"), under(scope, "user.deleted"));
    let mut exact = subscribe(broker, scope, member(&created, &group)).await;
    let all = Subscribe::topics(pattern(scope, "user.*")).with_group(&group);
    let mut all = subscribe(broker, scope, all).await;
    publish(broker, scope, &created, "created").await;
    publish(broker, scope, &deleted, "deleted").await;
    assert_eq!(take(scope, &mut all, 2).await, ["created", "deleted"]);
    assert_eq!(take(scope, &mut exact, 1).await, ["created"]);
    silent(scope, &mut exact).await;
}

/// A member that goes gives back what it had not handed out.
pub async fn a_member_that_goes_gives_back(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.redelivery,
        "groups with redelivery",
    ) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let mut first = subscribe(broker, scope, member(&name, &group)).await;
    for payload in ["one", "two", "three"] {
        publish(broker, scope, &name, payload).await;
    }
    let held = next(scope, &mut first).await;
    assert_eq!(text(&held), "one");
    drop(first);
    let mut second = subscribe(broker, scope, member(&name, &group)).await;
    for expected in ["two", "three"] {
        let delivery = next(scope, &mut second).await;
        assert_eq!(text(&delivery), expected);
        if capabilities.attempts {
            assert_eq!(
                delivery.attempt(),
                1,
                "what was not handed out does not count"
            );
        }
        ack(scope, delivery).await;
    }
    // What was handed out still belongs to its owner.
    ack(scope, held).await;
    silent(scope, &mut second).await;
}

/// A group's name follows the grammar of topics, and queues have no groups.
pub async fn a_wrong_group_is_refused(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(scope, capabilities.groups, "groups") {
        return;
    }
    let name = topic(scope, "orders");
    for group in ["", "with space", "a..b", "star.*"] {
        refused(
            broker.subscribe(member(&name, group)).await,
            ErrorKind::Invalid,
        );
    }
    if capabilities.queues {
        let grouped = Subscribe::queue(name).with_group("mail");
        refused(broker.subscribe(grouped).await, ErrorKind::Invalid);
    }
}
