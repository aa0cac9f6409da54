//! Makes connections: address, socket, encryption, and which HTTP is spoken on it.

mod dial;
mod error;
mod stream;
mod tls;

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use trunkline_core::Result;

pub(crate) use stream::{Meter, Socket, Stream};
pub(crate) use tls::Tls;

pub use error::{ConnectFailed, ConnectStage};

use crate::origin::{Origin, Place as Target};
use crate::pool::Place;

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// How connections are made.
#[derive(Debug)]
pub(crate) struct Connector {
    tls: Tls,
    /// HTTP/2 without asking on connections that are not encrypted.
    prior_knowledge: bool,
}

impl Connector {
    pub(crate) fn new(tls: Tls, prior_knowledge: bool) -> Self {
        Self {
            tls,
            prior_knowledge,
        }
    }

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
                let socket = timeout_at(until, dial::tcp(host, *port))
                    .await
                    .map_err(|_| ConnectFailed::timed_out(origin.authority(), stage, limit))??;
                if !tls {
                    return Ok((Stream::new(Socket::Tcp(socket), place), plain));
                }
                let stage = ConnectStage::Tls;
                let socket = timeout_at(until, self.tls.connect(origin, socket))
                    .await
                    .map_err(|_| ConnectFailed::timed_out(origin.authority(), stage, limit))??;
                let version = match socket.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::Two,
                    _ => Version::One,
                };
                Ok((Stream::new(Socket::Tls(Box::new(socket)), place), version))
            }
        }
    }
}
