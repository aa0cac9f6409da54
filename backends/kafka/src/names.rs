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
                Ok(name)
            }
            Destination::Queue(queue) => Ok(format!("{}.{queue}", self.queues)),
        }
    }

    /// What one of Kafka's topics is, if it is one of ours.
    pub(crate) fn destination(&self, topic: &str) -> Option<Destination> {
        // Kafka's own, such as `__consumer_offsets`.
        if topic.starts_with("__") {
            return None;
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
            Source::Queue(queue) => format!("{}.{queue}", self.queues),
        }
    }
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
        }
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
