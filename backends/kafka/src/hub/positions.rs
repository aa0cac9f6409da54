//! Where a partition begins: where its group stands, else where the group began.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use trunkline_messaging::Start;

use super::ledger::Place;
use crate::note::{Note, Ranges};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where one partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) place: Place,
    pub(crate) position: i64,
    /// What is done behind it.
    pub(crate) done: Ranges,
    /// Behind what may have been handed out before.
    pub(crate) handed: i64,
    /// Behind what is there.
    pub(crate) end: i64,
    /// The servers know no position of the group's yet.
    pub(crate) is_new: bool,
}

/// What is asked for.
pub(crate) struct Question<'a> {
    /// The partitions that begin.
    pub(crate) places: &'a [Place],
    /// All partitions of the topics that the group reads, if there is a group: one of them may say when it began.
    pub(crate) all: Option<&'a [Place]>,
    /// Topics that were there when the subscription was attached.
    pub(crate) initial: &'a HashSet<Arc<str>>,
    pub(crate) start: Start,
    /// When the group began, as far as is known here.
    pub(crate) since: i64,
}

/// Where partitions begin, and when the group began. Blocks.
pub(crate) fn begin<C: ConsumerContext>(
    consumer: &rdkafka::consumer::BaseConsumer<C>,
    question: &Question<'_>,
) -> Result<(Vec<Begin>, i64), KafkaError> {
    let known = match question.all {
        Some(all) => committed(consumer, all)?,
        None => HashMap::new(),
    };
    let began = known.values().filter_map(|(_, note)| note.since).min();
    let since = began.unwrap_or(question.since);
    let mut begins = Vec::with_capacity(question.places.len());
    for place in question.places {
        let (topic, partition) = (&*place.0, place.1);
        let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
        let begin = match known.get(place) {
            Some((position, note)) => Begin {
                place: place.clone(),
                // Behind what retention has removed.
                position: (*position).max(low),
                done: note.done.clone(),
                handed: note.handed.unwrap_or(high),
                end: high,
                is_new: false,
            },
            None => {
                let initial = began.is_none() && question.initial.contains(&place.0);
                let position = match question.start {
                    Start::Latest if initial => high,
                    Start::Earliest => low,
                    Start::Latest | Start::At(_) => at(consumer, place, since, high)?,
                };
                Begin {
                    place: place.clone(),
                    position,
                    done: Ranges::default(),
                    handed: position,
                    end: high,
                    is_new: true,
                }
            }
        };
        begins.push(begin);
    }
    Ok((begins, since))
}

/// The positions that the group has committed, with what was noted beside them.
pub(crate) fn committed<C: ConsumerContext>(
    consumer: &rdkafka::consumer::BaseConsumer<C>,
    places: &[Place],
) -> Result<HashMap<Place, (i64, Note)>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    let list = consumer.committed_offsets(list, ANSWER_WITHIN)?;
    let mut known = HashMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(position) = element.offset() {
            let place = (Arc::from(element.topic()), element.partition());
            known.insert(place, (position, Note::read(element.metadata(), position)));
        }
    }
    Ok(known)
}

/// The first message that the log took at a time or later.
fn at<C: ConsumerContext>(
    consumer: &rdkafka::consumer::BaseConsumer<C>,
    place: &Place,
    millis: i64,
    end: i64,
) -> Result<i64, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&place.0, place.1, Offset::Offset(millis))?;
    let list = consumer.offsets_for_times(list, ANSWER_WITHIN)?;
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(position) = element.offset() {
            return Ok(position);
        }
    }
    Ok(end)
}
