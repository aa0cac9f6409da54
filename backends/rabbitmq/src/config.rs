//! Settings of RabbitMQ.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;
use trunkline_core::{Connection, Error, Result};
use trunkline_messaging::MessageBrokerConfig;

/// The largest prefetch and the largest heartbeat that AMQP can say.
const LARGEST_SHORT: u64 = 65_535;
/// Names of AMQP are no longer.
const LONGEST_NAME: usize = 255;

/// Settings of RabbitMQ.
///
/// In a configuration of any broker ([`MessageBrokerConfig`]) `connection`, `connection_timeout` and
/// `connection_pool_size` stand beside `type`, and the other fields under `options` by the same names.
///
/// ```
/// use trunkline_messaging::MessageBrokerConfig;
/// use trunkline_rabbitmq::{QueueType, RabbitMqConfig};
///
/// let neutral = MessageBrokerConfig::from_url("amqp://guest:guest@localhost:5672/orders?queue_type=classic")?;
/// let config = RabbitMqConfig::from_neutral(&neutral)?;
/// assert_eq!(config.connection.path.as_deref(), Some("orders"));
/// assert_eq!(config.queue_type, QueueType::Classic);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RabbitMqConfig {
    /// Where the server is and how to log in. Several hosts, as `a:5672,b:5672`, are the nodes of one cluster and are tried
    /// in turn. The path is the virtual host. Default: `localhost`, port 5672 (with TLS 5671), user and password `guest`,
    /// virtual host `/`.
    pub connection: Connection,
    /// Time to open a connection, login included. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub connection_timeout: Duration,
    /// Connections opened at most, as they are needed: one for publishing, so that a server that holds publishers back does
    /// not hold up acknowledgements, the others for consumers. At least 2. Default 10.
    #[schemars(range(min = 2, max = 1_000))]
    pub connection_pool_size: u32,
    /// The name that the server shows for the connections. Default: `trunkline`.
    pub connection_name: String,
    /// How often each side says that it is there; a side silent for twice as long is gone. The shorter one of ours and the
    /// server's counts. Whole seconds, 1 to 65535. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub heartbeat: Duration,
    /// Wait at most this long for a connection, a place or the confirm of a publish, or for any other answer, where the
    /// caller has no earlier deadline. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub request_timeout: Duration,
    /// Wait before the second attempt to connect; it doubles from there. Default `100ms`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub reconnect_delay: Duration,
    /// Longest wait between two attempts to connect. Default `5s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub max_reconnect_delay: Duration,
    /// The durable topic exchange that topics are published to. Default `events`.
    pub exchange: String,
    /// The type of the queues that groups and `queue` destinations get. A queue keeps the type that it was declared with.
    /// Default `quorum`.
    pub queue_type: QueueType,
    /// Whether publishes are confirmed. Only true, as every publish promises it. Default true.
    pub confirm_delivery: bool,
    /// Channels that publishes are spread over; one destination keeps to one channel and so to its order. Default 2.
    #[schemars(range(min = 1, max = 64))]
    pub publish_channels: u32,
    /// Largest message: body, key, id and headers. RabbitMQ has a limit of its own, 16 MiB from version 4 on. Default
    /// `16MiB`.
    pub max_message_size: ByteSize,
    /// Publishes that may wait for their confirm at once; the next ones wait for a place. Default 1000.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
    /// Bytes of publishes that may wait for their confirm at once. Default `64MiB`.
    pub max_in_flight_bytes: ByteSize,
    /// Messages that a queue declared by this service holds at most, those in the hands of consumers not counted; more are
    /// refused. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_length: Option<u64>,
    /// Bytes of bodies that a queue declared by this service holds at most, as `max_length` counts. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length_bytes: Option<ByteSize>,
    /// How long the server keeps the place of a subscriber without a group that is gone. Default `5m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub subscriber_expiry: Duration,
    /// Whether a message whose sender gave it no id is taken for a repetition of an equal one before it, where an inbox
    /// recognises repetitions. Only where no two messages are equal unless they are the same. Default `false`: an inbox
    /// lets them all pass.
    pub recognise_equal: bool,
    /// How to log in. Default `plain`.
    pub auth_mechanism: AuthMechanism,
    /// File with further root certificates, PEM. Read again for each connection. Default: none, only the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether the system's root certificates are trusted; without them those of `ca_file` alone are. Default true.
    pub system_roots: bool,
    /// File with the certificate that this side shows to the server, and what leads from it to a root, PEM. Read again for
    /// each connection. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// File with the private key of `client_certificate`, PEM. Default: the file of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// The name that the server's certificate must have. Default: the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// How the server keeps a queue.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// Replicated over the nodes of a cluster, and written to disk before it is confirmed.
    #[default]
    Quorum,
    /// On one node; written to disk before it is confirmed.
    Classic,
}

/// How to log in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum AuthMechanism {
    /// With user name and password.
    #[default]
    Plain,
    /// By the certificate of the connection (the server's plugin `rabbitmq_auth_mechanism_ssl`).
    External,
}

impl Default for RabbitMqConfig {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            connection_timeout: Duration::from_secs(10),
            connection_pool_size: 10,
            connection_name: "trunkline".to_owned(),
            heartbeat: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            reconnect_delay: Duration::from_millis(100),
            max_reconnect_delay: Duration::from_secs(5),
            exchange: "events".to_owned(),
            queue_type: QueueType::default(),
            confirm_delivery: true,
            publish_channels: 2,
            max_message_size: ByteSize::mib(16),
            max_in_flight: 1_000,
            max_in_flight_bytes: ByteSize::mib(64),
            max_length: None,
            max_length_bytes: None,
            subscriber_expiry: Duration::from_secs(300),
            recognise_equal: false,
            auth_mechanism: AuthMechanism::default(),
            ca_file: None,
            system_roots: true,
            client_certificate: None,
            client_key: None,
            server_name: None,
        }
    }
}

/// Fields that are not under `options`.
const BESIDE_TYPE: [&str; 3] = ["connection", "connection_timeout", "connection_pool_size"];
/// Options that are numbers or yes and no; those of a URL are all text.
const NOT_TEXT: [&str; 5] = [
    "confirm_delivery",
    "publish_channels",
    "max_in_flight",
    "max_length",
    "system_roots",
];

impl RabbitMqConfig {
    /// The server of a URL: `amqp://user:password@host:port/vhost?option=value`, `amqps://` with TLS.
    ///
    /// # Errors
    /// `Config` when it is no such URL, or an option is unknown or wrong.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::from_neutral(&MessageBrokerConfig::from_url(url)?)
    }

    /// Reads the settings out of those of any broker.
    ///
    /// # Errors
    /// `Config` that tells everything that is wrong.
    pub fn from_neutral(neutral: &MessageBrokerConfig) -> Result<Self> {
        let mut options = neutral.options.clone();
        for name in NOT_TEXT {
            if let Some(value) = options.get_mut(name)
                && let Some(read) = value
                    .as_str()
                    .and_then(|text| serde_json::from_str(text).ok())
            {
                *value = read;
            }
        }
        if let Some(name) = BESIDE_TYPE.iter().find(|name| options.contains_key(**name)) {
            return Err(Error::config(format!(
                "options.{name}: belongs beside `type`, not under `options`"
            )));
        }
        let mut config: Self = serde_json::from_value(serde_json::Value::Object(options))
            .map_err(|error| Error::config(format!("the options of a RabbitMQ broker: {error}")))?;
        config.connection = neutral.connection.clone();
        config.connection_timeout = neutral.connection_timeout;
        config.connection_pool_size = neutral.connection_pool_size;
        let problems = config.problems("options");
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::config(problems.join("; ")))
        }
    }

    /// Everything that is wrong, one line each, with the path below the given key.
    #[must_use]
    pub fn problems(&self, key: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |name: &str, text: &str| problems.push(format!("{key}.{name}: {text}"));
        if !self.confirm_delivery {
            wrong(
                "confirm_delivery",
                "cannot be false: every publish promises a confirm",
            );
        }
        let heartbeat = self.heartbeat;
        if heartbeat.subsec_nanos() != 0 || !(1..=LARGEST_SHORT).contains(&heartbeat.as_secs()) {
            wrong("heartbeat", "must be 1 to 65535 whole seconds");
        }
        for (name, number) in [
            ("max_in_flight", u64::from(self.max_in_flight)),
            ("max_in_flight_bytes", self.max_in_flight_bytes.bytes()),
            ("max_message_size", self.max_message_size.bytes()),
            ("max_length", self.max_length.unwrap_or(1)),
            (
                "max_length_bytes",
                self.max_length_bytes.map_or(1, ByteSize::bytes),
            ),
        ] {
            if number == 0 {
                wrong(name, "must be at least 1");
            }
        }
        if !(1..=64).contains(&self.publish_channels) {
            wrong("publish_channels", "must be 1 to 64");
        }
        if self.max_in_flight_bytes < self.max_message_size {
            wrong(
                "max_in_flight_bytes",
                "must be at least max_message_size, or the largest message could never be sent",
            );
        }
        if self.max_in_flight_bytes > ByteSize::mib(2048) {
            wrong("max_in_flight_bytes", "must be at most 2GiB");
        }
        if self.max_message_size > ByteSize::mib(512) {
            wrong("max_message_size", "must be at most 512MiB");
        }
        if self.exchange.is_empty() || self.exchange.len() > LONGEST_NAME {
            wrong("exchange", "must have 1 to 255 bytes");
        } else if self.exchange.starts_with("amq.") {
            wrong(
                "exchange",
                "names that begin with `amq.` are the server's own",
            );
        }
        if self.subscriber_expiry < Duration::from_secs(1) {
            wrong("subscriber_expiry", "must be at least 1s");
        }
        if !self.connection.ssl_enabled {
            for (name, set) in [
                ("ca_file", self.ca_file.is_some()),
                ("client_certificate", self.client_certificate.is_some()),
                ("client_key", self.client_key.is_some()),
                ("server_name", self.server_name.is_some()),
            ] {
                if set {
                    wrong(
                        name,
                        "has no effect without TLS; write amqps:// or ssl_enabled",
                    );
                }
            }
        }
        if self.client_key.is_some() && self.client_certificate.is_none() {
            wrong("client_key", "stands without client_certificate");
        }
        if self.auth_mechanism == AuthMechanism::External && self.client_certificate.is_none() {
            wrong("auth_mechanism", "external needs a client_certificate");
        }
        problems
    }

    /// Sets where the server is and how to log in.
    #[must_use]
    pub fn with_connection(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// Sets the exchange that topics are published to.
    #[must_use]
    pub fn with_exchange(mut self, exchange: impl Into<String>) -> Self {
        self.exchange = exchange.into();
        self
    }

    /// Sets the type of the queues of groups and of `queue` destinations.
    #[must_use]
    pub fn with_queue_type(mut self, queue_type: QueueType) -> Self {
        self.queue_type = queue_type;
        self
    }

    /// Sets how often each side says that it is there.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Sets the waits between attempts to connect.
    #[must_use]
    pub fn with_reconnect_delays(mut self, first: Duration, longest: Duration) -> Self {
        self.reconnect_delay = first;
        self.max_reconnect_delay = longest;
        self
    }

    /// The nodes to try, each with its port.
    pub(crate) fn nodes(&self) -> Vec<(String, u16)> {
        let usual = if self.connection.ssl_enabled {
            5671
        } else {
            5672
        };
        let port = self.connection.port.unwrap_or(usual);
        let hosts = self.connection.host.as_deref().unwrap_or("localhost");
        if !hosts.contains(',') {
            return vec![(hosts.to_owned(), port)];
        }
        let node = |text: &str| match text.trim().rsplit_once(':') {
            Some((host, own)) if !host.ends_with(':') => match own.parse() {
                Ok(own) => (host.trim_matches(['[', ']']).to_owned(), own),
                Err(_) => (text.trim().to_owned(), port),
            },
            _ => (text.trim().trim_matches(['[', ']']).to_owned(), port),
        };
        hosts
            .split(',')
            .filter(|text| !text.trim().is_empty())
            .map(node)
            .collect()
    }

    pub(crate) fn virtual_host(&self) -> &str {
        match self.connection.path.as_deref() {
            None | Some("") => "/",
            Some(path) => path,
        }
    }
}

impl From<RabbitMqConfig> for MessageBrokerConfig {
    fn from(config: RabbitMqConfig) -> Self {
        let mut neutral = Self::new("rabbitmq").with_connection(config.connection.clone());
        neutral.connection_timeout = config.connection_timeout;
        neutral.connection_pool_size = config.connection_pool_size;
        if let Ok(serde_json::Value::Object(mut options)) = serde_json::to_value(config) {
            for name in BESIDE_TYPE {
                options.remove(name);
            }
            neutral.options = options;
        }
        neutral
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_url_are_read() {
        let url = "amqps://me:word@rabbit:5999/%2Forders?heartbeat=600&max_in_flight=5&system_roots=false\
                   &ca_file=/etc/ca.pem&queue_type=classic";
        let config = RabbitMqConfig::from_url(url).unwrap();
        assert_eq!(config.nodes(), [("rabbit".to_owned(), 5999)]);
        assert_eq!(config.virtual_host(), "/orders");
        assert_eq!(config.heartbeat, Duration::from_secs(600));
        assert_eq!((config.max_in_flight, config.system_roots), (5, false));
        assert_eq!(config.queue_type, QueueType::Classic);
    }

    /// X-29: the 600 s of the seed are taken as they are written; the default notices a dead peer sooner.
    #[test]
    fn x_29_a_heartbeat_is_as_written_and_ten_seconds_by_default() {
        let heartbeat = |url: &str| RabbitMqConfig::from_url(url).unwrap().heartbeat;
        assert_eq!(
            heartbeat("amqp://h?heartbeat=600"),
            Duration::from_secs(600)
        );
        assert_eq!(heartbeat("amqp://h"), Duration::from_secs(10));
    }

    #[test]
    fn the_default_virtual_host_has_many_spellings() {
        for url in ["amqp://h", "amqp://h/", "amqp://h/%2F", "amqp://h:5672/%2f"] {
            let config = RabbitMqConfig::from_url(url).unwrap();
            assert_eq!(config.virtual_host(), "/", "{url}");
        }
    }

    #[test]
    fn ports_follow_tls_and_nodes_have_their_own() {
        let nodes = |url: &str| RabbitMqConfig::from_url(url).unwrap().nodes();
        assert_eq!(nodes("amqp://h"), [("h".to_owned(), 5672)]);
        assert_eq!(nodes("amqps://h"), [("h".to_owned(), 5671)]);
        let both = [("a".to_owned(), 1), ("b".to_owned(), 5672)];
        assert_eq!(nodes("amqp://a:1,b"), both);
    }

    #[test]
    fn all_problems_are_reported_with_their_keys() {
        let url = "amqp://h?confirm_delivery=false&heartbeat=0.5&ca_file=x&max_in_flight=0";
        let error = RabbitMqConfig::from_url(url).unwrap_err().to_string();
        for key in ["confirm_delivery", "heartbeat", "ca_file", "max_in_flight"] {
            assert!(error.contains(&format!("options.{key}: ")), "{error}");
        }
        let error = RabbitMqConfig::from_url("amqp://h?hartbeat=3").unwrap_err();
        assert!(error.to_string().contains("hartbeat"), "{error}");
    }

    #[test]
    fn the_neutral_form_says_the_same() {
        let config = RabbitMqConfig::default()
            .with_exchange("other")
            .with_queue_type(QueueType::Classic);
        let neutral = MessageBrokerConfig::from(config.clone());
        assert_eq!(RabbitMqConfig::from_neutral(&neutral).unwrap(), config);
    }
}
