//! The suite of every registry.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_consul::{ConsulConfig, ConsulRegistry};
use trunkline_discovery::ServiceDiscoveryConfig;
use trunkline_testing::Scope;
use trunkline_testing::registry::{OpenRegistry, RegistryHarness};
use trunkline_testing::servers::{self, CONSUL};

struct Consul;

impl RegistryHarness for Consul {
    async fn open(&self, _: &Scope) -> Option<OpenRegistry> {
        let url = tokio::task::spawn_blocking(|| servers::shared(&CONSUL));
        let neutral = ServiceDiscoveryConfig::from_url(&url.await.unwrap()?).unwrap();
        let config = ConsulConfig::from_neutral(&neutral).unwrap();
        let registry = ConsulRegistry::new(&config).unwrap();
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

    fn system(&self) -> &'static str {
        "consul"
    }
}

mod consul {
    trunkline_testing::registry_conformance!(super::Consul);
}
