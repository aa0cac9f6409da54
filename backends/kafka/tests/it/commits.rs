//! What the servers know of what is done.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use trunkline_kafka::KafkaBroker;
use trunkline_messaging::{Delivery, MessageBroker, Subscribe};

use crate::place::{Place, attached, close, eventually, insist, settled, soon, to_topic, topic};

const TOPIC: &str = "order.created";

/// The positions of the group in both partitions.
fn committed(place: &Place) -> Option<[Offset; 2]> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", place.server.address().to_string())
        .set("group.id", "mail@order.created")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(TOPIC, 0, 1);
    let list = client
        .committed_offsets(list, Duration::from_secs(5))
        .ok()?;
    let of = |partition| {
        list.find_partition(TOPIC, partition)
            .map(|one| one.offset())
    };
    Some([of(0)?, of(1)?])
}

/// The note of one partition is more than these servers take, that of the other is not: one commit, of which half is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_refused_among_others_is_not_taken_for_known() {
    const DONE: usize = 10;
    let Some(mut place) = Place::new() else {
        return;
    };
    place.server.kill().unwrap();
    let path = place.server.directory().join("server.properties");
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    writeln!(file, "offset.metadata.max.bytes=64").unwrap();
    place.server.restart().unwrap();
    let broker = KafkaBroker::new(place.config().with_partitions(2)).unwrap();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic(TOPIC)).with_group("mail");
    let mut subscription = broker.subscribe(wanted.with_prefetch(200)).await.unwrap();
    attached(&subscription).await;
    let mut held: [Vec<Delivery>; 2] = Default::default();
    for number in 0.. {
        if held[0].len() >= 60 && held[1].len() >= 2 {
            break;
        }
        let mut publish = to_topic(TOPIC, &number.to_string());
        publish.message = publish.message.with_key(number.to_string());
        insist(&broker, publish).await;
        let delivery = soon("a delivery", subscription.next()).await.unwrap();
        let partition = usize::try_from(delivery.info().position.unwrap() >> 48).unwrap();
        held[partition].push(delivery);
    }
    let [long, mut short] = held;
    let shorts = i64::try_from(short.len()).unwrap();
    place.server.pause().unwrap();
    // A commit of this waits for the server, and the next one takes all the rest.
    let last = short.pop().unwrap();
    for delivery in short {
        settled(delivery.ack().await);
    }
    let mut open = Vec::new();
    for (at, delivery) in long.into_iter().enumerate() {
        match at < DONE || at % 2 == 1 {
            true => settled(delivery.ack().await),
            false => open.push(delivery),
        }
    }
    settled(last.ack().await);
    place.server.resume().unwrap();
    let done = i64::try_from(DONE).unwrap();
    eventually("both positions are known", async || {
        (committed(&place)? == [Offset::Offset(done), Offset::Offset(shorts)]).then_some(())
    })
    .await;
    drop(open);
    close(&broker).await;
}
