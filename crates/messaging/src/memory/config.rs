//! Settings of the in-memory broker.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, Result, duration};

/// Settings of [`MemoryBroker`](super::MemoryBroker); in files they are the `options` of a broker of type `memory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Messages kept at most, those that wait and those kept for replay together. Default 100 000.
    #[schemars(range(min = 1))]
    pub max_messages: usize,
    /// Bytes kept at most, as [`Message::size`](crate::Message::size) counts them. Default `256MiB`.
    pub max_bytes: ByteSize,
    /// Largest message. Default `16MiB`.
    pub max_message_size: ByteSize,
    /// Messages kept for replay at most, after every group is done with them. They make room when others need it.
    /// Default 10 000.
    pub retain_messages: usize,
    /// Bytes kept for replay at most. Default `32MiB`.
    pub retain_bytes: ByteSize,
    /// How long a publish waits for room, or for `connect`, when its context has no earlier deadline. Default `30s`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub publish_timeout: Duration,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            max_messages: 100_000,
            max_bytes: ByteSize::mib(256),
            max_message_size: ByteSize::mib(16),
            retain_messages: 10_000,
            retain_bytes: ByteSize::mib(32),
            publish_timeout: Duration::from_secs(30),
        }
    }
}

impl MemoryConfig {
    /// Reads the options of a configured broker. A number may be written as text, as it is in a URL.
    ///
    /// # Errors
    /// `Config` when an option is unknown or has a wrong value; says which.
    pub fn from_options(options: &Map<String, Value>) -> Result<Self> {
        let numbers = options.iter().map(|(name, value)| {
            let number = value.as_str().and_then(|text| text.parse::<u64>().ok());
            (
                name.clone(),
                number.map_or_else(|| value.clone(), Value::from),
            )
        });
        let options: Map<String, Value> = numbers.collect();
        let config: Self = serde_json::from_value(options.into()).map_err(|error| {
            Error::config(format!("options of the memory broker: {error}")).with_source(error)
        })?;
        config.check()?;
        Ok(config)
    }

    /// Checks that the limits fit together.
    ///
    /// # Errors
    /// `Config`, naming the option.
    pub fn check(&self) -> Result<()> {
        if self.max_messages == 0 {
            return Err(Error::config(
                "options.max_messages must be at least 1: nothing could be published",
            ));
        }
        if self.max_message_size > self.max_bytes {
            return Err(Error::config(
                "options.max_message_size must not be larger than options.max_bytes: the largest message would never fit",
            ));
        }
        Ok(())
    }
}
