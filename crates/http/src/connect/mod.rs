//! Makes connections: address, socket, encryption, and which HTTP is spoken on it.

mod dial;
mod error;
mod guard;
mod proxy;
mod stream;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use trunkline_core::Result;

pub(crate) use stream::{Meter, Socket, Stream};
pub(crate) use tls::{Tls, TlsFiles};

pub use error::{ConnectFailed, ConnectStage};
pub use guard::AddressDenied;
pub(crate) use proxy::Forward;
pub use proxy::ProxyRules;

use crate::origin::{Origin, Place as Target};
use crate::pool::Place;

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// Whether somebody takes connections there; the connection is closed at once. The caller bounds the time.
pub(crate) async fn reachable(host: &str, port: u16) -> Result<()> {
    dial::tcp(host, port, false).await.map(drop)
}

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) tls: Arc<Tls>,
    /// HTTP/2 without asking on connections that are not encrypted.
    pub(crate) prior_knowledge: bool,
    pub(crate) proxy: ProxyRules,
    /// Whether public addresses alone are dialled.
    pub(crate) public_only: bool,
    /// Set when the proxy has refused a tunnel for plain requests: it is not asked for one again.
    pub(crate) no_tunnels: Arc<AtomicBool>,
}

impl Connector {
    /// Whether a connection there may turn out to be shared by many requests.
    pub(crate) fn may_share(&self, origin: &Origin) -> bool {
        origin.is_tls() || self.prior_knowledge
    }

    /// Connects within a limit, which is the connect timeout or what is left of the call's time.
    pub(crate) async fn connect(
        &self,
        origin: &Origin,
        place: Place,
        limit: Duration,
    ) -> Result<(Stream, Version)> {
        let until = crate::limits::after(Instant::now(), limit);
        let plain = if self.prior_knowledge {
            Version::Two
        } else {
            Version::One
        };
        match origin.place() {
            Target::Unix(path) if self.public_only => Err(AddressDenied::error(
                &path.display().to_string(),
                &"a Unix socket",
            )),
            #[cfg(unix)]
            Target::Unix(path) => {
                let connected = timeout_at(until, tokio::net::UnixStream::connect(path)).await;
                let shown = path.display();
                let socket = connected
                    .map_err(|_| ConnectFailed::timed_out(&shown, ConnectStage::Connect, limit))?
                    .map_err(|error| ConnectFailed::error(&shown, ConnectStage::Connect, error))?;
                Ok((Stream::new(Socket::Unix(socket), place), plain))
            }
            #[cfg(not(unix))]
            Target::Unix(path) => Err(trunkline_core::Error::unsupported(format!(
                "this system has no Unix sockets: {}",
                path.display()
            ))),
            Target::Tcp { tls, host, port } => {
                let stage = ConnectStage::Connect;
                let late = |_| ConnectFailed::timed_out(origin.authority(), stage, limit);
                let dialled = timeout_at(until, self.dial(origin, *tls, host, *port));
                let (socket, forward) = dialled.await.map_err(late)??;
                if !tls {
                    let stream = Stream::new(Socket::Tcp(socket), place);
                    return Ok((stream.forwarded(forward), plain));
                }
                let late =
                    |_| ConnectFailed::timed_out(origin.authority(), ConnectStage::Tls, limit);
                let encrypted = timeout_at(until, self.encrypt(origin, *tls, host, *port, socket));
                let socket = encrypted.await.map_err(late)??;
                let version = match socket.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::Two,
                    _ => Version::One,
                };
                Ok((Stream::new(Socket::Tls(Box::new(socket)), place), version))
            }
        }
    }

    /// Encrypts a connection; a new one where the certificates have changed meanwhile, here and on the other side.
    async fn encrypt(
        &self,
        origin: &Origin,
        tls: bool,
        host: &str,
        port: u16,
        mut socket: TcpStream,
    ) -> Result<TlsStream<TcpStream>> {
        loop {
            let failed = match self.tls.connect(origin, socket).await {
                Ok(socket) => return Ok(socket),
                Err(failed) => failed,
            };
            // Each time round others apply: it ends as soon as they stay the same.
            if !self.tls.outdated(&failed).await {
                return Err(failed.error);
            }
            (socket, _) = self.dial(origin, tls, host, port).await?;
        }
    }

    /// A socket whose other end is the host, whatever is on the way; or a proxy that wants to see the requests.
    async fn dial(
        &self,
        origin: &Origin,
        tls: bool,
        host: &str,
        port: u16,
    ) -> Result<(TcpStream, Option<Forward>)> {
        let Some(proxy) = self.proxy.on_the_way(tls, host, port) else {
            let socket = dial::tcp(host, port, self.public_only).await?;
            return Ok((socket, None));
        };
        let dial_proxy = || async {
            let dialled = dial::tcp(proxy.host(), proxy.port(), false).await;
            dialled.map_err(|error| ConnectFailed::before_the_proxy(origin.authority(), error))
        };
        // Who may dial public addresses alone tells the proxy an address, which only a tunnel takes.
        let forward = (!tls && !self.prior_knowledge && !self.public_only)
            .then(|| proxy.forward())
            .flatten();
        if forward.is_some() && self.no_tunnels.load(Ordering::Relaxed) {
            return Ok((dial_proxy().await?, forward));
        }
        // What the proxy looks up by itself cannot be checked here, so it is told the addresses, one after the other.
        let mut targets = vec![host.to_owned()];
        if proxy.wants_addresses() || self.public_only {
            let found = dial::addresses(host, port, self.public_only).await?;
            targets = found.iter().map(|found| found.ip().to_string()).collect();
        }
        let mut refused = proxy::Refused::Nothing;
        for target in targets {
            let mut socket = dial_proxy().await?;
            match proxy.tunnel(&mut socket, &target, port).await {
                Ok(()) => return Ok((socket, None)),
                Err(cause) if forward.is_some() && cause.is_of_tunnels() => {
                    // Squid opens none but to 443, as it comes.
                    self.no_tunnels.store(true, Ordering::Relaxed);
                    return Ok((dial_proxy().await?, forward));
                }
                Err(cause) => refused = cause,
            }
        }
        let at = origin.authority();
        Err(match refused.is_of_who_asks() {
            true => ConnectFailed::before_the_proxy(at, refused),
            false => ConnectFailed::error(at, ConnectStage::Proxy, refused),
        })
    }
}
