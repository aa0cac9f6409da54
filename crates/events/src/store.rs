//! The contract that every event store fulfils.

use std::fmt;
use std::future::Future;

use tokio::sync::watch;
use trunkline_core::Result;

use crate::erased::AnyEventStore;
use crate::event::{Event, RecordedEvent, StreamName};

/// Which version a stream must have for an append to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Whatever it has.
    #[default]
    Any,
    /// It must not exist.
    NoStream,
    /// It must exist.
    Exists,
    /// It must have exactly this version; 0 means that it must not exist.
    Exact(u64),
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::Exists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// An append that succeeded, now or at an earlier attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendOutcome {
    /// The stream's version after the last event of this append.
    pub version: u64,
    /// The last event's place among all events.
    pub position: u64,
    /// True when the events had been appended before, by their ids.
    pub repeated: bool,
}

impl AppendOutcome {
    /// Puts one together; for backends.
    #[must_use]
    pub const fn new(version: u64, position: u64, repeated: bool) -> Self {
        Self {
            version,
            position,
            repeated,
        }
    }
}

/// The stream has another version than expected; the cause of an error of kind `Conflict`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream} is at version {actual}, not as expected ({expected})")]
pub struct VersionConflict {
    /// The stream.
    pub stream: StreamName,
    /// What was expected, in words.
    pub expected: String,
    /// The version it has; 0 when it does not exist.
    pub actual: u64,
}

/// In which order to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forwards,
    /// Newest first.
    Backwards,
}

/// What to read of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadStream {
    /// The stream.
    pub stream: StreamName,
    /// Begin with this version, inclusive. Forwards, 0 is the beginning; backwards, 0 is the end.
    pub from_version: u64,
    /// In which order.
    pub direction: Direction,
    /// At most so many events.
    pub limit: usize,
}

impl ReadStream {
    /// The oldest 1000 events of a stream.
    #[must_use]
    pub fn new(stream: StreamName) -> Self {
        Self {
            stream,
            from_version: 0,
            direction: Direction::Forwards,
            limit: 1000,
        }
    }

    /// Begins with a version, inclusive.
    #[must_use]
    pub fn from_version(mut self, version: u64) -> Self {
        self.from_version = version;
        self
    }

    /// Reads newest first.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }

    /// Sets how many at most.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// What to read of all streams.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadAll {
    /// Forwards: only events behind this position, 0 is the beginning. Backwards: only events before it, 0 is the end.
    pub from_position: u64,
    /// In which order.
    pub direction: Direction,
    /// Only these types; empty means all.
    pub event_types: Vec<String>,
    /// Only streams of this category.
    pub category: Option<String>,
    /// At most so many events.
    pub limit: usize,
}

impl ReadAll {
    /// The oldest 1000 events behind a position.
    #[must_use]
    pub fn after(position: u64) -> Self {
        Self {
            from_position: position,
            direction: Direction::Forwards,
            event_types: Vec::new(),
            category: None,
            limit: 1000,
        }
    }

    /// Reads newest first.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }

    /// Only events of this type as well.
    #[must_use]
    pub fn with_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_types.push(event_type.into());
        self
    }

    /// Only streams of this category.
    #[must_use]
    pub fn in_category(mut self, category: impl Into<String>) -> Self {
        self.category = Some(category.into());
        self
    }

    /// Sets how many at most.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// Tells that there may be new events: the value is the highest position known. It may miss steps, never the last one.
pub type ChangeSignal = watch::Receiver<u64>;

/// A store of events.
///
/// What every implementation promises, and the conformance suite checks:
/// - an append is atomic: all events or none, under the expected version, durable when it returns (where the store is);
/// - **idempotent by event id**: when all events of an append are in that stream already, it succeeds, changes nothing
///   and answers where they are, whatever version is expected. Same means the same id with the same type, aggregate,
///   data and, where it is stated, version; metadata, timestamp and correlation id of the first attempt stay. An id that
///   is taken by anything else, in whichever stream, is a `Conflict`, and so is an append of which only some events are
///   there. ([`decide`](crate::decide) says it in code.)
/// - versions in a stream begin with 1 and have no gap; positions grow in the order in which readers see events, and no
///   reader that goes forwards ever skips an event, however many append at once;
/// - a read returns fewer events than its limit only when there are no more;
/// - what an event says comes back as it was, its timestamp to the microsecond;
/// - after shutdown every call fails with `Cancelled`.
///
/// All methods may be called from many tasks at once.
pub trait EventStore: Send + Sync + Sized + 'static {
    /// The kind of store, as configuration names it.
    fn kind(&self) -> &'static str;

    /// Appends events to a stream.
    ///
    /// Errors: `Conflict` with [`VersionConflict`], or when an id is taken; `Invalid` when there are no events, too many
    /// ([`check_batch`](crate::check_batch)), or a stated `aggregate_version` does not fit; `Exhausted`, `Unavailable`. When dropped, the events may or
    /// may not have been appended: append them again, under the same ids.
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> impl Future<Output = Result<AppendOutcome>> + Send;

    /// Reads one stream; a stream that does not exist has no events. Cancel safe.
    fn read_stream(
        &self,
        read: ReadStream,
    ) -> impl Future<Output = Result<Vec<RecordedEvent>>> + Send;

    /// Reads all streams in the order of positions. Cancel safe.
    fn read_all(&self, read: ReadAll) -> impl Future<Output = Result<Vec<RecordedEvent>>> + Send;

    /// Tells when there may be new events, whichever process appended them.
    fn changes(&self) -> ChangeSignal;

    /// The position that a reader has stored under its name, 1 to 128 bytes of any text; 0 when there is none. Cancel
    /// safe.
    fn checkpoint(&self, reader: &str) -> impl Future<Output = Result<u64>> + Send;

    /// Stores a reader's position; one that is lower than what is stored is ignored. Cancel safe: may be called again.
    fn save_checkpoint(
        &self,
        reader: &str,
        position: u64,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Asks the store itself whether it works. Cancel safe.
    fn health_check(&self) -> impl Future<Output = Result<()>> + Send;

    /// Appends one event; its `aggregate_version - 1` is the version expected, 0 expects any.
    ///
    /// Errors: as `append`.
    fn append_event(
        &self,
        stream: &StreamName,
        event: Event,
    ) -> impl Future<Output = Result<AppendOutcome>> + Send {
        let expected = match event.aggregate_version.checked_sub(1) {
            None => ExpectedVersion::Any,
            Some(0) => ExpectedVersion::NoStream,
            Some(version) => ExpectedVersion::Exact(version),
        };
        async move { self.append(stream, expected, vec![event]).await }
    }

    /// Erases the type. Erasing twice gives the same handle.
    fn erase(self) -> AnyEventStore {
        AnyEventStore::of(self)
    }
}
