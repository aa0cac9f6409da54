//! Making topics, changing and deleting them.

use std::collections::BTreeSet;

use trunkline_core::{ErrorKind, Retry};
use trunkline_kafka::{KafkaBroker, TopicPlan};
use trunkline_messaging::{Destination, MessageBroker, Subscribe};

use crate::place::{Place, attached, close, eventually, insist, take_all, to_topic, topic};

fn orders() -> Destination {
    Destination::Topic(topic("order.created"))
}

#[tokio::test]
async fn a_topic_that_the_servers_will_not_make_is_refused_with_their_reason() {
    let Some(place) = Place::new() else {
        return;
    };
    let mut config = place.config();
    // There is one server.
    config.replication = Some(3);
    let broker = KafkaBroker::new(config).unwrap();
    broker.connect().await.unwrap();
    let declared = broker.declare(Destination::Queue(topic("work"))).await;
    let error = declared.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    assert_eq!(error.retry(), Retry::Never);
    let text = error.report().to_string();
    assert!(text.contains("replication factor"), "{text}");
    close(&broker).await;
}

#[tokio::test]
async fn a_topic_is_made_as_it_is_planned_and_stays_so() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let missing = broker.describe_topic(orders()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let plan = TopicPlan::default().with_partitions(3);
    let plan = plan.with_config("retention.ms", "86400000");
    for _ in 0..2 {
        broker.declare_topic(orders(), plan.clone()).await.unwrap();
    }
    let found = broker.describe_topic(orders()).await.unwrap();
    assert_eq!((found.partitions, found.replication), (3, 1));
    assert_eq!(found.config["retention.ms"], "86400000");
    assert_eq!(found.effective["cleanup.policy"], "delete");
    let other = plan.clone().with_partitions(4);
    let error = broker.declare_topic(orders(), other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    // One setting at a time; the others stay.
    let change = |name: &str, value: Option<&str>| [(name.to_owned(), value.map(str::to_owned))];
    let changes = change("cleanup.policy", Some("compact"));
    broker.configure_topic(orders(), changes).await.unwrap();
    let changes = change("retention.ms", None);
    broker.configure_topic(orders(), changes).await.unwrap();
    eventually("the settings change", async || {
        let found = broker.describe_topic(orders()).await.ok()?;
        let own: Vec<(&str, &str)> = found
            .config
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        (own == [("cleanup.policy", "compact")]).then_some(())
    })
    .await;
    for (name, value) in [("no.such.setting", "1"), ("retention.ms", "never")] {
        let changes = change(name, Some(value));
        let error = broker.configure_topic(orders(), changes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
        let plan = TopicPlan::default().with_config(name, value);
        let queue = Destination::Queue(topic("work"));
        let error = broker.declare_topic(queue, plan).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    }
    broker.delete_topic(orders()).await.unwrap();
    let missing = [
        broker.delete_topic(orders()).await.unwrap_err(),
        broker.add_partitions(orders(), 5).await.unwrap_err(),
        broker
            .configure_topic(orders(), change("retention.ms", None))
            .await
            .unwrap_err(),
        broker.describe_topic(orders()).await.unwrap_err(),
    ];
    assert!(
        missing
            .iter()
            .all(|error| error.kind() == ErrorKind::NotFound),
        "{missing:?}"
    );
    close(&broker).await;
    let error = broker.describe_topic(orders()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_read_by_who_is_there() {
    let Some(place) = Place::new() else {
        return;
    };
    let broker = place.broker();
    broker.connect().await.unwrap();
    let plan = TopicPlan::default().with_partitions(1);
    broker.declare_topic(orders(), plan).await.unwrap();
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    broker.add_partitions(orders(), 4).await.unwrap();
    eventually("four partitions", async || {
        let found = broker.describe_topic(orders()).await.ok()?;
        (found.partitions == 4).then_some(())
    })
    .await;
    broker.add_partitions(orders(), 4).await.unwrap();
    let error = broker.add_partitions(orders(), 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.report());
    let (mut partitions, mut all) = (BTreeSet::new(), BTreeSet::new());
    eventually("messages in all partitions", async || {
        let number = all.len();
        let mut publish = to_topic("order.created", &number.to_string());
        publish.message = publish.message.with_key(number.to_string());
        let receipt = insist(&broker, publish).await;
        all.insert(number.to_string());
        partitions.insert(receipt.position? >> 48);
        (partitions.len() == 4).then_some(())
    })
    .await;
    let again = take_all(&mut subscription, &all).await;
    assert!(again.is_empty(), "{again:?}");
    close(&broker).await;
}
