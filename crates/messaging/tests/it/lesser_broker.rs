//! The suite is fair: what a broker does not claim is not asked of it, and is refused where it is asked for.

use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{AnyBroker, Capabilities, MessageBroker};
use trunkline_testing::Scope;
use trunkline_testing::broker::{BrokerHarness, RestrictedBroker};

/// The in-memory broker without some of its capabilities.
struct Without(fn(&mut Capabilities));

impl BrokerHarness for Without {
    async fn open(&self, _: &Scope) -> Option<AnyBroker> {
        let whole = MemoryBroker::default().erase();
        Some(RestrictedBroker::new(whole, self.0).erase())
    }
}

mod without_redelivery {
    trunkline_testing::broker_conformance!(super::Without(|able| {
        able.redelivery = false;
        able.attempts = false;
        able.delayed_redelivery = false;
        able.lease_extension = false;
    }));
}

mod without_queues {
    trunkline_testing::broker_conformance!(super::Without(|able| able.queues = false));
}

mod with_little_else {
    trunkline_testing::broker_conformance!(super::Without(|able| {
        able.atomic_forward = false;
        able.browse = false;
        able.wildcards = false;
        able.replay = false;
    }));
}
