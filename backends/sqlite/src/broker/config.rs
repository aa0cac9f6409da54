//! Settings of the embedded broker.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, Result};
use trunkline_messaging::MessageBrokerConfig;

/// Settings of the embedded broker.
///
/// In a configuration of any broker ([`MessageBrokerConfig`]) the directory is the connection's path, and the other
/// fields stand under `options` by the same names.
///
/// ```
/// use trunkline_messaging::MessageBrokerConfig;
/// use trunkline_sqlite::EmbeddedBrokerConfig;
///
/// let neutral = MessageBrokerConfig::from_url("embedded:///var/lib/app?max_bytes=4GiB")?;
/// let config = EmbeddedBrokerConfig::from_neutral(&neutral, ".trunkline")?;
/// assert_eq!(config.max_bytes.to_string(), "4GiB");
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EmbeddedBrokerConfig {
    /// The directory, on a local disk. Default `.trunkline` below the working directory.
    pub directory: PathBuf,
    /// Wait at most this long for the directory to open. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub connect_timeout: Duration,
    /// Wait at most this long for the confirm of a publish, or for any other answer, where the caller has no earlier
    /// deadline. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub request_timeout: Duration,
    /// Largest message: body, key, id and headers. One that is larger than `max_bytes` is refused too. Default `8MiB`.
    pub max_message_size: ByteSize,
    /// Publishes of this process that may wait for the disk at once; the next ones wait for a place. Default 10000.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
    /// Bytes of publishes of this process that may wait for the disk at once. Default `64MiB`.
    pub max_in_flight_bytes: ByteSize,
    /// Messages that one topic or queue may hold while somebody still wants them. Default 10 million.
    #[schemars(range(min = 1))]
    pub max_messages: u64,
    /// Bytes that one topic or queue may hold while somebody still wants them. Default `1GiB`.
    pub max_bytes: ByteSize,
    /// What a publish to a full topic or queue does. Default `wait`.
    pub when_full: WhenFull,
    /// How long a topic keeps messages that every group has finished, or that no group wants, for groups that come
    /// later. Default `24h`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub keep_for: Duration,
    /// How many such messages a topic keeps. Default 100000.
    pub keep_messages: u64,
    /// How many bytes of such messages a topic keeps. Default `64MiB`.
    pub keep_bytes: ByteSize,
    /// Remove messages of this age even when a group has not got them yet. Default: none, they are kept until every
    /// group has finished them.
    #[serde(
        with = "trunkline_core::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<trunkline_core::duration::Text>")]
    pub max_age: Option<Duration>,
}

/// What a publish to a full topic or queue does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// It waits for room until its deadline, then fails with `Exhausted`.
    #[default]
    Wait,
    /// It fails with `Exhausted` at once.
    Refuse,
}

impl Default for EmbeddedBrokerConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from(".trunkline"),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_message_size: ByteSize::mib(8),
            max_in_flight: 10_000,
            max_in_flight_bytes: ByteSize::mib(64),
            max_messages: 10_000_000,
            max_bytes: ByteSize::mib(1024),
            when_full: WhenFull::Wait,
            keep_for: Duration::from_secs(24 * 60 * 60),
            keep_messages: 100_000,
            keep_bytes: ByteSize::mib(64),
            max_age: None,
        }
    }
}

impl EmbeddedBrokerConfig {
    /// The default settings in a directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            ..Self::default()
        }
    }

    /// Reads the settings out of those of any broker. Without a path it is the given directory.
    ///
    /// # Errors
    /// `Config` when an option is unknown or has a wrong value.
    pub fn from_neutral(
        neutral: &MessageBrokerConfig,
        directory: impl Into<PathBuf>,
    ) -> Result<Self> {
        let mut options = neutral.options.clone();
        // The options of a URL are all text.
        for name in ["max_in_flight", "max_messages", "keep_messages"] {
            if let Some(value) = options.get_mut(name)
                && let Some(number) = value.as_str().and_then(|text| text.parse::<u64>().ok())
            {
                *value = number.into();
            }
        }
        if options.contains_key("directory") {
            return Err(Error::config(
                "the directory is the connection's path, not an option",
            ));
        }
        let mut config: Self =
            serde_json::from_value(serde_json::Value::Object(options)).map_err(|error| {
                Error::config(format!("the options of an embedded broker: {error}"))
            })?;
        config.directory = match &neutral.connection.path {
            Some(path) => PathBuf::from(path),
            None => directory.into(),
        };
        config.connect_timeout = neutral.connection_timeout;
        Ok(config)
    }

    /// Sets how many messages one topic or queue may hold.
    #[must_use]
    pub fn with_max_messages(mut self, messages: u64) -> Self {
        self.max_messages = messages;
        self
    }

    /// Sets how many bytes one topic or queue may hold.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: ByteSize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Says what a publish to a full topic or queue does.
    #[must_use]
    pub fn with_when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets how long, and how many, messages are kept that nobody needs any more.
    #[must_use]
    pub fn with_kept(mut self, span: Duration, messages: u64, bytes: ByteSize) -> Self {
        self.keep_for = span;
        self.keep_messages = messages;
        self.keep_bytes = bytes;
        self
    }

    /// Sets the age at which messages are removed even when somebody still wants them.
    #[must_use]
    pub fn with_max_age(mut self, age: Option<Duration>) -> Self {
        self.max_age = age;
        self
    }

    /// No message that is larger could ever be stored.
    pub(super) fn largest_message(&self) -> ByteSize {
        self.max_message_size.min(self.max_bytes)
    }

    /// Everything that is wrong, one line each, with the path below the given key.
    #[must_use]
    pub fn problems(&self, key: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut positive = |name: &str, number: u64| {
            if number == 0 {
                problems.push(format!("{key}.{name}: must be at least 1"));
            }
        };
        positive("max_in_flight", u64::from(self.max_in_flight));
        positive("max_in_flight_bytes", self.max_in_flight_bytes.bytes());
        positive("max_messages", self.max_messages);
        positive("max_bytes", self.max_bytes.bytes());
        positive("max_message_size", self.max_message_size.bytes());
        // SQLite's own limit of a value is 1 000 000 000 bytes.
        if self.max_message_size > ByteSize::mib(512) {
            problems.push(format!("{key}.max_message_size: must be at most 512MiB"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_url_are_read() {
        let url = "embedded:///data?max_messages=5&when_full=refuse&keep_for=1h";
        let neutral = MessageBrokerConfig::from_url(url).unwrap();
        let config = EmbeddedBrokerConfig::from_neutral(&neutral, "other").unwrap();
        assert_eq!(config.directory, PathBuf::from("/data"));
        assert_eq!(config.max_messages, 5);
        assert_eq!(config.when_full, WhenFull::Refuse);
        assert_eq!(config.keep_for, Duration::from_secs(3600));
    }

    #[test]
    fn without_a_path_the_shared_directory_is_used() {
        let neutral = MessageBrokerConfig::default();
        let config = EmbeddedBrokerConfig::from_neutral(&neutral, "shared").unwrap();
        assert_eq!(config.directory, PathBuf::from("shared"));
    }

    #[test]
    fn an_unknown_option_is_an_error_that_names_it() {
        let neutral = MessageBrokerConfig::default().with_option("max_mesages", 5);
        let error = EmbeddedBrokerConfig::from_neutral(&neutral, "x").unwrap_err();
        assert!(error.message().contains("max_mesages"), "{error}");
    }

    #[test]
    fn all_problems_are_reported() {
        let mut config = EmbeddedBrokerConfig::new("x").with_max_messages(0);
        config.max_in_flight = 0;
        assert_eq!(config.problems("options").len(), 2);
        assert!(
            EmbeddedBrokerConfig::default()
                .problems("options")
                .is_empty()
        );
    }
}
