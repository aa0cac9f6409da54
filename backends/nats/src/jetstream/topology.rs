//! What has to be on the server: streams, and the consumer of a subscription.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use trunkline_core::{Error, Id, Result};
use trunkline_messaging::{Source, Start, Subscribe, TopicPattern};

use super::api::{Api, ConsumerConfig, ConsumerInfo, is};
use crate::config::NatsConfig;
use crate::error::code;
use crate::link::Up;
use crate::names::{self, Names};

/// The server waits so much longer than the lease: what was settled just before its lease ended must still arrive in time,
/// and what was fetched may lie here for a moment before it is handed out.
pub(crate) const SLACK: Duration = Duration::from_secs(3);
/// Deliveries of one consumer that may be unsettled, those of all its members together.
const UNSETTLED: u32 = 50_000;
/// Pulls that may wait at one consumer: members of a group.
const WAITING: u32 = 4_096;

/// Where a subscription is on the server.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) stream: String,
    pub(crate) consumer: String,
    filters: Vec<String>,
    /// Which of what comes is wanted, where the server cannot tell.
    pub(crate) pattern: Option<TopicPattern>,
    /// Whether others may have the same place.
    pub(crate) shared: bool,
    start: Start,
    lease: Duration,
}

impl Place {
    pub(crate) fn new(names: &Names, subscribe: &Subscribe) -> Self {
        let (stream, filters, exact) = match &subscribe.source {
            Source::Queue(queue) => (names.queue_stream(queue), Vec::new(), true),
            Source::Topics(pattern) => {
                let filters = names.filters(pattern);
                (names.stream.clone(), filters.subjects, filters.exact)
            }
        };
        let consumer = match (&subscribe.source, &subscribe.group) {
            (Source::Queue(_), _) => "workers".to_owned(),
            (source, Some(group)) => names::group(group, source),
            (Source::Topics(_), None) => format!("alone-{}", Id::new()),
        };
        let pattern = match &subscribe.source {
            Source::Topics(pattern) if !exact => Some(pattern.clone()),
            Source::Topics(_) | Source::Queue(_) => None,
        };
        let queue = matches!(subscribe.source, Source::Queue(_));
        Self {
            stream,
            consumer,
            filters,
            pattern,
            shared: queue || subscribe.group.is_some(),
            start: subscribe.start,
            lease: subscribe.lease,
        }
    }

    fn ack_wait(&self) -> u64 {
        nanos(self.lease.saturating_add(SLACK))
    }

    fn config(&self, settings: &NatsConfig, resume: Resume) -> Result<ConsumerConfig> {
        let mut rest = json!({
            "durable_name": self.consumer,
            "name": self.consumer,
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "max_deliver": -1,
            "max_ack_pending": UNSETTLED,
            "max_waiting": WAITING,
        });
        if !self.shared {
            rest["inactive_threshold"] = nanos(settings.inactive_threshold).into();
        }
        match resume {
            Resume::Start => match self.start {
                // A queue has no past: what lies in it is to be done.
                _ if self.filters.is_empty() => rest["deliver_policy"] = "all".into(),
                Start::Latest => rest["deliver_policy"] = "new".into(),
                Start::Earliest => rest["deliver_policy"] = "all".into(),
                Start::At(time) => {
                    rest["deliver_policy"] = "by_start_time".into();
                    rest["opt_start_time"] = time.to_string().into();
                }
            },
            Resume::Everything => rest["deliver_policy"] = "all".into(),
            Resume::Behind(_) if self.filters.is_empty() => {
                rest["deliver_policy"] = "all".into();
            }
            Resume::Behind(position) => {
                rest["deliver_policy"] = "by_start_sequence".into();
                rest["opt_start_seq"] = (position + 1).into();
            }
        }
        let Value::Object(rest) = rest else {
            return Err(Error::internal("a consumer's settings are an object"));
        };
        let (filter_subject, filter_subjects) = match self.filters.as_slice() {
            [] => (None, Vec::new()),
            [one] => (Some(one.clone()), Vec::new()),
            many => (None, many.to_vec()),
        };
        Ok(ConsumerConfig {
            ack_wait: self.ack_wait(),
            filter_subject,
            filter_subjects,
            rest,
        })
    }
}

/// Where a consumer that has to be made begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// As the subscription says.
    Start,
    /// With all that its stream has: the stream is another one, and younger than the subscription.
    Everything,
    /// Behind what was acknowledged when it was last heard of.
    Behind(u64),
}

/// How far a subscription has come, in case that its consumer is lost with everything the server knew of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    stream_created: String,
    floor: Option<u64>,
}

impl Mark {
    fn resume(&self, stream_created: &str) -> Resume {
        match self.floor {
            None => Resume::Start,
            Some(_) if self.stream_created != stream_created => Resume::Everything,
            Some(floor) => Resume::Behind(floor),
        }
    }

    /// Remembers what the server said.
    pub(crate) fn note(&mut self, info: &ConsumerInfo) {
        // A consumer that has handed out nothing has its floor where it began.
        self.floor = Some(
            info.ack_floor
                .stream_seq
                .max(self.floor.unwrap_or_default()),
        );
    }
}

/// Makes sure that a subscription has its stream and its consumer, and says where it is. Attempts of several members at once
/// end with one consumer.
pub(crate) async fn attach(
    api: &Api,
    up: &Up,
    deadline: Instant,
    settings: &NatsConfig,
    names: &Names,
    place: &Place,
    mark: &mut Mark,
) -> Result<()> {
    let stream = match &place.filters.is_empty() {
        true => ensure_queue(api, up, deadline, settings, names, &place.stream).await?,
        false => ensure_topics(api, up, deadline, settings, names).await?,
    };
    let info = match api
        .consumer(up, deadline, &place.stream, &place.consumer)
        .await
    {
        Err(error) if is(&error, &[code::CONSUMER_NOT_FOUND]) => {
            let resume = mark.resume(&stream.created);
            if resume != Resume::Start {
                tracing::warn!(
                    target: "trunkline", broker = "nats", stream = place.stream, consumer = place.consumer, ?resume,
                    "the consumer of a subscription was gone and is made again"
                );
            }
            let wanted = place.config(settings, resume)?;
            match api
                .put_consumer(up, deadline, &place.stream, &place.consumer, &wanted)
                .await
            {
                Err(error)
                    if is(
                        &error,
                        &[
                            code::CONSUMER_EXISTS,
                            code::CONSUMER_NAME_EXISTS,
                            code::CONSUMER_FILTER_NOT_UNIQUE,
                        ],
                    ) =>
                {
                    // Another member was faster.
                    api.consumer(up, deadline, &place.stream, &place.consumer)
                        .await?
                }
                made => {
                    let info = made?;
                    if resume == Resume::Start && place.start == Start::Latest {
                        mark.floor = Some(info.delivered.stream_seq.max(stream.state.last_seq));
                    }
                    info
                }
            }
        }
        known => known?,
    };
    let mut wanted = place.filters.clone();
    wanted.sort();
    if info.config.filters() != wanted {
        return Err(Error::conflict(format!(
            "the consumer `{}` of stream `{}` wants {:?} and not {wanted:?}: it was made by somebody else",
            place.consumer,
            place.stream,
            info.config.filters(),
        )));
    }
    if info.config.ack_wait < place.ack_wait() {
        // The longest lease of all members: shorter ones are kept by the members themselves.
        let mut longer = info.config.clone();
        longer.ack_wait = place.ack_wait();
        api.put_consumer(up, deadline, &place.stream, &place.consumer, &longer)
            .await?;
    }
    mark.stream_created = stream.created;
    mark.note(&info);
    Ok(())
}

/// The stream of all topics.
pub(crate) async fn ensure_topics(
    api: &Api,
    up: &Up,
    deadline: Instant,
    settings: &NatsConfig,
    names: &Names,
) -> Result<super::api::StreamInfo> {
    let subject = names.all_topics();
    let wanted = || {
        let mut stream = common(settings, &names.stream, &subject);
        stream["retention"] = "limits".into();
        stream["max_age"] = nanos(settings.max_age).into();
        stream
    };
    let info = api
        .ensure_stream(up, deadline, &names.stream, wanted)
        .await?;
    if info.config.subjects.contains(&subject) {
        return Ok(info);
    }
    Err(Error::config(format!(
        "the stream `{}` keeps {:?} and not `{subject}`: set `stream` or `topic_prefix`, or add that subject to it",
        names.stream, info.config.subjects,
    )))
}

/// The stream of one queue, by its name.
pub(crate) async fn ensure_queue(
    api: &Api,
    up: &Up,
    deadline: Instant,
    settings: &NatsConfig,
    names: &Names,
    stream: &str,
) -> Result<super::api::StreamInfo> {
    let queue = stream
        .strip_prefix(&format!("{}-Q-", names.stream))
        .unwrap_or(stream)
        .replace('=', ".");
    let subject = format!("{}.{queue}", names.queues);
    let wanted = || {
        let mut wanted = common(settings, stream, &subject);
        wanted["retention"] = "workqueue".into();
        wanted
    };
    api.ensure_stream(up, deadline, stream, wanted).await
}

/// A full stream refuses: what was confirmed is never pushed out by what is new.
fn common(settings: &NatsConfig, name: &str, subject: &str) -> Value {
    json!({
        "name": name,
        "subjects": [subject],
        "storage": "file",
        "discard": "new",
        "num_replicas": settings.replicas,
        "max_msgs": settings.max_messages.map_or(-1, |count| i64::try_from(count).unwrap_or(-1)),
        "max_bytes": settings.max_bytes.map_or(-1, |size| i64::try_from(size.bytes()).unwrap_or(-1)),
        "duplicate_window": nanos(settings.duplicate_window),
        "allow_direct": true,
    })
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos())
        .unwrap_or(i64::MAX.unsigned_abs())
        .min(i64::MAX.unsigned_abs())
}
