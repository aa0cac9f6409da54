//! What publishing to one destination needs, found once.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use trunkline_resilience::Policy;
use trunkline_telemetry::metrics::PublishMetrics;

use crate::surroundings::Surroundings;
use crate::topic::Destination;

/// Destinations that are remembered; answers to requests go to many that are used once.
const REMEMBERED: usize = 1_000;

#[derive(Debug)]
pub(super) struct Route {
    pub(super) policy: Arc<Policy>,
    pub(super) mandatory: bool,
    pub(super) metrics: PublishMetrics,
}

#[derive(Debug, Default)]
pub(super) struct Routes(RwLock<HashMap<Destination, Arc<Route>>>);

impl Routes {
    pub(super) fn get(&self, destination: &Destination, around: &Surroundings) -> Arc<Route> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known.get(destination) {
            return Arc::clone(route);
        }
        drop(known);
        let settings = around.policies.publish(destination);
        let label = destination.name();
        let route = Arc::new(Route {
            policy: settings.policy,
            mandatory: settings.mandatory,
            metrics: around.metrics.destination(label.as_str()),
        });
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(destination.clone(), Arc::clone(&route));
        route
    }
}
