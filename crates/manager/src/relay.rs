//! The relay: what is appended to the event store is published, as the configuration says.

use trunkline_core::names::target;
use trunkline_core::{AnyLifecycle, Lifecycle as _, Result};
use trunkline_events::Relay;
use trunkline_messaging::Messaging;

use crate::CommunicationManager;
use crate::stages::Stage;

impl CommunicationManager {
    /// Starts the configured relay, if there is one. It stops after the intake, so that what the last requests appended
    /// is published too.
    pub(crate) async fn start_relay(&self) -> Result<()> {
        let Some(mut config) = self
            .0
            .config
            .event_store
            .as_ref()
            .and_then(|store| store.relay.clone())
        else {
            return Ok(());
        };
        let component = self
            .0
            .health
            .register("event_relay", &config.name, "event_relay", false);
        let (store, broker) = match (self.event_store(), self.messaging_on(&config.broker)) {
            (Ok(store), Ok(broker)) => (store, broker),
            // A required one would have ended the start; without an optional one there is nothing to relay.
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(target: target::MANAGER, error = %error.report(), "the event relay is not started");
                component.mark_unhealthy(&error);
                return Ok(());
            }
        };
        component.mark_healthy();
        // Environments that share a store have a checkpoint each.
        if let Some(prefix) = self.0.config.effective_prefix() {
            config.name.insert_str(0, &prefix);
        }
        let relay = Relay::new(store, Messaging::broker(&broker).clone(), &config)?
            .with_propagation(self.0.propagation.clone())
            .with_metrics(self.0.metrics.clone())
            .with_component(component);
        // Attached first, so that a start that is given up half-way is ended too.
        self.attach(
            format!("event_relay {}", config.name),
            Stage::Egress,
            AnyLifecycle::new(relay.clone()),
        );
        relay.start().await
    }
}
