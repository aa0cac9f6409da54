//! Proxies: which connections go through one, and how the way through it is asked for.
//!
//! Requests go through a tunnel: the proxy sees host and port, and the encryption is between this client and the service. That
//! holds for plain `http` origins as well, as what is spoken then is between the two alone (an upgrade to WebSocket passes, and
//! an answer of the proxy is never taken for one of the service). A proxy that opens no tunnel there, as many do not, is
//! sent the requests themselves (RFC 9112, 3.2.2). Connections belong to one origin either way.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_core::{Error, Result};

/// The largest answer of a proxy that is read.
const MOST_OF_AN_ANSWER: usize = 16 * 1024;

/// Which proxy connections go through: one for plain, one for encrypted origins, and the hosts that are reached directly.
///
/// ```
/// use trunkline_http::ProxyRules;
///
/// let rules = ProxyRules::all("http://proxy.example.com:3128", ["internal.example.com", "10.0.0.0/8"])?;
/// assert!(!rules.is_empty());
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyRules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    direct: Vec<Direct>,
}

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    user: Option<(String, String)>,
}

/// The other end of a connection is a proxy that wants requests with the whole URI.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    /// What `Proxy-Authorization` says.
    pub(crate) credentials: Option<HeaderValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    /// Names are looked up here.
    Socks5,
    /// Names are looked up by the proxy.
    Socks5h,
}

/// A host, or many, that no proxy is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    Everything,
    /// A host and everything below it, on one port or all.
    Domain(String, Option<u16>),
    /// Addresses whose first bits are these.
    Network(IpAddr, u8),
}

impl ProxyRules {
    /// One proxy for everything but the hosts listed: `http://[user:password@]host:port`, `socks5://…`, or `socks5h://…`,
    /// where the proxy looks up names. Hosts as in `NO_PROXY`.
    ///
    /// # Errors
    /// `Config` when the URL is none of these, or an entry is no host, domain, address or network.
    pub fn all<S: AsRef<str>>(url: &str, direct: impl IntoIterator<Item = S>) -> Result<Self> {
        let proxy: Proxy = url.parse()?;
        Ok(Self {
            http: Some(proxy.clone()),
            https: Some(proxy),
            direct: Self::direct_list(direct)?,
        })
    }

    /// As the environment says: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not. `HTTP_PROXY`
    /// in capitals does not count where `REQUEST_METHOD` is set: there a caller's `Proxy` header becomes that variable.
    ///
    /// # Errors
    /// As [`ProxyRules::all`], with the name of the variable.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_cgi = set("REQUEST_METHOD").is_some();
        let find = |name: &str| {
            let small = name.to_ascii_lowercase();
            let capitals = (!(is_cgi && name == "HTTP_PROXY"))
                .then(|| set(name))
                .flatten();
            set(&small)
                .map(|value| (small, value))
                .or(capitals.map(|value| (name.to_owned(), value)))
        };
        let named = |(name, value): (String, String)| {
            let value = value.trim();
            // Widely written without a scheme.
            let url = if value.contains("://") {
                value.to_owned()
            } else {
                format!("http://{value}")
            };
            url.parse::<Proxy>()
                .map_err(|error| error.with_context("variable", name))
        };
        let all = || find("ALL_PROXY");
        let direct = find("NO_PROXY");
        Ok(Self {
            http: find("HTTP_PROXY").or_else(all).map(named).transpose()?,
            https: find("HTTPS_PROXY").or_else(all).map(named).transpose()?,
            direct: match direct {
                None => Vec::new(),
                Some((name, list)) => Self::direct_list(list.split([',', ' ']))
                    .map_err(|error| error.with_context("variable", name))?,
            },
        })
    }

    /// Whether everything is reached directly.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    fn direct_list<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Vec<Direct>> {
        let entries = entries.into_iter();
        let parsed = entries.filter_map(|entry| {
            let entry = entry.as_ref().trim();
            (!entry.is_empty()).then(|| entry.parse())
        });
        parsed.collect()
    }

    /// The proxy on the way to a host, if there is one. What runs on this machine is reached directly.
    pub(super) fn on_the_way(&self, tls: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if tls { &self.https } else { &self.http }.as_ref()?;
        let address = host.parse::<IpAddr>().ok();
        let local = host == "localhost"
            || host.ends_with(".localhost")
            || address.is_some_and(|address| address.is_loopback());
        let direct = local
            || self
                .direct
                .iter()
                .any(|direct| direct.covers(host, address, port));
        (!direct).then_some(proxy)
    }
}

impl FromStr for Proxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The URL may hold a password: it is not shown.
        let wrong = || {
            Error::config(
                "the proxy is no URL of one: write http://host:port, socks5://host:port or socks5h://host:port",
            )
        };
        let url = url::Url::parse(text).map_err(|_| wrong())?;
        let (kind, usual) = match url.scheme() {
            "http" => (Kind::Http, 80),
            "socks5" => (Kind::Socks5, 1080),
            "socks5h" => (Kind::Socks5h, 1080),
            _ => return Err(wrong()),
        };
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(wrong)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(wrong());
        }
        let plain = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8()
                .map(String::from)
        };
        let user = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((
                plain(user).map_err(|_| wrong())?,
                plain(password.unwrap_or_default()).map_err(|_| wrong())?,
            )),
        };
        let limit = |text: &String| text.len() <= 255;
        if !user
            .iter()
            .all(|(user, password)| limit(user) && limit(password))
        {
            return Err(Error::config(
                "the proxy's user or password is longer than 255 bytes",
            ));
        }
        Ok(Self {
            kind,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: url.port().unwrap_or(usual),
            user,
        })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}:{}", self.kind, self.host, self.port)
    }
}

impl FromStr for Direct {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let wrong = || Error::config(format!("`{text}` is no host, domain, address or network"));
        if let Some((network, length)) = text.split_once('/') {
            let network: IpAddr = network.parse().map_err(|_| wrong())?;
            let most = if network.is_ipv4() { 32 } else { 128 };
            let length = length.parse().ok().filter(|length| *length <= most);
            return Ok(Self::Network(network, length.ok_or_else(wrong)?));
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(
                address,
                if address.is_ipv4() { 32 } else { 128 },
            ));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let host = host
            .trim_start_matches("*.")
            .trim_matches('.')
            .to_ascii_lowercase();
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if host.is_empty() || !host.chars().all(sound) {
            return Err(wrong());
        }
        Ok(Self::Domain(host, port))
    }
}

impl Direct {
    fn covers(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Domain(domain, on) => {
                let below = host.strip_suffix(domain.as_str());
                on.is_none_or(|on| on == port)
                    && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
            Self::Network(network, length) => match (network, address) {
                (IpAddr::V4(network), Some(IpAddr::V4(address))) => {
                    let differing = u64::from(network.to_bits() ^ address.to_bits());
                    differing >> (32 - u32::from(*length)) == 0
                }
                (IpAddr::V6(network), Some(IpAddr::V6(address))) => {
                    let differing = network.to_bits() ^ address.to_bits();
                    differing.checked_shr(128 - u32::from(*length)).unwrap_or(0) == 0
                }
                _ => false,
            },
        }
    }
}

impl Proxy {
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether names are looked up here, and the proxy is told addresses.
    pub(super) const fn wants_addresses(&self) -> bool {
        matches!(self.kind, Kind::Socks5)
    }

    /// How requests are sent to the proxy itself; `None` where it knows none.
    pub(super) fn forward(&self) -> Option<Forward> {
        let credentials = self.basic().and_then(|basic| {
            let mut value = HeaderValue::try_from(basic).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        matches!(self.kind, Kind::Http).then_some(Forward { credentials })
    }

    fn basic(&self) -> Option<String> {
        let (user, password) = self.user.as_ref()?;
        let credentials = base64(format!("{user}:{password}").as_bytes());
        Some(format!("Basic {credentials}"))
    }

    /// Asks the proxy at the other end for a way to a host. Afterwards the socket is as if it led there.
    pub(super) async fn tunnel(
        &self,
        socket: &mut TcpStream,
        host: &str,
        port: u16,
    ) -> Result<(), Refused> {
        match self.kind {
            Kind::Http => self.connect(socket, host, port).await,
            Kind::Socks5 | Kind::Socks5h => self.socks(socket, host, port).await,
        }
    }

    async fn connect(&self, socket: &mut TcpStream, host: &str, port: u16) -> Result<(), Refused> {
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n");
        if let Some(basic) = self.basic() {
            request.push_str(&format!("proxy-authorization: {basic}\r\n"));
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await?;
        // Byte by byte: what follows the head belongs to the tunnel.
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MOST_OF_AN_ANSWER {
                return Err(Refused::Nonsense);
            }
            head.push(socket.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        let mut words = head.split_ascii_whitespace();
        let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
        let status = words.next().and_then(|word| word.parse::<u16>().ok());
        match status {
            Some(200..=299) if is_http => Ok(()),
            Some(status) if is_http => Err(Refused::Status(status)),
            _ => Err(Refused::Nonsense),
        }
    }

    /// RFC 1928, and RFC 1929 for the password.
    async fn socks(&self, socket: &mut TcpStream, host: &str, port: u16) -> Result<(), Refused> {
        const PLAIN: u8 = 0;
        const PASSWORD: u8 = 2;
        let methods: &[u8] = if self.user.is_some() {
            &[5, 2, PLAIN, PASSWORD]
        } else {
            &[5, 1, PLAIN]
        };
        socket.write_all(methods).await?;
        let mut answer = [0; 2];
        socket.read_exact(&mut answer).await?;
        match (answer, &self.user) {
            ([5, PLAIN], _) => {}
            ([5, PASSWORD], Some((user, password))) => {
                let mut login = vec![1];
                for text in [user, password] {
                    login.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                    login.extend(text.as_bytes());
                }
                socket.write_all(&login).await?;
                socket.read_exact(&mut answer).await?;
                if answer[1] != 0 {
                    return Err(Refused::Credentials);
                }
            }
            ([5, _], _) => return Err(Refused::Credentials),
            _ => return Err(Refused::Nonsense),
        }
        let mut request = vec![5, 1, 0];
        match host.parse() {
            Ok(IpAddr::V4(address)) => {
                request.push(1);
                request.extend(address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                request.push(4);
                request.extend(address.octets());
            }
            Err(_) => {
                request.push(3);
                request.push(u8::try_from(host.len()).map_err(|_| Refused::Nonsense)?);
                request.extend(host.as_bytes());
            }
        }
        request.extend(port.to_be_bytes());
        socket.write_all(&request).await?;
        let mut head = [0; 4];
        socket.read_exact(&mut head).await?;
        if head[0] != 5 {
            return Err(Refused::Nonsense);
        }
        if head[1] != 0 {
            return Err(Refused::Code(head[1]));
        }
        let rest = match head[3] {
            1 => 4,
            4 => 16,
            3 => usize::from(socket.read_u8().await?),
            _ => return Err(Refused::Nonsense),
        };
        let mut bound = vec![0; rest + 2];
        socket.read_exact(&mut bound).await?;
        Ok(())
    }
}

/// Why a proxy gave no way.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the proxy answered with status {0}")]
    Status(u16),
    #[error("the proxy refused with SOCKS code {0}")]
    Code(u8),
    #[error("the proxy does not take these credentials")]
    Credentials,
    #[error("the proxy's answer cannot be read")]
    Nonsense,
    #[error("the proxy ended the connection: {0}")]
    Lost(#[from] std::io::Error),
    #[error("there is no address to ask the proxy for")]
    Nothing,
}

impl Refused {
    /// Whether it may be the tunnel that the proxy refuses, and not the host or who asks.
    pub(super) const fn is_of_tunnels(&self) -> bool {
        matches!(self, Self::Status(400 | 403 | 404 | 405 | 501))
    }

    /// Whether it is who asks that the proxy refuses, wherever to.
    pub(super) const fn is_of_who_asks(&self) -> bool {
        matches!(self, Self::Status(407) | Self::Credentials)
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = [
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            text.push(match place <= chunk.len() {
                true => char::from(DIGITS[digit as usize]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(direct: &[&str]) -> ProxyRules {
        ProxyRules::all("http://proxy:3128", direct.iter().copied()).unwrap()
    }

    #[test]
    fn what_is_listed_is_reached_directly() {
        let rules = rules(&[
            "internal.example.com",
            ".svc",
            "*.corp",
            "10.0.0.0/8",
            "fd00::/8",
            "other:8080",
            "192.0.2.7",
        ]);
        for (host, port, direct) in [
            ("internal.example.com", 443, true),
            ("a.internal.example.com", 443, true),
            ("notinternal.example.com", 443, false),
            ("users.default.svc", 80, true),
            ("x.corp", 80, true),
            ("10.255.0.1", 80, true),
            ("11.0.0.1", 80, false),
            ("fd12::1", 80, true),
            ("fe80::1", 80, false),
            ("other", 8080, true),
            ("other", 80, false),
            ("192.0.2.7", 80, true),
            ("192.0.2.8", 80, false),
            ("localhost", 80, true),
            ("127.0.0.9", 80, true),
            ("::1", 80, true),
            ("example.com", 443, false),
        ] {
            assert_eq!(
                rules.on_the_way(true, host, port).is_none(),
                direct,
                "{host}:{port}"
            );
        }
        assert!(
            ProxyRules::all("http://p:1", ["*"])
                .unwrap()
                .on_the_way(true, "x", 1)
                .is_none()
        );
    }

    #[test]
    fn the_environment_is_read_as_everybody_reads_it() {
        let of = |pairs: &'static [(&str, &str)]| {
            ProxyRules::from_variables(|name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        let rules = of(&[
            ("HTTPS_PROXY", "proxy:3128"),
            ("ALL_PROXY", "socks5h://s"),
            ("no_proxy", "a.b, c.d"),
        ])
        .unwrap();
        assert_eq!(rules.on_the_way(true, "x", 443).unwrap().port(), 3128);
        assert_eq!(rules.on_the_way(false, "x", 80).unwrap().port(), 1080);
        assert!(rules.on_the_way(true, "c.d", 443).is_none());
        // A header `Proxy` of a caller becomes HTTP_PROXY in a CGI environment.
        let cgi = of(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]).unwrap();
        assert!(cgi.is_empty());
        assert!(of(&[]).unwrap().is_empty());
        let error = of(&[("HTTP_PROXY", "ftp://me:secret@x")]).unwrap_err();
        assert!(
            !error.report().to_string().contains("secret"),
            "{}",
            error.report()
        );
    }

    #[test]
    fn credentials_are_written_as_basic_wants_them_and_never_shown() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("user:p@ss", "dXNlcjpwQHNz"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
        let proxy: Proxy = "http://user:p%40ss@proxy".parse().unwrap();
        assert_eq!(proxy.user, Some(("user".to_owned(), "p@ss".to_owned())));
        assert!(!format!("{proxy:?}").contains("p@ss"));
        for text in ["proxy", "ftp://x", "http://", "http://x/path", "socks4://x"] {
            assert!(text.parse::<Proxy>().is_err(), "{text}");
        }
    }
}
