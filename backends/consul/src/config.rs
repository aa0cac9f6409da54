//! Settings of the Consul registry.

use std::path::PathBuf;
use std::time::Duration;

use trunkline_core::{Connection, Result, Secret};
use trunkline_discovery::{OptionReader, ServiceDiscoveryConfig};

/// Where agents listen.
const PORT: u16 = 8500;

/// The shortest time that Consul keeps to.
const SHORTEST_DEREGISTER_AFTER: Duration = Duration::from_secs(60);

/// The longest wait that Consul allows.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

const CONSISTENCIES: [(&str, Consistency); 3] = [
    ("default", Consistency::Default),
    ("consistent", Consistency::Consistent),
    ("stale", Consistency::Stale),
];

const CHECKS: [(&str, Option<ActiveCheck>); 4] = [
    ("none", None),
    ("http", Some(ActiveCheck::Http)),
    ("tcp", Some(ActiveCheck::Tcp)),
    ("grpc", Some(ActiveCheck::Grpc)),
];

/// How fresh answers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// By the leader, which may be a deposed one for a moment.
    #[default]
    Default,
    /// By a leader that has made sure that it is one; costs a round among the servers.
    Consistent,
    /// By any server, also while there is no leader. Answers older than `max_stale` are asked for again.
    Stale,
}

/// How Consul itself looks whether an instance is well, beside its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActiveCheck {
    /// Asks the instance's health path.
    Http,
    /// Opens a connection.
    Tcp,
    /// Asks the health service of gRPC.
    Grpc,
}

/// Settings of the Consul registry. In configuration the places are those of `service_discovery`, the rest are its
/// `options`, by the same names.
///
/// ```
/// use trunkline_consul::ConsulConfig;
/// use trunkline_discovery::ServiceDiscoveryConfig;
///
/// let neutral = ServiceDiscoveryConfig::from_url("consul://consul.internal:8500?datacenter=eu")?;
/// let config = ConsulConfig::from_neutral(&neutral)?;
/// assert_eq!(config.datacenter.as_deref(), Some("eu"));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsulConfig {
    /// Host name or address of the agent. Default `localhost`.
    pub host: String,
    /// Port of the agent's HTTP API. Default 8500.
    pub port: u16,
    /// Whether the agent is asked over TLS. Default false.
    pub tls: bool,
    /// Token of Consul's access control; the connection's password in configuration. Default: none.
    pub token: Option<Secret<String>>,
    /// File that holds the token; read again when it changes. Default: none.
    pub token_file: Option<PathBuf>,
    /// Datacentre that is asked for instances. Default: the agent's. Announcements always go to the agent's.
    pub datacenter: Option<String>,
    /// Other datacentres, in their order: where that of `datacenter` has no instance of a service that is up, those of the
    /// first of these that has one are taken. They say so in the metadata `consul.datacenter`, and by their zone if they have
    /// none. Default: none.
    pub failover: Vec<String>,
    /// Namespace, which Consul Enterprise has. Default: none.
    pub namespace: Option<String>,
    /// Admin partition, which Consul Enterprise has. Default: none.
    pub partition: Option<String>,
    /// How fresh answers are: `default`, `consistent`, `stale`. Default `default`.
    pub consistency: Consistency,
    /// Age at which a stale answer is not taken. Default `10s`.
    pub max_stale: Duration,
    /// Tags that announced instances get. Default: none.
    pub tags: Vec<String>,
    /// How Consul itself looks whether announced instances are well: `none`, `http`, `tcp`, `grpc`. Default `none`.
    pub check: Option<ActiveCheck>,
    /// Time between two such checks. Default `10s`.
    pub check_interval: Duration,
    /// Time for one such check. Default `5s`.
    pub check_timeout: Duration,
    /// How long after the end of its lease Consul forgets an instance. It is in no list meanwhile. Default `1m`, which is
    /// the least that Consul does.
    pub deregister_after: Duration,
    /// How long a blocking query waits for a change. A server that hangs is noticed after this and a sixteenth more.
    /// Default `30s`, at most `10m`.
    pub wait: Duration,
    /// Blocking queries at a time; more watched services than this share them in turns. Agents allow 200 connections from
    /// one address. Default 64.
    pub max_blocking_queries: u32,
    /// Time for one request that does not block, and until the catalog shows an announcement. Default `5s`.
    pub request_timeout: Duration,
    /// File with further root certificates, PEM. Default: only the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the certificate that this side shows, PEM. Default: none.
    pub client_certificate: Option<PathBuf>,
    /// File with its private key, PEM. Default: the file of the certificate.
    pub client_key: Option<PathBuf>,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: PORT,
            tls: false,
            token: None,
            token_file: None,
            datacenter: None,
            failover: Vec::new(),
            namespace: None,
            partition: None,
            consistency: Consistency::Default,
            max_stale: Duration::from_secs(10),
            tags: Vec::new(),
            check: None,
            check_interval: Duration::from_secs(10),
            check_timeout: Duration::from_secs(5),
            deregister_after: SHORTEST_DEREGISTER_AFTER,
            wait: Duration::from_secs(30),
            max_blocking_queries: 64,
            request_timeout: Duration::from_secs(5),
            ca_file: None,
            client_certificate: None,
            client_key: None,
        }
    }
}

impl ConsulConfig {
    /// The default settings with an agent.
    #[must_use]
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            ..Self::default()
        }
    }

    /// Sets the token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret::new(token.into()));
        self
    }

    /// Sets how long a blocking query waits.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Reads the settings out of those of any registry.
    ///
    /// # Errors
    /// `Config` with everything that is wrong, one line each, by the path of the setting.
    pub fn from_neutral(neutral: &ServiceDiscoveryConfig) -> Result<Self> {
        let usual = Self::default();
        let mut options = OptionReader::new(neutral);
        let connection = &neutral.connection;
        let token = options.secret("token");
        let (host, port) = place(connection, &mut options);
        let config = Self {
            host,
            port,
            tls: connection.ssl_enabled || options.flag("tls").unwrap_or_default(),
            token: token.or_else(|| connection.password.clone()),
            token_file: options.path("token_file"),
            datacenter: options.text("datacenter"),
            failover: options.texts("failover").unwrap_or_default(),
            namespace: options.text("namespace"),
            partition: options.text("partition"),
            consistency: options
                .choice("consistency", &CONSISTENCIES)
                .unwrap_or_default(),
            max_stale: options.duration("max_stale").unwrap_or(usual.max_stale),
            tags: options.texts("tags").unwrap_or_default(),
            check: options.choice("check", &CHECKS).unwrap_or_default(),
            check_interval: options
                .duration("check_interval")
                .unwrap_or(usual.check_interval),
            check_timeout: options
                .duration("check_timeout")
                .unwrap_or(usual.check_timeout),
            deregister_after: options
                .duration("deregister_after")
                .unwrap_or(usual.deregister_after),
            wait: options.duration("wait").unwrap_or(usual.wait),
            max_blocking_queries: options
                .count("max_blocking_queries")
                .unwrap_or(usual.max_blocking_queries),
            request_timeout: options
                .duration("request_timeout")
                .unwrap_or(usual.request_timeout),
            ca_file: options.path("ca_file"),
            client_certificate: options.path("client_certificate"),
            client_key: options.path("client_key"),
        };
        config.fits_together(connection, &mut options);
        options.finish()?;
        Ok(config)
    }

    fn fits_together(&self, connection: &Connection, options: &mut OptionReader) {
        if connection.username.is_some() {
            options.problem_at(
                "connection.username",
                "Consul knows tokens alone: the token is the password",
            );
        }
        if connection
            .path
            .as_deref()
            .is_some_and(|path| !path.trim_matches('/').is_empty())
        {
            options.problem_at(
                "connection.path",
                "an agent has no path; use `datacenter` to ask another one",
            );
        }
        let mut others = self.failover.iter().enumerate();
        if others.any(|(at, name)| {
            let again = self.failover.iter().skip(at + 1).any(|next| next == name);
            again || name.is_empty() || self.datacenter.as_ref() == Some(name)
        }) {
            let text = "names other datacentres than `datacenter`, each once";
            options.problem("failover", text);
        }
        if self.token.is_some() && self.token_file.is_some() {
            options.problem(
                "token_file",
                "there is a token already; leave one of the two out",
            );
        }
        if self.deregister_after < SHORTEST_DEREGISTER_AFTER {
            options.problem(
                "deregister_after",
                "must be at least `1m`: Consul does not look more often",
            );
        }
        if self.wait > LONGEST_WAIT {
            options.problem(
                "wait",
                "must be at most `10m`, which is the longest that Consul waits",
            );
        }
        if self.client_key.is_some() && self.client_certificate.is_none() {
            options.problem(
                "client_key",
                "is the key of no certificate; add `client_certificate`",
            );
        }
        let files = [
            ("ca_file", self.ca_file.is_some()),
            ("client_certificate", self.client_certificate.is_some()),
        ];
        for (name, _) in files.into_iter().filter(|(_, given)| *given && !self.tls) {
            options.problem(name, "has no effect without TLS; set `ssl_enabled: true`");
        }
    }
}

/// The one agent that is asked.
fn place(connection: &Connection, options: &mut OptionReader) -> (String, u16) {
    let given = connection
        .host
        .clone()
        .unwrap_or_else(|| "localhost".to_owned());
    if given.contains(',') {
        options.problem_at(
            "connection.host",
            "names several agents; name the one of this node, since an agent alone knows what was announced to it",
        );
    }
    let port = connection.port.unwrap_or(PORT);
    (given.trim_matches(['[', ']']).to_owned(), port)
}

impl From<ConsulConfig> for ServiceDiscoveryConfig {
    fn from(config: ConsulConfig) -> Self {
        let usual = ConsulConfig::default();
        let mut neutral = Self::new("consul");
        neutral.connection = Connection::default()
            .with_host(config.host)
            .with_port(config.port)
            .with_ssl(config.tls);
        neutral.connection.password = config.token;
        let options = &mut neutral.options;
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let texts = [
            ("token_file", config.token_file.map(path)),
            ("datacenter", config.datacenter),
            ("namespace", config.namespace),
            ("partition", config.partition),
            ("ca_file", config.ca_file.map(path)),
            ("client_certificate", config.client_certificate.map(path)),
            ("client_key", config.client_key.map(path)),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                options.insert(name.to_owned(), text.into());
            }
        }
        let spans = [
            ("max_stale", config.max_stale, usual.max_stale),
            (
                "check_interval",
                config.check_interval,
                usual.check_interval,
            ),
            ("check_timeout", config.check_timeout, usual.check_timeout),
            (
                "deregister_after",
                config.deregister_after,
                usual.deregister_after,
            ),
            ("wait", config.wait, usual.wait),
            (
                "request_timeout",
                config.request_timeout,
                usual.request_timeout,
            ),
        ];
        for (name, span, usual) in spans {
            if span != usual {
                options.insert(
                    name.to_owned(),
                    trunkline_core::duration::format(span).into(),
                );
            }
        }
        if !config.failover.is_empty() {
            options.insert("failover".to_owned(), config.failover.into());
        }
        if !config.tags.is_empty() {
            options.insert("tags".to_owned(), config.tags.into());
        }
        if config.max_blocking_queries != usual.max_blocking_queries {
            options.insert(
                "max_blocking_queries".to_owned(),
                config.max_blocking_queries.into(),
            );
        }
        for (word, consistency) in CONSISTENCIES {
            if config.consistency == consistency && consistency != usual.consistency {
                options.insert("consistency".to_owned(), word.into());
            }
        }
        for (word, check) in CHECKS {
            if config.check == check && check.is_some() {
                options.insert("check".to_owned(), word.into());
            }
        }
        neutral
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_url_are_read() {
        let url = "consul://:secret@10.0.0.1:18500?consistency=stale&check=grpc&wait=1m&tags=a,b&max_blocking_queries=9";
        let neutral = ServiceDiscoveryConfig::from_url(url).unwrap();
        let config = ConsulConfig::from_neutral(&neutral).unwrap();
        assert_eq!((config.host.as_str(), config.port), ("10.0.0.1", 18500));
        assert_eq!(config.token.unwrap().expose(), "secret");
        assert_eq!(config.consistency, Consistency::Stale);
        assert_eq!(config.check, Some(ActiveCheck::Grpc));
        assert_eq!(config.wait, Duration::from_secs(60));
        assert_eq!(config.tags, ["a", "b"]);
        assert_eq!(config.max_blocking_queries, 9);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let url = "consul://user:secret@a:1,b:2/path?wait=11m&weit=1s&check=ping&deregister_after=5s&tags=x&client_key=k&datacenter=eu&failover=us,eu";
        let neutral = ServiceDiscoveryConfig::from_url(url).unwrap();
        let error = ConsulConfig::from_neutral(&neutral).unwrap_err();
        let lines: Vec<&str> = error.message().lines().collect();
        for (path, count) in [
            ("connection.host", 1),
            ("connection.username", 1),
            ("connection.path", 1),
            ("options.wait", 1),
            ("options.weit", 1),
            ("options.check", 1),
            ("options.deregister_after", 1),
            ("options.client_key", 1),
            ("options.failover", 1),
            ("options.tags", 0),
        ] {
            let begin = format!("service_discovery.{path}:");
            let found = lines.iter().filter(|line| line.starts_with(&begin)).count();
            assert_eq!(found, count, "{path}: {error}");
        }
        assert!(!error.message().contains("secret"), "{error}");
    }

    #[test]
    fn typed_settings_and_neutral_ones_say_the_same() {
        let mut config = ConsulConfig::at("consul", 1)
            .with_token("t")
            .with_wait(Duration::from_secs(7));
        config.tls = true;
        config.ca_file = Some("ca.pem".into());
        config.client_certificate = Some("c.pem".into());
        config.client_key = Some("k.pem".into());
        config.datacenter = Some("eu".to_owned());
        config.failover = vec!["us".to_owned(), "asia".to_owned()];
        config.namespace = Some("n".to_owned());
        config.partition = Some("p".to_owned());
        config.consistency = Consistency::Consistent;
        config.check = Some(ActiveCheck::Tcp);
        config.tags = vec!["x".to_owned()];
        config.max_stale = Duration::from_secs(3);
        config.check_interval = Duration::from_secs(4);
        config.check_timeout = Duration::from_secs(1);
        config.deregister_after = Duration::from_secs(90);
        config.request_timeout = Duration::from_secs(2);
        config.max_blocking_queries = 3;
        let back = ConsulConfig::from_neutral(&config.clone().into()).unwrap();
        assert_eq!(back, config);
        let plain = ConsulConfig::default();
        assert_eq!(
            ConsulConfig::from_neutral(&plain.clone().into()).unwrap(),
            plain
        );
    }
}
