//! The suites that every broker passes.

use trunkline_messaging::{AnyBroker, MessageBroker, MessageBrokerConfig};
use trunkline_nats::{CoreNatsBroker, JetStreamBroker};
use trunkline_testing::Scope;
use trunkline_testing::broker::BrokerHarness;
use trunkline_testing::servers::{self, NATS};

/// Streams and subjects of a scope's own.
fn settings(scope: &Scope) -> Option<MessageBrokerConfig> {
    let url = servers::shared(&NATS)?;
    let config = MessageBrokerConfig::from_url(&url).ok()?;
    Some(
        config
            .with_option("stream", scope.unique())
            .with_option("topic_prefix", format!("t-{}", scope.unique()))
            .with_option("queue_prefix", format!("q-{}", scope.unique())),
    )
}

struct JetStream;

impl BrokerHarness for JetStream {
    async fn open(&self, scope: &Scope) -> Option<AnyBroker> {
        let config = settings(scope)?;
        Some(JetStreamBroker::from_config(&config).unwrap().erase())
    }

    async fn open_limited(&self, scope: &Scope, max_messages: usize) -> Option<AnyBroker> {
        let config = settings(scope)?.with_option("max_messages", max_messages);
        Some(JetStreamBroker::from_config(&config).unwrap().erase())
    }

    fn system(&self) -> &'static str {
        "nats"
    }
}

mod jetstream {
    trunkline_testing::broker_conformance!(super::JetStream);
    mod below_the_router {
        trunkline_testing::router_conformance!(super::super::JetStream);
    }
}

struct Core;

impl BrokerHarness for Core {
    async fn open(&self, scope: &Scope) -> Option<AnyBroker> {
        let config = settings(scope)?;
        Some(CoreNatsBroker::from_config(&config).unwrap().erase())
    }

    fn system(&self) -> &'static str {
        "nats"
    }
}

mod core_nats {
    trunkline_testing::broker_conformance!(super::Core);
    mod below_the_router {
        trunkline_testing::router_conformance!(super::super::Core);
    }
}
