//! Many dead letters.

use trunkline_core::names::message_header as header;
use trunkline_messaging::{
    DeadLetters, Destination, Message, MessageBroker as _, Publish, Replay, Subscribe, TopicName,
};

use crate::fixture::{connected, disconnect, name, until, with_server, within};

/// More than one look into a queue goes through.
const MANY: usize = 10_100;

#[test]
fn more_letters_than_one_look_finds_are_replayed() {
    with_server(async |server| {
        let broker = connected(server).await.erase();
        let work = name("work");
        let letters = TopicName::new(format!("{work}.dlq")).unwrap();
        for queue in [&work, &letters] {
            let queue = Destination::Queue(queue.clone());
            within("a queue", broker.declare(queue)).await.unwrap();
        }
        for some in (0..MANY).collect::<Vec<_>>().chunks(2_000) {
            let letter = |number: &usize| {
                let message = Message::new(number.to_string())
                    .with_id(number.to_string())
                    .with_header(header::DEAD_REASON, "attempts")
                    .with_header(header::DEAD_SOURCE, &format!("queue {work}"));
                Publish::new(Destination::Queue(letters.clone()), message)
            };
            let batch = some.iter().map(letter).collect();
            for outcome in within("letters", broker.publish_batch(batch)).await {
                outcome.unwrap();
            }
        }
        let waits = async |queue: &TopicName| {
            let lag = broker.lag(&Subscribe::queue(queue.clone())).await.unwrap();
            usize::try_from(lag.unwrap()).unwrap()
        };
        until("all letters", async || waits(&letters).await == MANY).await;
        let dead = DeadLetters::new(broker.clone());
        let some = Replay::default().with_limit(120);
        let replayed = within("a replay", dead.replay(work.as_str(), &some)).await;
        let report = replayed.unwrap();
        assert_eq!((report.replayed, report.failed.len()), (120, 0));
        until("what was replayed", async || waits(&work).await == 120).await;
        until("the others", async || waits(&letters).await == MANY - 120).await;
        disconnect(broker.downcast_ref().unwrap()).await;
    });
}
