//! The conformance suites over Redis Streams and Pub/Sub.

use trunkline_messaging::{AnyBroker, MessageBroker};
use trunkline_redis::{RedisBroker, RedisPubSubBroker};
use trunkline_testing::Scope;
use trunkline_testing::broker::BrokerHarness;

use crate::place::config_named;

struct Streams;

impl BrokerHarness for Streams {
    async fn open(&self, scope: &Scope) -> Option<AnyBroker> {
        Some(
            RedisBroker::new(config_named(scope.unique())?)
                .unwrap()
                .erase(),
        )
    }

    async fn open_limited(&self, scope: &Scope, max_messages: usize) -> Option<AnyBroker> {
        let config = config_named(&format!("{}-limited", scope.unique()))?;
        let config = config.with_max_messages(max_messages as u64);
        Some(RedisBroker::new(config).unwrap().erase())
    }

    fn system(&self) -> &'static str {
        "redis"
    }
}

mod streams {
    trunkline_testing::broker_conformance!(super::Streams);
    mod router {
        trunkline_testing::router_conformance!(super::super::Streams);
    }
}

struct PubSub;

impl BrokerHarness for PubSub {
    async fn open(&self, scope: &Scope) -> Option<AnyBroker> {
        let broker = RedisPubSubBroker::new(config_named(scope.unique())?);
        Some(broker.unwrap().erase())
    }

    fn system(&self) -> &'static str {
        "redis"
    }
}

mod pubsub {
    trunkline_testing::broker_conformance!(super::PubSub);
}
