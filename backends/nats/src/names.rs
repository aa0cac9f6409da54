//! From topics, queues and groups to subjects, streams and consumers, and back.
//!
//! A topic `order.created` is the subject `<topic prefix>.order.created`; with core NATS and no prefix it is the subject. A
//! queue `work` is the subject `<queue prefix>.work` in a stream of its own, so that publishing to a queue that is not there
//! finds nobody, which the server says.

use trunkline_messaging::{Destination, Source, TopicName, TopicPattern};

/// How names are mapped.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) topics: Option<String>,
    pub(crate) queues: String,
    pub(crate) stream: String,
}

impl Names {
    pub(crate) fn subject(&self, destination: &Destination) -> String {
        match destination {
            Destination::Topic(topic) => self.topic(topic.as_str()),
            Destination::Queue(queue) => format!("{}.{queue}", self.queues),
        }
    }

    fn topic(&self, topic: &str) -> String {
        match &self.topics {
            Some(prefix) => format!("{prefix}.{topic}"),
            None => topic.to_owned(),
        }
    }

    /// What a subject is, if it is one of ours.
    pub(crate) fn destination(&self, subject: &str) -> Option<Destination> {
        let under = |prefix: &str| subject.strip_prefix(prefix)?.strip_prefix('.');
        let topic = match &self.topics {
            Some(prefix) => under(prefix),
            None => Some(subject),
        };
        if let Some(queue) = under(&self.queues) {
            return TopicName::new(queue).ok().map(Destination::Queue);
        }
        topic
            .and_then(|topic| TopicName::new(topic).ok())
            .map(Destination::Topic)
    }

    /// The subjects of all topics.
    pub(crate) fn all_topics(&self) -> String {
        self.topic(">")
    }

    /// The subjects of all queues.
    pub(crate) fn all_queues(&self) -> String {
        format!("{}.>", self.queues)
    }

    /// The stream of a destination.
    pub(crate) fn stream_of(&self, destination: &Destination) -> String {
        match destination {
            Destination::Topic(_) => self.stream.clone(),
            Destination::Queue(queue) => self.queue_stream(queue),
        }
    }

    /// The stream of a queue. A stream's name may have no dots; a queue's has no `=`.
    pub(crate) fn queue_stream(&self, queue: &TopicName) -> String {
        format!("{}-Q-{}", self.stream, queue.as_str().replace('.', "="))
    }

    /// The subjects that a pattern covers, none within another. They may cover more than the pattern: see
    /// [`Filters::exact`].
    pub(crate) fn filters(&self, pattern: &TopicPattern) -> Filters {
        let segments: Vec<&str> = pattern.as_str().split('.').collect();
        let Some(hash) = segments.iter().position(|segment| *segment == "#") else {
            return Filters {
                subjects: vec![self.topic(pattern.as_str())],
                exact: true,
            };
        };
        let before = segments.get(..hash).unwrap_or_default();
        let after = segments.get(hash + 1..).unwrap_or_default();
        let head = before.join(".");
        // What a `#` at the end stands for may be nothing, and a `>` is at least one segment.
        let subjects = if before.is_empty() {
            vec![self.topic(">")]
        } else if after.iter().all(|segment| *segment == "#") {
            vec![self.topic(&head), self.topic(&format!("{head}.>"))]
        } else {
            vec![self.topic(&format!("{head}.>"))]
        };
        Filters {
            subjects,
            exact: after.is_empty(),
        }
    }
}

/// What a consumer asks the server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) subjects: Vec<String>,
    /// Whether they cover the pattern and nothing else.
    pub(crate) exact: bool,
}

/// The name of a group's consumer: of the group *and* what it wants, as one name with two patterns is two groups. Readable,
/// and apart from others by a hash, as a consumer's name may have no dots and wildcards.
pub(crate) fn group(group: &str, source: &Source) -> String {
    let readable: String = group.chars().take(64).collect();
    let hash = fnv(&[group.as_bytes(), b"\n", source.to_string().as_bytes()]);
    format!("{}-{hash:016x}", readable.replace('.', "="))
}

/// FNV-1a: stable over versions and platforms, which the names of consumers must be.
pub(crate) fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names {
            topics: Some("t".to_owned()),
            queues: "q".to_owned(),
            stream: "S".to_owned(),
        }
    }

    /// What the server does with a filter.
    fn covers(filter: &str, subject: &str) -> bool {
        let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
        loop {
            match (filter.next(), subject.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some(one), Some(other)) if one == "*" || one == other => {}
                _ => return false,
            }
        }
    }

    proptest! {
        #[test]
        fn filters_cover_what_the_pattern_matches(
            pattern in "(a|b|[*]|#)([.](a|b|[*]|#)){0,4}",
            topic in "(a|b)([.](a|b)){0,5}",
        ) {
            let (pattern, topic) = (TopicPattern::new(pattern).unwrap(), TopicName::new(topic).unwrap());
            let filters = names().filters(&pattern);
            let subject = names().subject(&Destination::Topic(topic.clone()));
            let covered = filters.subjects.iter().any(|filter| covers(filter, &subject));
            if pattern.matches(&topic) {
                prop_assert!(covered, "{pattern} {topic} {filters:?}");
            } else if filters.exact {
                prop_assert!(!covered, "{pattern} {topic} {filters:?}");
            }
        }

        #[test]
        fn subjects_are_read_back(name in "[a-c]{1,3}([.][a-c]{1,3}){0,3}", queue: bool) {
            let name = TopicName::new(name).unwrap();
            let destination = if queue { Destination::Queue(name) } else { Destination::Topic(name) };
            let subject = names().subject(&destination);
            prop_assert_eq!(names().destination(&subject), Some(destination));
        }
    }

    #[test]
    fn names_of_streams_and_consumers_have_no_dots() {
        let queue = TopicName::new("orders.mail.dlq").unwrap();
        assert_eq!(names().queue_stream(&queue), "S-Q-orders=mail=dlq");
        let pattern = TopicPattern::new("user.*").unwrap();
        let name = group("mail.er", &Source::Topics(pattern));
        // Stable: a consumer is found again by it.
        assert_eq!(name, "mail=er-220da1401871f36e");
    }
}
