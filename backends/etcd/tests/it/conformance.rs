//! The suite of every registry.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_discovery::ServiceDiscoveryConfig;
use trunkline_etcd::{EtcdConfig, EtcdRegistry};
use trunkline_testing::Scope;
use trunkline_testing::registry::{OpenRegistry, RegistryHarness};
use trunkline_testing::servers::{self, ETCD};

struct Etcd;

impl RegistryHarness for Etcd {
    async fn open(&self, _: &Scope) -> Option<OpenRegistry> {
        let url = tokio::task::spawn_blocking(|| servers::shared(&ETCD));
        let neutral = ServiceDiscoveryConfig::from_url(&url.await.unwrap()?).unwrap();
        let config = EtcdConfig::from_neutral(&neutral).unwrap();
        let registry = EtcdRegistry::new(&config).unwrap();
        let shutting = registry.clone();
        Some(OpenRegistry::new(
            registry.clone(),
            registry,
            async move || {
                shutting
                    .shutdown(Instant::now() + Duration::from_secs(5))
                    .await;
            },
        ))
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// One and a half election timeouts, rounded up: etcd grants nothing shorter.
    fn shortest_ttl(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn system(&self) -> &'static str {
        "etcd"
    }
}

mod etcd {
    trunkline_testing::registry_conformance!(super::Etcd);
}
