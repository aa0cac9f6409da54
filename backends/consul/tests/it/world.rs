//! A service that announces itself and finds others, and a server that things happen to.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use trunkline_consul::{ConsulConfig, ConsulRegistry};
use trunkline_core::{Health, Status, SystemClock};
use trunkline_discovery::{
    Discovery, DiscoveryCacheConfig, Instances, PickRequest, Registration, RegistrationState,
    Registry, ServiceInstance, ServiceName,
};
use trunkline_testing::servers::{self, CONSUL, Server};

/// Longest that a test waits for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The lease of what these tests announce.
const TTL: Duration = Duration::from_secs(6);

/// Looks until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(SOON, look).await.is_ok(), "{what}");
}

/// A server of this test alone.
pub(crate) async fn own_server() -> Option<Server> {
    tokio::task::spawn_blocking(|| servers::own(&CONSUL))
        .await
        .unwrap()
}

/// Does something with the server that blocks.
pub(crate) async fn with(
    server: Server,
    work: impl FnOnce(&mut Server) + Send + 'static,
) -> Server {
    let worked = tokio::task::spawn_blocking(move || {
        let mut server = server;
        work(&mut server);
        server
    });
    worked.await.unwrap()
}

pub(crate) fn config(address: std::net::SocketAddr) -> ConsulConfig {
    let mut config = ConsulConfig::at(address.ip().to_string(), address.port());
    // So that a server that hangs is noticed soon.
    config.wait = Duration::from_secs(2);
    config.request_timeout = Duration::from_secs(2);
    config
}

pub(crate) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// One process: what it announces and what it knows of the service `users`.
pub(crate) struct Process {
    pub(crate) registry: ConsulRegistry,
    pub(crate) discovery: Discovery,
    pub(crate) registration: Registration,
    pub(crate) users: Instances,
    health: Health,
}

impl Process {
    pub(crate) fn new(config: &ConsulConfig) -> Self {
        let registry = ConsulRegistry::new(config).unwrap();
        let health = Health::new(SystemClock::shared());
        let component = health.register("discovery", "discovery", "consul", true);
        let mut cache = DiscoveryCacheConfig::default();
        cache.resync_interval = Duration::from_secs(600);
        let discovery = Discovery::builder()
            .resolver(registry.clone())
            .registry(registry.clone())
            .lease_ttl(TTL)
            .request_timeout(Duration::from_secs(5))
            .cache(cache)
            .component(component)
            .build();
        let instance = ServiceInstance::new(name("users"), "127.0.0.1", 8001).with_id("users-1");
        let registration = discovery.register(instance).unwrap();
        let users = discovery.instances(&name("users"));
        Self {
            registry,
            discovery,
            registration,
            users,
            health,
        }
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.users.snapshot().is_stale()
    }

    pub(crate) fn is_well(&self) -> bool {
        self.health
            .component_status("discovery")
            .is_some_and(|it| it.status == Status::Healthy)
    }

    /// There is somebody to call, whatever the registry does.
    pub(crate) fn serves(&self) -> bool {
        self.users.pick(&PickRequest::any()).is_ok()
    }

    pub(crate) async fn in_order(&self) {
        until("announced, found, fresh and well", async || {
            self.registration.state() == RegistrationState::Registered
                && self.serves()
                // One that vanished from the list without a word may serve as well.
                && self.ids().await.iter().any(|id| id == "users-1")
                && !self.is_stale()
                && self.is_well()
                && self.registry.health_check().await.is_ok()
        })
        .await;
    }

    /// The registry is away: what was known is used, and said to be old.
    pub(crate) async fn degraded(&self) {
        until("stale and unwell", async || {
            self.is_stale() && !self.is_well()
        })
        .await;
        assert!(self.serves(), "the last known good is used");
    }

    pub(crate) async fn ids(&self) -> Vec<String> {
        let set = self.users.snapshot();
        set.instances().map(|it| it.id.clone()).collect()
    }

    pub(crate) async fn end(self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        self.discovery.shutdown(deadline).await.unwrap();
        self.registry.shutdown(deadline).await;
    }
}
