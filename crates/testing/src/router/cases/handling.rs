//! Handlers and what they are given.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Barrier;
use trunkline_core::names::message_header as header;
use trunkline_core::{Baggage, Context, ErrorKind};
use trunkline_messaging::codec::AnyCodec;
use trunkline_messaging::{
    AnyBroker, Attempt, Destination, Handled, HandlerError, Headers, Incoming, Message,
    MessageBroker, MessageKey, Messaging, Middleware, Next, Source,
};

use crate::Scope;
use crate::router::fixture::{Order, Seen, builder, end, has, messaging, publish, ready, topic};

fn able(broker: &AnyBroker, scope: &Scope) -> bool {
    has(scope, broker.capabilities().groups, "groups")
}

/// What is published reaches the handler of the topic.
pub async fn a_handler_gets_its_message(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |order: Order| {
        let record = record.clone();
        async move {
            record.push(order.id);
        }
    };
    messaging
        .subscribe(name.clone())
        .handle(handler)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    for id in 1..=3 {
        publish(&messaging, scope, &name, id).await;
    }
    let mut ids = seen.wait_for(scope, 3).await;
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    end(&messaging).await;
    seen.stays(scope, 3).await;
}

/// A handler takes what it needs, in any order, and nothing else.
pub async fn arguments_come_in_any_order(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::<String>::new();
    let (a, b, c) = (seen.clone(), seen.clone(), seen.clone());
    let first = move |context: Context, order: Order, Attempt(attempt): Attempt| {
        a.push(format!("first {} {attempt}", order.id));
        async move {
            drop(context);
            Ok::<(), HandlerError>(())
        }
    };
    let second = move |headers: Headers, key: MessageKey, to: Destination, value: Value| {
        let own = headers.get("own").unwrap_or_default();
        let key = key.0.unwrap_or_default();
        b.push(format!("second {own} {key} {} {}", to.name(), value["id"]));
        async {}
    };
    let third = move |message: Arc<Message>| {
        c.push(format!("third {}", message.payload.len()));
        async { Ok::<(), std::io::Error>(()) }
    };
    for (group, begun) in [
        (
            "first",
            messaging
                .subscribe(name.clone())
                .group(scope.name("first"))
                .handle(first)
                .await,
        ),
        (
            "second",
            messaging
                .subscribe(name.clone())
                .group(scope.name("second"))
                .handle(second)
                .await,
        ),
        (
            "third",
            messaging
                .subscribe(name.clone())
                .group(scope.name("third"))
                .handle(third)
                .await,
        ),
    ] {
        begun.unwrap_or_else(|error| panic!("{group}: {}", error.report()));
    }
    ready(&messaging, scope).await;
    let outgoing = messaging.to::<Order, _>(&name).key("k").header("own", "h");
    outgoing.send(&Order { id: 7 }).await.expect("published");
    let mut all = seen.wait_for(scope, 3).await;
    all.sort();
    let expected = ["first 7 1", &format!("second h k {name} 7"), "third 8"];
    assert_eq!(all, expected);
    end(&messaging).await;
}

/// Correlation id, trace and baggage of the publisher are those of the handler; its deadline is not, unless asked for.
pub async fn the_context_travels(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::<(Context, Option<Context>)>::new();
    let record = seen.clone();
    let handler = move |given: Context| {
        let record = record.clone();
        async move {
            record.push((given, Context::current()));
        }
    };
    let subscribing = messaging
        .subscribe(name.clone())
        .timeout(Duration::from_secs(50));
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    let baggage = Baggage::default().with("tenant", "a");
    let sent = Context::new()
        .with_baggage(baggage)
        .with_timeout(Duration::from_secs(5));
    let published = sent.scope(messaging.publish(&name, &Order { id: 1 }));
    published.await.expect("published");
    let (given, current) = seen.wait_for(scope, 1).await.remove(0);
    let current = current.expect("the handler runs in a context");
    assert_eq!(given.correlation_id(), sent.correlation_id());
    assert_eq!(given.trace().trace_id(), sent.trace().trace_id());
    assert_ne!(given.trace().span_id(), sent.trace().span_id());
    assert_eq!(given.baggage().get("tenant"), Some("a"));
    assert_eq!(current.correlation_id(), sent.correlation_id());
    let left = given.remaining().expect("its timeout is its deadline");
    assert!(left > Duration::from_secs(10), "{left:?}");
    end(&messaging).await;
}

/// Messages say who sent them and when, and carry the attributes of CloudEvents.
pub async fn headers_say_who_sent_what(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let message = receive_one(&messaging, scope, &name, |outgoing| outgoing).await;
    let get = |name: &str| message.headers.get(name).unwrap_or_default().to_owned();
    let service = scope.name("service");
    assert_eq!(get(header::SERVICE), service);
    assert_eq!(get(header::CE_SOURCE), service);
    assert_eq!(get(header::CE_SPECVERSION), "1.0");
    assert_eq!(get(header::CE_ID), message.id);
    assert_eq!(get(header::CE_TYPE), name.as_str());
    assert_eq!(get(header::CE_TIME), get(header::TIMESTAMP));
    let time: trunkline_core::Timestamp = get(header::TIMESTAMP).parse().expect("RFC 3339");
    let published = message.published_at.expect("a time");
    assert_eq!(time.unix_millis(), published.unix_millis());
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert!(message.headers.contains("traceparent"));
    assert!(message.headers.contains("X-Correlation-ID"));
}

/// A header that the sender sets is not replaced.
pub async fn a_header_of_the_sender_wins(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let message = receive_one(&messaging, scope, &name, |outgoing| {
        outgoing
            .header("Service", "mine")
            .header("timestamp", "once")
            .header("ce-type", "my.type")
            .header("x-correlation-id", "my-id")
    })
    .await;
    let get = |name: &str| message.headers.get(name);
    assert_eq!(get("service"), Some("mine"));
    assert_eq!(get("timestamp"), Some("once"));
    assert_eq!(get("ce-type"), Some("my.type"));
    assert_eq!(get("X-Correlation-ID"), Some("my-id"));
    assert_eq!(message.headers.all("service").count(), 1);
}

async fn receive_one(
    messaging: &Messaging,
    scope: &Scope,
    name: &trunkline_messaging::TopicName,
    change: impl FnOnce(
        trunkline_messaging::Outgoing<'_, Order>,
    ) -> trunkline_messaging::Outgoing<'_, Order>,
) -> Message {
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |message: Message| {
        record.push(message);
        async {}
    };
    messaging
        .subscribe(name.clone())
        .handle(handler)
        .await
        .expect("it begins");
    ready(messaging, scope).await;
    let outgoing = change(messaging.to(name));
    outgoing.send(&Order { id: 1 }).await.expect("published");
    let message = seen.wait_for(scope, 1).await.remove(0);
    end(messaging).await;
    message
}

/// The reader follows the content type, not a setting of its own.
pub async fn message_pack_is_read_by_its_content_type(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |order: Order, message: Message| {
        record.push((order.id, message.content_type));
        async {}
    };
    messaging
        .subscribe(name.clone())
        .handle(handler)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    let outgoing = messaging.to(&name).codec(AnyCodec::MessagePack);
    outgoing.send(&Order { id: 7 }).await.expect("published");
    let all = seen.wait_for(scope, 1).await;
    assert_eq!(all, [(7, Some("application/msgpack".to_owned()))]);
    end(&messaging).await;
}

struct Mark {
    name: &'static str,
    seen: Seen<String>,
}

impl Middleware for Mark {
    async fn handle(&self, incoming: Incoming, next: Next<'_>) -> Result<Handled, HandlerError> {
        self.seen.push(format!("before {}", self.name));
        let outcome = next.run(incoming).await;
        self.seen.push(format!("after {}", self.name));
        outcome
    }
}

/// Middleware that was added first is outermost.
pub async fn middleware_runs_from_outside_to_inside(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (seen, name) = (Seen::<String>::new(), topic(scope, "orders"));
    let mark = |name| Mark {
        name,
        seen: seen.clone(),
    };
    let messaging = builder(broker, scope)
        .middleware(mark("one"))
        .middleware(mark("two"))
        .build();
    let record = seen.clone();
    let handler = move || {
        record.push("handler".to_owned());
        async {}
    };
    let subscribing = messaging.subscribe(name.clone()).middleware(mark("three"));
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    let expected = [
        "before one",
        "before two",
        "before three",
        "handler",
        "after three",
        "after two",
        "after one",
    ];
    assert_eq!(seen.wait_for(scope, 7).await, expected);
    end(&messaging).await;
}

/// Two handlers that would take messages away from each other are a mistake.
pub async fn handlers_of_one_group_and_topic_are_refused(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let subscribe = || messaging.subscribe(name.clone()).group(scope.name("mail"));
    let first = subscribe().handle(|| async {}).await.expect("it begins");
    let error = subscribe()
        .handle(|| async {})
        .await
        .expect_err("the second one is refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{}", error.report());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    first.stop(deadline).await;
    subscribe().handle(|| async {}).await.expect("now it may");
    if broker.capabilities().queues {
        let queue = Source::Queue(name.clone());
        let consume = || messaging.subscribe(queue.clone());
        consume().handle(|| async {}).await.expect("it begins");
        let error = consume().handle(|| async {}).await;
        let error = error.expect_err("two handlers of a queue are refused as well");
        assert_eq!(error.kind(), ErrorKind::Config, "{}", error.report());
    }
    for _ in 0..2 {
        let alone = messaging.subscribe(name.clone()).alone();
        alone
            .handle(|| async {})
            .await
            .expect("each gets everything");
    }
    end(&messaging).await;
}

/// A handler says which group it belongs to, or that it belongs to none.
pub async fn a_handler_without_a_group_is_refused(broker: &AnyBroker, scope: &Scope) {
    let (messaging, name) = (Messaging::new(broker.clone()), topic(scope, "orders"));
    let error = messaging
        .subscribe(name.clone())
        .handle(|| async {})
        .await
        .expect_err("no group, no service");
    assert_eq!(error.kind(), ErrorKind::Config, "{}", error.report());
    let alone = messaging.subscribe(name).alone().handle(|| async {}).await;
    alone.expect("alone is fine");
    end(&messaging).await;
}

/// As many messages are handled at once as asked for.
pub async fn handlers_run_side_by_side(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (barrier, seen) = (Arc::new(Barrier::new(4)), Seen::new());
    let record = seen.clone();
    let handler = move |order: Order| {
        let (barrier, record) = (Arc::clone(&barrier), record.clone());
        async move {
            barrier.wait().await;
            record.push(order.id);
        }
    };
    let subscribing = messaging.subscribe(name.clone()).concurrency(4);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    for id in 0..4 {
        publish(&messaging, scope, &name, id).await;
    }
    seen.wait_for(scope, 4).await;
    end(&messaging).await;
}

/// Messages of one key are handled one after the other, in order; other keys are not held up. Whether the broker keeps
/// the order or the router has to.
pub async fn messages_of_one_key_are_handled_in_turn(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::<(String, u64, bool)>::new();
    let record = seen.clone();
    let handler = move |order: Order, key: MessageKey| {
        let (record, key) = (record.clone(), key.0.unwrap_or_default());
        async move {
            record.push((key.clone(), order.id, true));
            tokio::time::sleep(Duration::from_millis(5)).await;
            record.push((key, order.id, false));
        }
    };
    let subscribing = messaging.subscribe(name.clone()).concurrency(6);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    for id in 0..10 {
        for key in ["a", "b"] {
            let outgoing = messaging.to(&name).key(key);
            outgoing.send(&Order { id }).await.expect("published");
        }
    }
    let all = seen.wait_for(scope, 40).await;
    for key in ["a", "b"] {
        let own: Vec<(u64, bool)> = all
            .iter()
            .filter(|(of, _, _)| of == key)
            .map(|(_, id, begins)| (*id, *begins))
            .collect();
        let expected: Vec<(u64, bool)> = (0..10).flat_map(|id| [(id, true), (id, false)]).collect();
        assert_eq!(own, expected, "key {key}");
    }
    end(&messaging).await;
}
