//! Settings of the event store and of the relay that publishes what was appended.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::{Connection, ConnectionUrl, Error, Result};

/// Settings of the event store.
#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EventStoreConfig {
    /// The system: `embedded` (SQLite, on local disk), `memory`, `postgres`. Default `embedded`.
    #[serde(rename = "type")]
    #[schemars(extend("format" = "event-store-kind"))]
    pub kind: String,
    /// Where it is and how to log in. In files the parts may stand beside `type`, or a `connection_url`.
    pub connection: Connection,
    /// Whether the service is unhealthy without it; else it is degraded. Default true.
    pub required: bool,
    /// Publishes what was appended. Default: absent, nothing is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayConfig>,
    /// What only this system knows, as its guide describes it. Default: none.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl Default for EventStoreConfig {
    fn default() -> Self {
        Self {
            kind: "embedded".to_owned(),
            connection: Connection::default(),
            required: true,
            relay: None,
            options: serde_json::Map::new(),
        }
    }
}

/// Shows the names of the options, not their values, which may be secret.
impl fmt::Debug for EventStoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStoreConfig")
            .field("type", &self.kind)
            .field("connection", &self.connection)
            .field("required", &self.required)
            .field("relay", &self.relay)
            .field("options", &self.options.keys())
            .finish()
    }
}

impl EventStoreConfig {
    /// A store of a system, with its defaults.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            ..Self::default()
        }
    }

    /// The in-memory store of one process.
    #[must_use]
    pub fn memory() -> Self {
        Self::new("memory")
    }

    /// The store in a directory of this machine.
    #[must_use]
    pub fn embedded(directory: impl Into<String>) -> Self {
        let mut config = Self::new("embedded");
        config.connection = Connection::default().with_path(directory);
        config
    }

    /// A store by its URL: the scheme names the system.
    ///
    /// # Errors
    /// `Config` when the text is not a URL; the error does not repeat it.
    pub fn from_url(url: &str) -> Result<Self> {
        let parsed: ConnectionUrl = url
            .parse()
            .map_err(|error| Error::config(format!("{error}")))?;
        let mut config = Self::new(Self::kind_of_scheme(&parsed.scheme));
        config.connection = parsed.connection;
        for (name, value) in parsed.options {
            config.options.insert(name, value.into());
        }
        Ok(config)
    }

    /// The system that a URL scheme stands for; an unknown scheme is a system of that name.
    #[must_use]
    pub fn kind_of_scheme(scheme: &str) -> &str {
        match scheme {
            "sqlite" => "embedded",
            "postgresql" => "postgres",
            other => other,
        }
    }

    /// The store's URL without credentials, as health and logs show it.
    #[must_use]
    pub fn display_url(&self) -> String {
        self.connection.display_url(&self.kind)
    }

    /// Sets where the store is and how to log in.
    #[must_use]
    pub fn with_connection(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// Says whether the service is unhealthy without it.
    #[must_use]
    pub fn with_required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// Publishes what was appended.
    #[must_use]
    pub fn with_relay(mut self, relay: RelayConfig) -> Self {
        self.relay = Some(relay);
        self
    }
}

/// Settings of the relay that publishes every appended event once it is committed, in order, with the event's id as
/// the message's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Name under which its checkpoint is kept; a new name begins with the first event. Default `relay`.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Broker that events are published to. Default `default`.
    pub broker: String,
    /// Topic that events are published to. Default: none, each goes to the topic named by its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "topic"))]
    pub topic: Option<String>,
    /// Events read and published at once. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_size: u32,
    /// How often the store is asked for new events should its signal have been missed. Default `1s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub poll_interval: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            name: "relay".to_owned(),
            broker: "default".to_owned(),
            topic: None,
            batch_size: 100,
            poll_interval: Duration::from_secs(1),
        }
    }
}

impl RelayConfig {
    /// Sets the name under which the checkpoint is kept.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the broker that events are published to.
    #[must_use]
    pub fn with_broker(mut self, name: impl Into<String>) -> Self {
        self.broker = name.into();
        self
    }

    /// Publishes every event to one topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }
}
