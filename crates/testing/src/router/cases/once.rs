//! Messages that are delivered twice.

use std::sync::Arc;

use tokio::sync::Semaphore;
use trunkline_core::names::message_header as header;
use trunkline_messaging::inbox::{AnyInbox, MemoryInbox};
use trunkline_messaging::{
    AnyBroker, Attempt, Destination, HandlerError, Message, MessageBroker, Messaging, Publish,
    Subscribe, TopicName,
};

use crate::Scope;
use crate::router::fixture::{Order, SHORT, Seen, builder, end, has, ready, topic};

fn able(broker: &AnyBroker, scope: &Scope) -> bool {
    has(scope, broker.capabilities().groups, "groups")
}

fn with_inbox(broker: &AnyBroker, scope: &Scope) -> Messaging {
    let inbox = AnyInbox::new(MemoryInbox::default());
    builder(broker, scope).inbox(inbox).build()
}

async fn publish_as(messaging: &Messaging, name: &TopicName, id: &str, order: u64) {
    let outgoing = messaging.to(name).id(id);
    outgoing
        .send(&Order { id: order })
        .await
        .expect("published");
}

/// The same id published again is handled once.
pub async fn a_repetition_is_handled_once(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (with_inbox(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |order: Order| {
        record.push(order.id);
        async {}
    };
    messaging
        .subscribe(name.clone())
        .handle(handler)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    for _ in 0..5 {
        publish_as(&messaging, &name, "one", 1).await;
    }
    publish_as(&messaging, &name, "two", 2).await;
    seen.wait_for(scope, 2).await;
    seen.stays(scope, 2).await;
    let mut all = seen.all();
    all.sort_unstable();
    assert_eq!(all, [1, 2]);
    end(&messaging).await;
}

/// What failed was not handled: its next attempt is no repetition.
pub async fn a_failed_message_is_not_remembered(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (with_inbox(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |Attempt(attempt): Attempt| {
        record.push(attempt);
        async move {
            match attempt {
                1 => Err(HandlerError::retry("not yet")),
                2 => panic!("not yet either"),
                _ => Ok(()),
            }
        }
    };
    let subscribing = messaging.subscribe(name.clone()).retry_delay(SHORT / 4);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish_as(&messaging, &name, "one", 1).await;
    assert_eq!(seen.wait_for(scope, 3).await, [1, 2, 3]);
    publish_as(&messaging, &name, "one", 1).await;
    seen.stays(scope, 3).await;
    end(&messaging).await;
}

/// Every group handles a message once, each for itself.
pub async fn groups_remember_apart(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (with_inbox(broker, scope), topic(scope, "orders"));
    let seen = Seen::<String>::new();
    for group in ["audit", "mail"] {
        let record = seen.clone();
        let handler = move |_: Order| {
            record.push(group.to_owned());
            async {}
        };
        let subscribing = messaging.subscribe(name.clone()).group(scope.name(group));
        subscribing.handle(handler).await.expect("it begins");
    }
    ready(&messaging, scope).await;
    for _ in 0..2 {
        publish_as(&messaging, &name, "one", 1).await;
    }
    let mut all = seen.wait_for(scope, 2).await;
    seen.stays(scope, 2).await;
    all.sort();
    assert_eq!(all, ["audit", "mail"]);
    end(&messaging).await;
}

/// A repetition that comes while the first one is being handled waits for it, and is then known.
pub async fn a_message_in_progress_waits(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (with_inbox(broker, scope), topic(scope, "orders"));
    let (seen, go) = (Seen::new(), Arc::new(Semaphore::new(0)));
    let (record, wait) = (seen.clone(), Arc::clone(&go));
    let handler = move |order: Order| {
        let (record, wait) = (record.clone(), Arc::clone(&wait));
        async move {
            record.push(order.id);
            let _permit = wait.acquire().await;
        }
    };
    let subscribing = messaging.subscribe(name.clone()).concurrency(2);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    for _ in 0..2 {
        publish_as(&messaging, &name, "one", 1).await;
    }
    seen.wait_for(scope, 1).await;
    seen.stays(scope, 1).await;
    go.add_permits(10);
    seen.stays(scope, 1).await;
    end(&messaging).await;
}

/// A question that is asked twice under one id is answered twice and handled once.
pub async fn a_repeated_question_gets_the_same_answer(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (with_inbox(broker, scope), topic(scope, "questions"));
    let reply_to = topic(scope, "reply");
    let seen = Seen::new();
    let record = seen.clone();
    let responder = move |order: Order| {
        let count = record.push(order.id);
        async move { Ok::<_, HandlerError>(count) }
    };
    messaging
        .subscribe(name.clone())
        .respond(responder)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    let mut answers =
        crate::broker::subscribe(broker, scope, Subscribe::topics(reply_to.clone())).await;
    for _ in 0..2 {
        let message = Message::new(r#"{"id":1}"#)
            .with_id("question")
            .with_header(header::REPLY_TO, reply_to.as_str());
        let question = Publish::new(Destination::Topic(name.clone()), message);
        broker.publish(question).await.expect("published");
        let answer = crate::broker::next(scope, &mut answers).await;
        assert_eq!(answer.message().payload, "1");
        let asked = answer.message().headers.get(header::IN_REPLY_TO);
        assert_eq!(asked, Some("question"));
        answer.ack().await.expect("acknowledged");
    }
    assert_eq!(seen.all(), [1]);
    end(&messaging).await;
}
