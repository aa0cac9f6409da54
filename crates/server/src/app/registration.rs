//! The service's own entry in discovery.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
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
