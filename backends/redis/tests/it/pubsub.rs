//! Pub/Sub: what happens when the server goes away and comes back, and what others on it see.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use trunkline_core::Context;
use trunkline_messaging::{
    AnyBroker, Destination, Message, MessageBroker, Publish, Routed, Subscribe, Subscription,
    SubscriptionState, TopicName, TopicPattern,
};
use trunkline_redis::{Mode, RedisConfig, open};
use trunkline_testing::servers::{self, REDIS, Server, redis};

use crate::place::{SOON, soon};

/// Channels named as topics are.
fn broker(server: &Server) -> AnyBroker {
    let config = RedisConfig::from_url(&server.url()).unwrap();
    let config = config
        .with_mode(Mode::PubSub)
        .with_key_prefix("")
        .with_heartbeat(Duration::from_secs(1));
    open(&config.into()).unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn message(to: &str, text: &str) -> Publish {
    Publish::new(
        Destination::Topic(topic(to)),
        Message::new(text.to_owned()).with_header("text", text),
    )
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

async fn take(subscription: &mut Subscription) -> String {
    let delivery = soon(subscription.next()).await.unwrap();
    let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
    delivery.ack().await.unwrap();
    text
}

/// What the server says when it is asked.
fn told(server: &Server, words: &[&str]) -> String {
    redis::call(server.address(), words).unwrap().unwrap()
}

/// Connections, the one that asks not counted.
fn clients(server: &Server) -> usize {
    told(server, &["CLIENT", "LIST"]).lines().count() - 1
}

async fn close(broker: &AnyBroker) {
    let deadline = Instant::now() + Duration::from_secs(10);
    broker.disconnect(deadline).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_restart_leaves_one_subscription_that_hears_everything_once() {
    let Some(mut server) = servers::own(&REDIS) else {
        return;
    };
    let broker = broker(&server);
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic("user.created"));
    let mut exact = broker.subscribe(wanted).await.unwrap();
    let pattern = TopicPattern::new("user.*").unwrap();
    let mut wild = broker.subscribe(Subscribe::topics(pattern)).await.unwrap();
    for subscription in [&exact, &wild] {
        attached(subscription).await;
    }
    let (tasks, connections) = (
        Handle::current().metrics().num_alive_tasks(),
        clients(&server),
    );
    for round in 0..4 {
        if round == 3 {
            server.pause().unwrap();
        } else {
            server.kill().unwrap();
        }
        detached(&exact).await;
        detached(&wild).await;
        assert!(broker.health_check().await.is_err(), "red while it is away");
        if round == 3 {
            server.resume().unwrap();
        } else {
            server.restart().unwrap();
        }
        attached(&exact).await;
        attached(&wild).await;
        broker.health_check().await.unwrap();
        for part in ["a", "b"] {
            let text = format!("{round}{part}");
            let receipt = broker.publish(message("user.created", &text)).await;
            assert_eq!(receipt.unwrap().routed, Routed::Unknown);
            // Twice would be seen at the next one.
            assert_eq!(take(&mut exact).await, text);
            assert_eq!(take(&mut wild).await, text);
        }
        // Too deep for the pattern, not for that of Redis.
        broker
            .publish(message("user.created.twice", "no"))
            .await
            .unwrap();
        let nobody = broker.publish(message("order.created", "no")).await;
        assert_eq!(nobody.unwrap().routed, Routed::No);
    }
    // A connection that hung is gone when the server has read its end.
    let started = Instant::now();
    while clients(&server) > connections && started.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(clients(&server), connections, "as many as before");
    let now = Handle::current().metrics().num_alive_tasks();
    assert!(now <= tasks, "no more tasks than before: {now}, {tasks}");
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_the_server_is_there_happens_when_it_is() {
    let Some(mut server) = servers::own(&REDIS) else {
        return;
    };
    server.kill().unwrap();
    let broker = broker(&server);
    broker.connect().await.unwrap_err();
    let wanted = Subscribe::topics(topic("a"));
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    detached(&subscription).await;
    let early = {
        let broker = broker.clone();
        trunkline_core::task::spawn("publisher", async move {
            let early = broker.publish(message("b", "early"));
            Context::new().with_timeout(SOON).scope(early).await
        })
    };
    server.restart().unwrap();
    attached(&subscription).await;
    soon(early).await.unwrap().unwrap();
    broker.publish(message("a", "late")).await.unwrap();
    assert_eq!(take(&mut subscription).await, "late");
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_left_by_the_last_who_listens_and_others_may_publish() {
    let Some(server) = servers::own(&REDIS) else {
        return;
    };
    let broker = broker(&server);
    broker.connect().await.unwrap();
    let subscribe = async || {
        let wanted = Subscribe::topics(topic("a"));
        let subscription = broker.subscribe(wanted).await.unwrap();
        attached(&subscription).await;
        subscription
    };
    // How many have heard it, as the server counts.
    let listening = || told(&server, &["PUBLISH", "a", "anybody?"]) != "0";
    let mut stays = subscribe().await;
    for round in 0..5 {
        let goes = subscribe().await;
        drop(goes);
        let mut comes = subscribe().await;
        // As any other client does, without anything about the message.
        let text = format!("{{\"round\":{round}}}");
        told(&server, &["PUBLISH", "a", &text]);
        assert_eq!(take(&mut stays).await, text);
        assert_eq!(take(&mut comes).await, text);
    }
    assert!(listening());
    drop(stays);
    let started = Instant::now();
    while listening() {
        assert!(started.elapsed() < SOON, "the channel is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    close(&broker).await;
}
