//! What publishers and routers of one broker share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trunkline_core::health::ComponentHealth;
use trunkline_core::{Health, Propagation, Result, SharedClock, SystemClock};
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::MessagingMetrics;

use crate::broker::MessageBroker;
use crate::capabilities::Capabilities;
use crate::codec::AnyCodec;
use crate::erased::AnyBroker;
use crate::inbox::AnyInbox;
use crate::message::Publish;
use crate::policies::{SamePolicies, TopicPolicies};
use crate::router::AnyMiddleware;
use crate::schema::{TopicCheck, check_payload};
use crate::wire::Wire;

/// How often the broker is asked how much waits, unless somebody says otherwise.
pub(crate) const LAG_INTERVAL: Duration = Duration::from_secs(10);

/// A broker and everything that goes with it.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) broker: AnyBroker,
    pub(crate) capabilities: Capabilities,
    /// The name of the own service, if it has one.
    pub(crate) service: Option<Arc<str>>,
    pub(crate) propagation: Propagation,
    pub(crate) clock: SharedClock,
    pub(crate) codec: AnyCodec,
    pub(crate) wire: Wire,
    pub(crate) policies: Arc<dyn TopicPolicies>,
    pub(crate) metrics: MessagingMetrics,
    pub(crate) health: Option<Health>,
    /// The broker's part of it.
    pub(crate) part: Option<ComponentHealth>,
    /// How often the broker is asked how much waits; zero is never.
    pub(crate) lag_interval: Duration,
    pub(crate) inbox: Option<AnyInbox>,
    /// Around every handler, outermost first.
    pub(crate) middleware: Vec<AnyMiddleware>,
    /// What is published must pass all that fit its topic.
    pub(crate) checks: Vec<TopicCheck>,
    /// What is handled must pass all that fit its topic.
    pub(crate) expected: Vec<TopicCheck>,
}

impl Surroundings {
    /// Who sends, as headers say it.
    pub(crate) fn sender(&self) -> &str {
        self.service.as_deref().unwrap_or("trunkline")
    }

    /// Whether a payload is what its topic promises.
    pub(crate) fn check(&self, publish: &Publish) -> Result<()> {
        check_payload(&self.checks, publish)
    }

    pub(crate) fn new(broker: AnyBroker) -> Self {
        Self {
            capabilities: broker.capabilities(),
            metrics: Metrics::disabled().messaging(broker.kind()),
            broker,
            service: None,
            propagation: Propagation::default(),
            clock: SystemClock::shared(),
            codec: AnyCodec::default(),
            wire: Wire::default(),
            policies: Arc::new(SamePolicies::default()),
            health: None,
            part: None,
            lag_interval: LAG_INTERVAL,
            inbox: None,
            middleware: Vec::new(),
            checks: Vec::new(),
            expected: Vec::new(),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("broker", &self.broker)
            .field("service", &self.service)
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}
