//! Settings of Redis.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;
use trunkline_core::{Connection, Error, Result, Secret};
use trunkline_messaging::MessageBrokerConfig;

/// Where Redis listens, and for sentinels.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Options that are numbers or switches; from a URL they come as text.
const NUMBERS: [&str; 3] = ["max_messages", "keep_messages", "buffer_messages"];
const SWITCHES: [&str; 1] = ["cluster"];

/// Settings of Redis as a message broker, an inbox and a cache tier.
///
/// In a configuration of any broker ([`MessageBrokerConfig`]) `connection` and `connection_timeout` stand beside `type`,
/// and the other fields under `options` by the same names.
///
/// ```
/// use trunkline_messaging::MessageBrokerConfig;
/// use trunkline_redis::{Mode, RedisConfig};
///
/// let neutral = MessageBrokerConfig::from_url("redis://localhost:6379/15?mode=pubsub")?;
/// let config = RedisConfig::from_neutral(&neutral)?;
/// assert_eq!((config.mode, config.database()?), (Mode::PubSub, 15));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where it is and how to log in. Host `localhost`, port 6379; the path is the number of the database; a user name is
    /// one of the server's ACL. Several hosts are tried in turn, or are the sentinels.
    pub connection: Connection,
    /// Time to open a connection, login included. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub connection_timeout: Duration,
    /// Wait at most this long for a connection and an answer, where the caller has no earlier deadline. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub request_timeout: Duration,
    /// The server is asked this often whether it is there; it counts as lost when it does not answer as long. Default `5s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub heartbeat: Duration,
    /// Whether messages are kept (`streams`, at least once) or go to whoever listens (`pubsub`, at most once). Default
    /// `streams`.
    pub mode: Mode,
    /// What every key and channel begins with. The braces keep all keys in one slot of a cluster. Default `{trunkline}:`.
    pub key_prefix: String,
    /// Largest message: body, key, id and headers. Default `8MiB`.
    pub max_message_size: ByteSize,
    /// Messages that one topic, queue or group with a pattern may hold while somebody still wants them; then publishers
    /// wait. Default 1 million.
    #[schemars(range(min = 1))]
    pub max_messages: u64,
    /// How long a topic keeps messages that every group has finished, or that no group wants, for groups that come later.
    /// Default `24h`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub keep_for: Duration,
    /// How many such messages a topic keeps. Default 10000.
    pub keep_messages: u64,
    /// Remove messages of this age even when a group has not done them. Default: none, they are kept until every group
    /// has finished them.
    #[serde(
        with = "trunkline_core::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<trunkline_core::duration::Text>")]
    pub max_age: Option<Duration>,
    /// A consumer that waits looks this often for messages that other clients have added to a stream; those of Trunkline
    /// are told at once. Default `1s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub poll_interval: Duration,
    /// What another client of a group has read and not acknowledged for so long is taken over. Default `5m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub claim_after: Duration,
    /// Messages that one subscription of `mode: pubsub` may have waiting; what comes on top is dropped, as Redis holds
    /// nothing back. Default 10000.
    #[schemars(range(min = 1))]
    pub buffer_messages: u64,
    /// The bytes of those. Default `64MiB`.
    pub buffer_size: ByteSize,
    /// The name of the master, when the hosts are sentinels that know where it is. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_master: Option<String>,
    /// User name at the sentinels. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_username: Option<String>,
    /// Password at the sentinels; never shown. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_password: Option<Secret<String>>,
    /// Whether the hosts are nodes of a Redis Cluster: the one that has the slot of `key_prefix` is used. Default false.
    pub cluster: bool,
    /// Certificates (PEM) that a server's must descend from. Default: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to the server. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key (PEM) of that certificate. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<PathBuf>,
}

/// What Redis is used as.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Streams with consumer groups: at least once.
    #[default]
    Streams,
    /// Pub/Sub: at most once, to whoever listens.
    PubSub,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            connection_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(5),
            mode: Mode::default(),
            key_prefix: "{trunkline}:".to_owned(),
            max_message_size: ByteSize::mib(8),
            max_messages: 1_000_000,
            keep_for: Duration::from_secs(24 * 60 * 60),
            keep_messages: 10_000,
            max_age: None,
            poll_interval: Duration::from_secs(1),
            claim_after: Duration::from_secs(5 * 60),
            buffer_messages: 10_000,
            buffer_size: ByteSize::mib(64),
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password: None,
            cluster: false,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
        }
    }
}

impl RedisConfig {
    /// The default settings at a server.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            ..Self::default()
        }
    }

    /// The settings of a URL such as `redis://user:password@host:6379/0?mode=pubsub`; `rediss://` is with TLS.
    ///
    /// # Errors
    /// `Config` when it is not such a URL or an option is not known; the error does not repeat it.
    pub fn from_url(url: &str) -> Result<Self> {
        let neutral = MessageBrokerConfig::from_url(url)?;
        if neutral.kind != "redis" {
            return Err(Error::config(
                "not a URL of Redis; write redis://host:6379/0, or rediss:// with TLS",
            ));
        }
        Self::from_neutral(&neutral)
    }

    /// Reads the settings out of those of any broker.
    ///
    /// # Errors
    /// `Config`, naming every option that is not known or wrong.
    pub fn from_neutral(neutral: &MessageBrokerConfig) -> Result<Self> {
        let mut options = neutral.options.clone();
        for name in NUMBERS {
            if let Some(value) = options.get_mut(name)
                && let Some(number) = value.as_str().and_then(|text| text.parse::<u64>().ok())
            {
                *value = number.into();
            }
        }
        for name in SWITCHES {
            if let Some(value) = options.get_mut(name)
                && let Some(switch) = value.as_str().and_then(|text| text.parse::<bool>().ok())
            {
                *value = switch.into();
            }
        }
        for name in ["connection", "connection_timeout"] {
            if options.contains_key(name) {
                return Err(Error::config(format!(
                    "`{name}` stands beside `type`, not under `options`"
                )));
            }
        }
        let mut config = read(options)?;
        config.connection = neutral.connection.clone();
        config.connection_timeout = neutral.connection_timeout;
        config.check()?;
        Ok(config)
    }

    /// The number of the database: the connection's path. 0 unless it says otherwise.
    ///
    /// # Errors
    /// `Config` when the path is not a number.
    pub fn database(&self) -> Result<i64> {
        let path = self.connection.path.as_deref().unwrap_or_default();
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Ok(0);
        }
        path.parse::<u16>().map(i64::from).map_err(|_| {
            Error::config(format!(
                "`{path}` is no database of Redis: after the host stands its number, such as redis://localhost:6379/0"
            ))
        })
    }

    /// Sets what every key and channel begins with.
    #[must_use]
    pub fn with_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Sets whether messages are kept.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets how many messages one topic or queue may hold.
    #[must_use]
    pub fn with_max_messages(mut self, messages: u64) -> Self {
        self.max_messages = messages;
        self
    }

    /// Sets how many finished messages a topic keeps, and how long.
    #[must_use]
    pub fn with_keep(mut self, messages: u64, time: Duration) -> Self {
        self.keep_messages = messages;
        self.keep_for = time;
        self
    }

    /// Sets how often the server is asked whether it is there.
    #[must_use]
    pub fn with_heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// Everything that is wrong, at once.
    pub(crate) fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        if let Err(error) = self.database() {
            wrong.push(error.message().to_owned());
        }
        if let Err(error) = self.hosts() {
            wrong.push(error.message().to_owned());
        }
        if self.tls_cert_file.is_some() != self.tls_key_file.is_some() {
            wrong.push("`tls_cert_file` and `tls_key_file` belong together".to_owned());
        }
        let tls = self.tls_ca_file.is_some() || self.tls_cert_file.is_some();
        if tls && !self.connection.ssl_enabled {
            wrong.push(
                "there are TLS files and TLS is off: write rediss:// or `ssl_enabled: true`"
                    .to_owned(),
            );
        }
        if self.cluster && self.sentinel_master.is_some() {
            wrong.push("`cluster` and `sentinel_master` exclude each other".to_owned());
        }
        if self.cluster && self.database().is_ok_and(|number| number != 0) {
            wrong.push("a cluster has database 0 alone".to_owned());
        }
        if self.cluster && !has_tag(&self.key_prefix) {
            wrong.push(
                "in a cluster `key_prefix` needs a hash tag, such as `{orders}:`, that keeps its keys in one slot"
                    .to_owned(),
            );
        }
        for (name, number) in [
            ("max_messages", self.max_messages),
            ("buffer_messages", self.buffer_messages),
            ("buffer_size", self.buffer_size.bytes()),
        ] {
            if number == 0 {
                wrong.push(format!("`{name}` must be at least 1"));
            }
        }
        for (name, time) in [
            ("heartbeat", self.heartbeat),
            ("poll_interval", self.poll_interval),
            ("request_timeout", self.request_timeout),
            ("claim_after", self.claim_after),
        ] {
            if time < Duration::from_millis(1) {
                wrong.push(format!("`{name}` must be at least 1ms"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!(
            "the settings of Redis: {}",
            wrong.join("; ")
        )))
    }

    /// The servers to try, or the sentinels to ask.
    pub(crate) fn hosts(&self) -> Result<Vec<(String, u16)>> {
        let usual = match (&self.sentinel_master, self.connection.port) {
            (_, Some(port)) => port,
            (Some(_), None) => SENTINEL_PORT,
            (None, None) => PORT,
        };
        let hosts = self.connection.host.as_deref().unwrap_or("localhost");
        hosts
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .map(|host| split_port(host, usual))
            .collect()
    }
}

fn has_tag(prefix: &str) -> bool {
    let tag = prefix
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

fn split_port(host: &str, usual: u16) -> Result<(String, u16)> {
    // A bare IPv6 address has colons and no port.
    let colons = host.matches(':').count();
    match host.rsplit_once(':') {
        Some((name, port)) if colons == 1 || name.ends_with(']') => {
            let port = port
                .parse()
                .map_err(|_| Error::config(format!("`{port}` behind `{name}` is no port")))?;
            Ok((name.trim_matches(['[', ']']).to_owned(), port))
        }
        _ => Ok((host.trim_matches(['[', ']']).to_owned(), usual)),
    }
}

/// Each option by itself, so that all that is wrong is told at once.
fn read(options: serde_json::Map<String, serde_json::Value>) -> Result<RedisConfig> {
    let mut wrong = Vec::new();
    let mut good = serde_json::Map::new();
    for (name, value) in options {
        let mut alone = serde_json::Map::new();
        alone.insert(name.clone(), value.clone());
        match serde_json::from_value::<RedisConfig>(serde_json::Value::Object(alone)) {
            Ok(_) => {
                good.insert(name, value);
            }
            Err(error) => wrong.push(format!("`{name}`: {error}")),
        }
    }
    if wrong.is_empty() {
        return serde_json::from_value(serde_json::Value::Object(good))
            .map_err(|error| Error::config(format!("the options of Redis: {error}")));
    }
    Err(Error::config(format!(
        "the options of Redis: {}",
        wrong.join("; ")
    )))
}

impl From<RedisConfig> for MessageBrokerConfig {
    fn from(config: RedisConfig) -> Self {
        let mut neutral = Self::new("redis").with_connection(config.connection.clone());
        neutral.connection_timeout = config.connection_timeout;
        let usual = serde_json::to_value(RedisConfig::default()).unwrap_or_default();
        let password = config.sentinel_password.clone();
        if let Ok(serde_json::Value::Object(options)) = serde_json::to_value(config) {
            for (name, value) in options {
                let own = name != "connection" && name != "connection_timeout";
                if own && usual.get(&name) != Some(&value) {
                    neutral.options.insert(name, value);
                }
            }
        }
        if let Some(password) = password {
            // Written out: a secret shows itself as asterisks.
            neutral
                .options
                .insert("sentinel_password".to_owned(), password.into_inner().into());
        }
        neutral
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        RedisConfig::from_url(url).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_url_says_everything() {
        let config = RedisConfig::from_url(
            "rediss://app:pw@a:1,b/2?keep_messages=5&heartbeat=2s&sentinel_master=m&max_age=1h",
        )
        .unwrap();
        assert_eq!(
            config.hosts().unwrap(),
            [("a".to_owned(), 1), ("b".to_owned(), 26379)]
        );
        assert_eq!(config.database().unwrap(), 2);
        assert!(config.connection.ssl_enabled);
        assert_eq!(config.keep_messages, 5);
        assert_eq!(config.heartbeat, Duration::from_secs(2));
        assert_eq!(config.max_age, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn hosts_have_their_usual_port() {
        let hosts = |url: &str| RedisConfig::from_url(url).unwrap().hosts().unwrap();
        assert_eq!(hosts("redis://"), [("localhost".to_owned(), 6379)]);
        assert_eq!(hosts("redis://[::1]:7000"), [("::1".to_owned(), 7000)]);
        assert_eq!(hosts("redis://[::1]"), [("::1".to_owned(), 6379)]);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let text = refused("redis://h/0?modus=x&keep_messages=many");
        assert!(
            text.contains("`modus`") && text.contains("`keep_messages`"),
            "{text}"
        );
        let text = refused("redis://h/orders?max_messages=0&cluster=true&sentinel_master=m");
        for part in ["`orders`", "`max_messages`", "exclude each other"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(refused("amqp://h").contains("redis://"));
        assert!(refused("redis://h?tls_ca_file=/ca.pem").contains("rediss://"));
    }

    #[test]
    fn settings_survive_the_way_through_the_neutral_ones() {
        let mut config = RedisConfig::from_url("redis://h:1/3?mode=pubsub&key_prefix=x:").unwrap();
        config.sentinel_password = Some(Secret::new("pw".to_owned()));
        config.sentinel_master = Some("m".to_owned());
        let neutral = MessageBrokerConfig::from(config.clone());
        assert_eq!(RedisConfig::from_neutral(&neutral).unwrap(), config);
        assert_eq!(neutral.options.len(), 4, "{:?}", neutral.options);
    }
}
