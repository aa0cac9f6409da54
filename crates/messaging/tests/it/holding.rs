//! Messages that are held for longer than their leases: by an open circuit, or because another handles the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use trunkline_core::{Lifecycle, Result};
use trunkline_messaging::inbox::{
    AnyInbox, Claim, ClaimRequest, ClaimToken, InboxStore, MemoryInbox,
};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{HandlerError, MessageBroker, Messaging};
use trunkline_resilience::breaker::BreakerSettings;
use trunkline_telemetry::Metrics;

use crate::observing::value;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

struct Shop {
    messaging: Messaging,
    inbox: AnyInbox,
    metrics: Metrics,
}

impl Shop {
    async fn open() -> Self {
        let (metrics, broker) = (Metrics::new(), MemoryBroker::default().erase());
        let inbox = AnyInbox::new(MemoryInbox::default());
        broker.connect().await.unwrap();
        let messaging = Messaging::builder(broker)
            .service("shop")
            .metrics(&metrics, "default")
            .inbox(inbox.clone())
            .build();
        Self {
            messaging,
            inbox,
            metrics,
        }
    }

    async fn send(&self, id: &str, order: u32) {
        let outgoing = self.messaging.to("orders").id(id);
        outgoing.send(&order).await.unwrap();
    }

    fn redelivered(&self) -> f64 {
        let labels = [r#""orders""#, r#""shop""#];
        value(
            &self.metrics,
            "trunkline_messaging_redeliveries_total",
            &labels,
        )
    }
}

/// Opens at the first failure, for that long.
fn breaker(recovery: Duration) -> BreakerSettings {
    let mut breaker = BreakerSettings::default();
    breaker.failure_threshold = 1;
    breaker.recovery_timeout = recovery;
    breaker
}

#[tokio::test(start_paused = true)]
async fn a_circuit_open_for_longer_than_the_lease_loses_no_claim() {
    let shop = Shop::open().await;
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let handler = move |order: u32| {
        let count = Arc::clone(&count);
        async move {
            if order == 0 {
                return Err(HandlerError::retry("the database is away"));
            }
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let lease = Duration::from_secs(3);
    let subscribing = shop.messaging.subscribe("orders").lease(lease);
    let subscribing = subscribing.max_attempts(2).retry_delay(lease * 100);
    let subscribing = subscribing.circuit_breaker(breaker(lease * 10));
    subscribing.handle(handler).await.unwrap();
    shop.send("opens the circuit", 0).await;
    sleep(lease / 3).await;
    shop.send("held", 1).await;
    sleep(lease * 5).await;
    // Every claim clears away what has run out.
    shop.inbox
        .claim(ClaimRequest::new("somebody", "else"))
        .await
        .unwrap();
    sleep(lease * 6).await;
    assert_eq!(handled.load(Ordering::SeqCst), 1);
    shop.send("held", 1).await;
    sleep(lease).await;
    assert_eq!(handled.load(Ordering::SeqCst), 1, "it was not remembered");
    assert_eq!(shop.redelivered(), 0.0);
    shop.messaging.shutdown(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_circuit_open_for_longer_than_the_lease_loses_no_message() {
    let shop = Shop::open().await;
    let handler = |order: u32| async move {
        match order {
            0 => Err(HandlerError::retry("the database is away")),
            _ => Ok(()),
        }
    };
    // The circuit is asked again every five seconds, more often than the lease has to be renewed.
    let lease = Duration::from_secs(30);
    let subscribing = shop.messaging.subscribe("orders").lease(lease);
    let subscribing = subscribing.max_attempts(2).retry_delay(lease * 100);
    let subscribing = subscribing.circuit_breaker(breaker(lease * 3));
    subscribing.handle(handler).await.unwrap();
    shop.send("opens the circuit", 0).await;
    sleep(lease / 30).await;
    shop.send("held", 1).await;
    sleep(lease * 4).await;
    assert_eq!(shop.redelivered(), 0.0);
    shop.messaging.shutdown(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_for_its_twin_is_kept() {
    let shop = Shop::open().await;
    let lease = Duration::from_secs(30);
    let handler = move |_: u32| async move { sleep(lease * 4).await };
    let subscribing = shop.messaging.subscribe("orders").lease(lease);
    let subscribing = subscribing.timeout(lease * 10);
    subscribing.handle(handler).await.unwrap();
    for _ in 0..2 {
        shop.send("twice", 1).await;
    }
    sleep(lease * 5).await;
    assert_eq!(shop.redelivered(), 0.0);
    let labels = [r#""orders""#, r#""shop""#];
    let of = |name: &str| value(&shop.metrics, name, &labels);
    assert_eq!(of("trunkline_messaging_duplicates_total"), 1.0);
    assert_eq!(of("trunkline_messaging_in_flight"), 0.0);
    shop.messaging.shutdown(soon()).await.unwrap();
}

/// An inbox that takes its time to answer.
struct Slow(MemoryInbox, Duration);

impl InboxStore for Slow {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        sleep(self.1 * 2 / 7).await;
        self.0.claim(request).await
    }

    async fn complete(&self, token: ClaimToken, result: Bytes, keep: Duration) -> Result<()> {
        sleep(self.1 * 3).await;
        self.0.complete(token, result, keep).await
    }

    async fn extend(&self, token: &ClaimToken, lease: Duration) -> Result<()> {
        self.0.extend(token, lease).await
    }

    async fn release(&self, token: ClaimToken) -> Result<()> {
        self.0.release(token).await
    }
}

/// A message waits in many places: for its turn, for the inbox, in the handler, and for the inbox again.
#[tokio::test(start_paused = true)]
async fn a_message_is_kept_wherever_it_waits() {
    let lease = Duration::from_secs(7);
    let (metrics, broker) = (Metrics::new(), MemoryBroker::default().erase());
    broker.connect().await.unwrap();
    let inbox = AnyInbox::new(Slow(MemoryInbox::default(), lease));
    let messaging = Messaging::builder(broker)
        .service("shop")
        .metrics(&metrics, "default")
        .inbox(inbox.clone())
        .build();
    let shop = Shop {
        messaging,
        inbox,
        metrics,
    };
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let handler = move |_: u32| {
        let count = Arc::clone(&count);
        async move {
            sleep(lease * 2 / 7).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    };
    let subscribing = shop.messaging.subscribe("orders").lease(lease);
    subscribing.handle(handler).await.unwrap();
    shop.send("one", 1).await;
    sleep(lease * 20).await;
    assert_eq!(handled.load(Ordering::SeqCst), 1);
    assert!(shop.redelivered().abs() < f64::EPSILON, "it came again");
    shop.messaging.drain(soon()).await.unwrap();
}
