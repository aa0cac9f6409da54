//! What happened, and what shall be done.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trunkline_core::{Clock, Context, CorrelationId, Error, Id, Result, SystemClock, Timestamp};
use trunkline_messaging::TopicName;

/// Longest name of a stream in bytes.
const LONGEST: usize = 255;

/// Longest id of an event, and of a conversation.
const LONGEST_ID: usize = 128;

/// The name of a stream: `<type>-<aggregate id>`, 1 to 255 bytes without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` when it is empty, longer than 255 bytes or has control characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let sound = (1..=LONGEST).contains(&name.len()) && !name.chars().any(char::is_control);
        if !sound {
            let shown: String = name.chars().take(64).collect();
            return Err(Error::invalid(format!(
                "`{shown}` is no stream name: use 1 to {LONGEST} bytes without control characters"
            )));
        }
        Ok(Self(name.into()))
    }

    /// The stream of one aggregate: `order-42`.
    ///
    /// # Errors
    /// As [`StreamName::new`].
    pub fn of(aggregate_type: &str, aggregate_id: &str) -> Result<Self> {
        Self::new(format!("{aggregate_type}-{aggregate_id}"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `-`: the type of the aggregate.
    #[must_use]
    pub fn category(&self) -> &str {
        self.0
            .split_once('-')
            .map_or(&*self.0, |(category, _)| category)
    }
}

impl FromStr for StreamName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for StreamName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Something that happened to an aggregate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique; appending it twice appends it once.
    pub event_id: String,
    /// What happened, such as `order.created`.
    pub event_type: String,
    /// To whom.
    pub aggregate_id: String,
    /// The aggregate's version after this event: 1 for the first. 0 lets the store count.
    #[serde(default)]
    pub aggregate_version: u64,
    /// The facts.
    pub event_data: Value,
    /// Causation, actor, trace and what the application adds.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// When it happened.
    pub timestamp: Timestamp,
    /// The conversation it belongs to.
    pub correlation_id: String,
}

impl Event {
    /// An event that happens now, in the conversation of the running scope; the store counts its version.
    ///
    /// # Errors
    /// `Invalid` when the data cannot be written as JSON.
    pub fn new(
        event_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        data: &impl Serialize,
    ) -> Result<Self> {
        let event_data = to_json(data)?;
        Ok(Self {
            event_id: Id::new().to_string(),
            event_type: event_type.into(),
            aggregate_id: aggregate_id.into(),
            aggregate_version: 0,
            event_data,
            metadata: trace_metadata(),
            timestamp: SystemClock.now(),
            correlation_id: correlation_id(),
        })
    }

    /// Checks that it can be appended: an id of 1 to 128 visible ASCII characters, a type that could be a topic (letters,
    /// digits, `_` and `-`, joined by dots), an aggregate id of 1 to 255 bytes, a correlation id of at most 128 bytes,
    /// neither with control characters. Stores refuse what does not pass.
    ///
    /// # Errors
    /// `Invalid`, saying which part is wrong and what would be right.
    pub fn validate(&self) -> Result<()> {
        let id = &self.event_id;
        if !(1..=LONGEST_ID).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::invalid(format!(
                "an event id must have 1 to {LONGEST_ID} visible ASCII characters"
            )));
        }
        let unsound = |what: String| Error::invalid(what).with_context("event_id", id);
        if let Err(error) = TopicName::new(&self.event_type) {
            return Err(unsound(format!("the event type {error}")).with_source(error));
        }
        let texts = [
            ("aggregate id", &self.aggregate_id, 1..=LONGEST),
            ("correlation id", &self.correlation_id, 0..=LONGEST_ID),
        ];
        for (what, text, length) in texts {
            if !length.contains(&text.len()) || text.chars().any(char::is_control) {
                let (least, most) = (length.start(), length.end());
                return Err(unsound(format!(
                    "the {what} must have {least} to {most} bytes and no control characters"
                )));
            }
        }
        Ok(())
    }

    /// Replaces the id, so that a repetition of the same decision is appended once.
    #[must_use]
    pub fn with_id(mut self, event_id: impl Into<String>) -> Self {
        self.event_id = event_id.into();
        self
    }

    /// States the version the aggregate has after this event.
    #[must_use]
    pub fn with_version(mut self, aggregate_version: u64) -> Self {
        self.aggregate_version = aggregate_version;
        self
    }

    /// Adds a pair to the metadata.
    #[must_use]
    pub fn with_metadata(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// The facts as a type.
    ///
    /// # Errors
    /// `Invalid` when they do not have that shape.
    pub fn data<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.event_data).map_err(|error| {
            Error::invalid(format!(
                "the data of event type {} has another shape",
                self.event_type
            ))
            .with_context("event_id", &self.event_id)
            .with_source(error)
        })
    }
}

/// Something that shall be done to an aggregate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Unique; a repetition carries the same id.
    pub command_id: String,
    /// What shall be done, such as `order.place`.
    pub command_type: String,
    /// To whom.
    pub aggregate_id: String,
    /// The wishes.
    pub command_data: Value,
    /// Causation, actor, trace and what the application adds.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// When it was given.
    pub timestamp: Timestamp,
    /// The conversation it belongs to.
    pub correlation_id: String,
}

impl Command {
    /// A command given now, in the conversation of the running scope.
    ///
    /// # Errors
    /// `Invalid` when the data cannot be written as JSON.
    pub fn new(
        command_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        data: &impl Serialize,
    ) -> Result<Self> {
        Ok(Self {
            command_id: Id::new().to_string(),
            command_type: command_type.into(),
            aggregate_id: aggregate_id.into(),
            command_data: to_json(data)?,
            metadata: trace_metadata(),
            timestamp: SystemClock.now(),
            correlation_id: correlation_id(),
        })
    }
}

/// An event with its place in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// The event; its version is the one it has in the stream.
    pub event: Event,
    /// The stream.
    pub stream: StreamName,
    /// Its version in the stream: 1 for the first, without gaps.
    pub version: u64,
    /// Its place among all events: grows in the order in which readers see them.
    pub position: u64,
    /// When it was appended.
    pub recorded_at: Timestamp,
}

impl RecordedEvent {
    /// Puts one together; for backends.
    #[must_use]
    pub fn new(
        mut event: Event,
        stream: StreamName,
        version: u64,
        position: u64,
        recorded_at: Timestamp,
    ) -> Self {
        event.aggregate_version = version;
        Self {
            event,
            stream,
            version,
            position,
            recorded_at,
        }
    }
}

fn to_json(data: &impl Serialize) -> Result<Value> {
    serde_json::to_value(data)
        .map_err(|error| Error::invalid("the data cannot be written as JSON").with_source(error))
}

fn correlation_id() -> String {
    Context::current()
        .map_or_else(CorrelationId::new, |context| {
            context.correlation_id().clone()
        })
        .to_string()
}

fn trace_metadata() -> Map<String, Value> {
    let trace = Context::current().map(|context| context.trace().traceparent());
    trace
        .map(|trace| ("traceparent".to_owned(), Value::from(trace)))
        .into_iter()
        .collect()
}
