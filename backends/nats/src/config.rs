//! Settings of the NATS brokers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;
use trunkline_core::{Connection, Error, Result, Secret};
use trunkline_messaging::{MessageBrokerConfig, TopicName};

/// The port of a server unless another is given.
const PORT: u16 = 4222;

/// Settings of a NATS broker.
///
/// In a configuration of any broker ([`MessageBrokerConfig`]) where the server is and how to log in stands in the
/// connection, and the other fields stand under `options` by the same names.
///
/// ```
/// use trunkline_messaging::MessageBrokerConfig;
/// use trunkline_nats::{Mode, NatsConfig};
///
/// let neutral = MessageBrokerConfig::from_url("nats://localhost:4222?mode=core")?;
/// let config = NatsConfig::from_neutral(&neutral)?;
/// assert_eq!(config.mode, Mode::Core);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct NatsConfig {
    /// Where the servers are and how to log in. Several hosts are given as `a:4222,b:4222`. Default `localhost:4222`.
    pub connection: Connection,
    /// Whether messages are kept (`jetstream`) or pass by (`core`). Default `jetstream`.
    pub mode: Mode,
    /// Log in with a token in place of user and password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret<String>>,
    /// Log in with an nkey: its seed (`SU…`). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey_seed: Option<Secret<String>>,
    /// Log in with a credentials file (a JWT and its seed), read anew at each new connection. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Root certificates in PEM to trust in place of the system's. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Own certificate in PEM, for servers that ask for one; read anew at each new connection. Needs `key_file`. Default:
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Key of `cert_file` in PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Time to open a connection. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub connection_timeout: Duration,
    /// Wait at most this long for a connection, for room and for the confirm of a publish, where the caller has no
    /// earlier deadline. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub request_timeout: Duration,
    /// How often a silent server is asked whether it is there; it is given up after three questions without an answer.
    /// Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub heartbeat: Duration,
    /// Longest wait between two attempts to connect. Default `5s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub reconnect_delay_max: Duration,
    /// Publishes that may wait for their confirms at once; the next ones wait for a place. Default 1000.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
    /// Largest message: body, key, id and headers. The server's `max_payload`, 1 MiB unless changed, must be larger by what
    /// headers take. Default `896KiB`.
    pub max_message_size: ByteSize,
    /// First part of the subjects of topics: `topics` makes `topics.order.created` of `order.created`. Default: `topics` with
    /// JetStream; none with core, where a topic is a subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_prefix: Option<String>,
    /// First part of the subjects of queues (JetStream). Default `queues`.
    pub queue_prefix: String,
    /// Stream that keeps the topics (JetStream); streams of queues begin with it. Created unless it is there; one that is
    /// there is used as it is. Default `TRUNKLINE`.
    pub stream: String,
    /// JetStream domain, as of a leaf node. Default: the one of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Copies of each stream that is created, in a cluster. Default 1.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: u32,
    /// Age at which a topic's messages are removed, whether every group has had them or not, in streams that are created.
    /// Default `7d`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub max_age: Duration,
    /// Messages that all topics together, or one queue, may hold, in streams that are created; then publishes wait. Default:
    /// no limit of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_messages: Option<u64>,
    /// Bytes that all topics together, or one queue, may hold, in streams that are created; then publishes wait. Default: no
    /// limit of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
    /// Span in which the server recognises a publish that is repeated, in streams that are created. Default `2m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub duplicate_window: Duration,
    /// How long the place of a subscriber without a group is kept after its process has died. Default `10m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub inactive_threshold: Duration,
}

/// Which NATS is meant.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Messages are kept in streams until they are acknowledged: at least once.
    #[default]
    Jetstream,
    /// Messages go to who listens at the moment: at most once.
    Core,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            mode: Mode::default(),
            token: None,
            nkey_seed: None,
            credentials_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            connection_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            reconnect_delay_max: Duration::from_secs(5),
            max_in_flight: 1000,
            max_message_size: ByteSize::new(896 * 1024),
            topic_prefix: None,
            queue_prefix: "queues".to_owned(),
            stream: "TRUNKLINE".to_owned(),
            domain: None,
            replicas: 1,
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            max_messages: None,
            max_bytes: None,
            duplicate_window: Duration::from_secs(120),
            inactive_threshold: Duration::from_secs(600),
        }
    }
}

impl NatsConfig {
    /// The default settings for servers: `host`, `host:port`, or several, joined by commas.
    #[must_use]
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            connection: Connection::default().with_host(host),
            ..Self::default()
        }
    }

    /// Reads the settings out of those of any broker.
    ///
    /// # Errors
    /// `Config` when an option is unknown or has a wrong value; all that is wrong is told at once.
    pub fn from_neutral(neutral: &MessageBrokerConfig) -> Result<Self> {
        let mut options = neutral.options.clone();
        // The options of a URL are all text.
        for name in ["max_in_flight", "replicas", "max_messages"] {
            if let Some(value) = options.get_mut(name)
                && let Some(number) = value.as_str().and_then(|text| text.parse::<u64>().ok())
            {
                *value = number.into();
            }
        }
        for name in ["connection", "connection_timeout"] {
            if options.contains_key(name) {
                return Err(Error::config(format!(
                    "`{name}` stands beside `type`, not under `options`"
                )));
            }
        }
        let mut config: Self = serde_json::from_value(serde_json::Value::Object(options))
            .map_err(|error| Error::config(format!("the options of a NATS broker: {error}")))?;
        config.connection = neutral.connection.clone();
        config.connection_timeout = neutral.connection_timeout;
        let problems = config.problems("options");
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::config(problems.join("; ")))
        }
    }

    /// Sets which NATS is meant.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the stream of the topics.
    #[must_use]
    pub fn with_stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = stream.into();
        self
    }

    /// Everything that is wrong, one line each, with the path below the given key.
    #[must_use]
    pub fn problems(&self, key: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |name: &str, what: &str| problems.push(format!("{key}.{name}: {what}"));
        for (name, number) in [
            ("max_in_flight", u64::from(self.max_in_flight)),
            ("max_message_size", self.max_message_size.bytes()),
            ("max_messages", self.max_messages.unwrap_or(1)),
            ("max_bytes", self.max_bytes.map_or(1, ByteSize::bytes)),
        ] {
            if number == 0 {
                wrong(name, "must be at least 1");
            }
        }
        for (name, span) in [
            ("connection_timeout", self.connection_timeout),
            ("request_timeout", self.request_timeout),
            ("heartbeat", self.heartbeat),
            ("reconnect_delay_max", self.reconnect_delay_max),
            ("inactive_threshold", self.inactive_threshold),
        ] {
            if span < Duration::from_millis(100) {
                wrong(name, "must be at least 100ms");
            }
        }
        if !(1..=5).contains(&self.replicas) {
            wrong("replicas", "must be 1 to 5");
        }
        if self.duplicate_window < Duration::from_millis(100) {
            wrong("duplicate_window", "must be at least 100ms");
        }
        if self.max_age < self.duplicate_window {
            wrong("max_age", "must be at least `duplicate_window`");
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            wrong("cert_file", "goes together with `key_file`");
        }
        let ways = [
            self.connection.username.is_some() || self.connection.password.is_some(),
            self.token.is_some(),
            self.nkey_seed.is_some(),
            self.credentials_file.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            let text = "give one of user and password, `token`, `nkey_seed`, `credentials_file`";
            wrong("token", text);
        }
        for (name, prefix) in [
            ("topic_prefix", self.topic_prefix.as_deref()),
            ("queue_prefix", Some(self.queue_prefix.as_str())),
        ] {
            if let Some(prefix) = prefix
                && TopicName::new(prefix).is_err()
            {
                wrong(name, "must be letters, digits, `_`, `-` and single dots");
            }
        }
        let topics = self.topic_prefix.as_deref().unwrap_or("topics");
        let nested =
            |outer: &str, inner: &str| format!("{inner}.").starts_with(&format!("{outer}."));
        if self.mode == Mode::Jetstream
            && (nested(topics, &self.queue_prefix) || nested(&self.queue_prefix, topics))
        {
            wrong(
                "queue_prefix",
                "must not lie within `topic_prefix`, nor the other way round",
            );
        }
        if TopicName::new(&self.stream).is_err() || self.stream.contains('.') {
            wrong("stream", "must be letters, digits, `_` and `-`");
        }
        if self
            .domain
            .as_deref()
            .is_some_and(|domain| TopicName::new(domain).is_err())
        {
            wrong("domain", "must be letters, digits, `_`, `-` and dots");
        }
        problems
    }

    /// The servers as the driver takes them: each with its port.
    pub(crate) fn servers(&self) -> Vec<String> {
        let hosts = self.connection.host.as_deref().unwrap_or("localhost");
        let scheme = if self.connection.ssl_enabled {
            "tls"
        } else {
            "nats"
        };
        let port = self.connection.port.unwrap_or(PORT);
        hosts
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .map(|host| {
                let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
                let bare_v6 = !host.starts_with('[') && host.matches(':').count() > 1;
                match (bare_v6, after.contains(':')) {
                    (true, _) => format!("{scheme}://[{host}]:{port}"),
                    (false, true) => format!("{scheme}://{host}"),
                    (false, false) => format!("{scheme}://{host}:{port}"),
                }
            })
            .collect()
    }
}

impl From<NatsConfig> for MessageBrokerConfig {
    fn from(config: NatsConfig) -> Self {
        let mut neutral = Self::new("nats").with_connection(config.connection.clone());
        neutral.connection_timeout = config.connection_timeout;
        let defaults = serde_json::to_value(NatsConfig::default());
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(&config) else {
            return neutral;
        };
        for (name, value) in fields {
            let usual = defaults.as_ref().ok().and_then(|all| all.get(&name));
            let apart = ["connection", "connection_timeout"].contains(&name.as_str());
            if !apart && usual != Some(&value) {
                neutral = neutral.with_option(name, value);
            }
        }
        // Secrets are not written out with the others.
        for (name, secret) in [("token", &config.token), ("nkey_seed", &config.nkey_seed)] {
            if let Some(secret) = secret {
                neutral = neutral.with_option(name, secret.expose().as_str());
            }
        }
        neutral
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_url_are_read() {
        let url =
            "nats://app:pw@nats.example:4333?stream=ORDERS&max_in_flight=5&max_age=1h&replicas=3";
        let neutral = MessageBrokerConfig::from_url(url).unwrap();
        let config = NatsConfig::from_neutral(&neutral).unwrap();
        assert_eq!(config.servers(), ["nats://nats.example:4333"]);
        assert_eq!((config.max_in_flight, config.replicas), (5, 3));
        assert_eq!(config.stream, "ORDERS");
        assert_eq!(config.max_age, Duration::from_secs(3600));
        assert_eq!(config.connection.username.as_deref(), Some("app"));
    }

    #[test]
    fn servers_get_their_scheme_and_port() {
        let servers = |url: &str| {
            let neutral = MessageBrokerConfig::from_url(url).unwrap();
            NatsConfig::from_neutral(&neutral).unwrap().servers()
        };
        assert_eq!(servers("nats://"), ["nats://localhost:4222"]);
        assert_eq!(
            servers("nats://a:1,b:2,c"),
            ["nats://a:1", "nats://b:2", "nats://c:4222"]
        );
        assert_eq!(servers("tls://a"), ["tls://a:4222"]);
        assert_eq!(servers("nats+tls://[::1]:4443"), ["tls://[::1]:4443"]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let neutral = MessageBrokerConfig::new("nats")
            .with_option("replicas", 9)
            .with_option("stream", "a.b")
            .with_option("token", "t")
            .with_option("nkey_seed", "SU")
            .with_option("cert_file", "/c")
            .with_option("queue_prefix", "topics.q");
        let error = NatsConfig::from_neutral(&neutral).unwrap_err();
        for key in ["replicas", "stream", "token", "cert_file", "queue_prefix"] {
            assert!(
                error.message().contains(&format!("options.{key}")),
                "{key}: {error}"
            );
        }
    }

    #[test]
    fn an_unknown_option_is_named() {
        let neutral = MessageBrokerConfig::new("nats").with_option("strem", "x");
        let error = NatsConfig::from_neutral(&neutral).unwrap_err();
        assert!(error.message().contains("strem"), "{error}");
    }

    #[test]
    fn typed_settings_become_neutral_ones_and_back() {
        let mut config = NatsConfig::new("h:1")
            .with_mode(Mode::Core)
            .with_stream("S");
        config.nkey_seed = Some(Secret::new("SUSEED".to_owned()));
        config.max_bytes = Some(ByteSize::mib(3));
        let neutral = MessageBrokerConfig::from(config.clone());
        assert_eq!(neutral.options.len(), 4, "{:?}", neutral.options);
        assert_eq!(NatsConfig::from_neutral(&neutral).unwrap(), config);
    }
}
