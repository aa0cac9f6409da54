//! What the tests of recovery share: a server that they may do anything to, one after the other, and waiting.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Context;
use trunkline_messaging::{
    Destination, Message, MessageBroker as _, Publish, Subscribe, Subscription, SubscriptionState,
    TopicName,
};
use trunkline_rabbitmq::{RabbitMqBroker, RabbitMqConfig};
use trunkline_testing::servers::{self, RABBITMQ, Server, rabbitmq};

/// Longer than anything takes on a machine that is ten times slower.
pub(crate) const LONG: Duration = Duration::from_secs(240);

static SERVER: Mutex<Option<Server>> = Mutex::new(None);

/// Runs a test on a server that belongs to it alone meanwhile, and runs when it begins.
pub(crate) fn with_server<T>(test: T)
where
    T: AsyncFnOnce(&mut Server),
{
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if server.is_none() {
        *server = servers::own(&RABBITMQ);
    }
    let Some(server) = &mut *server else { return };
    if !server.is_running() {
        server.restart().expect("the server starts again");
    }
    server.resume().expect("a running server");
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { within("the test", test(server)).await });
}

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LONG, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {LONG:?}"),
    }
}

/// Waits until a question that may be asked again and again is answered with yes.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(what, asked).await;
}

/// Settings with which a loss is noticed soon.
pub(crate) fn config(url: &str) -> RabbitMqConfig {
    let mut config = RabbitMqConfig::from_url(url)
        .unwrap()
        .with_heartbeat(Duration::from_secs(2))
        .with_reconnect_delays(Duration::from_millis(50), Duration::from_millis(500));
    config.connection_timeout = Duration::from_secs(5);
    config
}

pub(crate) async fn connected(server: &Server) -> RabbitMqBroker {
    let broker = RabbitMqBroker::new(config(&server.url())).unwrap();
    until("connecting", async || broker.connect().await.is_ok()).await;
    broker
}

pub(crate) async fn disconnect(broker: &RabbitMqBroker) {
    let deadline = Instant::now() + Duration::from_secs(30);
    broker.disconnect(deadline).await.unwrap();
}

/// A name that no other test has.
pub(crate) fn name(what: &str) -> TopicName {
    let id = trunkline_core::Id::new().to_string().replace('-', "");
    TopicName::new(format!("{what}-{id}")).unwrap()
}

pub(crate) fn to_topic(topic: &TopicName, id: &str) -> Publish {
    let message = Message::new(id.to_owned()).with_id(id);
    Publish::new(Destination::Topic(topic.clone()), message)
}

pub(crate) fn group(topic: &TopicName) -> Subscribe {
    Subscribe::topics(topic.clone()).with_group("mail")
}

/// The queue of that group.
pub(crate) fn queue_of(topic: &TopicName) -> String {
    format!("mail:{topic}")
}

pub(crate) async fn attached(subscription: &Subscription) {
    let mut state = subscription.state();
    let attach = state.wait_for(|state| *state == SubscriptionState::Attached);
    within("attaching", attach).await.unwrap();
}

pub(crate) async fn detached(subscription: &Subscription) {
    let mut state = subscription.state();
    let detach = state.wait_for(|state| matches!(state, SubscriptionState::Detached { .. }));
    within("detaching", detach).await.unwrap();
}

/// Publishes until it is confirmed, under the same id.
pub(crate) async fn publish(broker: &RabbitMqBroker, topic: &TopicName, id: &str) {
    until("a publish", async || {
        let context = Context::new().with_timeout(Duration::from_secs(20));
        context
            .scope(broker.publish(to_topic(topic, id)))
            .await
            .is_ok()
    })
    .await;
}

/// Receives and acknowledges one; a repetition that cannot be acknowledged any more is no loss.
pub(crate) async fn receive(subscription: &mut Subscription) -> String {
    let delivery = within("a delivery", subscription.next()).await.unwrap();
    let id = delivery.message().id.clone();
    drop(delivery.ack().await);
    id
}

/// As if every process had ended: the server takes back what they had.
pub(crate) fn cut(server: &Server) {
    rabbitmq::control(server.site(), &["close_all_connections", "test"]).unwrap();
}

/// The consumers of a queue, as the server says.
pub(crate) fn consumers(server: &Server, queue: &str) -> usize {
    let all = "rabbit_amqqueue:consumers_all(<<\"/\">>)";
    let name = format!("{{resource,<<\"/\">>,queue,<<\"{queue}\">>}}");
    count(
        server,
        &format!("[C || C <- {all}, lists:member({{queue_name,{name}}}, C)]"),
    )
}

/// The connections and channels that the server has.
pub(crate) fn connections(server: &Server) -> (usize, usize) {
    (
        count(server, "rabbit_networking:connections()"),
        count(server, "rabbit_channel:list()"),
    )
}

/// The length of a list that the server works out.
fn count(server: &Server, list: &str) -> usize {
    let length = rabbitmq::ask(server.site(), &format!("length({list})")).unwrap();
    length.parse().unwrap()
}

/// The messages of a queue that nobody has settled, those in the hands of consumers included.
pub(crate) fn unsettled(server: &Server, queue: &str) -> usize {
    let words = ["list_queues", "name", "messages"];
    let listed = rabbitmq::control(server.site(), &words).unwrap();
    let line = listed.lines().find_map(|line| line.strip_prefix(queue));
    line.unwrap().trim().parse().unwrap()
}

/// Waits until a new quorum queue survives the death of its server.
pub(crate) async fn settled(server: &Server, queue: &str) {
    let registered = async || rabbitmq::is_registered(server.site(), queue);
    until("the registration of a queue", registered).await;
}

/// Bytes that lie at the server and that it has not read, on the connection that has most.
pub(crate) fn unread(server: &Server) -> u64 {
    let port = format!(":{:04X}", server.address().port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let unread = sockets.lines().filter_map(|line| {
        // Number, local address, remote address, state, bytes to send and to read.
        let mut words = line.split_whitespace().skip(1);
        let is_server = words.next()?.ends_with(&port);
        let (_, unread) = words.nth(2)?.split_once(':')?;
        is_server.then(|| u64::from_str_radix(unread, 16).ok())?
    });
    unread.max().unwrap_or(0)
}
