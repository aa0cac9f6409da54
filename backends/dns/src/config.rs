//! Settings of discovery by DNS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use trunkline_core::{Connection, Result};
use trunkline_discovery::{OptionReader, ServiceDiscoveryConfig, ServiceName};

use crate::pattern::{SERVICE, problem};

/// Where servers of DNS listen.
const PORT: u16 = 53;

/// Settings of discovery by DNS. In configuration the places are those of `service_discovery`, the rest are its `options`.
///
/// ```
/// use trunkline_discovery::ServiceDiscoveryConfig;
/// use trunkline_dns::DnsConfig;
///
/// let neutral = ServiceDiscoveryConfig::from_url("dns://127.0.0.1:5353/shop.internal?port=8080")?;
/// let config = DnsConfig::from_neutral(&neutral)?;
/// assert_eq!(config.servers, ["127.0.0.1:5353".parse().unwrap()]);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsConfig {
    /// Servers, asked one after the other until one answers. Default: those of this machine.
    pub servers: Vec<SocketAddr>,
    /// What is looked up.
    pub(crate) records: Records,
    /// Which addresses are looked up. Default both.
    pub ip: IpFamilies,
    /// `http` or `https`. With `https` instances keep their names, which certificates are for, and are looked up by the system
    /// when they are connected to. Default `http`.
    pub protocol: String,
    /// The services to list; DNS itself cannot. Default: none.
    pub services: Vec<ServiceName>,
    /// A watch asks again no sooner, whatever the time to live. Default `1s`.
    pub refresh_min: Duration,
    /// A watch asks again no later, whatever the time to live. Default `30s`.
    pub refresh_max: Duration,
    /// A watch asks again no later while there is no instance. Default `5s`.
    pub negative_ttl_max: Duration,
    /// Time for one question, all servers that are tried together. Default `4s`.
    pub request_timeout: Duration,
}

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    /// SRV records, and the addresses of their targets.
    Srv(String),
    /// Addresses, all with one port.
    Addresses { pattern: String, port: u16 },
}

impl Records {
    pub(crate) fn pattern(&self) -> &str {
        match self {
            Self::Srv(pattern) | Self::Addresses { pattern, .. } => pattern,
        }
    }
}

/// Which addresses are looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IpFamilies {
    /// Those of IPv4 and IPv6.
    #[default]
    Both,
    /// Those of IPv4 alone.
    V4,
    /// Those of IPv6 alone.
    V6,
}

impl DnsConfig {
    /// Instances are in SRV records. The pattern has `{service}` where the name of the service belongs:
    /// `_http._tcp.{service}.shop.svc.cluster.local`.
    #[must_use]
    pub fn srv(pattern: impl Into<String>) -> Self {
        Self::of(Records::Srv(pattern.into()))
    }

    /// Instances are the addresses of a name, all with this port. The pattern has `{service}` where the name of the service
    /// belongs.
    #[must_use]
    pub fn addresses(pattern: impl Into<String>, port: u16) -> Self {
        let pattern = pattern.into();
        Self::of(Records::Addresses { pattern, port })
    }

    fn of(records: Records) -> Self {
        Self {
            servers: Vec::new(),
            records,
            ip: IpFamilies::Both,
            protocol: "http".to_owned(),
            services: Vec::new(),
            refresh_min: Duration::from_secs(1),
            refresh_max: Duration::from_secs(30),
            negative_ttl_max: Duration::from_secs(5),
            request_timeout: Duration::from_secs(4),
        }
    }

    /// Reads the settings out of those of any registry.
    ///
    /// # Errors
    /// `Config` with everything that is wrong, one line each, by the path of the setting.
    pub fn from_neutral(neutral: &ServiceDiscoveryConfig) -> Result<Self> {
        let mut options = OptionReader::new(neutral);
        let connection = &neutral.connection;
        let mut config = Self::of(records(connection, &mut options));
        config.servers = servers(connection, &mut options);
        let families = [
            ("both", IpFamilies::Both),
            ("v4", IpFamilies::V4),
            ("v6", IpFamilies::V6),
        ];
        config.ip = options.choice("ip", &families).unwrap_or_default();
        let protocols = [("http", "http"), ("https", "https")];
        let protocol = options.choice("protocol", &protocols);
        config.protocol = protocol.unwrap_or("http").to_owned();
        for name in options.texts("services").unwrap_or_default() {
            match ServiceName::new(&name) {
                Ok(name) => config.services.push(name),
                Err(error) => options.problem("services", error),
            }
        }
        for (name, span) in [
            ("refresh_min", &mut config.refresh_min),
            ("refresh_max", &mut config.refresh_max),
            ("negative_ttl_max", &mut config.negative_ttl_max),
            ("request_timeout", &mut config.request_timeout),
        ] {
            *span = options.duration(name).unwrap_or(*span);
        }
        if config.refresh_min > config.refresh_max {
            options.problem("refresh_min", "must not be longer than `refresh_max`");
        }
        if connection.username.is_some() || connection.password.is_some() {
            options.problem_at("connection.username", "DNS has no users");
        }
        if connection.ssl_enabled {
            options.problem_at("connection.ssl_enabled", "DNS is asked without TLS");
        }
        options.finish()?;
        Ok(config)
    }

    /// What is wrong with the pattern.
    pub(crate) fn problem(&self) -> Option<String> {
        let pattern = self.records.pattern();
        problem(pattern).map(|problem| format!("the pattern `{pattern}` {problem}"))
    }
}

fn records(connection: &Connection, options: &mut OptionReader) -> Records {
    let path = connection.path.as_deref().unwrap_or_default();
    let path = path.trim_matches('/').trim_matches('.');
    let domain = options.text("domain");
    if domain.is_some() && !path.is_empty() {
        options.problem("domain", "is given by the path as well; give one of them");
    }
    let domain = domain.unwrap_or_else(|| path.to_owned());
    let srv = options.text("srv");
    let name = options.text("name");
    let port = options.count("port");
    let below = |begin: &str| match domain.as_str() {
        "" => None,
        domain => Some(format!("{begin}.{domain}")),
    };
    let records = match (srv, port) {
        (Some(_), Some(_)) => {
            options.problem(
                "srv",
                "tells the port by itself; give `srv`, or `port` and `name`",
            );
            return Records::Srv(String::new());
        }
        (Some(pattern), None) => {
            if name.is_some() {
                options.problem("name", "has no use without `port`");
            }
            Records::Srv(pattern)
        }
        (None, Some(port)) => match (u16::try_from(port), name.or_else(|| below(SERVICE))) {
            (Ok(port), Some(pattern)) => Records::Addresses { pattern, port },
            (Err(_), _) => {
                options.problem("port", "must be at most 65535");
                return Records::Srv(String::new());
            }
            (_, None) => {
                options.problem(
                    "name",
                    "is missing: a pattern such as `{service}.shop.internal`, or a `domain`",
                );
                return Records::Srv(String::new());
            }
        },
        (None, None) => {
            if name.is_some() {
                options.problem("name", "has no use without `port`");
            }
            match below(&format!("_{SERVICE}._tcp")) {
                Some(pattern) => Records::Srv(pattern),
                None => {
                    options.problem(
                        "srv",
                        "is missing: a pattern such as `_http._tcp.{service}.shop.internal`, a `domain`, or `name` and `port`",
                    );
                    return Records::Srv(String::new());
                }
            }
        }
    };
    if let Some(problem) = problem(records.pattern()) {
        let option = match records {
            Records::Srv(_) => "srv",
            Records::Addresses { .. } => "name",
        };
        options.problem(option, problem);
    }
    records
}

/// Every server with its port, or the one that all have.
fn servers(connection: &Connection, options: &mut OptionReader) -> Vec<SocketAddr> {
    let usual = connection.port.unwrap_or(PORT);
    let hosts = connection.host.as_deref().unwrap_or_default().split(',');
    let mut servers = Vec::new();
    for host in hosts.map(str::trim).filter(|host| !host.is_empty()) {
        let host = host.replace("localhost", &Ipv4Addr::LOCALHOST.to_string());
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match (host.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
            (Ok(server), _) => servers.push(server),
            (_, Ok(ip)) => servers.push(SocketAddr::new(ip, usual)),
            _ => options.problem_at(
                "connection.host",
                format_args!("`{host}` is no address: who is asked for names cannot be looked up"),
            ),
        }
    }
    servers
}

impl From<DnsConfig> for ServiceDiscoveryConfig {
    fn from(config: DnsConfig) -> Self {
        let usual = DnsConfig::srv("");
        let mut neutral = Self::new("dns");
        if !config.servers.is_empty() {
            let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
            neutral.connection = Connection::default().with_host(servers.join(","));
        }
        let options = &mut neutral.options;
        match config.records {
            Records::Srv(pattern) => {
                options.insert("srv".to_owned(), pattern.into());
            }
            Records::Addresses { pattern, port } => {
                options.insert("name".to_owned(), pattern.into());
                options.insert("port".to_owned(), port.into());
            }
        }
        let ip = match config.ip {
            IpFamilies::Both => None,
            IpFamilies::V4 => Some("v4"),
            IpFamilies::V6 => Some("v6"),
        };
        if let Some(ip) = ip {
            options.insert("ip".to_owned(), ip.into());
        }
        if config.protocol != usual.protocol {
            options.insert("protocol".to_owned(), config.protocol.into());
        }
        if !config.services.is_empty() {
            let names: Vec<String> = config.services.into_iter().map(String::from).collect();
            options.insert("services".to_owned(), names.into());
        }
        for (name, span, usual) in [
            ("refresh_min", config.refresh_min, usual.refresh_min),
            ("refresh_max", config.refresh_max, usual.refresh_max),
            (
                "negative_ttl_max",
                config.negative_ttl_max,
                usual.negative_ttl_max,
            ),
            (
                "request_timeout",
                config.request_timeout,
                usual.request_timeout,
            ),
        ] {
            if span != usual {
                let span = trunkline_core::duration::format(span);
                options.insert(name.to_owned(), span.into());
            }
        }
        neutral
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<DnsConfig> {
        DnsConfig::from_neutral(&ServiceDiscoveryConfig::from_url(url).unwrap())
    }

    #[test]
    fn what_is_looked_up_follows_from_what_is_given() {
        let srv = |pattern: &str| Records::Srv(pattern.to_owned());
        let by_name = |pattern: &str| Records::Addresses {
            pattern: pattern.to_owned(),
            port: 8080,
        };
        for (url, records) in [
            ("dns:///shop.test", srv("_{service}._tcp.shop.test")),
            ("dns://?domain=shop.test", srv("_{service}._tcp.shop.test")),
            (
                "dns://10.0.0.1/?srv=_web._tcp.{service}.test",
                srv("_web._tcp.{service}.test"),
            ),
            ("dns:///shop.test?port=8080", by_name("{service}.shop.test")),
            (
                "dns://?name={service}-eu.test&port=8080",
                by_name("{service}-eu.test"),
            ),
        ] {
            assert_eq!(read(url).unwrap().records, records, "{url}");
        }
        let config = read("dns://10.0.0.1:5353,[fd00::1]:53,10.0.0.2/a.test").unwrap();
        let shown: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:5353", "[fd00::1]:53", "10.0.0.2:53"]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let url = "dns://user@ns.example/?srv=users.test&ip=v5&refresh_min=1m&refresh_max=1s&services=a%20b&weit=1";
        let error = read(url).unwrap_err();
        for path in [
            "connection.host",
            "connection.username",
            "options.srv",
            "options.ip",
            "options.refresh_min",
            "options.services",
            "options.weit",
        ] {
            let begin = format!("service_discovery.{path}:");
            let lines = error.message();
            assert!(
                lines.lines().any(|line| line.starts_with(&begin)),
                "{path}: {lines}"
            );
        }
        for (url, option) in [
            ("dns://", "srv"),
            ("dns://?port=80", "name"),
            ("dns:///a.test?port=80000", "port"),
            ("dns:///a.test?name={service}.b", "name"),
            ("dns:///a.test?srv={service}.b&port=80", "srv"),
            ("dns:///a.test?domain=b.test", "domain"),
        ] {
            let error = read(url).unwrap_err();
            let begin = format!("service_discovery.options.{option}: ");
            assert!(error.message().contains(&begin), "{url}: {error}");
        }
    }

    #[test]
    fn typed_settings_and_neutral_ones_say_the_same() {
        let mut config = DnsConfig::addresses("{service}.test", 8080);
        config.servers = vec![
            "10.0.0.1:5353".parse().unwrap(),
            "[fd00::1]:53".parse().unwrap(),
        ];
        config.ip = IpFamilies::V6;
        config.protocol = "https".to_owned();
        config.services = vec![ServiceName::new("users").unwrap()];
        config.refresh_min = Duration::from_secs(2);
        config.refresh_max = Duration::from_secs(3);
        config.negative_ttl_max = Duration::from_secs(4);
        config.request_timeout = Duration::from_secs(1);
        let back = DnsConfig::from_neutral(&config.clone().into()).unwrap();
        assert_eq!(back, config);
        let config = DnsConfig::srv("{service}.test");
        let back = DnsConfig::from_neutral(&config.clone().into()).unwrap();
        assert_eq!(back, config);
    }
}
