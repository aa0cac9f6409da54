//! How much waits.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::ErrorKind;
use trunkline_messaging::{AnyBroker, MessageBroker, Subscribe};

use crate::Scope;
use crate::broker::fixture::{
    ack, declare, has, member, next, pattern, publish, publish_keyed, refused, send, subscribe,
    take, to_queue, topic, under,
};

/// Waits until the broker says that so many wait: servers count a moment later than they confirm.
async fn waits(broker: &AnyBroker, scope: &Scope, subscribe: &Subscribe, count: Option<u64>) {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let lag = scope.within("a lag", broker.lag(subscribe)).await;
        let lag = lag.expect("the broker says");
        if lag == count || Instant::now() > patience {
            assert_eq!(lag, count, "what waits for {subscribe:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is published while no member is there waits for the group, and when it is done nothing does.
pub async fn what_nobody_takes_is_lag(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().lag, "lag") {
        return;
    }
    let name = topic(scope, "orders");
    let group = member(&name, "mail");
    drop(subscribe(broker, scope, group.clone()).await);
    waits(broker, scope, &group, Some(0)).await;
    for number in 0..7 {
        publish(broker, scope, &name, &number.to_string()).await;
    }
    waits(broker, scope, &group, Some(7)).await;
    let mut subscription = subscribe(broker, scope, group.clone()).await;
    take(scope, &mut subscription, 7).await;
    waits(broker, scope, &group, Some(0)).await;
    // Another one that came later has a place of its own.
    let later = member(&name, "billing");
    drop(subscribe(broker, scope, later.clone()).await);
    publish(broker, scope, &name, "7").await;
    waits(broker, scope, &later, Some(1)).await;
    take(scope, &mut subscription, 1).await;
    waits(broker, scope, &group, Some(0)).await;
    waits(broker, scope, &later, Some(1)).await;
}

/// Messages of one key wait as others do.
pub async fn messages_with_a_key_are_lag(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().lag, "lag") {
        return;
    }
    let name = topic(scope, "orders");
    let group = member(&name, "mail").with_prefetch(1);
    let mut subscription = subscribe(broker, scope, group.clone()).await;
    for number in 0..5 {
        publish_keyed(broker, scope, &name, "one", &number.to_string()).await;
    }
    let first = next(scope, &mut subscription).await;
    drop(subscription);
    // At least: some brokers know only what is done, and count what is in hand as well.
    let lag = async {
        loop {
            match broker.lag(&group).await.expect("the broker says") {
                Some(lag @ 4..=5) => return lag,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    scope.within("the lag of the others", lag).await;
    ack(scope, first).await;
    waits(broker, scope, &group, Some(4)).await;
    let mut subscription = subscribe(broker, scope, group.clone()).await;
    take(scope, &mut subscription, 4).await;
    waits(broker, scope, &group, Some(0)).await;
}

/// A group with a pattern has what is published to all its topics.
pub async fn a_pattern_has_the_lag_of_its_topics(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.lag && capabilities.wildcards,
        "lag of patterns",
    ) {
        return;
    }
    let (one, two) = (under(scope, "one"), under(scope, "two"));
    // There before the group, and not its concern.
    publish(broker, scope, &one, "0").await;
    publish(broker, scope, &two, "0").await;
    let group = Subscribe::topics(pattern(scope, "*")).with_group("mail");
    drop(subscribe(broker, scope, group.clone()).await);
    publish(broker, scope, &one, "1").await;
    publish(broker, scope, &two, "2").await;
    publish(broker, scope, &two, "3").await;
    waits(broker, scope, &group, Some(3)).await;
    let mut subscription = subscribe(broker, scope, group.clone()).await;
    take(scope, &mut subscription, 3).await;
    waits(broker, scope, &group, Some(0)).await;
}

/// A queue has what lies in it, also what was removed from it no longer.
pub async fn what_lies_in_a_queue_is_lag(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.lag && capabilities.queues,
        "lag of queues",
    ) {
        return;
    }
    let name = topic(scope, "work");
    let queue = Subscribe::queue(name.clone());
    declare(broker, scope, &name).await;
    for number in 0..3 {
        send(broker, scope, to_queue(&name, &number.to_string())).await;
    }
    waits(broker, scope, &queue, Some(3)).await;
    let mut subscription = subscribe(broker, scope, queue.clone()).await;
    take(scope, &mut subscription, 3).await;
    waits(broker, scope, &queue, Some(0)).await;
}

/// Nobody knows what waits for a group that is not there, or for a subscriber of its own; a broker that cannot say refuses.
pub async fn what_nobody_can_know_is_no_lag(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let group = member(&name, "nobody");
    if !broker.capabilities().lag {
        refused(broker.lag(&group).await, ErrorKind::Unsupported);
        return;
    }
    publish(broker, scope, &name, "1").await;
    waits(broker, scope, &group, None).await;
    let lone = Subscribe::topics(name.clone());
    let subscription = subscribe(broker, scope, lone.clone()).await;
    waits(broker, scope, &lone, None).await;
    drop(subscription);
}
