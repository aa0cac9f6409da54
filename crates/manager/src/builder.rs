//! Making a manager with more than a configuration.

use std::collections::HashMap;
use std::sync::Arc;

use trunkline_core::{Result, SharedClock, SystemClock};
use trunkline_messaging::{AnyBroker, MessageBrokerConfig};

use crate::backends::BrokerFactory;
use crate::{CommunicationConfig, CommunicationManager};

/// Collects what a manager is made of.
///
/// ```
/// use trunkline_manager::{CommunicationConfig, CommunicationManager};
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{AnyBroker, MessageBrokerConfig};
///
/// # fn main() -> trunkline_core::Result<()> {
/// let config = CommunicationConfig::builder()
///     .message_broker("default", MessageBrokerConfig::new("my-broker"))
///     .build()?;
/// let manager = CommunicationManager::builder(config)
///     .broker("my-broker", |_config| Ok(AnyBroker::new(MemoryBroker::default())))
///     .build();
/// # drop(manager);
/// # Ok(()) }
/// ```
pub struct CommunicationManagerBuilder {
    pub(crate) config: CommunicationConfig,
    pub(crate) brokers: HashMap<String, BrokerFactory>,
    pub(crate) clock: SharedClock,
}

impl CommunicationManagerBuilder {
    pub(crate) fn new(config: CommunicationConfig) -> Self {
        Self {
            config,
            brokers: HashMap::new(),
            clock: SystemClock::shared(),
        }
    }

    /// Adds a kind of message broker, or replaces one that is built in.
    #[must_use]
    pub fn broker(
        mut self,
        kind: impl Into<String>,
        factory: impl Fn(&MessageBrokerConfig) -> Result<AnyBroker> + Send + Sync + 'static,
    ) -> Self {
        self.brokers.insert(kind.into(), Arc::new(factory));
        self
    }

    /// Replaces the wall clock, which dates health checks.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the manager; nothing is connected yet.
    #[must_use]
    pub fn build(self) -> CommunicationManager {
        CommunicationManager::from_builder(self)
    }
}

impl std::fmt::Debug for CommunicationManagerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommunicationManagerBuilder")
            .field("config", &self.config)
            .field("brokers", &self.brokers.keys())
            .finish_non_exhaustive()
    }
}
