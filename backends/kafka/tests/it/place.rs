//! A server of a test's own, and what tests do with it.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::time::Instant;
use trunkline_core::{Context, Error, Retry};
use trunkline_kafka::{KafkaBroker, KafkaConfig};
use trunkline_messaging::{
    Destination, Message, MessageBroker, MessageBrokerConfig, Publish, Receipt, Subscription,
    SubscriptionState, TopicName,
};
use trunkline_testing::servers::{self, KAFKA, Server};

/// Longest wait for something that must happen, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
/// A producer and a consumer, each with one to where it began, one to the broker by its name and one to a coordinator, which
/// come and go as librdkafka sees fit.
pub(crate) const MOST_CONNECTIONS: usize = 6;

pub(crate) struct Place {
    pub(crate) server: Server,
}

impl Place {
    pub(crate) fn new() -> Option<Self> {
        servers::own(&KAFKA).map(|server| Self { server })
    }

    pub(crate) fn config(&self) -> KafkaConfig {
        let neutral = MessageBrokerConfig::from_url(&self.server.url()).unwrap();
        let mut config = KafkaConfig::from_neutral(&neutral).unwrap();
        config.producer_config.linger_ms = 1;
        config.topic_refresh = Duration::from_millis(500);
        // As short as servers allow: a member that hangs is missed soon.
        config.with_setting("session.timeout.ms", "6000")
    }

    pub(crate) fn broker(&self) -> KafkaBroker {
        KafkaBroker::new(self.config()).unwrap()
    }

    /// How many connections the server has from clients.
    pub(crate) fn connections(&self) -> usize {
        let port = format!(":{:04X}", self.server.address().port());
        let established = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(2).is_some_and(|to| to.ends_with(&port)) && fields.get(3) == Some(&"01")
        };
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().filter(established).count()
    }

    /// How many members a group has, as the server says; `None` while it does not answer.
    pub(crate) fn members(&self, group: &str) -> Option<usize> {
        let address = self.server.address().to_string();
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .create()
            .unwrap();
        let list = client.fetch_group_list(Some(group), Duration::from_secs(5));
        let list = list.ok()?;
        list.groups().first().map(|group| group.members().len())
    }
}

/// Waits for something that must happen.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {LIMIT:?}"),
    }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn to_topic(name: &str, text: &str) -> Publish {
    Publish::new(
        Destination::Topic(topic(name)),
        Message::new(text.to_owned()),
    )
}

/// Publishes until it is confirmed, under one id.
pub(crate) async fn insist(broker: &KafkaBroker, publish: Publish) -> Receipt {
    soon("a confirm", async {
        loop {
            let context = Context::new().with_timeout(Duration::from_secs(10));
            match context.scope(broker.publish(publish.clone())).await {
                Ok(receipt) => return receipt,
                Err(error) if error.retry() == Retry::Never => panic!("{}", error.report()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

pub(crate) async fn attached(subscription: &Subscription) {
    becomes(subscription, "attaching", |state| {
        *state == SubscriptionState::Attached
    })
    .await;
}

pub(crate) async fn detached(subscription: &Subscription) {
    let is = |state: &SubscriptionState| matches!(state, SubscriptionState::Detached { .. });
    becomes(subscription, "detaching", is).await;
}

async fn becomes(
    subscription: &Subscription,
    what: &str,
    is: impl FnMut(&SubscriptionState) -> bool,
) {
    let mut state = subscription.state();
    drop(soon(what, state.wait_for(is)).await.unwrap());
}

/// Takes and acknowledges until every one of these was there; what came twice.
pub(crate) async fn take_all(
    subscription: &mut Subscription,
    wanted: &BTreeSet<String>,
) -> Vec<String> {
    let (mut seen, mut again) = (BTreeSet::new(), Vec::new());
    while !wanted.is_subset(&seen) {
        let delivery = soon("a delivery", subscription.next()).await.unwrap();
        let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
        settled(delivery.ack().await);
        if !seen.insert(text.clone()) {
            again.push(text);
        }
    }
    again
}

/// An acknowledgement may be in doubt when the server dies.
pub(crate) fn settled(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        use trunkline_core::ErrorKind::{Conflict, Unavailable};
        assert!(
            matches!(error.kind(), Conflict | Unavailable),
            "{}",
            error.report()
        );
    }
}

pub(crate) fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

pub(crate) async fn close(broker: &KafkaBroker) {
    let deadline = Instant::now() + Duration::from_secs(30);
    broker.disconnect(deadline).await.unwrap();
}
