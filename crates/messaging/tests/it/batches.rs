//! Several messages published together are one call of the policy.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Result, Retry};
use trunkline_messaging::{
    Capabilities, ConsumeSettings, Destination, Message, MessageBroker, Messaging, Publish,
    PublishSettings, Receipt, Routed, SamePolicies, Subscribe, Subscription,
};
use trunkline_resilience::bulkhead::BulkheadSettings;
use trunkline_resilience::{CircuitOpen, EffectivePolicy, Policy};

/// Takes every message but those that it is told to refuse.
#[derive(Clone, Default)]
struct Choosy(Arc<Choices>);

#[derive(Default)]
struct Choices {
    /// The payloads of every batch that came.
    batches: Mutex<Vec<Vec<String>>>,
    alone: AtomicU32,
    away: AtomicBool,
    hangs: AtomicBool,
    /// Not now, but the next time.
    not_yet: Mutex<Vec<&'static str>>,
    never: Mutex<Vec<&'static str>>,
}

impl Choosy {
    fn take(&self, publish: &Publish) -> Result<Receipt> {
        let text = text(&publish.message);
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the broker is away"));
        }
        if self.0.never.lock().unwrap().contains(&&*text) {
            return Err(Error::invalid(format!("{text} is too large")));
        }
        let mut not_yet = self.0.not_yet.lock().unwrap();
        if let Some(at) = not_yet.iter().position(|known| *known == text) {
            not_yet.remove(at);
            return Err(Error::unavailable("not yet").with_retry(Retry::Safe));
        }
        Ok(Receipt::new(publish.message.id.clone(), Routed::Yes))
    }

    fn batches(&self) -> Vec<Vec<String>> {
        self.0.batches.lock().unwrap().clone()
    }
}

fn text(message: &Message) -> String {
    serde_json::from_slice(&message.payload).unwrap()
}

impl MessageBroker for Choosy {
    fn kind(&self) -> &'static str {
        "choosy"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    async fn connect(&self) -> Result<()> {
        Ok(())
    }

    async fn disconnect(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        self.0.alone.fetch_add(1, Ordering::SeqCst);
        self.take(&publish)
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let texts = batch.iter().map(|publish| text(&publish.message)).collect();
        self.0.batches.lock().unwrap().push(texts);
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        batch.iter().map(|publish| self.take(publish)).collect()
    }

    async fn declare(&self, _: Destination) -> Result<()> {
        Ok(())
    }

    async fn subscribe(&self, _: Subscribe) -> Result<Subscription> {
        Err(Error::unsupported("nobody subscribes here"))
    }
}

fn messaging(broker: &Choosy, settings: EffectivePolicy) -> (Messaging, Arc<Policy>) {
    let policy = Arc::new(Policy::new("orders", settings));
    let publish = PublishSettings::new(Arc::clone(&policy));
    let policies = SamePolicies::new(publish, ConsumeSettings::default());
    let messaging = Messaging::builder(broker.clone().erase()).policies(policies);
    (messaging.build(), policy)
}

fn kinds(outcomes: &[Result<Receipt>]) -> Vec<Option<ErrorKind>> {
    let kind = |outcome: &Result<Receipt>| outcome.as_ref().err().map(Error::kind);
    outcomes.iter().map(kind).collect()
}

#[tokio::test(start_paused = true)]
async fn what_may_be_tried_again_is_tried_again_together() {
    let broker = Choosy::default();
    let (messaging, _) = messaging(&broker, EffectivePolicy::default());
    *broker.0.not_yet.lock().unwrap() = vec!["b", "d", "d"];
    *broker.0.never.lock().unwrap() = vec!["c"];
    let values = ["a", "b", "c", "d"];
    let publisher = messaging.publisher();
    let outcomes = publisher.publish_batch("orders", &values).await;
    assert_eq!(
        kinds(&outcomes),
        [None, None, Some(ErrorKind::Invalid), None]
    );
    let expected = vec![vec!["a", "b", "c", "d"], vec!["b", "d"], vec!["d"]];
    assert_eq!(broker.batches(), expected);
    assert_eq!(broker.0.alone.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn batches_open_the_circuit_and_heed_it() {
    let broker = Choosy::default();
    let mut settings = EffectivePolicy::default();
    settings.retry.enabled = false;
    let threshold = settings.circuit_breaker.unwrap().failure_threshold;
    let (messaging, _) = messaging(&broker, settings);
    broker.0.away.store(true, Ordering::SeqCst);
    let publisher = messaging.publisher();
    for _ in 0..threshold {
        let outcomes = publisher.publish_batch("orders", &["a", "b"]).await;
        assert_eq!(kinds(&outcomes), [Some(ErrorKind::Unavailable); 2]);
    }
    let outcomes = publisher.publish_batch("orders", &["a", "b"]).await;
    assert_eq!(kinds(&outcomes), [Some(ErrorKind::Rejected); 2]);
    let first = outcomes[0].as_ref().unwrap_err();
    assert!(first.find::<CircuitOpen>().is_some());
    assert_eq!(broker.batches().len(), threshold as usize);
    assert!(publisher.publish("orders", "a").await.is_err());
    assert_eq!(broker.0.alone.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_answered_ends_with_its_attempts() {
    let broker = Choosy::default();
    let mut settings = EffectivePolicy::default();
    settings.timeout.attempt = Duration::from_secs(2);
    settings.retry.enabled = false;
    settings.bulkhead = Some(BulkheadSettings::default());
    let (messaging, policy) = messaging(&broker, settings);
    broker.0.hangs.store(true, Ordering::SeqCst);
    let running = || policy.bulkhead().unwrap().occupancy().running;
    let began = Instant::now();
    let publisher = messaging.publisher();
    let batch = publisher.publish_batch("orders", &["a", "b"]);
    let look = async {
        tokio::task::yield_now().await;
        running()
    };
    let (outcomes, during) = tokio::join!(batch, look);
    assert_eq!((during, running()), (1, 0));
    assert_eq!(kinds(&outcomes), [Some(ErrorKind::Timeout); 2]);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}
