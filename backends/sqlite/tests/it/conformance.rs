//! The conformance suites over the embedded directory.

use trunkline_core::size::ByteSize;
use trunkline_messaging::{AnyBroker, MessageBroker};
use trunkline_sqlite::{EmbeddedBroker, EmbeddedBrokerConfig};
use trunkline_testing::Scope;
use trunkline_testing::broker::BrokerHarness;

use crate::directory::named;

struct Embedded;

impl BrokerHarness for Embedded {
    async fn open(&self, scope: &Scope) -> Option<AnyBroker> {
        let config = EmbeddedBrokerConfig::new(named(scope.unique()));
        Some(EmbeddedBroker::new(config).erase())
    }

    async fn open_limited(&self, scope: &Scope, max_messages: usize) -> Option<AnyBroker> {
        let directory = named(&format!("{}-limited", scope.unique()));
        let config = EmbeddedBrokerConfig::new(directory).with_max_messages(max_messages as u64);
        Some(EmbeddedBroker::new(config).erase())
    }

    async fn open_limited_bytes(&self, scope: &Scope, max_bytes: usize) -> Option<AnyBroker> {
        let directory = named(&format!("{}-limited", scope.unique()));
        let bytes = ByteSize::new(max_bytes as u64);
        let config = EmbeddedBrokerConfig::new(directory).with_max_bytes(bytes);
        Some(EmbeddedBroker::new(config).erase())
    }
}

mod broker {
    trunkline_testing::broker_conformance!(super::Embedded);
}

mod router {
    trunkline_testing::router_conformance!(super::Embedded);
}
