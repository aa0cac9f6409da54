//! What happens to subscriptions, publishers and health when the server goes away, hangs, forgets, and comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use trunkline_core::Context;
use trunkline_messaging::{
    AnyBroker, Destination, Message, MessageBroker, Publish, Subscribe, Subscription,
    SubscriptionState, TopicName,
};
use trunkline_redis::{RedisBroker, RedisConfig};
use trunkline_testing::servers::{self, Launch, REDIS, Server, redis};

use crate::place::{SOON, soon};

/// A server that has on disk what it confirms.
fn durable() -> Option<Server> {
    servers::own_launched(Launch::new(&REDIS).arguments(["--appendfsync", "always"]))
}

fn broker(server: &Server) -> AnyBroker {
    let config = RedisConfig::from_url(&server.url()).unwrap();
    RedisBroker::new(config.with_heartbeat(Duration::from_secs(1)))
        .unwrap()
        .erase()
}

fn topic() -> TopicName {
    TopicName::new("order.created").unwrap()
}

fn message(text: &str) -> Publish {
    Publish::new(Destination::Topic(topic()), Message::new(text.to_owned()))
}

fn member() -> Subscribe {
    Subscribe::topics(topic())
        .with_group("mail")
        .with_lease(Duration::from_secs(5))
}

async fn attached(subscription: &Subscription) {
    let mut state = subscription.state();
    let there = state.wait_for(|state| *state == SubscriptionState::Attached);
    soon(there).await.unwrap();
}

async fn detached(subscription: &Subscription) {
    let mut state = subscription.state();
    let gone = state.wait_for(|state| matches!(state, SubscriptionState::Detached { .. }));
    soon(gone).await.unwrap();
}

async fn close(broker: &AnyBroker) {
    let deadline = Instant::now() + Duration::from_secs(10);
    broker.disconnect(deadline).await.unwrap();
}

/// Takes one message and acknowledges it, however often that has to be tried.
async fn take(subscription: &mut Subscription) -> String {
    loop {
        let delivery = soon(subscription.next()).await.unwrap();
        let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
        if delivery.ack().await.is_ok() {
            return text;
        }
    }
}

/// Clients of the server, the one that asks not counted.
fn clients(server: &Server) -> usize {
    let list = redis::call(server.address(), &["CLIENT", "LIST"])
        .unwrap()
        .unwrap();
    list.lines().count() - 1
}

/// Publishes numbers until it is told to stop; what was confirmed.
async fn publish_until(
    broker: AnyBroker,
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicUsize>,
) -> BTreeSet<String> {
    let mut done = BTreeSet::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let text = number.to_string();
        let context = Context::new().with_timeout(SOON);
        // One that may have been stored is not repeated here: it counts neither way.
        if context.scope(broker.publish(message(&text))).await.is_ok() {
            done.insert(text);
            confirmed.fetch_add(1, Ordering::SeqCst);
        }
    }
    done
}

/// Disturbs a server under load, several times: nothing confirmed is lost, and nothing is left behind.
async fn under_load(mut server: Server, disturb: impl Fn(&mut Server)) {
    let broker = broker(&server);
    broker.connect().await.unwrap();
    let mut subscription = broker.subscribe(member()).await.unwrap();
    attached(&subscription).await;
    let (stop, confirmed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let publisher = trunkline_core::task::spawn(
        "publisher",
        publish_until(broker.clone(), Arc::clone(&stop), Arc::clone(&confirmed)),
    );
    let mut seen = BTreeSet::new();
    let mut consume = async |until: usize| {
        while confirmed.load(Ordering::SeqCst) < until || seen.len() < until {
            seen.insert(take(&mut subscription).await);
        }
    };
    consume(50).await;
    let (tasks, connections) = (
        Handle::current().metrics().num_alive_tasks(),
        clients(&server),
    );
    for _ in 0..4 {
        let before = confirmed.load(Ordering::SeqCst);
        disturb(&mut server);
        consume(before + 50).await;
    }
    stop.store(true, Ordering::SeqCst);
    let done = soon(publisher).await.unwrap();
    while !done.is_subset(&seen) {
        seen.insert(take(&mut subscription).await);
    }
    attached(&subscription).await;
    broker.health_check().await.unwrap();
    assert_eq!(
        clients(&server),
        connections,
        "as many connections as before"
    );
    let now = Handle::current().metrics().num_alive_tasks();
    assert!(now <= tasks, "no more tasks than before: {now}, {tasks}");
    // One consumer: what it holds is all there is to hold.
    broker.publish(message("last")).await.unwrap();
    loop {
        let delivery = soon(subscription.next()).await.unwrap();
        if delivery.message().payload == "last" {
            let other = tokio::time::timeout(Duration::from_millis(300), subscription.next()).await;
            assert!(other.is_err(), "{other:?}");
            delivery.ack().await.unwrap();
            break;
        }
        delivery.ack().await.unwrap();
    }
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing_confirmed() {
    let Some(server) = durable() else { return };
    under_load(server, |server| {
        server.kill().unwrap();
        server.restart().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_cuts_are_made_again() {
    let Some(server) = durable() else { return };
    under_load(server, |server| {
        redis::call(server.address(), &["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        // A connection that listens is of another type.
        redis::call(server.address(), &["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_seen_in_health_and_state() {
    let Some(mut server) = durable() else { return };
    let broker = broker(&server);
    broker.connect().await.unwrap();
    let mut subscription = broker.subscribe(member()).await.unwrap();
    attached(&subscription).await;
    let queue = TopicName::new("work").unwrap();
    let mut worker = broker
        .subscribe(Subscribe::queue(queue.clone()))
        .await
        .unwrap();
    attached(&worker).await;
    for round in 0..3 {
        server.kill().unwrap();
        detached(&subscription).await;
        detached(&worker).await;
        assert!(broker.health_check().await.is_err());
        server.restart().unwrap();
        attached(&subscription).await;
        attached(&worker).await;
        broker.health_check().await.unwrap();
        broker.publish(message(&round.to_string())).await.unwrap();
        assert_eq!(take(&mut subscription).await, round.to_string());
        let job = Publish::new(Destination::Queue(queue.clone()), Message::new("job"));
        broker.publish(job).await.unwrap();
        assert_eq!(take(&mut worker).await, "job");
    }
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_noticed_and_used_again() {
    let Some(mut server) = durable() else { return };
    let broker = broker(&server);
    broker.connect().await.unwrap();
    let mut subscription = broker.subscribe(member()).await.unwrap();
    attached(&subscription).await;
    server.pause().unwrap();
    detached(&subscription).await;
    assert!(broker.health_check().await.is_err());
    server.resume().unwrap();
    attached(&subscription).await;
    broker.publish(message("after")).await.unwrap();
    assert_eq!(take(&mut subscription).await, "after");
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_the_server_is_there_happens_when_it_is() {
    let Some(mut server) = durable() else { return };
    server.kill().unwrap();
    let broker = broker(&server);
    broker.connect().await.unwrap_err();
    let mut subscription = broker.subscribe(member()).await.unwrap();
    detached(&subscription).await;
    let early = {
        let broker = broker.clone();
        let queue = Publish::new(
            Destination::Topic(TopicName::new("other").unwrap()),
            Message::new("early"),
        );
        trunkline_core::task::spawn("publisher", async move {
            Context::new()
                .with_timeout(SOON)
                .scope(broker.publish(queue))
                .await
        })
    };
    server.restart().unwrap();
    attached(&subscription).await;
    soon(early).await.unwrap().unwrap();
    broker.publish(message("late")).await.unwrap();
    assert_eq!(take(&mut subscription).await, "late");
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_everything_is_taught_again() {
    let Some(server) = durable() else { return };
    let broker = broker(&server);
    broker.connect().await.unwrap();
    let mut subscription = broker.subscribe(member()).await.unwrap();
    let pattern = trunkline_messaging::TopicPattern::new("order.*").unwrap();
    let mut wild = broker
        .subscribe(Subscribe::topics(pattern).with_group("audit"))
        .await
        .unwrap();
    let queue = TopicName::new("work").unwrap();
    let mut worker = broker
        .subscribe(Subscribe::queue(queue.clone()))
        .await
        .unwrap();
    for subscription in [&subscription, &wild, &worker] {
        attached(subscription).await;
    }
    broker.publish(message("before")).await.unwrap();
    assert_eq!(take(&mut subscription).await, "before");
    assert_eq!(take(&mut wild).await, "before");
    for command in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"]] {
        redis::call(server.address(), command).unwrap();
    }
    // Stored before any of them knows: none may skip it.
    broker.publish(message("after")).await.unwrap();
    assert_eq!(take(&mut subscription).await, "after");
    assert_eq!(take(&mut wild).await, "after");
    // The queue is there again when its consumer has noticed.
    let job = || Publish::new(Destination::Queue(queue.clone()), Message::new("job"));
    let waiting = worker.next();
    let publish = async {
        while broker.publish(job()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (delivery, ()) = soon(futures_util::future::join(waiting, publish)).await;
    delivery.unwrap().ack().await.unwrap();
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_meets_a_restart_is_told_to_the_new_server() {
    let Some(mut server) = durable() else { return };
    let broker = broker(&server);
    broker.connect().await.unwrap();
    let wanted = member().with_lease(Duration::from_secs(300));
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    broker.publish(message("one")).await.unwrap();
    let held = soon(subscription.next()).await.unwrap();
    server.kill().unwrap();
    detached(&subscription).await;
    let acknowledging = trunkline_core::task::spawn("acknowledging", held.ack());
    server.restart().unwrap();
    soon(acknowledging).await.unwrap().unwrap();
    broker.publish(message("two")).await.unwrap();
    assert_eq!(take(&mut subscription).await, "two", "the first is done");
    close(&broker).await;
}
