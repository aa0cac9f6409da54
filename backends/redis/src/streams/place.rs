//! Where a group reads: its stream in Redis and its name there.

use trunkline_core::Id;
use trunkline_messaging::{Destination, Source, Start, Subscribe, TopicName};

/// The group of a queue.
const WORKERS: &str = "workers";

/// How a group is named in Redis, and where its stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// The topic, pattern or queue.
    pub(super) name: String,
    pub(super) group: String,
    pub(super) stream: String,
    /// Whether it goes away with its subscriber.
    pub(super) temporary: bool,
    start: Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Topic,
    /// Each group with a pattern has a stream of its own, into which publishing copies.
    Wild,
    Queue,
}

impl Kind {
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Topic => "t",
            Self::Wild => "w",
            Self::Queue => "q",
        }
    }
}

impl Place {
    pub(super) fn of(subscribe: &Subscribe, prefix: &str) -> Self {
        let name = subscribe.source.name().to_owned();
        // No group of a user begins so.
        let own = || format!("~{}", Id::new());
        let group = subscribe.group.clone();
        let temporary = group.is_none() && matches!(subscribe.source, Source::Topics(_));
        let (kind, group, stream) = match &subscribe.source {
            Source::Queue(queue) => (Kind::Queue, WORKERS.to_owned(), queue_key(prefix, queue)),
            Source::Topics(pattern) => {
                let group = group.unwrap_or_else(own);
                match pattern.as_topic() {
                    Some(topic) => (Kind::Topic, group, topic_key(prefix, &topic)),
                    None => {
                        let stream = format!("{prefix}wild:{pattern}:{group}");
                        (Kind::Wild, group, stream)
                    }
                }
            }
        };
        Self {
            kind,
            name,
            group,
            stream,
            temporary,
            start: subscribe.start,
        }
    }

    /// Behind which entry a new group begins; `$` is the last one.
    pub(super) fn from(&self) -> String {
        match self.start {
            Start::Latest => "$".to_owned(),
            Start::Earliest => "0-0".to_owned(),
            Start::At(time) => {
                let before = time.unix_millis().max(1) - 1;
                format!("{before}-{}", u64::MAX)
            }
        }
    }

    /// Where an entry was published to; an entry of several topics says which.
    pub(super) fn destination(&self, topic: Option<&str>) -> Option<Destination> {
        match self.kind {
            Kind::Queue => TopicName::new(&self.name).ok().map(Destination::Queue),
            Kind::Topic => TopicName::new(&self.name).ok().map(Destination::Topic),
            Kind::Wild => TopicName::new(topic?).ok().map(Destination::Topic),
        }
    }
}

pub(super) fn queue_key(prefix: &str, queue: &TopicName) -> String {
    format!("{prefix}queue:{queue}")
}

pub(super) fn topic_key(prefix: &str, topic: &TopicName) -> String {
    format!("{prefix}topic:{topic}")
}
