//! The router over the in-memory broker, and over what is left of it when capabilities are taken away.

use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{AnyBroker, Capabilities, MessageBroker, OrderingGuarantee};
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

mod whole {
    use super::{AnyBroker, BrokerHarness, MemoryBroker, MessageBroker, Scope};

    struct Memory;

    impl BrokerHarness for Memory {
        async fn open(&self, _: &Scope) -> Option<AnyBroker> {
            Some(MemoryBroker::default().erase())
        }
    }

    trunkline_testing::router_conformance!(Memory);
}

/// Repetitions go through the handler's own retry queue, with a count of ours.
mod without_attempts {
    trunkline_testing::router_conformance!(super::Without(|able| able.attempts = false));
}

/// Waits happen here, with the message in hand.
mod without_delays {
    trunkline_testing::router_conformance!(super::Without(|able| {
        able.delayed_redelivery = false;
        able.delayed_publish = false;
    }));
}

/// A dead letter is published first and acknowledged then.
mod without_forward {
    trunkline_testing::router_conformance!(super::Without(|able| {
        able.atomic_forward = false;
        able.attempts = false;
        able.delayed_publish = false;
    }));
}

/// The router keeps the order of a key, and counts attempts here; dead letters go to a topic.
mod with_little {
    use super::OrderingGuarantee;

    trunkline_testing::router_conformance!(super::Without(|able| {
        able.queues = false;
        able.attempts = false;
        able.delayed_redelivery = false;
        able.delayed_publish = false;
        able.lease_extension = false;
        able.atomic_forward = false;
        able.expiry = false;
        able.mandatory = false;
        able.replay = false;
        able.browse = false;
        able.ordering = OrderingGuarantee::None;
    }));
}

/// What is lost on the way is lost, and nothing is asked of the broker that it cannot do.
mod at_most_once {
    trunkline_testing::router_conformance!(super::Without(|able| {
        able.redelivery = false;
        able.attempts = false;
        able.delayed_redelivery = false;
        able.lease_extension = false;
        able.queues = false;
        able.browse = false;
        able.atomic_forward = false;
    }));
}

/// The suite of brokers, over brokers that can do less: what is not claimed is refused.
mod lesser_brokers {
    mod without_attempts {
        trunkline_testing::broker_conformance!(super::super::Without(|able| able.attempts = false));
    }

    mod with_little {
        trunkline_testing::broker_conformance!(super::super::Without(|able| {
            able.queues = false;
            able.attempts = false;
            able.delayed_redelivery = false;
            able.delayed_publish = false;
            able.lease_extension = false;
            able.atomic_forward = false;
            able.expiry = false;
            able.mandatory = false;
            able.replay = false;
            able.browse = false;
            able.wildcards = false;
        }));
    }
}
