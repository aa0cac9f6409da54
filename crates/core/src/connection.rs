//! Where a server is and how to log in: what every broker, registry and store needs, whatever the system.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Secret;

/// Where a server is and how to log in. Every part is optional: a backend fills in what its system is used to.
///
/// ```
/// use trunkline_core::ConnectionUrl;
///
/// let url: ConnectionUrl = "amqp://guest:guest@localhost:5672/".parse()?;
/// assert_eq!(url.scheme, "amqp");
/// assert_eq!(url.connection.port, Some(5672));
/// assert_eq!(url.connection.display_url("amqp"), "amqp://localhost:5672");
/// # Ok::<(), trunkline_core::ParseConnectionError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Connection {
    /// Host name or address, or several as `a:9092,b:9092`. Default: the system's own, usually `localhost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port. Default: the system's own; it follows TLS where the system has two (RabbitMQ: 5672, with TLS 5671).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// User name. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password; never shown. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret<String>>,
    /// Whether the connection is encrypted (TLS). Default: false.
    pub ssl_enabled: bool,
    /// What a URL has after the host: the virtual host, the index or name of a database, or the directory of an
    /// embedded part. Default: the system's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl Connection {
    /// Sets the host.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
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

    /// Switches TLS on or off.
    #[must_use]
    pub fn with_ssl(mut self, enabled: bool) -> Self {
        self.ssl_enabled = enabled;
        self
    }

    /// Sets what follows the host: virtual host, database, directory.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The connection as a URL without user, password, default virtual host and trailing slash, as health and logs
    /// show it.
    #[must_use]
    pub fn display_url(&self, scheme: &str) -> String {
        let path = self.path.as_deref().unwrap_or_default();
        if is_local(scheme) {
            return format!("{scheme}://{path}");
        }
        let host = self.host.as_deref().unwrap_or("localhost");
        let bare_v6 = host.contains(':') && !host.contains([',', '[']) && self.port.is_some();
        let mut url = if bare_v6 {
            format!("{scheme}://[{host}]")
        } else {
            format!("{scheme}://{host}")
        };
        if let Some(port) = self.port {
            url.push_str(&format!(":{port}"));
        }
        if !path.is_empty() && path != "/" {
            url.push('/');
            encode(path, &mut url);
        }
        url
    }
}

/// A connection URL, taken apart: `scheme://user:password@host:port/path?option=value`.
///
/// The schemes `embedded`, `memory`, `sqlite` and `file` have no host: all that follows is a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionUrl {
    /// The scheme in lower case.
    pub scheme: String,
    /// Host, port, credentials, TLS (by the scheme) and path.
    pub connection: Connection,
    /// The options after `?`, decoded, in order.
    pub options: Vec<(String, String)>,
}

/// A text is not a connection URL. It does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a connection URL: {reason}; write scheme://user:password@host:port/path")]
pub struct ParseConnectionError {
    reason: &'static str,
}

impl FromStr for ConnectionUrl {
    type Err = ParseConnectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |reason| ParseConnectionError { reason };
        let (scheme, rest) = text
            .trim()
            .split_once(':')
            .ok_or(refused("it has no scheme"))?;
        let mut letters = scheme.chars();
        let begins = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
        if !begins || !letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            return Err(refused("it has no scheme"));
        }
        let scheme = scheme.to_ascii_lowercase();
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let options =
            parse_query(query).ok_or(refused("an option is not percent-encoded UTF-8"))?;
        let connection = if is_local(&scheme) {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let path = decode(path).ok_or(refused("the path is not percent-encoded UTF-8"))?;
            Connection {
                path: (!path.is_empty()).then_some(path),
                ..Connection::default()
            }
        } else {
            let rest = rest
                .strip_prefix("//")
                .ok_or(refused("`//` is missing after the scheme"))?;
            parse_remote(rest, is_encrypted(&scheme)).map_err(refused)?
        };
        Ok(Self {
            scheme,
            connection,
            options,
        })
    }
}

/// Shows the URL without user and password.
impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.connection.display_url(&self.scheme))
    }
}

fn is_local(scheme: &str) -> bool {
    matches!(scheme, "embedded" | "memory" | "sqlite" | "file")
}

fn is_encrypted(scheme: &str) -> bool {
    matches!(scheme, "amqps" | "rediss" | "https" | "tls" | "mqtts")
        || scheme.ends_with("+ssl")
        || scheme.ends_with("+tls")
}

fn parse_remote(rest: &str, encrypted: bool) -> Result<Connection, &'static str> {
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let (credentials, hosts) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(login, hosts)| (Some(login), hosts));
    let mut connection = Connection {
        ssl_enabled: encrypted,
        ..Connection::default()
    };
    if let Some(login) = credentials {
        let (user, password) = login
            .split_once(':')
            .map_or((login, None), |(user, word)| (user, Some(word)));
        let user = decode(user).ok_or("the user name is not percent-encoded UTF-8")?;
        connection.username = (!user.is_empty()).then_some(user);
        if let Some(password) = password {
            let password = decode(password).ok_or("the password is not percent-encoded UTF-8")?;
            connection.password = Some(Secret::new(password));
        }
    }
    if hosts.contains(',') {
        connection.host = Some(hosts.to_owned());
    } else if !hosts.is_empty() {
        let (host, port) = split_port(hosts)?;
        connection.host = (!host.is_empty()).then_some(host);
        connection.port = port;
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        connection.path = Some(decode(path).ok_or("the path is not percent-encoded UTF-8")?);
    }
    Ok(connection)
}

fn split_port(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6
                .split_once(']')
                .ok_or("`]` is missing after the address")?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "the address in brackets is not IPv6")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err("something other than a port follows the address"),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("the host has white space in it");
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err("the port is not a number from 1 to 65535"),
            Ok(port) => Some(port),
        },
    };
    Ok((host.to_owned(), port))
}

fn parse_query(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ConnectionUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_url_is_split_into_its_parts() {
        let url = parsed("amqps://us%40er:p%3Aw%2F@rabbit.example.com:5671/my%2Fhost?heartbeat=5");
        assert_eq!(url.scheme, "amqps");
        let connection = &url.connection;
        assert_eq!(connection.host.as_deref(), Some("rabbit.example.com"));
        assert_eq!(connection.port, Some(5671));
        assert_eq!(connection.username.as_deref(), Some("us@er"));
        assert_eq!(connection.password, Some(Secret::from("p:w/")));
        assert_eq!(connection.path.as_deref(), Some("my/host"));
        assert!(connection.ssl_enabled);
        assert_eq!(url.options, [("heartbeat".to_owned(), "5".to_owned())]);
        assert_eq!(url.to_string(), "amqps://rabbit.example.com:5671/my%2Fhost");
    }

    #[test]
    fn display_hides_credentials_default_vhost_and_slash() {
        let url = parsed("amqp://guest:guest@localhost:5672/");
        assert_eq!(url.to_string(), "amqp://localhost:5672");
        assert_eq!(parsed("amqp://h/%2f").to_string(), "amqp://h");
        assert_eq!(
            parsed("redis://localhost:6379/15").to_string(),
            "redis://localhost:6379/15"
        );
        assert!(!format!("{:?}", parsed("amqp://u:hunter2@h")).contains("hunter2"));
    }

    #[test]
    fn local_schemes_have_paths() {
        assert_eq!(
            parsed("embedded:///var/lib/x").connection.path.as_deref(),
            Some("/var/lib/x")
        );
        assert_eq!(
            parsed("embedded://data").connection.path.as_deref(),
            Some("data")
        );
        assert_eq!(parsed("memory://").connection.path, None);
        assert_eq!(
            parsed("embedded:///var/lib/x").to_string(),
            "embedded:///var/lib/x"
        );
    }

    #[test]
    fn clusters_and_v6_addresses_are_kept() {
        let cluster = parsed("kafka://a:9092,b:9093/");
        assert_eq!(cluster.connection.host.as_deref(), Some("a:9092,b:9093"));
        assert_eq!(cluster.connection.port, None);
        let v6 = parsed("nats://[::1]:4222");
        assert_eq!(v6.connection.host.as_deref(), Some("::1"));
        assert_eq!(v6.to_string(), "nats://[::1]:4222");
    }

    #[test]
    fn errors_never_repeat_the_text() {
        for bad in [
            "localhost",
            "amqp:hunter2",
            "://hunter2@h",
            "amqp://u:hunter2@h:port",
            "amqp://u:hunter2%zz@h",
            "amqp://u:hunter2@h:0",
            "amqp://u:hunter2@[::zz]",
        ] {
            let error = bad.parse::<ConnectionUrl>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
