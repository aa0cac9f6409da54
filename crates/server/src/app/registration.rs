//! The service's own entry in discovery.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{BoxFuture, Health, Result};
use trunkline_discovery::{Discovery, ServiceInstance};

/// How long a stop waits for the registry to hear of it.
const GOODBYE: Duration = Duration::from_secs(2);

/// Announces the service. It keeps the announcement alive by itself, also when the registry is away for a while.
pub trait Registration: Send + Sync + 'static {
    /// Announces an instance. Returns once the announcement stands or is being retried in the background.
    ///
    /// # Errors
    /// When it can never stand.
    fn register(&self, instance: ServiceInstance) -> BoxFuture<'_, Result<()>>;

    /// Tells callers to send nothing new; what runs may finish. Comes before [`Registration::deregister`]. Default: nothing
    /// is told.
    fn drain(&self) {}

    /// Waits until the registry has heard of [`Registration::drain`]: only then callers can know. It may be dropped before
    /// that. Default: it is taken to have heard at once.
    fn drained(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Withdraws it.
    ///
    /// # Errors
    /// When the registry did not hear of it; the announcement runs out by itself then.
    fn deregister(&self) -> BoxFuture<'_, Result<()>>;
}

/// Announces the service through discovery, which keeps the announcement alive and in step with readiness.
pub(super) struct ThroughDiscovery {
    discovery: Discovery,
    health: Health,
    current: Mutex<Option<trunkline_discovery::Registration>>,
}

impl ThroughDiscovery {
    pub(super) fn new(discovery: Discovery, health: Health) -> Self {
        Self {
            discovery,
            health,
            current: Mutex::default(),
        }
    }

    fn replace(
        &self,
        next: Option<trunkline_discovery::Registration>,
    ) -> Option<trunkline_discovery::Registration> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, next)
    }
}

impl Registration for ThroughDiscovery {
    fn register(&self, instance: ServiceInstance) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let registration = self
                .discovery
                .register_current_service(instance, &self.health)?;
            self.replace(Some(registration));
            Ok(())
        })
    }

    fn drain(&self) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registration) = &*current {
            registration.set_draining();
        }
    }

    fn drained(&self) -> BoxFuture<'_, Result<()>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current.clone();
        Box::pin(async {
            match current {
                Some(registration) => registration.draining_told(Instant::now() + GOODBYE).await,
                None => Ok(()),
            }
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            match self.replace(None) {
                Some(registration) => registration.deregister(Instant::now() + GOODBYE).await,
                None => Ok(()),
            }
        })
    }
}

/// An address at which others reach what listens on `listening`: itself, or for "every interface" the one that this
/// machine reaches others from.
pub(super) fn reachable(listening: SocketAddr) -> IpAddr {
    if !listening.ip().is_unspecified() {
        return listening.ip();
    }
    let outward = Outward::of_this_machine();
    outward.choose(listening.ip()).unwrap_or_else(|| {
        tracing::warn!(
            target: super::TARGET,
            "no address of this machine is known to others; set server.advertise_host"
        );
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    })
}

/// The addresses that this machine reaches others from.
struct Outward {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Outward {
    fn of_this_machine() -> Self {
        // Reserved for documentation: nobody is there.
        let v4 = Ipv4Addr::new(192, 0, 2, 1).into();
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into();
        Self {
            v4: Self::towards(v4, Ipv4Addr::UNSPECIFIED.into()).ok(),
            v6: Self::towards(v6, Ipv6Addr::UNSPECIFIED.into()).ok(),
        }
    }

    /// Connecting a datagram socket sends nothing; it only makes the system choose its own address.
    fn towards(other: IpAddr, from: IpAddr) -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((other, 9))?;
        Ok(socket.local_addr()?.ip())
    }

    /// The one at which somebody is heard who listens on every interface: by IPv4 where that is possible, which more callers
    /// can use. Who listens on `0.0.0.0` is not heard by IPv6.
    fn choose(&self, listening: IpAddr) -> Option<IpAddr> {
        let by_v6 = self.v6.filter(|_| listening.is_ipv6());
        let reachable = |own: &IpAddr| !own.is_unspecified() && !own.is_loopback();
        [self.v4, by_v6].into_iter().flatten().find(reachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_ipv4_is_known_by_its_ipv6_address() {
        let own: IpAddr = "2001:db8::7".parse().unwrap();
        let (all_v6, all_v4) = (Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into());
        let only_v6 = Outward {
            v4: None,
            v6: Some(own),
        };
        assert_eq!(only_v6.choose(all_v6), Some(own));
        assert_eq!(only_v6.choose(all_v4), None);
        let v4: IpAddr = "10.0.0.7".parse().unwrap();
        let both = Outward {
            v4: Some(v4),
            v6: Some(own),
        };
        assert_eq!(both.choose(all_v6), Some(v4));
        let local = Outward {
            v4: Some(Ipv4Addr::LOCALHOST.into()),
            v6: Some(own),
        };
        assert_eq!(local.choose(all_v6), Some(own));
    }
}
