//! Where a partition begins: where its group stands, else where the group began.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use trunkline_messaging::Start;

use super::ledger::Place;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is written beside a committed position: `trunkline since=1736418600000 handed=17`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// When the group began, milliseconds since 1970.
    pub(crate) since: Option<i64>,
    /// Behind the last message that was handed out. Written when a partition is given up in good order; without it, any
    /// message that was there may have been handed out.
    pub(crate) handed: Option<i64>,
}

impl Note {
    pub(crate) fn read(text: &str) -> Self {
        let mut note = Self::default();
        let mut words = text.split(' ');
        if words.next() != Some("trunkline") {
            return note;
        }
        for word in words {
            match word.split_once('=') {
                Some(("since", value)) => note.since = value.parse().ok(),
                Some(("handed", value)) => note.handed = value.parse().ok(),
                _ => {}
            }
        }
        note
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("trunkline")?;
        if let Some(since) = self.since {
            write!(f, " since={since}")?;
        }
        if let Some(handed) = self.handed {
            write!(f, " handed={handed}")?;
        }
        Ok(())
    }
}

/// Where one partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) place: Place,
    pub(crate) position: i64,
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
fn committed<C: ConsumerContext>(
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
            known.insert(place, (position, Note::read(element.metadata())));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back() {
        for note in [
            Note::default(),
            Note {
                since: Some(5),
                handed: None,
            },
            Note {
                since: Some(5),
                handed: Some(7),
            },
        ] {
            assert_eq!(Note::read(&note.to_string()), note);
        }
    }

    #[test]
    fn notes_of_others_are_none() {
        for text in ["", "since=5", "kafka since=5", "trunkline since=x what"] {
            assert_eq!(Note::read(text), Note::default(), "{text}");
        }
    }
}
