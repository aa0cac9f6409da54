//! Publishes of many callers, which share their way to the server and nothing else.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use trunkline_core::{Context, ErrorKind, Retry};
use trunkline_messaging::{Browse, Destination, Message, MessageBroker, Publish, TopicName};
use trunkline_redis::RedisBroker;

use crate::place::{config, soon};

fn queue(name: &str) -> Destination {
    Destination::Queue(TopicName::new(name).unwrap())
}

fn to(name: &str, text: usize) -> Publish {
    Publish::new(queue(name), Message::new(text.to_string()))
}

async fn stored(broker: &RedisBroker, name: &str) -> Vec<usize> {
    let browse = Browse::new(queue(name)).with_limit(1_000);
    let page = soon(broker.browse(browse)).await.unwrap();
    let texts = page.messages.into_iter().map(|stored| {
        let text = String::from_utf8(stored.message.payload.to_vec()).unwrap();
        text.parse().unwrap()
    });
    texts.collect()
}

async fn close(broker: RedisBroker) {
    let deadline = Instant::now() + Duration::from_secs(10);
    broker.disconnect(deadline).await.unwrap();
}

#[tokio::test]
async fn what_is_refused_or_finds_no_room_holds_up_nobody_else() {
    let Some(config) = config("side-by-side") else {
        return;
    };
    let prefix = config.key_prefix.clone();
    let broker = RedisBroker::new(config.clone().with_max_messages(50)).unwrap();
    broker.connect().await.unwrap();
    for name in ["open", "full"] {
        broker.declare(queue(name)).await.unwrap();
    }
    let filled = broker.publish_batch((0..50).map(|n| to("full", n)).collect());
    assert!(soon(filled).await.iter().all(Result::is_ok));
    let client = redis::Client::open(
        trunkline_testing::servers::shared(&trunkline_testing::servers::REDIS).unwrap(),
    )
    .unwrap();
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    // Somebody else's key where a queue is looked for.
    let mut set = redis::cmd("SET");
    set.arg(format!("{prefix}queue:broken")).arg("text");
    set.query_async::<()>(&mut other).await.unwrap();

    let publishes = (0..120).map(|n| {
        let name = ["open", "full", "broken"][n % 3];
        let context = Context::new().with_timeout(Duration::from_secs(2));
        let sent = context.scope(broker.publish(to(name, n)));
        async move { (name, sent.await) }
    });
    let outcomes = soon(join_all(publishes)).await;
    for (name, outcome) in outcomes {
        let kind = outcome.as_ref().map_err(|error| error.kind()).err();
        match name {
            "open" => assert_eq!(kind, None, "{outcome:?}"),
            "full" => assert_eq!(kind, Some(ErrorKind::Exhausted)),
            _ => assert!(
                kind.is_some_and(|kind| kind != ErrorKind::Exhausted),
                "{kind:?}"
            ),
        }
    }
    let expected: Vec<usize> = (0..120).filter(|n| n % 3 == 0).collect();
    assert_eq!(stored(&broker, "open").await, expected);
    assert_eq!(stored(&broker, "full").await.len(), 50);
    close(broker).await;
}

#[tokio::test]
async fn what_waits_for_a_connection_in_vain_is_never_sent() {
    let Some(config) = config("in-vain") else {
        return;
    };
    let other = RedisBroker::new(config.clone()).unwrap();
    other.connect().await.unwrap();
    other.declare(queue("work")).await.unwrap();

    let broker = RedisBroker::new(config).unwrap();
    let publishes = (0..20).map(|n| {
        let context = Context::new().with_timeout(Duration::from_millis(200));
        context.scope(broker.publish(to("work", n)))
    });
    for outcome in soon(join_all(publishes)).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.retry(), Retry::Safe, "{error:?}");
    }
    broker.connect().await.unwrap();
    // It goes behind whatever is still on its way.
    let last = (100..120).map(|n| broker.publish(to("work", n)));
    assert!(soon(join_all(last)).await.iter().all(Result::is_ok));
    let expected: Vec<usize> = (100..120).collect();
    assert_eq!(stored(&other, "work").await, expected);
    close(broker).await;
    close(other).await;
}
