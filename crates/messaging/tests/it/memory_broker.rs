//! The in-memory broker does everything a broker promises.

use trunkline_core::size::ByteSize;
use trunkline_messaging::memory::{MemoryBroker, MemoryConfig};
use trunkline_messaging::{AnyBroker, MessageBroker};
use trunkline_testing::Scope;
use trunkline_testing::broker::BrokerHarness;

struct Memory;

impl BrokerHarness for Memory {
    async fn open(&self, _: &Scope) -> Option<AnyBroker> {
        Some(MemoryBroker::default().erase())
    }

    async fn open_limited(&self, _: &Scope, max_messages: usize) -> Option<AnyBroker> {
        let mut config = MemoryConfig::default();
        config.max_messages = max_messages;
        Some(MemoryBroker::new(config).unwrap().erase())
    }

    async fn open_limited_bytes(&self, _: &Scope, max_bytes: usize) -> Option<AnyBroker> {
        let mut config = MemoryConfig::default();
        config.max_bytes = ByteSize::new(max_bytes as u64);
        config.max_message_size = config.max_bytes;
        Some(MemoryBroker::new(config).unwrap().erase())
    }
}

mod suite {
    trunkline_testing::broker_conformance!(super::Memory);
}
