//! Subscriptions that are given up while the broker still thinks about them.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use trunkline_core::{Lifecycle, Result};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{
    AnyBroker, Capabilities, Destination, MessageBroker, Publish, Receipt, Router, Subscribe,
    Subscription,
};

const MOMENT: Duration = Duration::from_secs(1);

/// A broker that does not answer who subscribes, as long as it is told so.
struct Slow {
    broker: AnyBroker,
    hangs: Arc<AtomicBool>,
}

impl MessageBroker for Slow {
    fn kind(&self) -> &'static str {
        self.broker.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    async fn connect(&self) -> Result<()> {
        self.broker.connect().await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        self.broker.disconnect(deadline).await
    }

    async fn health_check(&self) -> Result<()> {
        self.broker.health_check().await
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        self.broker.publish(publish).await
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.broker.declare(destination).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        if self.hangs.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        self.broker.subscribe(subscribe).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_dropped_while_it_begins_leaves_nothing_behind() {
    let hangs = Arc::new(AtomicBool::new(true));
    let broker = Slow {
        broker: MemoryBroker::default().erase(),
        hangs: Arc::clone(&hangs),
    };
    let broker = broker.erase();
    broker.connect().await.unwrap();
    let router = Router::new(broker);
    let subscribe = || {
        let subscribing = router.subscribe("orders").group("mailer");
        subscribing.handle(|| async {})
    };
    let waiting = async {
        // It waits for this subscription too, and hears that it will not come.
        tokio::task::yield_now().await;
        timeout(MOMENT * 10, router.ready()).await
    };
    let (begun, ready) = tokio::join!(timeout(MOMENT, subscribe()), waiting);
    assert!(begun.is_err(), "the broker does not answer");
    assert!(ready.expect("it ends").is_err());
    assert!(router.handlers().is_empty());
    timeout(MOMENT, router.ready()).await.unwrap().unwrap();

    hangs.store(false, Ordering::SeqCst);
    subscribe().await.unwrap();
    timeout(MOMENT, router.ready()).await.unwrap().unwrap();
    assert_eq!(router.handlers().len(), 1);
}
