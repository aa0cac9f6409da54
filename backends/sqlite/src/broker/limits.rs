//! How much a topic or queue may hold.

use trunkline_core::{Error, Retry};

use super::config::EmbeddedBrokerConfig;

/// A topic or queue holds as much as it may, and everything in it is still wanted. The cause of an error of kind
/// `Exhausted`; the message was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{destination} is full with {messages} messages of {bytes} bytes that were not consumed yet"
)]
#[non_exhaustive]
pub struct DestinationFull {
    /// The topic or queue.
    pub destination: String,
    /// Messages in it.
    pub messages: u64,
    /// Their size.
    pub bytes: u64,
}

impl DestinationFull {
    pub(super) fn error(self) -> Error {
        Error::exhausted(self.to_string())
            .with_retry(Retry::Safe)
            .with_source(self)
    }
}

/// The limits as SQLite's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) messages: i64,
    pub(super) bytes: i64,
}

impl Limits {
    /// No limits.
    pub(super) fn lifted(self) -> Self {
        Self {
            messages: i64::MAX,
            bytes: i64::MAX,
        }
    }

    pub(super) fn of(config: &EmbeddedBrokerConfig) -> Self {
        let clamp = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            messages: clamp(config.max_messages),
            bytes: clamp(config.max_bytes.bytes()),
        }
    }
}
