//! Handlers that do not succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::names::header::REQUEST_TIMEOUT_MS;
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, Timestamp};
use trunkline_messaging::{AnyBroker, Attempt, HandlerError, MessageBroker, OrderingGuarantee};
use trunkline_resilience::breaker::BreakerSettings;

use crate::Scope;
use crate::router::fixture::{
    Dead, Order, SHORT, Seen, end, has, messaging, publish, publish_garbage, ready, topic,
};

fn able(broker: &AnyBroker, scope: &Scope) -> bool {
    has(scope, broker.capabilities().groups, "groups")
}

/// A handler that keeps failing is tried exactly so often, with the attempt told each time; then the message is a dead
/// letter (X-22).
pub async fn a_failing_handler_is_tried_so_often_then_gives_up(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    for attempts in [1_u32, 2, 4] {
        let name = topic(scope, &format!("orders{attempts}"));
        let (messaging, group) = (
            messaging(broker, scope),
            scope.name(&format!("g{attempts}")),
        );
        let seen = Seen::new();
        let record = seen.clone();
        let handler = move |_: Order, Attempt(attempt): Attempt| {
            record.push(attempt);
            async { Err::<(), _>(HandlerError::retry("it always fails")) }
        };
        let mut dead = Dead::of(broker, scope, &group).await;
        let subscribing = messaging.subscribe(name.clone()).group(&group);
        let subscribing = subscribing.max_attempts(attempts).retry_delay(SHORT / 4);
        subscribing.handle(handler).await.expect("it begins");
        ready(&messaging, scope).await;
        publish(&messaging, scope, &name, 7).await;
        let letter = dead.next(scope).await;
        assert_eq!(letter.headers.get(header::DEAD_REASON), Some("attempts"));
        let expected: Vec<u32> = (1..=attempts).collect();
        assert_eq!(seen.all(), expected);
        seen.stays(scope, expected.len()).await;
        end(&messaging).await;
    }
}

/// Where the broker keeps the order of keys, a message that is tried again keeps its place.
pub async fn a_failed_message_stays_before_the_next_of_its_key(broker: &AnyBroker, scope: &Scope) {
    let keeps = broker.capabilities().ordering != OrderingGuarantee::None;
    if !able(broker, scope) || !has(scope, keeps, "an order of keys") {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |order: Order, Attempt(attempt): Attempt| {
        record.push((order.id, attempt));
        async move {
            match (order.id, attempt) {
                (1, 1 | 2) => Err(HandlerError::retry("not yet")),
                _ => Ok(()),
            }
        }
    };
    let subscribing = messaging.subscribe(name.clone()).concurrency(4);
    let subscribing = subscribing.max_attempts(3).retry_delay(SHORT / 4);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    for id in 0..4 {
        let outgoing = messaging.to(&name).key("customer-7");
        outgoing.send(&Order { id }).await.expect("published");
    }
    let all = seen.wait_for(scope, 6).await;
    assert_eq!(all, [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]);
    end(&messaging).await;
}

/// The time that a sender gives ends the handler. What becomes of the message is told all the same, and at once.
pub async fn who_overruns_the_senders_deadline_is_done_with(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let group = scope.name("mail");
    let mut dead = Dead::of(broker, scope, &group).await;
    let subscribing = messaging.subscribe(name.clone()).group(&group);
    let subscribing = subscribing.max_attempts(1).lease(Duration::from_secs(120));
    let handler = |_: Order| async {
        std::future::pending::<()>().await;
    };
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    let outgoing = messaging.to(&name).header(header::REPLY_TO, "reply.nobody");
    let outgoing = outgoing.header(REQUEST_TIMEOUT_MS, "60");
    outgoing.send(&Order { id: 1 }).await.expect("published");
    let letter = dead.next(scope).await;
    assert_eq!(letter.headers.get(header::DEAD_REASON), Some("attempts"));
    end(&messaging).await;
}

/// A panic ends an attempt, not the consumer.
pub async fn a_panic_is_a_failed_attempt(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, group) = (Seen::new(), scope.name("mail"));
    let record = seen.clone();
    let handler = move |order: Order, Attempt(attempt): Attempt| {
        record.push((order.id, attempt));
        async move {
            assert!(order.id != 1, "order {} is unlucky", order.id);
        }
    };
    let mut dead = Dead::of(broker, scope, &group).await;
    let subscribing = messaging
        .subscribe(name.clone())
        .group(&group)
        .concurrency(1);
    let subscribing = subscribing.max_attempts(2).retry_delay(SHORT / 4);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    let letter = dead.next(scope).await;
    let error = letter.headers.get(header::DEAD_ERROR).unwrap_or_default();
    assert!(error.contains("order 1 is unlucky"), "{error}");
    publish(&messaging, scope, &name, 2).await;
    let all = seen.wait_for(scope, 3).await;
    assert_eq!(all, [(1, 1), (1, 2), (2, 1)]);
    end(&messaging).await;
}

/// A handler that takes too long is stopped; that is a failed attempt.
pub async fn a_slow_handler_is_stopped_and_tried_again(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, stopped) = (Seen::new(), Arc::new(AtomicBool::new(false)));
    let (record, flag) = (seen.clone(), Arc::clone(&stopped));
    let handler = move |Attempt(attempt): Attempt| {
        let (record, flag) = (record.clone(), Arc::clone(&flag));
        async move {
            if attempt == 1 {
                let _flag = SetOnDrop(flag);
                std::future::pending::<()>().await;
            }
            record.push(attempt);
        }
    };
    let subscribing = messaging
        .subscribe(name.clone())
        .timeout(SHORT)
        .retry_delay(SHORT / 4);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    assert_eq!(seen.wait_for(scope, 1).await, [2]);
    assert!(
        stopped.load(Ordering::SeqCst),
        "the first attempt was stopped"
    );
    end(&messaging).await;
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What cannot be read is a dead letter at once, and holds nothing up (X-22).
pub async fn an_unreadable_message_is_given_up_at_once(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, group) = (Seen::new(), scope.name("mail"));
    let record = seen.clone();
    let handler = move |order: Order| {
        record.push(order.id);
        async {}
    };
    let mut dead = Dead::of(broker, scope, &group).await;
    let subscribing = messaging
        .subscribe(name.clone())
        .group(&group)
        .max_attempts(5);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish_garbage(broker, scope, &name).await;
    publish(&messaging, scope, &name, 2).await;
    let letter = dead.next(scope).await;
    assert_eq!(letter.payload, "{ this is not");
    assert_eq!(letter.headers.get(header::DEAD_REASON), Some("undecodable"));
    assert_eq!(letter.headers.get(header::ATTEMPTS), Some("1"));
    let error = letter.headers.get(header::DEAD_ERROR).unwrap_or_default();
    assert!(error.contains("line 1"), "{error}");
    assert_eq!(seen.wait_for(scope, 1).await, [2]);
    end(&messaging).await;
}

/// A handler that knows that it will never work says so, and is not asked again.
pub async fn a_handler_may_give_up_at_once(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, group) = (Seen::new(), scope.name("mail"));
    let record = seen.clone();
    let handler = move |order: Order| {
        record.push(order.id);
        async {
            Err::<(), _>(HandlerError::dead_letter(Error::invalid(
                "not an order of ours",
            )))
        }
    };
    let mut dead = Dead::of(broker, scope, &group).await;
    let subscribing = messaging
        .subscribe(name.clone())
        .group(&group)
        .max_attempts(5);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    let letter = dead.next(scope).await;
    assert_eq!(letter.headers.get(header::DEAD_REASON), Some("handler"));
    seen.stays(scope, 1).await;
    end(&messaging).await;
}

/// A message that the handler does not want is gone, without a dead letter.
pub async fn a_rejected_message_is_gone(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, group) = (Seen::new(), scope.name("mail"));
    let record = seen.clone();
    let handler = move |order: Order| {
        record.push(order.id);
        async { Err::<(), _>(HandlerError::reject("not for us")) }
    };
    let mut dead = Dead::of(broker, scope, &group).await;
    let subscribing = messaging.subscribe(name.clone()).group(&group);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    seen.wait_for(scope, 1).await;
    seen.stays(scope, 1).await;
    dead.none(scope).await;
    end(&messaging).await;
}

/// Each handler has its own outcome: one that fails is tried again alone (X-23).
pub async fn one_failing_handler_repeats_nothing_for_others(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (good, bad) = (Seen::new(), Seen::new());
    let (good_record, bad_record) = (good.clone(), bad.clone());
    let group = scope.name("bad");
    let mut dead = Dead::of(broker, scope, &group).await;
    let succeed = move |order: Order| {
        good_record.push(order.id);
        async {}
    };
    let fail = move |order: Order| {
        bad_record.push(order.id);
        async { Err::<(), _>(std::io::Error::other("the mail server is away")) }
    };
    let subscribing = messaging.subscribe(name.clone()).group(scope.name("good"));
    subscribing.handle(succeed).await.expect("it begins");
    let subscribing = messaging.subscribe(name.clone()).group(&group);
    let subscribing = subscribing.max_attempts(3).retry_delay(SHORT / 4);
    subscribing.handle(fail).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    let letter = dead.next(scope).await;
    let error = letter.headers.get(header::DEAD_ERROR);
    assert_eq!(error, Some("the mail server is away"));
    assert_eq!(bad.all(), [1, 1, 1]);
    assert_eq!(good.all(), [1]);
    end(&messaging).await;
}

/// A dead letter is the message as it was, and says where it came from, whose it is, what went wrong and when.
pub async fn a_dead_letter_tells_everything(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let group = scope.name("mail");
    let mut dead = Dead::of(broker, scope, &group).await;
    let fail = |_: Order| async {
        let cause = std::io::Error::other("the disk is on fire");
        let error = Error::unavailable("the order was not stored").with_source(cause);
        Err::<(), _>(error)
    };
    let subscribing = messaging
        .subscribe(name.clone())
        .group(&group)
        .name("store_order");
    let subscribing = subscribing.max_attempts(2).retry_delay(SHORT / 4);
    subscribing.handle(fail).await.expect("it begins");
    ready(&messaging, scope).await;
    let outgoing = messaging
        .to(&name)
        .id("order-7")
        .key("k")
        .header("own", "h");
    outgoing.send(&Order { id: 7 }).await.expect("published");
    let letter = dead.next(scope).await;
    assert_eq!(letter.id, "order-7");
    assert_eq!(letter.key_text(), Some("k"));
    assert_eq!(letter.payload, r#"{"id":7}"#);
    assert_eq!(letter.content_type.as_deref(), Some("application/json"));
    let get = |name: &str| letter.headers.get(name).unwrap_or_default().to_owned();
    assert_eq!(get("own"), "h");
    assert_eq!(get(header::ORIGIN), format!("topic {name}"));
    assert_eq!(get(header::DEAD_GROUP), group);
    assert_eq!(get(header::DEAD_SOURCE), format!("topics {name}"));
    assert_eq!(get(header::DEAD_HANDLER), "store_order");
    assert_eq!(get(header::ATTEMPTS), "2");
    let error = get(header::DEAD_ERROR);
    assert!(
        error.contains("not stored") && error.contains("on fire"),
        "{error}"
    );
    let at: Timestamp = get(header::DEAD_AT).parse().expect("RFC 3339");
    assert!(Some(at) >= letter.published_at);
    end(&messaging).await;
}

/// Where no dead letters are wanted, a message that keeps failing is dropped.
pub async fn without_dead_letters_a_message_is_dropped(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, group) = (Seen::new(), scope.name("mail"));
    let record = seen.clone();
    let mut dead = Dead::of(broker, scope, &group).await;
    let fail = move |order: Order| {
        record.push(order.id);
        async { Err::<(), _>(HandlerError::retry("no")) }
    };
    let subscribing = messaging
        .subscribe(name.clone())
        .group(&group)
        .without_dead_letters();
    let subscribing = subscribing.max_attempts(2).retry_delay(SHORT / 4);
    subscribing.handle(fail).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    seen.wait_for(scope, 2).await;
    seen.stays(scope, 2).await;
    dead.none(scope).await;
    end(&messaging).await;
}

/// A handler may ask for a later attempt; it does not come earlier, by whatever way it comes.
pub async fn a_retry_comes_no_earlier_than_asked(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let wait = Duration::from_millis(300);
    let handler = move |Attempt(attempt): Attempt| {
        record.push((attempt, Instant::now()));
        async move {
            match attempt {
                1 => Err(HandlerError::retry_after("not yet", wait)),
                _ => Ok(()),
            }
        }
    };
    let subscribing = messaging
        .subscribe(name.clone())
        .retry_delay(Duration::ZERO);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    let all = seen.wait_for(scope, 2).await;
    assert_eq!((all[0].0, all[1].0), (1, 2));
    // Brokers count whole milliseconds.
    let between = all[1].1 - all[0].1 + Duration::from_millis(5);
    assert!(between >= wait, "{between:?}");
    end(&messaging).await;
}

/// While a handler works longer than the lease, nobody else gets its message.
pub async fn a_slow_handler_keeps_its_message(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.lease_extension,
        "lease_extension",
    ) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let seen = Seen::new();
    let record = seen.clone();
    let lease = Duration::from_secs(2);
    let handler = move |Attempt(attempt): Attempt| {
        let record = record.clone();
        async move {
            record.push(attempt);
            tokio::time::sleep(lease * 2).await;
            record.push(100);
        }
    };
    let subscribing = messaging
        .subscribe(name.clone())
        .lease(lease)
        .concurrency(2);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    assert_eq!(seen.wait_for(scope, 2).await, [1, 100]);
    seen.stays(scope, 2).await;
    end(&messaging).await;
}

/// While what the handler needs is away, messages are held back and not given up; when it is back they are handled.
pub async fn an_open_circuit_holds_messages_back(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, name) = (messaging(broker, scope), topic(scope, "orders"));
    let (seen, group, works) = (
        Seen::new(),
        scope.name("mail"),
        Arc::new(AtomicBool::new(false)),
    );
    let mut dead = Dead::of(broker, scope, &group).await;
    let (record, switch) = (seen.clone(), Arc::clone(&works));
    let handler = move |order: Order| {
        let (record, works) = (record.clone(), switch.load(Ordering::SeqCst));
        async move {
            if !works {
                return Err(HandlerError::retry("the database is away"));
            }
            record.push(order.id);
            Ok(())
        }
    };
    let mut breaker = BreakerSettings::default();
    breaker.failure_threshold = 2;
    breaker.recovery_timeout = SHORT * 2;
    let subscribing = messaging
        .subscribe(name.clone())
        .group(&group)
        .concurrency(1);
    let subscribing = subscribing.max_attempts(20).retry_delay(SHORT / 10);
    let subscribing = subscribing.circuit_breaker(breaker);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    for id in 0..5 {
        publish(&messaging, scope, &name, id).await;
    }
    dead.none(scope).await;
    works.store(true, Ordering::SeqCst);
    let mut all = seen.wait_for(scope, 5).await;
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4]);
    end(&messaging).await;
}
