//! The conformance suites over the real server.

use trunkline_messaging::{AnyBroker, MessageBroker as _};
use trunkline_rabbitmq::{QueueType, RabbitMqBroker, RabbitMqConfig};
use trunkline_testing::Scope;
use trunkline_testing::broker::BrokerHarness;
use trunkline_testing::servers::{self, RABBITMQ};

struct Harness(QueueType);

impl BrokerHarness for Harness {
    async fn open(&self, scope: &Scope) -> Option<AnyBroker> {
        let url = servers::shared(&RABBITMQ)?;
        let config = RabbitMqConfig::from_url(&url)
            .expect("the URL of the server")
            .with_queue_type(self.0)
            .with_exchange(format!("events-{}", scope.unique()));
        Some(RabbitMqBroker::new(config).expect("sound settings").erase())
    }

    fn system(&self) -> &'static str {
        "rabbitmq"
    }
}

mod quorum {
    use super::*;

    trunkline_testing::broker_conformance!(Harness(QueueType::Quorum));

    mod below_the_router {
        use super::*;

        trunkline_testing::router_conformance!(Harness(QueueType::Quorum));
    }
}

mod classic {
    use super::*;

    trunkline_testing::broker_conformance!(Harness(QueueType::Classic));
}
