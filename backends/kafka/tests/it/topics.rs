//! Making topics.

use trunkline_core::{ErrorKind, Retry};
use trunkline_kafka::KafkaBroker;
use trunkline_messaging::{Destination, MessageBroker};

use crate::place::{Place, close, topic};

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
