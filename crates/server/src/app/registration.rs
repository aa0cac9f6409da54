//! The service's own entry in discovery.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use trunkline_core::{BoxFuture, Result};
use trunkline_discovery::ServiceInstance;

/// Announces the service. It keeps the announcement alive by itself, also when the registry is away for a while.
pub trait Registration: Send + Sync + 'static {
    /// Announces an instance. Returns once the announcement stands or is being retried in the background.
    ///
    /// # Errors
    /// When it can never stand.
    fn register(&self, instance: ServiceInstance) -> BoxFuture<'_, Result<()>>;

    /// Withdraws it.
    ///
    /// # Errors
    /// When the registry did not hear of it; the announcement runs out by itself then.
    fn deregister(&self) -> BoxFuture<'_, Result<()>>;
}

/// An address at which others reach what listens on `listening`: itself, or for "every interface" the one that this
/// machine reaches others from.
pub(super) fn reachable(listening: SocketAddr) -> IpAddr {
    if !listening.ip().is_unspecified() {
        return listening.ip();
    }
    // Connecting a datagram socket sends nothing; it only makes the system choose its own address. The other one is
    // reserved for documentation.
    let outward = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket
                .connect((Ipv4Addr::new(192, 0, 2, 1), 9))
                .map(|()| socket)
        })
        .and_then(|socket| socket.local_addr());
    match outward {
        Ok(own) if !own.ip().is_unspecified() => own.ip(),
        _ => {
            tracing::warn!(
                target: super::TARGET,
                "no address of this machine is known to others; set server.advertise_host"
            );
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        }
    }
}
