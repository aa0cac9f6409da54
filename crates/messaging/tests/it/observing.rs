//! What metrics and readiness tell.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::names::header::REQUEST_TIMEOUT_MS;
use trunkline_core::{Health, Lifecycle};
use trunkline_messaging::inbox::{AnyInbox, MemoryInbox};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{
    Attempt, HandlerError, Message, MessageBroker, Messaging, Publish, SubscriptionState,
};
use trunkline_telemetry::{Format, Metrics};
use trunkline_testing::broker::RestrictedBroker;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// The value of a series, by the words that its line contains.
pub(crate) fn value(metrics: &Metrics, name: &str, labels: &[&str]) -> f64 {
    let text = metrics.render(Format::Prometheus).unwrap();
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label))
    });
    let Some(line) = line else {
        panic!("no {name} with {labels:?} in\n{text}");
    };
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn obs1_every_end_of_a_message_is_counted() {
    let metrics = Metrics::new();
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let messaging = Messaging::builder(broker.clone())
        .service("shop")
        .metrics(&metrics, "default")
        .inbox(AnyInbox::new(MemoryInbox::default()))
        .build();
    let handler = |order: u32, Attempt(attempt): Attempt| async move {
        match (order, attempt) {
            (1, _) => Ok(()),
            (2, 1) => Err(HandlerError::retry("once")),
            (2, _) => Ok(()),
            (3, _) => Err(HandlerError::reject("no")),
            _ => Err(HandlerError::dead_letter("never")),
        }
    };
    messaging.subscribe("orders").handle(handler).await.unwrap();
    for order in 1..=4_u32 {
        messaging.publish("orders", &order).await.unwrap();
    }
    for _ in 0..2 {
        messaging
            .to("orders")
            .id("twice")
            .send(&1_u32)
            .await
            .unwrap();
    }
    let garbage = Message::new("{").with_content_type("application/json");
    let orders = "orders"
        .parse()
        .map(trunkline_messaging::Destination::Topic)
        .unwrap();
    broker.publish(Publish::new(orders, garbage)).await.unwrap();
    messaging.publish("nobody", &1_u32).await.unwrap();
    let refused = messaging.to::<u32, _>("nobody").mandatory().send(&1).await;
    assert!(refused.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;

    let consumed = |outcome: &str| {
        let labels = [r#""orders""#, r#""shop""#, outcome];
        value(
            &metrics,
            "messaging_client_consumed_messages_total",
            &labels,
        )
    };
    // One, two at its second attempt, the pair of one id.
    assert_eq!(consumed(r#""handled""#), 4.0);
    assert_eq!(consumed(r#""retried""#), 1.0);
    assert_eq!(consumed(r#""rejected""#), 1.0);
    assert_eq!(consumed(r#""dead_lettered""#), 2.0);
    let of = |name: &str| value(&metrics, name, &[r#""orders""#, r#""shop""#]);
    assert_eq!(of("trunkline_messaging_redeliveries_total"), 1.0);
    assert_eq!(of("trunkline_messaging_duplicates_total"), 1.0);
    assert_eq!(of("trunkline_messaging_in_flight"), 0.0);
    assert_eq!(of("trunkline_messaging_subscription_attached"), 1.0);
    assert_eq!(of("messaging_process_duration_seconds_count"), 8.0);
    for reason in [r#""handler""#, r#""undecodable""#] {
        let labels = [r#""orders""#, r#""shop""#, reason];
        assert_eq!(
            value(&metrics, "trunkline_messaging_dead_letters_total", &labels),
            1.0
        );
    }
    let sent = |labels: &[&str]| value(&metrics, "messaging_client_sent_messages_total", labels);
    assert_eq!(sent(&[r#""orders""#, r#""published""#]), 6.0);
    assert_eq!(sent(&[r#""nobody""#, r#""published""#]), 1.0);
    assert_eq!(sent(&[r#""nobody""#, r#""not_found""#]), 1.0);
    let unroutable = value(
        &metrics,
        "trunkline_messaging_unroutable_total",
        &[r#""nobody""#],
    );
    assert_eq!(unroutable, 1.0);

    messaging.shutdown(soon()).await.unwrap();
    assert_eq!(of("trunkline_messaging_subscription_attached"), 0.0);
}

/// What waits for a handler is asked of the broker, shown, and not shown any more when nobody knows.
#[tokio::test(start_paused = true)]
async fn the_lag_of_a_handler_is_shown() {
    let (metrics, health) = (Metrics::new(), Health::default());
    let broker = MemoryBroker::default().erase();
    let part = health.register("message_broker_main", "main", "message_broker_memory", true);
    let messaging = Messaging::builder(broker.clone())
        .service("shop")
        .metrics(&metrics, "main")
        .component(part.clone())
        .lag_interval(Duration::from_secs(3))
        .build();
    let (open, opened) = tokio::sync::watch::channel(false);
    let handler = move |_: u32| {
        let mut opened = opened.clone();
        async move {
            let open = opened.wait_for(|open| *open).await;
            open.map(drop)
                .map_err(|_| HandlerError::reject("the test is over"))
        }
    };
    messaging.start().await.unwrap();
    let listening = messaging
        .subscribe("orders")
        .concurrency(1)
        .prefetch(1)
        .handle(handler)
        .await
        .unwrap();
    let shown = || {
        let text = metrics.render(Format::Prometheus).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("trunkline_messaging_lag{"));
        line.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
    };
    let of_health = || {
        part.status()
            .unwrap()
            .metadata
            .get("lag orders (shop)")
            .cloned()
    };
    let mut lag = listening.lag();
    lag.wait_for(|lag| *lag == Some(0)).await.unwrap();
    for number in 0..5_u32 {
        messaging.publish("orders", &number).await.unwrap();
    }
    // One is in its handler.
    lag.wait_for(|lag| *lag == Some(4)).await.unwrap();
    assert_eq!(shown().as_deref(), Some("4"));
    assert_eq!(of_health(), Some(4.into()));
    open.send_replace(true);
    lag.wait_for(|lag| *lag == Some(0)).await.unwrap();
    assert_eq!(shown().as_deref(), Some("0"));
    messaging.shutdown(soon()).await.unwrap();
    assert_eq!(*lag.borrow(), None);
    assert_eq!((shown(), of_health()), (None, None));
}

/// A broker that fails to answer costs the handler nothing, and no number is shown that may be old.
#[tokio::test(start_paused = true)]
async fn a_lag_that_nobody_knows_is_not_shown() {
    let metrics = Metrics::new();
    let broker = MemoryBroker::default().erase();
    for (can, every) in [(false, 1), (true, 0)] {
        let lesser = RestrictedBroker::new(broker.clone(), |has| has.lag = can);
        let messaging = Messaging::builder(lesser.erase())
            .service("shop")
            .metrics(&metrics, "main")
            .lag_interval(Duration::from_secs(every))
            .build();
        messaging.start().await.unwrap();
        let (done, mut handled) = tokio::sync::mpsc::unbounded_channel();
        let listening = messaging
            .subscribe("orders")
            .handle(move |number: u32| {
                let sent = done.send(number);
                async move { sent.map_err(|_| HandlerError::reject("nobody counts")) }
            })
            .await
            .unwrap();
        messaging.publish("orders", &1_u32).await.unwrap();
        assert_eq!(handled.recv().await, Some(1));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(*listening.lag().borrow(), None);
        let text = metrics.render(Format::Prometheus).unwrap();
        assert!(!text.contains("trunkline_messaging_lag{"), "{text}");
        listening.stop(soon()).await;
    }
}

/// A request that nobody waits for any more is not handled, and not counted as if it were.
#[tokio::test(start_paused = true)]
async fn a_message_dropped_for_its_deadline_is_counted_as_that() {
    let metrics = Metrics::new();
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let messaging = Messaging::builder(broker)
        .service("shop")
        .metrics(&metrics, "default")
        .build();
    let subscribing = messaging.subscribe("orders").honour_deadline();
    subscribing.handle(|| async {}).await.unwrap();
    let late = messaging.to("orders").header(REQUEST_TIMEOUT_MS, "0");
    late.send(&1_u32).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let consumed = |outcome: &str| {
        let labels = [r#""orders""#, r#""shop""#, outcome];
        value(
            &metrics,
            "messaging_client_consumed_messages_total",
            &labels,
        )
    };
    assert_eq!(consumed(r#""expired""#), 1.0);
    assert_eq!(consumed(r#""handled""#), 0.0);
    assert_eq!(consumed(r#""retried""#), 0.0);
    messaging.shutdown(soon()).await.unwrap();
}

#[tokio::test]
async fn x21_readiness_is_off_while_a_subscription_is_detached() {
    let health = Health::default();
    let broker = MemoryBroker::default().erase();
    let messaging = Messaging::builder(broker.clone())
        .service("shop")
        .health(health.clone())
        .build();
    let listening = messaging
        .subscribe("orders")
        .handle(|| async {})
        .await
        .unwrap();
    let readiness = health.readiness();
    assert!(!readiness.ready);
    assert!(
        readiness.reasons[0].contains("subscription orders (shop)"),
        "{readiness:?}"
    );
    messaging.start().await.unwrap();
    messaging.ready().await.unwrap();
    assert_eq!(health.readiness().reasons, [""; 0]);
    broker.disconnect(soon()).await.unwrap();
    let mut state = listening.state();
    state
        .wait_for(|state| *state == SubscriptionState::Closed)
        .await
        .unwrap();
    let closed = async {
        while health.readiness().ready {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), closed)
        .await
        .unwrap();
    assert!(messaging.ready().await.is_err());
    messaging.drain(soon()).await.unwrap();
    assert!(health.readiness().ready, "what was stopped is no reason");
}
