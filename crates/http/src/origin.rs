//! Where a connection leads.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, Scheme};
use trunkline_core::{Error, Result};
use trunkline_discovery::ServiceInstance;

/// Scheme, host and port: requests to the same origin share connections. Cloning copies a pointer.
///
/// ```
/// use trunkline_http::Origin;
///
/// let origin: Origin = "https://api.example.com".parse()?;
/// assert_eq!(origin.port(), Some(443));
/// assert_eq!(origin.to_string(), "https://api.example.com");
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Origin(Arc<Inner>);

struct Inner {
    place: Place,
    /// What the `Host` header says.
    host_header: HeaderValue,
    /// `host`, or `host:port` where the port is not the usual one.
    authority: Authority,
    hash: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Tcp {
        tls: bool,
        host: Box<str>,
        port: u16,
    },
    Unix(PathBuf),
}

impl Origin {
    /// Plain HTTP to a host name or address (without brackets) and port.
    ///
    /// # Errors
    /// `Invalid` when the host cannot stand in a URL.
    pub fn http(host: &str, port: u16) -> Result<Self> {
        Self::tcp(false, host, port)
    }

    /// HTTP over TLS to a host name or address (without brackets) and port.
    ///
    /// # Errors
    /// `Invalid` when the host cannot stand in a URL.
    pub fn https(host: &str, port: u16) -> Result<Self> {
        Self::tcp(true, host, port)
    }

    /// Plain HTTP over a Unix socket.
    #[must_use]
    pub fn unix(socket: impl AsRef<Path>) -> Self {
        let authority = Authority::from_static("localhost");
        Self::new(Place::Unix(socket.as_ref().to_owned()), authority)
    }

    /// The origin of an instance that discovery found.
    ///
    /// # Errors
    /// `Invalid` when its host cannot stand in a URL, `Unsupported` when its protocol is neither `http` nor `https`.
    pub fn of_instance(instance: &ServiceInstance) -> Result<Self> {
        // Registries have it as strangers wrote it.
        match instance.protocol.as_str() {
            http if http.eq_ignore_ascii_case("http") => Self::http(&instance.host, instance.port),
            https if https.eq_ignore_ascii_case("https") => {
                Self::https(&instance.host, instance.port)
            }
            other => Err(Error::new(
                trunkline_core::ErrorKind::Unsupported,
                format!(
                    "instance {} speaks `{other}`, not http or https",
                    instance.id
                ),
            )),
        }
    }

    fn tcp(tls: bool, host: &str, port: u16) -> Result<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let usual = if tls { 443 } else { 80 };
        let text = if port == usual {
            bracketed
        } else {
            format!("{bracketed}:{port}")
        };
        let authority = Authority::from_str(&text)
            .ok()
            .filter(|authority| !host.is_empty() && !authority.as_str().contains('@'))
            .ok_or_else(|| Error::invalid(format!("`{host}` is no host name or address")))?;
        let host = host.to_ascii_lowercase().into();
        Ok(Self::new(Place::Tcp { tls, host, port }, authority))
    }

    fn new(place: Place, authority: Authority) -> Self {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let host_header = HeaderValue::from_str(authority.as_str())
            .expect("an authority is made of visible ASCII characters");
        Self(Arc::new(Inner {
            place,
            host_header,
            authority,
            hash: hasher.finish(),
        }))
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.0.place, Place::Tcp { tls: true, .. })
    }

    /// The host name or address, without brackets; `None` for a Unix socket.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.0.place {
            Place::Tcp { host, .. } => Some(host),
            Place::Unix(_) => None,
        }
    }

    /// The Unix socket, if it is one.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match &self.0.place {
            Place::Tcp { .. } => None,
            Place::Unix(path) => Some(path),
        }
    }

    /// The port; `None` for a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.0.place {
            Place::Tcp { port, .. } => Some(*port),
            Place::Unix(_) => None,
        }
    }

    /// `host`, or `host:port` where the port is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    pub(crate) fn place(&self) -> &Place {
        &self.0.place
    }

    pub(crate) fn host_header(&self) -> &HeaderValue {
        &self.0.host_header
    }

    pub(crate) fn scheme(&self) -> Scheme {
        if self.is_tls() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }
}

impl FromStr for Origin {
    type Err = Error;

    /// Reads `http://host[:port]`, `https://host[:port]`, `unix:///path/to.sock` or `unix:/path/to.sock`; a path behind the
    /// host, or behind the socket and a colon, is ignored.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "`{text}` is no origin: write http://host:port, https://host:port or unix:///path"
            ))
        };
        if let Some(socket) = unix_socket(text) {
            let (path, _) = socket.ok_or_else(wrong)?;
            return Ok(Self::unix(path));
        }
        let url = url::Url::parse(text).map_err(|error| wrong().with_source(error))?;
        let host = url.host_str().ok_or_else(wrong)?;
        match (url.scheme(), url.port_or_known_default()) {
            ("http", Some(port)) => Self::http(host, port),
            ("https", Some(port)) => Self::https(host, port),
            _ => Err(wrong()),
        }
    }
}

/// Reads `unix:/run/users.sock` or `unix:///run/users.sock`, with a base path behind a colon: `unix:/run/users.sock:/api`.
/// `None` for another URL, `Some(None)` for one of a socket that is none.
pub(crate) fn unix_socket(url: &str) -> Option<Option<(&str, &str)>> {
    let rest = url.strip_prefix("unix:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (socket, base) = match rest.split_once(":/") {
        Some((socket, _)) => (socket, rest.get(socket.len() + 1..).unwrap_or_default()),
        None => (rest, ""),
    };
    let is_socket = socket.starts_with('/') && !socket.ends_with('/');
    Some(is_socket.then_some((socket, base)))
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash && self.0.place == other.0.place)
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.place {
            Place::Tcp { tls: true, .. } => write!(f, "https://{}", self.0.authority),
            Place::Tcp { tls: false, .. } => write!(f, "http://{}", self.0.authority),
            Place::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes the hash that an origin carries: it is worked out once, not with every request.
#[derive(Default)]
pub(crate) struct Carried(u64);

pub(crate) type CarriedHash = BuildHasherDefault<Carried>;

impl Hasher for Carried {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_shown_only_where_it_is_not_the_usual_one() {
        for (text, shown) in [
            ("http://users", "http://users"),
            ("http://users:80/", "http://users"),
            ("http://users:8080/api", "http://users:8080"),
            ("https://Users.Example.com", "https://users.example.com"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("unix:///run/users.sock", "unix:///run/users.sock"),
            ("unix:/run/users.sock", "unix:///run/users.sock"),
            ("unix:/run/users.sock:/api/v1", "unix:///run/users.sock"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "users:8080",
            "ftp://users",
            "http://",
            "unix://run/x",
            "unix:run/x",
            "unix:",
            "unix:///",
            "http://a b",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        assert!(Origin::http("", 80).is_err());
        assert!(Origin::http("me@host", 80).is_err());
    }

    #[test]
    fn equal_origins_hash_alike() {
        let one: Origin = "http://Users:8080".parse().unwrap();
        let other = Origin::http("users", 8080).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.0.hash, other.0.hash);
        assert_ne!(one, Origin::https("users", 8080).unwrap());
        let six = Origin::http("::1", 80).unwrap();
        assert_eq!(six, "http://[::1]".parse().unwrap());
        assert_eq!(six.host(), Some("::1"));
    }
}
