//! Discovery and the event store, as the manager looks after them.

use tokio::time::Instant;
use trunkline_core::health::ComponentHealth;
use trunkline_core::{BoxFuture, Result, Status};
use trunkline_discovery::Discovery;
use trunkline_events::EventStore as _;

use crate::backends::{Close, OpenedStore};
use crate::component::{Finding, Part};

/// Discovery reports by itself: it is degraded, not away, while it has last known answers to give.
pub(crate) struct DiscoveryPart {
    pub(crate) discovery: Discovery,
    pub(crate) close: Close,
    pub(crate) shown: ComponentHealth,
}

impl Part for DiscoveryPart {
    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.discovery.health_check())
    }

    fn check(&self) -> BoxFuture<'_, Result<Finding>> {
        Box::pin(async {
            // Its error is part of what it reports.
            drop(self.discovery.health_check().await);
            let status = self.shown.status().map(|shown| shown.status);
            let works = status != Some(Status::Unhealthy);
            Ok(Finding::Reported { works })
        })
    }

    fn disconnect(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let stopped = self.discovery.shutdown(deadline).await;
            (self.close)();
            stopped
        })
    }
}

/// An event store, opened by its first check.
pub(crate) struct StorePart(pub(crate) OpenedStore);

impl Part for StorePart {
    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.store.health_check())
    }

    fn check(&self) -> BoxFuture<'_, Result<Finding>> {
        Box::pin(async {
            self.0.store.health_check().await?;
            Ok(Finding::Healthy)
        })
    }

    fn disconnect(&self, _: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            (self.0.close)();
            Ok(())
        })
    }
}
