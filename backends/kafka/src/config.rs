//! Settings of the Kafka broker.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_core::size::ByteSize;
use trunkline_core::{Connection, Error, Result};
use trunkline_messaging::{MessageBrokerConfig, TopicName};

/// The port of a server unless another is given.
const PORT: u16 = 9092;
/// What a message may need beside body, key, id and headers.
const FRAMING: u64 = 64 * 1024;

/// How many messages the driver fetches ahead at least, unless their size bounds it before: its own default.
const FETCHED_AHEAD: u64 = 100_000;
/// What takes no longer than it must is answered so soon.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A member that says nothing for so long has died; until then nobody has its partitions.
const SESSION: Duration = Duration::from_secs(10);
/// A transaction that is not ended for so long is ended by the servers; until then nobody gets what it holds.
const TRANSACTION: Duration = Duration::from_secs(15);

/// Settings of librdkafka that are ours: what is guaranteed hangs on them.
const OURS: [(&str, &str); 13] = [
    ("bootstrap.servers", "it is the broker's `host` and `port`"),
    (
        "metadata.broker.list",
        "it is the broker's `host` and `port`",
    ),
    (
        "group.id",
        "it is made of the subscription's group and topics",
    ),
    (
        "enable.auto.commit",
        "what is done is committed, and nothing else",
    ),
    (
        "auto.commit.enable",
        "what is done is committed, and nothing else",
    ),
    (
        "enable.auto.offset.store",
        "what is done is committed, and nothing else",
    ),
    ("enable.idempotence", "publishing is always idempotent"),
    ("acks", "a confirm is always of all replicas"),
    (
        "request.required.acks",
        "a confirm is always of all replicas",
    ),
    (
        "transactional.id",
        "it is made of `transactional_id` and the group",
    ),
    ("enable.partition.eof", "it is used within"),
    ("message.max.bytes", "it follows `max_message_size`"),
    ("message.timeout.ms", "it follows `request_timeout`"),
];

/// Settings of a Kafka broker.
///
/// In a configuration of any broker ([`MessageBrokerConfig`]) where the servers are and how to log in stands in the
/// connection, and the other fields stand under `options` by the same names. An option with a dot in its name is a
/// setting of librdkafka, so that it may stand in a URL.
///
/// ```
/// use trunkline_messaging::MessageBrokerConfig;
/// use trunkline_kafka::KafkaConfig;
///
/// let neutral = MessageBrokerConfig::from_url("kafka://one:9092,two:9092?linger_ms=0&client.id=orders")?;
/// let config = KafkaConfig::from_neutral(&neutral)?;
/// assert_eq!(config.producer_config.linger_ms, 0);
/// assert_eq!(config.settings["client.id"], "orders");
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// Where the servers are and how to log in. Several are given as `a:9092,b:9092`. Default `localhost:9092`.
    pub connection: Connection,
    /// How user and password are sent: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`. The hashing ones need the feature `ssl`.
    /// Default `PLAIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl_mechanism: Option<String>,
    /// Root certificates in PEM to trust in place of the system's. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Own certificate in PEM, for servers that ask for one. Needs `key_file`. Default: none.
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
    /// deadline. The driver gives up a message after this time in any case. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub request_timeout: Duration,
    /// Publishes that may wait for their confirms at once; the next ones wait for a place. Default 1000.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
    /// Largest message: body, key, id and headers. The servers' `message.max.bytes`, 1 MiB unless changed, must be larger by
    /// 64 KiB. Default `896KiB`.
    pub max_message_size: ByteSize,
    /// How messages are sent.
    pub producer_config: ProducerConfig,
    /// How messages are fetched.
    pub consumer_config: ConsumerConfig,
    /// Whether an acknowledgement waits until its position is committed. Else it returns at once, and a commit is on its way
    /// or begins: a process that dies a moment later gets the message again. Default false.
    #[serde(deserialize_with = "flag")]
    pub confirmed_acks: bool,
    /// Whether a delivery can be acknowledged and other messages be published in one step, both or neither: in a transaction
    /// of Kafka. Retries, dead letters and messages for later then are. The servers must allow transactional ids that begin
    /// with `trunkline.`, or with `transactional_id`. Default false.
    #[serde(deserialize_with = "flag")]
    pub transactions: bool,
    /// First part of the transactional ids, which no two running processes may share. What a process that died has left open is
    /// then ended when its successor begins; else only by `transaction.timeout.ms` (15 s here), and so long nobody gets what
    /// it held. Default: an id of its own for each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactional_id: Option<String>,
    /// Partitions of topics that are created. Default: as the servers say (`num.partitions`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub partitions: Option<u32>,
    /// Copies of topics that are created. Default: as the servers say (`default.replication.factor`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub replication: Option<u16>,
    /// First part of the names of topics and groups. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_prefix: Option<String>,
    /// First part of the names of topics that are queues. Default `queues`.
    pub queue_prefix: String,
    /// Topic of messages that wait for their time, made when it is first needed. Whoever subscribes or publishes for later moves
    /// what is due in it, also for others that share it, and needs the right to publish where they do. Default: `delayed` behind
    /// `topic_prefix` and a hyphen; without one behind `queue_prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_topic: Option<String>,
    /// How often a subscription with wildcards, or without a group, looks for new topics and partitions. Default `5s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub topic_refresh: Duration,
    /// When a partition goes to another member, wait at most this long for what is being handled. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub drain_timeout: Duration,
    /// Settings of librdkafka by its own names, for all of its clients: `client.id`, `session.timeout.ms` … What the
    /// guarantees hang on cannot be set. Default: none.
    #[serde(deserialize_with = "texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// How messages are sent. Other names are settings of librdkafka for what publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
#[non_exhaustive]
pub struct ProducerConfig {
    /// Largest batch of messages to one partition, in bytes. Default 16384.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 1))]
    pub batch_size: u64,
    /// How long a batch waits for more messages, in milliseconds. Default 10.
    #[serde(deserialize_with = "number")]
    pub linger_ms: u64,
    /// How batches are compressed: `none`, `gzip`, `snappy`, `lz4`, `zstd`. Default `lz4`: the least time for what it saves,
    /// and every client reads it.
    pub compression_type: String,
    /// Settings of librdkafka by its own names.
    #[serde(flatten, deserialize_with = "texts")]
    pub settings: BTreeMap<String, String>,
}

/// How messages are fetched. Other names are settings of librdkafka for what subscribes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// Messages that one subscription's group may hold unsettled in this process, those that wait to be handed out included;
    /// then no more are taken from the driver. Default 500.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 1))]
    pub max_poll_records: u64,
    /// Bytes for which a server waits before it answers, half a second at most. Default 1.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 1))]
    pub fetch_min_bytes: u64,
    /// Settings of librdkafka by its own names.
    #[serde(flatten, deserialize_with = "texts")]
    pub settings: BTreeMap<String, String>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            batch_size: 16384,
            linger_ms: 10,
            compression_type: "lz4".to_owned(),
            settings: BTreeMap::new(),
        }
    }
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            max_poll_records: 500,
            fetch_min_bytes: 1,
            settings: BTreeMap::new(),
        }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            sasl_mechanism: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            connection_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_in_flight: 1000,
            max_message_size: ByteSize::new(896 * 1024),
            producer_config: ProducerConfig::default(),
            consumer_config: ConsumerConfig::default(),
            confirmed_acks: false,
            transactions: false,
            transactional_id: None,
            partitions: None,
            replication: None,
            topic_prefix: None,
            queue_prefix: "queues".to_owned(),
            delay_topic: None,
            topic_refresh: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            settings: BTreeMap::new(),
        }
    }
}

/// Shows the names of the driver's settings, not their values, which may be secret.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("connection", &self.connection)
            .field("max_in_flight", &self.max_in_flight)
            .field("settings", &self.settings.keys())
            .finish_non_exhaustive()
    }
}

impl KafkaConfig {
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
        for name in ["connection", "connection_timeout"] {
            if options.contains_key(name) {
                return Err(Error::config(format!(
                    "`{name}` stands beside `type`, not under `options`"
                )));
            }
        }
        // The options of a URL are all text.
        for name in ["max_in_flight", "partitions", "replication"] {
            if let Some(value) = options.get_mut(name)
                && let Some(number) = value.as_str().and_then(|text| text.parse::<u64>().ok())
            {
                *value = number.into();
            }
        }
        nest(&mut options)?;
        let mut config: Self = serde_json::from_value(Value::Object(options))
            .map_err(|error| Error::config(format!("the options of a Kafka broker: {error}")))?;
        config.connection = neutral.connection.clone();
        config.connection_timeout = neutral.connection_timeout;
        let problems = config.problems("options");
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::config(problems.join("; ")))
        }
    }

    /// Sets a setting of librdkafka by its own name.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// Sets how many partitions topics get that are created.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
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
            ("partitions", self.partitions.map_or(1, u64::from)),
            ("replication", self.replication.map_or(1, u64::from)),
            (
                "producer_config.batch_size",
                self.producer_config.batch_size,
            ),
            (
                "consumer_config.max_poll_records",
                self.consumer_config.max_poll_records,
            ),
            (
                "consumer_config.fetch_min_bytes",
                self.consumer_config.fetch_min_bytes,
            ),
        ] {
            if number == 0 {
                wrong(name, "must be at least 1");
            }
        }
        for (name, span) in [
            ("connection_timeout", self.connection_timeout),
            ("request_timeout", self.request_timeout),
            ("topic_refresh", self.topic_refresh),
        ] {
            if span < Duration::from_millis(100) {
                wrong(name, "must be at least 100ms");
            }
        }
        if self.drain_timeout > Duration::from_secs(120) {
            wrong(
                "drain_timeout",
                "must be at most 2m: the group waits for it",
            );
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            wrong("cert_file", "goes together with `key_file`");
        }
        if self.connection.username.is_some() != self.connection.password.is_some() {
            wrong("sasl_mechanism", "a login needs user and password");
        }
        for (name, prefix) in [
            ("topic_prefix", self.topic_prefix.as_deref()),
            ("queue_prefix", Some(self.queue_prefix.as_str())),
            ("delay_topic", self.delay_topic.as_deref()),
        ] {
            if let Some(prefix) = prefix
                && TopicName::new(prefix).is_err()
            {
                wrong(name, "must be letters, digits, `_`, `-` and single dots");
            }
        }
        for (part, settings) in [
            ("settings", &self.settings),
            ("producer_config", &self.producer_config.settings),
            ("consumer_config", &self.consumer_config.settings),
        ] {
            for (name, value) in settings {
                if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours == name) {
                    wrong(&format!("{part}.{name}"), &format!("cannot be set: {why}"));
                } else if let Err(what) = accepted(name, value) {
                    wrong(&format!("{part}.{name}"), &what);
                }
            }
        }
        if self.transactional_id.is_some() && !self.transactions {
            wrong("transactional_id", "goes together with `transactions`");
        }
        let uncommitted = |settings: &BTreeMap<String, String>| {
            settings
                .get("isolation.level")
                .is_some_and(|level| level == "read_uncommitted")
        };
        if self.transactions
            && (uncommitted(&self.settings) || uncommitted(&self.consumer_config.settings))
        {
            wrong(
                "transactions",
                "need `isolation.level` to be read_committed",
            );
        }
        let compression = &self.producer_config.compression_type;
        if let Err(what) = accepted("compression.type", compression) {
            wrong("producer_config.compression_type", &what);
        }
        if cfg!(not(feature = "ssl")) {
            let text =
                "this build has no encryption for Kafka: build it with the feature `kafka-ssl`";
            if self.connection.ssl_enabled {
                wrong("ssl_enabled", text);
            }
            if self
                .sasl_mechanism
                .as_deref()
                .is_some_and(|name| name != "PLAIN")
            {
                wrong("sasl_mechanism", text);
            }
        }
        let known = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        if let Some(mechanism) = &self.sasl_mechanism
            && !known.contains(&mechanism.as_str())
        {
            wrong(
                "sasl_mechanism",
                "must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
            );
        }
        problems
    }

    /// The topic of messages that wait for their time.
    pub(crate) fn delays(&self) -> String {
        let prefix = self.topic_prefix.as_ref().unwrap_or(&self.queue_prefix);
        let own = || format!("{prefix}-delayed");
        self.delay_topic.clone().unwrap_or_else(own)
    }

    /// The servers as the driver takes them: each with its port.
    pub(crate) fn servers(&self) -> String {
        let hosts = self.connection.host.as_deref().unwrap_or("localhost");
        let port = self.connection.port.unwrap_or(PORT);
        let servers: Vec<String> = hosts
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .map(|host| {
                let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
                let bare_v6 = !host.starts_with('[') && host.matches(':').count() > 1;
                match (bare_v6, after.contains(':')) {
                    (true, _) => format!("[{host}]:{port}"),
                    (false, true) => host.to_owned(),
                    (false, false) => format!("{host}:{port}"),
                }
            })
            .collect();
        servers.join(",")
    }

    /// What every client of the driver is set to.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        let connection = &self.connection;
        client.set("bootstrap.servers", self.servers());
        client.set("client.id", "trunkline");
        client.set(
            "socket.connection.setup.timeout.ms",
            millis(self.connection_timeout.max(Duration::from_secs(1))),
        );
        client.set("socket.nagle.disable", "true");
        client.set("reconnect.backoff.ms", "100");
        client.set("reconnect.backoff.max.ms", "2000");
        let protocol = match (connection.ssl_enabled, connection.username.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if let (Some(user), Some(password)) = (&connection.username, &connection.password) {
            let mechanism = self.sasl_mechanism.as_deref().unwrap_or("PLAIN");
            client.set("sasl.mechanism", mechanism);
            client.set("sasl.username", user);
            client.set("sasl.password", password.expose().as_str());
        }
        for (name, file) in [
            ("ssl.ca.location", &self.ca_file),
            ("ssl.certificate.location", &self.cert_file),
            ("ssl.key.location", &self.key_file),
        ] {
            if let Some(file) = file {
                client.set(name, file.display().to_string());
            }
        }
        for (name, value) in &self.settings {
            client.set(name, value);
        }
        client.set_log_level(RDKafkaLogLevel::Error);
        client
    }

    /// Of one that asks nothing that takes long: what is not answered soon never is.
    pub(crate) fn quick(&self) -> ClientConfig {
        let mut client = self.client();
        if client.get("socket.timeout.ms").is_none() {
            client.set("socket.timeout.ms", millis(ANSWER_WITHIN));
        }
        client
    }

    pub(crate) fn producer(&self) -> ClientConfig {
        let mut client = self.quick();
        let config = &self.producer_config;
        // As the clients of Java do it: a key is in the same partition for all of them.
        client.set("partitioner", "murmur2_random");
        client.set("batch.size", config.batch_size.to_string());
        client.set("linger.ms", config.linger_ms.to_string());
        client.set("compression.type", &config.compression_type);
        for (name, value) in &config.settings {
            client.set(name, value);
        }
        client.set("enable.idempotence", "true");
        client.set("acks", "all");
        client.set("message.max.bytes", self.driver_limit());
        client.set("message.timeout.ms", millis(self.request_timeout));
        client
    }

    /// What publishes in transactions, under an id.
    pub(crate) fn transactions(&self, id: &str) -> ClientConfig {
        let mut client = self.producer();
        let asked = client.get("transaction.timeout.ms");
        let limit = asked.and_then(|text| text.parse().ok());
        let limit = limit.map_or(TRANSACTION, Duration::from_millis);
        client.set("transaction.timeout.ms", millis(limit));
        client.set("message.timeout.ms", millis(limit.min(ANSWER_WITHIN)));
        // The driver wants it no longer than a transaction.
        let socket = client.get("socket.timeout.ms");
        let socket = socket.and_then(|text| text.parse().ok());
        let socket = socket.map_or(ANSWER_WITHIN, Duration::from_millis);
        client.set("socket.timeout.ms", millis(limit.min(socket)));
        client.set("transactional.id", id);
        client
    }

    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut client = self.client();
        let config = &self.consumer_config;
        client.set("partition.assignment.strategy", "cooperative-sticky");
        if client.get("session.timeout.ms").is_none() {
            client.set("session.timeout.ms", millis(SESSION));
        }
        client.set("fetch.min.bytes", config.fetch_min_bytes.to_string());
        // What is fetched ahead is bounded by size; what is taken of it and not done yet by `max_poll_records`. A bound by
        // count as low as that is reached by one answer, and at a bound the driver does not look again for
        // `fetch.queue.backoff.ms`: a second by its own default, in which nothing would come.
        let ahead = config.max_poll_records.max(FETCHED_AHEAD);
        client.set("queued.min.messages", ahead.to_string());
        client.set("queued.max.messages.kbytes", "16384");
        client.set("fetch.queue.backoff.ms", "10");
        client.set(
            "topic.metadata.refresh.interval.ms",
            millis(self.topic_refresh.max(Duration::from_secs(1))),
        );
        for (name, value) in &config.settings {
            client.set(name, value);
        }
        client.set("group.id", group);
        client.set("enable.auto.commit", "false");
        client.set("enable.auto.offset.store", "false");
        // Every partition is given a position; this is for one that retention has removed meanwhile.
        client.set("auto.offset.reset", "earliest");
        client.set("allow.auto.create.topics", "false");
        if client.get("socket.timeout.ms").is_none() {
            client.set("socket.timeout.ms", millis(self.patience(&client)));
        }
        client
    }

    /// How long what subscribes waits for an answer. While a group waits for a member that died, or that finishes what it
    /// handles, the servers answer nobody's question to join, and nothing that comes behind that question on the same
    /// connection: commits, farewells. To give the connection up then would begin the wait anew, as the servers look at it no
    /// sooner.
    fn patience(&self, client: &ClientConfig) -> Duration {
        let session = client
            .get("session.timeout.ms")
            .and_then(|text| text.parse().ok());
        let session = session.map_or(SESSION, Duration::from_millis);
        session.max(self.drain_timeout) + ANSWER_WITHIN
    }

    /// What looks at messages for a while, in the name of a group and without joining it.
    pub(crate) fn reader(&self, group: &str) -> ClientConfig {
        let mut client = self.consumer(group);
        // Some messages of one partition at a time.
        client.set("queued.min.messages", "1000");
        client.set("queued.max.messages.kbytes", "4096");
        client.set("enable.partition.eof", "true");
        client
    }

    fn driver_limit(&self) -> String {
        (self.max_message_size.bytes() + FRAMING)
            .clamp(1000, 1_000_000_000)
            .to_string()
    }
}

fn millis(span: Duration) -> String {
    span.as_millis().to_string()
}

/// Whether librdkafka takes a setting; else what it says.
fn accepted(name: &str, value: &str) -> std::result::Result<(), String> {
    let mut one = ClientConfig::new();
    one.set(name, value);
    match one.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, description, _, _)) => Err(description),
        Err(other) => Err(other.to_string()),
    }
}

/// Moves what may stand flat, as in a URL, to where it belongs.
fn nest(options: &mut serde_json::Map<String, Value>) -> Result<()> {
    let flat: Vec<String> = options.keys().cloned().collect();
    for name in flat {
        let part = match name.as_str() {
            "batch_size" | "linger_ms" | "compression_type" => "producer_config",
            "max_poll_records" | "fetch_min_bytes" => "consumer_config",
            dotted if dotted.contains('.') => "settings",
            _ => continue,
        };
        let Some(value) = options.remove(&name) else {
            continue;
        };
        let nested = options
            .entry(part)
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        let Value::Object(nested) = nested else {
            return Err(Error::config(format!("options.{part}: must be a map")));
        };
        nested.insert(name, value);
    }
    Ok(())
}

/// A number, which is text where it comes from a URL.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    number.ok_or_else(|| serde::de::Error::custom(format!("{value} is no whole number")))
}

/// A switch, which is text where it comes from a URL.
fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<bool, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let flag = match &value {
        Value::String(text) => text.parse().ok(),
        other => other.as_bool(),
    };
    flag.ok_or_else(|| serde::de::Error::custom(format!("{value} is neither true nor false")))
}

/// Settings of the driver are text; numbers and booleans may be written as such.
fn texts<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, String>, D::Error> {
    let values: BTreeMap<String, Value> = BTreeMap::deserialize(deserializer)?;
    values
        .into_iter()
        .map(|(name, value)| {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                _ => {
                    let text = format!("`{name}` must be a text, a number, or true or false");
                    return Err(serde::de::Error::custom(text));
                }
            };
            Ok((name, text))
        })
        .collect()
}

impl From<KafkaConfig> for MessageBrokerConfig {
    fn from(config: KafkaConfig) -> Self {
        let mut neutral = Self::new("kafka").with_connection(config.connection.clone());
        neutral.connection_timeout = config.connection_timeout;
        let defaults = serde_json::to_value(KafkaConfig::default());
        let Ok(Value::Object(fields)) = serde_json::to_value(&config) else {
            return neutral;
        };
        for (name, value) in fields {
            let usual = defaults.as_ref().ok().and_then(|all| all.get(&name));
            let apart = ["connection", "connection_timeout"].contains(&name.as_str());
            if !apart && usual != Some(&value) {
                neutral = neutral.with_option(name, value);
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
        let url = "kafka://app:pw@kafka.example:9093?linger_ms=3&max_poll_records=7&partitions=4&client.id=x&confirmed_acks=true";
        let neutral = MessageBrokerConfig::from_url(url).unwrap();
        let config = KafkaConfig::from_neutral(&neutral).unwrap();
        assert_eq!(config.servers(), "kafka.example:9093");
        assert_eq!(config.producer_config.linger_ms, 3);
        assert_eq!(config.consumer_config.max_poll_records, 7);
        assert_eq!((config.partitions, config.confirmed_acks), (Some(4), true));
        let client = config.producer();
        assert_eq!(client.get("client.id"), Some("x"));
        assert_eq!(client.get("linger.ms"), Some("3"));
        assert_eq!(client.get("security.protocol"), Some("sasl_plaintext"));
        // It is a setting of the Java client; librdkafka refuses it.
        assert_eq!(config.consumer("g").get("max.poll.records"), None);
        assert!(config.consumer("g").create_native_config().is_ok());
        assert!(client.create_native_config().is_ok());
    }

    #[test]
    fn the_settings_of_the_first_seed_are_read_by_their_names() {
        let neutral = MessageBrokerConfig::new("kafka")
            .with_option(
                "producer_config",
                serde_json::json!({"batch_size": 16384, "linger_ms": 10, "compression_type": "snappy"}),
            )
            .with_option(
                "consumer_config",
                serde_json::json!({"max_poll_records": 500, "fetch_min_bytes": 1024, "session.timeout.ms": 9000}),
            );
        let config = KafkaConfig::from_neutral(&neutral).unwrap();
        let (producer, consumer) = (config.producer(), config.consumer("g"));
        assert_eq!(producer.get("batch.size"), Some("16384"));
        assert_eq!(producer.get("compression.type"), Some("snappy"));
        assert_eq!(consumer.get("fetch.min.bytes"), Some("1024"));
        assert_eq!(consumer.get("session.timeout.ms"), Some("9000"));
    }

    #[test]
    fn what_subscribes_waits_longer_than_a_group_does_for_a_dead_member() {
        let of = |options: &str| {
            let url = format!("kafka://localhost?{options}");
            let neutral = MessageBrokerConfig::from_url(&url).unwrap();
            let client = KafkaConfig::from_neutral(&neutral).unwrap().consumer("g");
            let get = |name: &str| client.get(name).unwrap().to_owned();
            (get("session.timeout.ms"), get("socket.timeout.ms"))
        };
        let ours = |session: &str, socket: &str| (session.to_owned(), socket.to_owned());
        assert_eq!(of(""), ours("10000", "20000"));
        assert_eq!(of("session.timeout.ms=45000"), ours("45000", "55000"));
        assert_eq!(of("drain_timeout=30s"), ours("10000", "40000"));
        assert_eq!(of("socket.timeout.ms=15000"), ours("10000", "15000"));
    }

    #[test]
    fn servers_get_their_port() {
        let servers = |url: &str| {
            let neutral = MessageBrokerConfig::from_url(url).unwrap();
            KafkaConfig::from_neutral(&neutral).unwrap().servers()
        };
        assert_eq!(servers("kafka://"), "localhost:9092");
        assert_eq!(servers("kafka://a:1,b:2,c"), "a:1,b:2,c:9092");
        assert_eq!(servers("kafka://[::1]:4443"), "[::1]:4443");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let neutral = MessageBrokerConfig::new("kafka")
            .with_option("partitions", 0)
            .with_option("cert_file", "/c")
            .with_option("no.such.setting", "1")
            .with_option("enable.auto.commit", "true")
            .with_option("linger.ms", "soon")
            .with_option("compression_type", "rar")
            .with_option("sasl_mechanism", "MAGIC");
        let error = KafkaConfig::from_neutral(&neutral).unwrap_err();
        for key in [
            "partitions",
            "cert_file",
            "settings.no.such.setting: No such configuration property",
            "settings.enable.auto.commit: cannot be set",
            "settings.linger.ms: Invalid value",
            "producer_config.compression_type",
            "sasl_mechanism",
        ] {
            let wanted = format!("options.{key}");
            assert!(error.message().contains(&wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn an_unknown_option_is_named() {
        let neutral = MessageBrokerConfig::new("kafka").with_option("partitoins", 3);
        let error = KafkaConfig::from_neutral(&neutral).unwrap_err();
        assert!(error.message().contains("partitoins"), "{error}");
    }

    #[test]
    fn typed_settings_become_neutral_ones_and_back() {
        let mut config = KafkaConfig::new("h:1")
            .with_partitions(3)
            .with_setting("client.id", "x");
        config.producer_config.linger_ms = 0;
        let neutral = MessageBrokerConfig::from(config.clone());
        assert_eq!(neutral.options.len(), 3, "{:?}", neutral.options);
        assert_eq!(KafkaConfig::from_neutral(&neutral).unwrap(), config);
    }
}
