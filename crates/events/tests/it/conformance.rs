//! The stores of this crate keep the contract.

use trunkline_events::{MemoryEventStore, MeteredStore};
use trunkline_telemetry::Metrics;
use trunkline_testing::Scope;
use trunkline_testing::store::{OpenStore, StoreHarness};

struct Memory;

impl StoreHarness for Memory {
    async fn open(&self, _: &Scope) -> Option<OpenStore> {
        let store = MemoryEventStore::new();
        Some(OpenStore::new(store.clone(), async move || {
            store.shutdown()
        }))
    }
}

struct Metered;

impl StoreHarness for Metered {
    async fn open(&self, _: &Scope) -> Option<OpenStore> {
        let store = MemoryEventStore::new();
        let metered = MeteredStore::new(store.clone(), Metrics::new().events("orders"));
        Some(OpenStore::new(metered, async move || store.shutdown()))
    }
}

mod memory {
    trunkline_testing::store_conformance!(super::Memory);
}

mod metered {
    trunkline_testing::store_conformance!(super::Metered);
}
