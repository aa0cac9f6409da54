//! From topics, queues and groups to Kafka's topics and groups, and back.
//!
//! A topic `order.created` is Kafka's topic of that name, behind `topic_prefix` where there is one. A queue `work` is the
//! topic `queues.work`, read by one group of that name.

use trunkline_core::{Error, Result};
use trunkline_messaging::{Destination, Source, TopicName};

/// How names are mapped.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) topics: Option<String>,
    pub(crate) queues: String,
    /// Kafka's topic of messages that wait for their time.
    pub(crate) delays: String,
}

/// The queue of messages that wait for their time, as all parts but the names know it.
const DELAYED: &str = "trunkline.delayed";

/// That queue.
///
/// # Errors
/// None.
pub(crate) fn delayed() -> Result<TopicName> {
    TopicName::new(DELAYED)
}

/// Whether it is that queue, which is nobody's but the broker's.
pub(crate) fn is_delayed(queue: &TopicName) -> bool {
    queue.as_str() == DELAYED
}

impl Names {
    /// Kafka's topic of a destination.
    ///
    /// # Errors
    /// `Invalid` for a topic whose name is a queue's.
    pub(crate) fn topic(&self, destination: &Destination) -> Result<String> {
        match destination {
            Destination::Topic(topic) => {
                let name = match &self.topics {
                    Some(prefix) => format!("{prefix}.{topic}"),
                    None => topic.as_str().to_owned(),
                };
                if under(&name, &self.queues).is_some() {
                    let queues = &self.queues;
                    let text = format!("the topic `{topic}` lies among the queues (`{queues}.…`)");
                    return Err(Error::invalid(text));
                }
                if self.is_delays(&name) {
                    let text = format!("the topic `{topic}` is that of delayed messages");
                    return Err(Error::invalid(text));
                }
                Ok(name)
            }
            Destination::Queue(queue) if is_delayed(queue) => Ok(self.delays.clone()),
            Destination::Queue(queue) => Ok(format!("{}.{queue}", self.queues)),
        }
    }

    pub(crate) fn is_delays(&self, topic: &str) -> bool {
        topic == self.delays
    }

    /// What one of Kafka's topics is, if it is one of ours.
    pub(crate) fn destination(&self, topic: &str) -> Option<Destination> {
        // Kafka's own, such as `__consumer_offsets`.
        if topic.starts_with("__") {
            return None;
        }
        if self.is_delays(topic) {
            return delayed().ok().map(Destination::Queue);
        }
        if let Some(queue) = under(topic, &self.queues) {
            return TopicName::new(queue).ok().map(Destination::Queue);
        }
        let name = match &self.topics {
            Some(prefix) => under(topic, prefix)?,
            None => topic,
        };
        TopicName::new(name).ok().map(Destination::Topic)
    }

    /// The name of Kafka's group: of the group *and* what it wants, as one name with two patterns is two groups.
    pub(crate) fn group(&self, group: &str, source: &Source) -> String {
        let prefix = match &self.topics {
            Some(prefix) => format!("{prefix}."),
            None => String::new(),
        };
        match source {
            Source::Topics(pattern) => format!("{prefix}{group}@{}", pattern.as_str()),
            Source::Queue(queue) if is_delayed(queue) => self.delays.clone(),
            Source::Queue(queue) => format!("{}.{queue}", self.queues),
        }
    }
}

/// How many bits of a position are the offset.
const OFFSET_BITS: u32 = 48;

/// The place of a message in a topic: 1 is the first of the first partition, which is all there is where there is one
/// partition. `None` for one that is not stored.
pub(crate) fn position(partition: i32, offset: i64) -> Option<u64> {
    let (partition, offset) = (
        u64::from(u16::try_from(partition).ok()?),
        u64::try_from(offset).ok()?,
    );
    // Positions begin at 1: 0 is "before the first".
    (offset + 1 < 1 << OFFSET_BITS).then_some((partition << OFFSET_BITS) + offset + 1)
}

/// Partition and offset of a position; the offset is -1 where it is before the first of the partition.
pub(crate) fn place_of(position: u64) -> (i32, i64) {
    let partition = i32::try_from(position >> OFFSET_BITS).unwrap_or(i32::MAX);
    let number = position & ((1 << OFFSET_BITS) - 1);
    (
        partition,
        i64::try_from(number).map_or(-1, |number| number - 1),
    )
}

fn under<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use trunkline_messaging::TopicPattern;

    use super::*;

    fn names(topics: Option<&str>) -> Names {
        Names {
            topics: topics.map(str::to_owned),
            queues: "queues".to_owned(),
            delays: "delayed".to_owned(),
        }
    }

    #[test]
    fn delayed_messages_are_in_no_topic_of_users() {
        let (names, own) = (names(None), Destination::Queue(delayed().unwrap()));
        assert_eq!(names.topic(&own).unwrap(), "delayed");
        assert_eq!(names.destination("delayed"), Some(own));
        assert!(names.topic(&topic("delayed")).is_err());
    }

    fn topic(name: &str) -> Destination {
        Destination::Topic(TopicName::new(name).unwrap())
    }

    #[test]
    fn destinations_come_back() {
        let queue = Destination::Queue(TopicName::new("work.slow").unwrap());
        for names in [names(None), names(Some("staging"))] {
            for destination in [topic("order.created"), queue.clone()] {
                let name = names.topic(&destination).unwrap();
                assert_eq!(names.destination(&name), Some(destination), "{name}");
            }
        }
        assert_eq!(names(None).topic(&queue).unwrap(), "queues.work.slow");
        let prefixed = names(Some("staging")).topic(&topic("a")).unwrap();
        assert_eq!(prefixed, "staging.a");
    }

    #[test]
    fn positions_are_of_partition_and_offset() {
        assert_eq!(position(0, 0), Some(1));
        assert_eq!(position(0, 41), Some(42));
        assert_eq!(place_of(0), (0, -1));
        for (partition, offset) in [(0, 7), (1, 0), (11, 1 << 40), (65535, (1 << 48) - 2)] {
            let position = position(partition, offset).unwrap();
            assert_eq!(place_of(position), (partition, offset));
        }
        assert!(position(1, 0) > position(0, 1 << 40));
        assert_eq!(position(-1, 0), None);
        assert_eq!(position(0, -1001), None);
        assert_eq!(position(0, i64::MAX - 1), None);
    }

    #[test]
    fn what_is_not_ours_is_none() {
        assert_eq!(names(None).destination("__consumer_offsets"), None);
        assert_eq!(names(Some("staging")).destination("live.a"), None);
        assert!(names(None).topic(&topic("queues.a")).is_err());
    }

    #[test]
    fn a_group_is_of_its_source() {
        let pattern = |text| Source::Topics(TopicPattern::new(text).unwrap());
        let names = names(None);
        assert_eq!(names.group("mail", &pattern("order.*")), "mail@order.*");
        assert_ne!(
            names.group("mail", &pattern("order.*")),
            names.group("mail", &pattern("order.created"))
        );
    }
}
