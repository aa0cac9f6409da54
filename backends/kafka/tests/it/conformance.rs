//! The suites that every broker passes.

use trunkline_kafka::KafkaBroker;
use trunkline_messaging::{AnyBroker, MessageBroker, MessageBrokerConfig};
use trunkline_testing::Scope;
use trunkline_testing::broker::BrokerHarness;
use trunkline_testing::servers::{self, KAFKA};

/// With transactions, or without.
struct Kafka(bool);

impl BrokerHarness for Kafka {
    async fn open(&self, scope: &Scope) -> Option<AnyBroker> {
        let url = servers::shared(&KAFKA)?;
        let config = MessageBrokerConfig::from_url(&url).ok()?;
        // Names of a scope's own, also for what listens to everything.
        let config = config
            .with_option("topic_prefix", format!("t-{}", scope.unique()))
            .with_option("queue_prefix", format!("q-{}", scope.unique()))
            .with_option("linger_ms", 1)
            .with_option("topic_refresh", "300ms")
            .with_option("transactions", self.0)
            .with_option("confirmed_acks", true);
        Some(KafkaBroker::from_config(&config).unwrap().erase())
    }

    fn system(&self) -> &'static str {
        "kafka"
    }
}

mod kafka {
    trunkline_testing::broker_conformance!(super::Kafka(false));
    mod below_the_router {
        trunkline_testing::router_conformance!(super::super::Kafka(false));
    }
}

mod with_transactions {
    trunkline_testing::broker_conformance!(super::Kafka(true));
    mod below_the_router {
        trunkline_testing::router_conformance!(super::super::Kafka(true));
    }
}
