//! The message that an event becomes.

use trunkline_core::names::{header, message_header};
use trunkline_core::{Context, CorrelationId, Error, Propagation, Result, TraceContext};
use trunkline_messaging::{Destination, Message, Publish, TopicName};

use crate::event::{Event, RecordedEvent};

type TopicOf = Box<dyn Fn(&RecordedEvent) -> Result<TopicName> + Send + Sync>;

/// Makes messages of events. The same event always makes the same message.
pub(super) struct Outgoing {
    pub(super) topic_of: TopicOf,
    pub(super) propagation: Propagation,
}

impl Outgoing {
    /// To one topic, or each to the topic named by its type.
    pub(super) fn new(topic: Option<TopicName>) -> Self {
        let topic_of: TopicOf = match topic {
            Some(topic) => Box::new(move |_| Ok(topic.clone())),
            None => Box::new(|recorded| TopicName::new(&recorded.event.event_type)),
        };
        Self {
            topic_of,
            propagation: Propagation::default(),
        }
    }

    pub(super) fn publish(&self, recorded: &RecordedEvent) -> Result<Publish> {
        let event = &recorded.event;
        let topic = (self.topic_of)(recorded)?;
        let payload = serde_json::to_vec(&event.event_data).map_err(|error| {
            Error::internal("the data of an event cannot be written").with_source(error)
        })?;
        let mut message = Message::new(payload)
            .with_id(&event.event_id)
            .with_key(event.aggregate_id.clone())
            .with_content_type("application/json");
        message.published_at = Some(event.timestamp);
        let headers = &mut message.headers;
        self.propagation.inject(&context_of(event), headers);
        let (at, sender) = (event.timestamp.to_string(), self.propagation.service());
        let sender = sender.unwrap_or("trunkline");
        headers.insert(message_header::SERVICE, sender);
        headers.insert(message_header::TIMESTAMP, at.as_str());
        headers.insert(message_header::CE_SPECVERSION, "1.0");
        headers.insert(message_header::CE_ID, event.event_id.as_str());
        headers.insert(message_header::CE_SOURCE, sender);
        headers.insert(message_header::CE_TYPE, event.event_type.as_str());
        headers.insert(message_header::CE_TIME, at);
        headers.insert(message_header::CE_SUBJECT, event.aggregate_id.as_str());
        headers.insert(
            message_header::AGGREGATE_VERSION,
            recorded.version.to_string(),
        );
        Ok(Publish::new(Destination::Topic(topic), message))
    }
}

/// The conversation that the event belongs to, without a deadline: whoever appended it waits no more.
fn context_of(event: &Event) -> Context {
    // What has no conversation begins one, under an id that a repetition has too.
    let id = CorrelationId::accept(&event.correlation_id)
        .or_else(|| CorrelationId::accept(&event.event_id));
    let context = id.map_or_else(Context::new, Context::with_id);
    let text = |name: &str| event.metadata.get(name).and_then(|value| value.as_str());
    let trace = text(header::TRACEPARENT)
        .and_then(|parent| TraceContext::parse(parent, text(header::TRACESTATE)));
    match trace {
        Some(trace) => context.with_trace(trace),
        None => context,
    }
}
