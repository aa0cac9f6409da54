//! Stopping without cutting anything off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use trunkline_core::names::message_header as header;
use trunkline_core::{ErrorKind, Health, Lifecycle};
use trunkline_messaging::{AnyBroker, Attempt, MessageBroker};

use crate::Scope;
use crate::router::fixture::{
    Dead, Order, Seen, builder, end, has, messaging, publish, ready, topic,
};

fn able(broker: &AnyBroker, scope: &Scope) -> bool {
    has(scope, broker.capabilities().groups, "groups")
}

/// A handler that runs when draining begins finishes, and may publish while it does.
pub async fn draining_finishes_what_runs(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, go, other) = (
        Seen::<String>::new(),
        Arc::new(Semaphore::new(0)),
        topic(scope, "other"),
    );
    let (record, wait, publisher) = (seen.clone(), Arc::clone(&go), messaging.publisher().clone());
    let handler = move |order: Order| {
        let (record, wait) = (record.clone(), Arc::clone(&wait));
        let (publisher, other) = (publisher.clone(), other.clone());
        async move {
            record.push("begun".to_owned());
            let _permit = wait.acquire().await;
            let published = publisher.publish(&other, &order).await;
            record.push(format!("published {}", published.is_ok()));
        }
    };
    messaging
        .subscribe(name.clone())
        .handle(handler)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    seen.wait_for(scope, 1).await;
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        go.add_permits(1);
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let (drained, ()) = futures_util::future::join(messaging.drain(deadline), release).await;
    drained.expect("everything finished in time");
    assert_eq!(seen.all(), ["begun", "published true"]);
    // What finished was acknowledged: nobody gets it again.
    let again = builder(broker, scope).build();
    let (record, repeated) = (Seen::new(), name.clone());
    let count = record.clone();
    let handler = move |order: Order| {
        count.push(order.id);
        async {}
    };
    again
        .subscribe(repeated)
        .handle(handler)
        .await
        .expect("it begins");
    ready(&again, scope).await;
    record.stays(scope, 0).await;
    end(&again).await;
}

/// What has not finished by the deadline is stopped and given back: another consumer gets it at once.
pub async fn draining_gives_back_what_does_not_finish(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.redelivery,
        "redelivery",
    ) {
        return;
    }
    let (stuck, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::<&'static str>::new();
    let record = seen.clone();
    let handler = move |_: Order| {
        record.push("stuck");
        std::future::pending::<()>()
    };
    let patient = Duration::from_secs(3600);
    let subscribing = stuck
        .subscribe(name.clone())
        .lease(patient)
        .timeout(patient);
    subscribing.handle(handler).await.expect("it begins");
    ready(&stuck, scope).await;
    publish(&stuck, scope, &name, 1).await;
    seen.wait_for(scope, 1).await;
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = stuck.drain(deadline).await.expect_err("it did not finish");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.report());

    let other = messaging(broker, scope);
    let record = seen.clone();
    let handler = move |_: Order| {
        record.push("other");
        async {}
    };
    other
        .subscribe(name)
        .handle(handler)
        .await
        .expect("it begins");
    assert_eq!(seen.wait_for(scope, 2).await, ["stuck", "other"]);
    end(&other).await;
}

/// A message whose consumer ended with it in hand was perhaps never handled: with one attempt, the handler still has its
/// one. One that ends every consumer is given up all the same.
pub async fn consumers_that_end_are_no_failures_of_the_handler(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let counts = capabilities.groups && capabilities.redelivery && capabilities.attempts;
    if !has(scope, counts, "counted redelivery") {
        return;
    }
    let name = topic(scope, "orders");
    let group = scope.name("service");
    let mut dead = Dead::of(broker, scope, &group).await;
    let patient = Duration::from_secs(3600);
    // Some brokers give again what a consumer held at its end only when its lease is over.
    let lease = Duration::from_secs(5);
    let seen = Seen::<u32>::new();
    let ends = async |deliveries: usize| {
        let stuck = messaging(broker, scope);
        let record = seen.clone();
        let handler = move |attempt: Attempt| {
            record.push(attempt.0);
            std::future::pending::<()>()
        };
        // A member that ends may have fetched the message and given it back without a word, which some brokers count.
        let subscribing = stuck.subscribe(name.clone()).max_attempts(1).max_crashes(6);
        let subscribing = subscribing.lease(lease).timeout(patient);
        subscribing.handle(handler).await.expect("it begins");
        ready(&stuck, scope).await;
        if deliveries == 1 {
            publish(&stuck, scope, &name, 1).await;
        }
        seen.wait_for(scope, deliveries).await;
        let deadline = Instant::now() + Duration::from_millis(100);
        stuck.drain(deadline).await.expect_err("it did not finish");
    };
    ends(1).await;
    ends(2).await;
    let last = messaging(broker, scope);
    let record = seen.clone();
    let handler = move |attempt: Attempt| {
        record.push(attempt.0);
        async {}
    };
    let subscribing = last.subscribe(name.clone()).max_attempts(1).max_crashes(1);
    subscribing.handle(handler).await.expect("it begins");
    ready(&last, scope).await;
    let letter = dead.next(scope).await;
    let reason = letter.headers.get(header::DEAD_REASON);
    assert_eq!(reason, Some("crashes"));
    let all = seen.all();
    assert!(matches!(all[..], [1, again] if again > 1), "{all:?}");
    end(&last).await;
}

/// A drained router takes no message and no handler; what is published meanwhile waits for the next one.
pub async fn draining_takes_nothing_new(broker: &AnyBroker, scope: &Scope) {
    let collects = broker.capabilities().redelivery;
    if !(able(broker, scope) && has(scope, collects, "redelivery")) {
        return;
    }
    let (drained, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |order: Order| {
        record.push(order.id);
        async {}
    };
    drained
        .subscribe(name.clone())
        .handle(handler.clone())
        .await
        .expect("it begins");
    ready(&drained, scope).await;
    end(&drained).await;
    publish(&drained, scope, &name, 1).await;
    seen.stays(scope, 0).await;
    let error = drained
        .subscribe(name.clone())
        .handle(handler.clone())
        .await
        .expect_err("it is over");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report());
    let next = messaging(broker, scope);
    next.subscribe(name)
        .handle(handler)
        .await
        .expect("it begins");
    assert_eq!(seen.wait_for(scope, 1).await, [1]);
    end(&next).await;
}

/// Readiness asks whether every subscription is attached, until it is stopped.
pub async fn readiness_waits_for_subscriptions(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (health, name) = (Health::default(), topic(scope, "orders"));
    let messaging = builder(broker, scope).health(health.clone()).build();
    assert!(health.readiness().ready);
    let listening = messaging.subscribe(name.clone()).handle(|| async {}).await;
    let listening = listening.expect("it begins");
    scope
        .within("attaching", listening.attached())
        .await
        .expect("it is attached");
    assert!(health.readiness().ready, "{:?}", health.readiness());
    let deadline = Instant::now() + Duration::from_secs(5);
    listening.stop(deadline).await;
    assert!(health.readiness().ready, "what was stopped is no reason");
    let handlers = messaging.router().handlers();
    assert!(handlers.is_empty(), "{handlers:?}");
    end(&messaging).await;
}
