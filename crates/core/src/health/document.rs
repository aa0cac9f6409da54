//! The aggregated health document.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ComponentStatus, Status};
use crate::Timestamp;

/// The health of a whole process, as `/health` answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HealthDocument {
    /// `unhealthy` when a required component is, `degraded` when only optional ones are or a component says so.
    pub overall_status: Status,
    /// Every component by its key.
    pub components: BTreeMap<String, ComponentStatus>,
    /// When this was put together, to the second.
    pub timestamp: Timestamp,
}

impl HealthDocument {
    pub(super) fn of<'a>(
        parts: impl Iterator<Item = (&'a Arc<str>, &'a ComponentStatus, bool)>,
        now: Timestamp,
    ) -> Self {
        let mut overall_status = Status::Healthy;
        let mut components = BTreeMap::new();
        for (key, status, required) in parts {
            overall_status = worse(overall_status, contribution(status.status, required));
            components.insert(key.to_string(), status.clone());
        }
        Self {
            overall_status,
            components,
            timestamp: now.to_seconds(),
        }
    }

    /// Whether everything works.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.overall_status == Status::Healthy
    }

    /// One component by its key.
    #[must_use]
    pub fn component_status(&self, key: &str) -> Option<&ComponentStatus> {
        self.components.get(key)
    }
}

/// An optional component never does worse than degrade the whole.
const fn contribution(status: Status, required: bool) -> Status {
    match status {
        Status::Unhealthy if !required => Status::Degraded,
        other => other,
    }
}

const fn worse(one: Status, other: Status) -> Status {
    match (one, other) {
        (Status::Unhealthy, _) | (_, Status::Unhealthy) => Status::Unhealthy,
        (Status::Degraded, _) | (_, Status::Degraded) => Status::Degraded,
        (Status::Healthy, Status::Healthy) => Status::Healthy,
    }
}
