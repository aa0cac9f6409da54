//! How much of what a group reads is not done.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;
use trunkline_core::{Clock as _, Error, Result, SystemClock};
use trunkline_messaging::{Destination, Source, Start, Subscribe};

use super::ledger::Place;
use super::positions::{Question, begin};
use super::{Consumer, Hub};
use crate::error::of_question;
use crate::names::Names;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Hub {
    /// Asks by the group's own consumer; `None` while there is none, or when it ends over the question. It is not polled by
    /// this.
    pub(crate) async fn lag(&self, subscribe: &Subscribe) -> Option<Result<Option<u64>>> {
        let consumer = self.asked()?;
        let (names, subscribe) = (self.names.clone(), subscribe.clone());
        let counted = tokio::task::spawn_blocking(move || lag(&consumer, &names, &subscribe));
        match counted.await {
            // One that ends gives any answer.
            Ok(Err(_)) if self.asked().is_none() => None,
            Ok(counted) => Some(counted),
            Err(join) => Some(Err(
                Error::internal("asking Kafka panicked").with_source(join)
            )),
        }
    }

    fn asked(&self) -> Option<Arc<Consumer>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.upgrade()
    }
}

/// What the group of a consumer has not done: what is in somebody's hands or put off is part of it, as nobody but its members
/// knows of that. `None` where the group has no place yet. Blocks.
pub(crate) fn lag<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    names: &Names,
    subscribe: &Subscribe,
) -> Result<Option<u64>> {
    count(consumer, names, subscribe)
        .map_err(|error| of_question("asking how much a group has not done", &error))
}

fn count<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    names: &Names,
    subscribe: &Subscribe,
) -> std::result::Result<Option<u64>, KafkaError> {
    let places = places(consumer, names, &subscribe.source)?;
    let is_queue = matches!(subscribe.source, Source::Queue(_));
    let question = Question {
        places: &places,
        all: Some(&places),
        initial: &HashSet::new(),
        start: if is_queue {
            Start::Earliest
        } else {
            subscribe.start
        },
        since: SystemClock.now().unix_millis(),
    };
    let (begins, _) = begin(consumer, &question)?;
    if begins.is_empty() || (!is_queue && begins.iter().all(|begin| begin.is_new)) {
        return Ok(None);
    }
    let counted = begins.iter().map(|begin| {
        let done = begin.done.count_below(begin.end);
        u64::try_from(begin.end - begin.position - done).unwrap_or_default()
    });
    Ok(Some(counted.sum()))
}

/// The partitions of all topics that a source has.
fn places<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    names: &Names,
    source: &Source,
) -> std::result::Result<Vec<Place>, KafkaError> {
    let one = match source {
        Source::Queue(queue) => Some(Destination::Queue(queue.clone())),
        Source::Topics(pattern) => pattern.as_topic().map(Destination::Topic),
    };
    // A name that cannot be has no partitions.
    let Ok(one) = one.map(|one| names.topic(&one)).transpose() else {
        return Ok(Vec::new());
    };
    let metadata = consumer.fetch_metadata(one.as_deref(), ANSWER_WITHIN)?;
    let mut places = Vec::new();
    for topic in metadata.topics() {
        let wanted = match (names.destination(topic.name()), source) {
            (Some(Destination::Topic(name)), Source::Topics(pattern)) => pattern.matches(&name),
            (Some(Destination::Queue(name)), Source::Queue(queue)) => name == *queue,
            (Some(Destination::Topic(_) | Destination::Queue(_)) | None, _) => false,
        };
        match topic.error().map(Code::from) {
            _ if !wanted => {}
            None => places.extend(of(topic)),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {}
            Some(other) => return Err(KafkaError::MetadataFetch(other)),
        }
    }
    Ok(places)
}

fn of(topic: &MetadataTopic) -> impl Iterator<Item = Place> + '_ {
    let name: Arc<str> = Arc::from(topic.name());
    let partitions = topic.partitions().iter();
    partitions.map(move |partition| (Arc::clone(&name), partition.id()))
}
