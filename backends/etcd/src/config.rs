//! Settings of the etcd registry.

use std::path::PathBuf;
use std::time::Duration;

use trunkline_core::{Connection, Result, Secret};
use trunkline_discovery::{OptionReader, ServiceDiscoveryConfig};

/// Where members listen for clients.
const PORT: u16 = 2379;

/// Settings of the etcd registry. In configuration the places are those of `service_discovery`, the rest are its
/// `options`, by the same names.
///
/// ```
/// use trunkline_discovery::ServiceDiscoveryConfig;
/// use trunkline_etcd::EtcdConfig;
///
/// let neutral = ServiceDiscoveryConfig::from_url("etcd://one:2379,two:2379?prefix=/shop")?;
/// let config = EtcdConfig::from_neutral(&neutral)?;
/// assert_eq!(config.endpoints, ["one:2379", "two:2379"]);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// Members, `host:port` each; the first that answers is used. Default `localhost:2379`.
    pub endpoints: Vec<String>,
    /// Whether the members are asked over TLS. Default false.
    pub tls: bool,
    /// User name. Default: none.
    pub username: Option<String>,
    /// Password. Default: none.
    pub password: Option<Secret<String>>,
    /// What all keys begin with. Default `/trunkline`.
    pub prefix: String,
    /// How long a watch may be silent before it is opened anew where it was: by this a member that hangs is noticed.
    /// Default `30s`.
    pub wait: Duration,
    /// How many services are watched at a time: each has a connection of its own, beside those of everything else. More are
    /// told that they cannot be watched. Default 4096.
    pub max_watches: u32,
    /// Time for one request, all members that are tried together. Default `5s`.
    pub request_timeout: Duration,
    /// File with further root certificates, PEM. Default: only the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the certificate that this side shows, PEM. Default: none.
    pub client_certificate: Option<PathBuf>,
    /// File with its private key, PEM. Default: the file of the certificate.
    pub client_key: Option<PathBuf>,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec![format!("localhost:{PORT}")],
            tls: false,
            username: None,
            password: None,
            prefix: "/trunkline".to_owned(),
            wait: Duration::from_secs(30),
            max_watches: 4096,
            request_timeout: Duration::from_secs(5),
            ca_file: None,
            client_certificate: None,
            client_key: None,
        }
    }
}

impl EtcdConfig {
    /// The default settings with these members, `host:port` each.
    #[must_use]
    pub fn at<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Sets user name and password.
    #[must_use]
    pub fn with_credentials(
        mut self,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.username = Some(username.into());
        self.password = Some(Secret::new(password.into()));
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
        let config = Self {
            endpoints: endpoints(connection, &mut options),
            tls: connection.ssl_enabled || options.flag("tls").unwrap_or_default(),
            username: connection.username.clone(),
            password: connection.password.clone(),
            prefix: options.text("prefix").unwrap_or(usual.prefix),
            wait: options.duration("wait").unwrap_or(usual.wait),
            max_watches: options.count("max_watches").unwrap_or(usual.max_watches),
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
        if connection
            .path
            .as_deref()
            .is_some_and(|path| !path.trim_matches('/').is_empty())
        {
            options.problem_at(
                "connection.path",
                "etcd has no databases; set the option `prefix`",
            );
        }
        match (&self.username, &self.password) {
            (Some(_), None) => {
                options.problem_at("connection.password", "is missing for the user name")
            }
            (None, Some(_)) => {
                options.problem_at("connection.username", "is missing for the password")
            }
            _ => {}
        }
        if self.max_watches == 0 {
            options.problem("max_watches", "must be at least 1");
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

/// Every host with its port, or the one that all have.
fn endpoints(connection: &Connection, options: &mut OptionReader) -> Vec<String> {
    let hosts = connection.host.as_deref().unwrap_or("localhost");
    let usual = connection.port.unwrap_or(PORT);
    let mut found = Vec::new();
    for host in hosts
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
    {
        match split(host, usual) {
            Some((host, port)) => found.push(join(host, port)),
            None => options.problem_at(
                "connection.host",
                format_args!("`{host}` is no `host:port`"),
            ),
        }
    }
    if found.is_empty() {
        options.problem_at("connection.host", "names no member");
    }
    found
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Host, without brackets, and port.
pub(crate) fn split(endpoint: &str, usual: u16) -> Option<(&str, u16)> {
    if let Some(rest) = endpoint.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => usual,
            None => return None,
        };
        return Some((host, port));
    }
    match endpoint.split_once(':') {
        // More than one colon is an address without brackets.
        Some((_, port)) if port.contains(':') => Some((endpoint, usual)),
        Some((host, port)) if !host.is_empty() => {
            Some((host, port.parse().ok().filter(|port| *port > 0)?))
        }
        Some(_) => None,
        None => Some((endpoint, usual)),
    }
}

impl From<EtcdConfig> for ServiceDiscoveryConfig {
    fn from(config: EtcdConfig) -> Self {
        let usual = EtcdConfig::default();
        let mut neutral = Self::new("etcd");
        neutral.connection = Connection::default()
            .with_host(config.endpoints.join(","))
            .with_ssl(config.tls);
        neutral.connection.username = config.username;
        neutral.connection.password = config.password;
        let options = &mut neutral.options;
        if config.prefix != usual.prefix {
            options.insert("prefix".to_owned(), config.prefix.into());
        }
        if config.max_watches != usual.max_watches {
            options.insert("max_watches".to_owned(), config.max_watches.into());
        }
        for (name, span, usual) in [
            ("wait", config.wait, usual.wait),
            (
                "request_timeout",
                config.request_timeout,
                usual.request_timeout,
            ),
        ] {
            if span != usual {
                options.insert(
                    name.to_owned(),
                    trunkline_core::duration::format(span).into(),
                );
            }
        }
        for (name, path) in [
            ("ca_file", config.ca_file),
            ("client_certificate", config.client_certificate),
            ("client_key", config.client_key),
        ] {
            if let Some(path) = path {
                options.insert(name.to_owned(), path.to_string_lossy().into_owned().into());
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
        let url = "etcd://app:secret@one:1,[::1]:2,three?prefix=/x&wait=10s";
        let neutral = ServiceDiscoveryConfig::from_url(url).unwrap();
        let config = EtcdConfig::from_neutral(&neutral).unwrap();
        assert_eq!(config.endpoints, ["one:1", "[::1]:2", "three:2379"]);
        assert_eq!(config.username.as_deref(), Some("app"));
        assert_eq!(config.password.unwrap().expose(), "secret");
        assert_eq!(
            (config.prefix.as_str(), config.wait),
            ("/x", Duration::from_secs(10))
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let url = "etcd://user@one:x/path?wait=0s&prefiks=a&client_key=k&ca_file=c";
        let neutral = ServiceDiscoveryConfig::from_url(url);
        // A port that is none may be refused with the URL already.
        let mut neutral = neutral.unwrap_or_else(|_| {
            ServiceDiscoveryConfig::from_url(
                "etcd://user@one/path?wait=0s&prefiks=a&client_key=k&ca_file=c",
            )
            .unwrap()
        });
        neutral.connection.host = Some("one:x".to_owned());
        let error = EtcdConfig::from_neutral(&neutral).unwrap_err();
        for path in [
            "connection.host",
            "connection.path",
            "connection.password",
            "options.wait",
            "options.prefiks",
            "options.client_key",
            "options.ca_file",
        ] {
            let begin = format!("service_discovery.{path}:");
            assert!(
                error.message().lines().any(|line| line.starts_with(&begin)),
                "{path}: {error}"
            );
        }
    }

    #[test]
    fn typed_settings_and_neutral_ones_say_the_same() {
        let mut config = EtcdConfig::at(["a:1", "b:2"]).with_credentials("u", "p");
        config.tls = true;
        config.prefix = "/p".to_owned();
        config.wait = Duration::from_secs(3);
        config.max_watches = 100;
        config.request_timeout = Duration::from_secs(2);
        config.ca_file = Some("ca".into());
        config.client_certificate = Some("c".into());
        config.client_key = Some("k".into());
        let back = EtcdConfig::from_neutral(&config.clone().into()).unwrap();
        assert_eq!(back, config);
    }
}
