//! How much a topic or queue holds, and what is kept of it.

use std::time::Duration;

use tokio::time::timeout;
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, ErrorKind};
use trunkline_messaging::{Browse, Destination, Message, MessageBroker, Publish, TopicName};
use trunkline_sqlite::{DestinationFull, EmbeddedBroker, EmbeddedBrokerConfig, WhenFull};

use crate::directory::temporary;
use crate::roles::{member, message, topic};

/// Much longer than anything here takes, and much shorter than a publish that waits for room.
const AT_ONCE: Duration = Duration::from_secs(10);

fn work(queue: &str, size: usize) -> Publish {
    let queue = TopicName::new(queue).unwrap();
    Publish::new(Destination::Queue(queue), Message::new(vec![7; size]))
}

async fn with_queues(config: EmbeddedBrokerConfig) -> EmbeddedBroker {
    let broker = EmbeddedBroker::new(config);
    broker.connect().await.unwrap();
    for queue in ["a", "b"] {
        let queue = TopicName::new(queue).unwrap();
        broker.declare(Destination::Queue(queue)).await.unwrap();
    }
    broker
}

fn is_full(error: &Error) -> bool {
    error.kind() == ErrorKind::Exhausted && error.find::<DestinationFull>().is_some()
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_where_that_is_wanted() {
    let directory = temporary();
    let config = EmbeddedBrokerConfig::new(directory.path())
        .with_max_messages(1)
        .with_when_full(WhenFull::Refuse);
    let broker = with_queues(config).await;
    broker.publish(work("a", 1)).await.unwrap();
    let again = timeout(AT_ONCE, broker.publish(work("a", 1)))
        .await
        .unwrap();
    assert!(is_full(&again.unwrap_err()));
    broker.publish(work("b", 1)).await.unwrap();
}

#[tokio::test]
async fn one_that_is_refused_does_not_hold_up_the_rest_of_its_batch() {
    let directory = temporary();
    let config = EmbeddedBrokerConfig::new(directory.path())
        .with_max_bytes(ByteSize::kib(64))
        .with_when_full(WhenFull::Refuse);
    let broker = with_queues(config).await;
    let large = 40 * 1024;
    let batch = vec![
        work("a", large),
        work("a", large),
        work("a", 1),
        work("b", large),
    ];
    let outcomes = timeout(AT_ONCE, broker.publish_batch(batch)).await.unwrap();
    let refused: Vec<bool> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().is_err_and(is_full))
        .collect();
    assert_eq!(refused, [false, true, false, false]);
    assert!(outcomes.into_iter().filter(Result::is_ok).count() == 3);
}

#[tokio::test]
async fn a_queue_that_is_full_does_not_hold_up_another() {
    let directory = temporary();
    let mut config = EmbeddedBrokerConfig::new(directory.path()).with_max_messages(1);
    config.request_timeout = Duration::from_millis(200);
    let broker = with_queues(config).await;
    let batch = vec![work("a", 1), work("a", 1), work("b", 1), work("a", 1)];
    let outcomes = broker.publish_batch(batch).await;
    let stored: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, false, true, false]);
    for outcome in outcomes {
        assert!(outcome.is_ok() || outcome.is_err_and(|error| is_full(&error)));
    }
}

#[tokio::test]
async fn what_is_kept_no_longer_is_removed_while_the_broker_runs() {
    let directory = temporary();
    let config = EmbeddedBrokerConfig::new(directory.path()).with_kept(
        Duration::from_secs(3600),
        2,
        ByteSize::mib(1),
    );
    let broker = EmbeddedBroker::new(config);
    broker.connect().await.unwrap();
    for id in ["1", "2", "3", "4", "5"] {
        broker.publish(message(id)).await.unwrap();
    }
    let left = async {
        loop {
            let browse = Browse::new(Destination::Topic(topic()));
            let page = broker.browse(browse).await.unwrap();
            if page.messages.len() == 2 {
                return page.messages;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let left = timeout(Duration::from_secs(20), left).await.unwrap();
    assert_eq!(left[0].message.id, "4");
    drop(broker.subscribe(member()).await.unwrap());
}
