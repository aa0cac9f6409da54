//! The registries of this crate keep the contract. What only the static list promises is in `static_list`.

use std::time::Duration;

use trunkline_discovery::{MemoryRegistry, ServiceConfig, Several, StaticList};
use trunkline_testing::Scope;
use trunkline_testing::registry::{OpenRegistry, RegistryHarness};

/// In memory a lease runs out at its moment; this is for a busy machine.
const DELAY: Duration = Duration::from_secs(1);

struct Memory;

impl RegistryHarness for Memory {
    fn expiry_delay(&self) -> Duration {
        DELAY
    }

    async fn open(&self, _: &Scope) -> Option<OpenRegistry> {
        let registry = MemoryRegistry::new();
        let shutdown = registry.clone();
        Some(OpenRegistry::new(
            registry.clone(),
            registry,
            async move || {
                shutdown.shutdown();
            },
        ))
    }
}

struct Static;

impl RegistryHarness for Static {
    fn expiry_delay(&self) -> Duration {
        DELAY
    }

    async fn open(&self, _: &Scope) -> Option<OpenRegistry> {
        // The cases run beside what the configuration names.
        let services = [("payments", ServiceConfig::at("payments.test", 80))];
        let list = StaticList::from_config(services).unwrap();
        let shutdown = list.clone();
        Some(OpenRegistry::new(list.clone(), list, async move || {
            shutdown.shutdown();
        }))
    }
}

struct Two;

impl RegistryHarness for Two {
    fn expiry_delay(&self) -> Duration {
        DELAY
    }

    async fn open(&self, _: &Scope) -> Option<OpenRegistry> {
        let (one, two) = (MemoryRegistry::new(), MemoryRegistry::new());
        let both = Several::builder()
            .member("one", one.clone(), one.clone())
            .member("two", two.clone(), two.clone())
            .build();
        let shutdown = both.clone();
        Some(OpenRegistry::new(both.clone(), both, async move || {
            shutdown.shutdown();
            one.shutdown();
            two.shutdown();
        }))
    }
}

mod several {
    trunkline_testing::registry_conformance!(super::Two);
}

mod memory {
    trunkline_testing::registry_conformance!(super::Memory);
}

mod static_list {
    trunkline_testing::registry_conformance!(super::Static);
}
