//! The message brokers of a manager.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error, Result, Status};
use trunkline_messaging::{AnyBroker, MessageBroker};

use crate::CommunicationManager;
use crate::component::{Component, Finding, Part};
use crate::named::Missing;

/// A broker as the manager looks after it.
pub(crate) struct BrokerPart(pub(crate) AnyBroker);

impl Part for BrokerPart {
    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.connect())
    }

    fn check(&self) -> BoxFuture<'_, Result<Finding>> {
        Box::pin(async { self.0.health_check().await.map(|()| Finding::Healthy) })
    }

    fn disconnect(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.disconnect(deadline))
    }
}

/// A part that is configured and could not be made; every attempt to connect says why.
pub(crate) struct MissingPart(pub(crate) Missing);

impl Part for MissingPart {
    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(self.0.error()) })
    }

    fn check(&self) -> BoxFuture<'_, Result<Finding>> {
        Box::pin(async { Err(self.0.error()) })
    }

    fn disconnect(&self, _: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn may_come_back(&self) -> bool {
        false
    }
}

/// One configured broker, as [`CommunicationManager::list_message_brokers`] tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BrokerInfo {
    /// The name it was configured under.
    pub name: String,
    /// Whether it was connected and its last check did not fail.
    pub connected: bool,
    /// Its kind, such as `embedded`.
    #[serde(rename = "type")]
    pub broker_type: String,
    /// How it is.
    pub status: Status,
}

impl CommunicationManager {
    /// A broker by name. `default` is also the only one.
    ///
    /// # Errors
    /// `NotFound` with the names that there are; the reason why a configured broker could not be made.
    #[doc(alias = "get_message_broker")]
    pub fn message_broker(&self, name: &str) -> Result<AnyBroker> {
        self.messaging_on(name)
            .map(|messaging| messaging.broker().clone())
    }

    /// Every configured broker.
    #[must_use]
    pub fn list_message_brokers(&self) -> Vec<BrokerInfo> {
        let parts = &self.0.parts;
        let info = |name: &str| Some(info(name, parts.broker_component(name)?));
        parts.brokers.names().filter_map(info).collect()
    }

    /// Connects a broker again now and checks it: true when it works. A connection that works is not cut. Health
    /// callbacks may call it.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `Cancelled` when the manager is not running. That the broker is still away is no
    /// error; it is told by health.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn reconnect_message_broker(&self, name: &str) -> Result<bool> {
        if !self.is_initialized() {
            return Err(Error::cancelled("the manager is not running"));
        }
        let found = self.0.parts.broker_component(name);
        let component = match found {
            Some(component) => Arc::clone(component),
            None => return self.message_broker(name).map(|_| false),
        };
        Ok(component.reconnect().await)
    }
}

fn info(name: &str, component: &Component) -> BrokerInfo {
    let (status, kind) = (component.status(), component.kind());
    let connected = component.is_connected() && status != Status::Unhealthy;
    BrokerInfo {
        name: name.to_owned(),
        connected,
        broker_type: kind,
        status,
    }
}
