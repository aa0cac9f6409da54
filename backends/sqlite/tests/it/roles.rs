//! What other processes do.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use trunkline_core::Id;
use trunkline_discovery::{Registry, ServiceInstance, ServiceName};
use trunkline_events::{Event, EventStore, ExpectedVersion, StreamName};
use trunkline_messaging::inbox::{Claim, ClaimRequest, InboxStore};
use trunkline_messaging::{
    Destination, Message, MessageBroker, Messaging, Publish, Subscribe, TopicName,
};
use trunkline_sqlite::{
    EmbeddedBroker, EmbeddedBrokerConfig, EmbeddedEventStore, EmbeddedInbox, EmbeddedRegistry,
};

use crate::process::tell;

pub(crate) const TOPIC: &str = "order.created";
pub(crate) const GROUP: &str = "mailer";
/// Longer than any test.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn play(role: &str, directory: &str, arguments: &[&str]) {
    match (role, arguments) {
        ("publish", []) => publish(directory).await,
        ("hold", [count]) => hold(directory, count.parse().unwrap()).await,
        ("consume", []) => consume(directory).await,
        ("handle", []) => handle(directory).await,
        ("claim", []) => claim(directory).await,
        ("listen", []) => listen(directory).await,
        ("register", [service]) => register(directory, service).await,
        ("append", [stream]) => append(directory, stream).await,
        _ => panic!("no role: {role} {arguments:?}"),
    }
}

pub(crate) async fn connect(directory: &str) -> EmbeddedBroker {
    let broker = EmbeddedBroker::new(EmbeddedBrokerConfig::new(directory));
    broker.connect().await.unwrap();
    broker
}

pub(crate) fn topic() -> TopicName {
    TopicName::new(TOPIC).unwrap()
}

pub(crate) fn message(id: &str) -> Publish {
    Publish::new(Destination::Topic(topic()), Message::new("x").with_id(id))
}

pub(crate) fn member() -> Subscribe {
    Subscribe::topics(topic())
        .with_group(GROUP)
        .with_lease(HOUR)
}

/// Publishes for ever, many at once, and tells each confirm.
async fn publish(directory: &str) {
    let broker = Arc::new(connect(directory).await);
    let publishers = (0..16).map(|_| {
        let broker = Arc::clone(&broker);
        trunkline_core::task::spawn("publish", async move {
            loop {
                let id = Id::new().to_string();
                broker.publish(message(&id)).await.unwrap();
                tell(id);
            }
        })
    });
    futures_util::future::join_all(publishers).await;
}

/// Takes some messages and never settles them.
async fn hold(directory: &str, count: usize) {
    let broker = connect(directory).await;
    let mut subscription = broker.subscribe(member()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..count {
        let delivery = subscription.next().await.unwrap();
        tell(&delivery.message().id);
        held.push(delivery);
    }
    pending::<()>().await;
}

/// Tells what it gets before it acknowledges it, and afterwards.
async fn consume(directory: &str) {
    let broker = connect(directory).await;
    let mut subscription = broker.subscribe(member()).await.unwrap();
    while let Some(delivery) = subscription.next().await {
        let id = delivery.message().id.clone();
        tell(format!("got {id} {}", delivery.attempt()));
        delivery.ack().await.unwrap();
        tell(format!("done {id}"));
    }
}

/// A router that remembers what it handled.
pub(crate) async fn messaging(directory: &str) -> Messaging {
    Messaging::builder(connect(directory).await.erase())
        .service(GROUP)
        .inbox(EmbeddedInbox::new(directory).erase())
        .build()
}

/// Tells of every message that it begins to handle, and finishes none.
async fn handle(directory: &str) {
    let messaging = messaging(directory).await;
    let handler = |number: u32| async move {
        tell(number);
        pending::<()>().await;
    };
    let subscribing = messaging.subscribe(TOPIC).lease(HOUR).timeout(HOUR);
    subscribing.handle(handler).await.unwrap();
    pending::<()>().await;
}

pub(crate) fn claimed() -> ClaimRequest {
    ClaimRequest::new("charges", "key-1").with_lease(HOUR)
}

async fn claim(directory: &str) {
    let inbox = EmbeddedInbox::new(directory);
    let claim = inbox.claim(claimed()).await.unwrap();
    assert!(matches!(claim, Claim::Granted(_)));
    tell("claimed");
    pending::<()>().await;
}

async fn listen(directory: &str) {
    let broker = connect(directory).await;
    let mut subscription = broker.subscribe(Subscribe::topics(topic())).await.unwrap();
    tell("ready");
    while let Some(delivery) = subscription.next().await {
        delivery.ack().await.unwrap();
    }
}

async fn register(directory: &str, service: &str) {
    let registry = EmbeddedRegistry::new(directory);
    let instance = ServiceInstance::new(ServiceName::new(service).unwrap(), "127.0.0.1", 8000);
    registry.register(instance, HOUR).await.unwrap();
    tell("ready");
    pending::<()>().await;
}

/// Appends for ever and tells each position.
async fn append(directory: &str, stream: &str) {
    let store = EmbeddedEventStore::new(directory, "orders").unwrap();
    let stream = StreamName::new(stream).unwrap();
    for version in 0_u64.. {
        let event = Event::new("order.changed", "1", &version).unwrap();
        let expected = ExpectedVersion::Exact(version);
        let outcome = store.append(&stream, expected, vec![event]).await.unwrap();
        tell(outcome.position);
    }
}
