//! A server of one test's own, and what it says about us.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use trunkline_core::Context;
use trunkline_messaging::{
    AnyBroker, Destination, Message, MessageBroker, MessageBrokerConfig, Publish, Receipt,
    Subscription, SubscriptionState, TopicName,
};
use trunkline_testing::servers::{self, NATS, Server, nats};

/// Longest that something may take that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(90);
pub(crate) const STREAM: &str = "TRUNKLINE";

pub(crate) struct Place {
    pub(crate) server: Server,
}

impl Place {
    pub(crate) fn new() -> Option<Self> {
        servers::own(&NATS).map(|server| Self { server })
    }

    pub(crate) fn config(&self) -> MessageBrokerConfig {
        MessageBrokerConfig::from_url(&self.server.url())
            .unwrap()
            .with_option("heartbeat", "1s")
            .with_option("reconnect_delay_max", "500ms")
    }

    pub(crate) fn core(&self) -> AnyBroker {
        trunkline_nats::open(&self.config().with_option("mode", "core")).unwrap()
    }

    pub(crate) fn broker(&self) -> AnyBroker {
        trunkline_nats::open(&self.config()).unwrap()
    }

    /// What the monitoring port says; nothing while the server is down.
    pub(crate) fn monitor(&self, path: &str) -> Option<Value> {
        let body = nats::monitor(self.server.site(), path).ok()?;
        serde_json::from_str(&body).ok()
    }

    /// The connections of brokers under test, each with its subjects.
    pub(crate) fn connections(&self) -> Option<Vec<Value>> {
        let all = self.monitor("/connz?subs=1&limit=1000")?;
        let ours = |one: &&Value| one["name"] == "trunkline";
        Some(
            all["connections"]
                .as_array()?
                .iter()
                .filter(ours)
                .cloned()
                .collect(),
        )
    }

    /// How many subjects all our connections listen to.
    pub(crate) fn subscriptions(&self) -> usize {
        self.connections()
            .into_iter()
            .flatten()
            .map(|one| one["subscriptions_list"].as_array().map_or(0, Vec::len))
            .sum()
    }

    /// A client of the account that tests work in, that is not under test.
    pub(crate) async fn foreign(&self) -> async_nats::Client {
        let options = async_nats::ConnectOptions::new()
            .user_and_password(nats::USER.0.to_owned(), nats::USER.1.to_owned())
            .name("foreign");
        options
            .connect(self.server.address().to_string())
            .await
            .unwrap()
    }

    /// Asks JetStream.
    pub(crate) async fn ask(&self, subject: &str, body: &str) -> Value {
        let client = self.foreign().await;
        let answer = client
            .request(format!("$JS.API.{subject}"), body.to_owned().into())
            .await
            .unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// The consumers of the stream of topics.
    pub(crate) async fn consumers(&self) -> Vec<Value> {
        let answer = self.ask(&format!("CONSUMER.LIST.{STREAM}"), "{}").await;
        answer["consumers"].as_array().cloned().unwrap_or_default()
    }

    /// The file in which the server keeps what the only consumer has had.
    fn consumer_file(&self) -> Option<PathBuf> {
        let streams = self
            .server
            .site()
            .data()
            .join("jetstream/jetstream/APP/streams");
        let consumers = streams.join(STREAM).join("obs");
        let only = std::fs::read_dir(consumers).ok()?.next()?.ok()?;
        Some(only.path().join("o.dat"))
    }

    /// What the server has written down of its only consumer.
    pub(crate) fn consumer_state(&self) -> Option<Vec<u8>> {
        std::fs::read(self.consumer_file()?).ok()
    }

    /// Makes a server that is down forget what it has written down of its consumer since then.
    pub(crate) fn forget_since(&self, state: &[u8]) {
        std::fs::write(self.consumer_file().unwrap(), state).unwrap();
    }

    /// Cuts all our connections, as an operator would.
    pub(crate) async fn kick(&self) {
        let options = async_nats::ConnectOptions::new().user_and_password(
            nats::SYSTEM_USER.0.to_owned(),
            nats::SYSTEM_USER.1.to_owned(),
        );
        let client = options
            .connect(self.server.address().to_string())
            .await
            .unwrap();
        let id = client.server_info().server_id;
        for connection in self.connections().unwrap() {
            let body = serde_json::json!({ "cid": connection["cid"] }).to_string();
            client
                .request(format!("$SYS.REQ.SERVER.{id}.KICK"), body.into())
                .await
                .unwrap();
        }
    }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn to_topic(name: &str, payload: &str) -> Publish {
    Publish::new(
        Destination::Topic(topic(name)),
        Message::new(payload.to_owned()),
    )
}

/// Waits for something that must happen.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {SOON:?}"),
    }
}

/// Looks until it is there.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

pub(crate) async fn attached(subscription: &Subscription) {
    let mut state = subscription.state();
    let there = state.wait_for(|state| *state == SubscriptionState::Attached);
    soon("attaching", there).await.unwrap();
}

pub(crate) async fn detached(subscription: &Subscription) {
    let mut state = subscription.state();
    let gone = state.wait_for(|state| matches!(state, SubscriptionState::Detached { .. }));
    soon("detaching", gone).await.unwrap();
}

/// Publishes the same message until it is confirmed, as the policy above a broker does.
pub(crate) async fn insist(broker: &AnyBroker, publish: Publish) -> Receipt {
    soon("a confirm", async {
        loop {
            let context = Context::new().with_timeout(Duration::from_secs(5));
            match context.scope(broker.publish(publish.clone())).await {
                Ok(receipt) => return receipt,
                Err(error) => assert_ne!(
                    error.retry(),
                    trunkline_core::Retry::Never,
                    "a passing trouble: {}",
                    error.report()
                ),
            }
        }
    })
    .await
}

/// Takes and acknowledges until all of these have come; says what came more than once.
pub(crate) async fn take_all(
    subscription: &mut Subscription,
    expected: &BTreeSet<String>,
) -> Vec<String> {
    let mut missing = expected.clone();
    let mut again = Vec::new();
    soon("the last message", async {
        while !missing.is_empty() {
            let delivery = subscription.next().await.expect("the stream goes on");
            let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
            // One that cannot be acknowledged comes again, which is told.
            drop(delivery.ack().await);
            if !missing.remove(&text) {
                again.push(text);
            }
        }
    })
    .await;
    again
}

pub(crate) async fn close(broker: &AnyBroker) {
    let deadline = Instant::now() + Duration::from_secs(20);
    soon("disconnecting", broker.disconnect(deadline))
        .await
        .unwrap();
}

/// Tasks of this test's runtime.
pub(crate) fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}
