//! How services and their instances are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Error;

use super::endpoint::Said;
use crate::balance::Member;
use crate::instance::{ServiceInstance, ServiceName};
use crate::set::InstanceSet;

/// What the last check of an instance said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckResult {
    /// Why it failed; `None` when it passed.
    pub error: Option<String>,
    /// Failed checks in a row.
    pub failures: u32,
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
}

/// How one instance is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstanceHealth {
    /// The instance, with its own word.
    pub instance: Arc<ServiceInstance>,
    /// Whether nothing speaks against it: its own word, checks from here, requests from here.
    pub healthy: bool,
    /// Whether it was taken out because requests to it failed.
    pub ejected: bool,
    /// What the last check from here said, if there was one.
    pub check: Option<CheckResult>,
    /// What the last checks of single endpoints said, by the names of the endpoints; see
    /// [`Instances::check_endpoint`](crate::Instances::check_endpoint).
    pub endpoints: BTreeMap<String, CheckResult>,
}

/// How a service is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ServiceHealth {
    /// How each instance is, ordered by id.
    pub instances: Vec<InstanceHealth>,
    /// Why its instances are not known, or may be others by now.
    pub error: Option<String>,
    /// Whether the registry is away, so that this is what was known last.
    pub stale: bool,
    /// How old that is; zero while the registry stands behind it.
    pub age: Duration,
}

impl ServiceHealth {
    /// Whether at least one instance is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.instances.iter().any(|instance| instance.healthy)
    }

    pub(crate) fn of(set: &InstanceSet, said: &Said) -> Self {
        let health = |member: &Arc<Member>| InstanceHealth {
            instance: Arc::clone(&member.instance),
            healthy: member.is_sound(),
            ejected: member.load.is_ejected(),
            check: said.own.get(&member.instance.id),
            endpoints: said.of_endpoints(&member.instance.id),
        };
        Self {
            instances: set.members.iter().map(health).collect(),
            error: set.last_error().map(str::to_owned),
            stale: set.is_stale(),
            age: set.age(),
        }
    }

    pub(super) fn by_their_word(instances: Vec<ServiceInstance>) -> Self {
        let health = |instance: ServiceInstance| InstanceHealth {
            healthy: instance.is_usable(),
            instance: Arc::new(instance),
            ejected: false,
            check: None,
            endpoints: BTreeMap::new(),
        };
        Self {
            instances: instances.into_iter().map(health).collect(),
            ..Self::default()
        }
    }

    pub(super) fn unknown(error: &Error) -> Self {
        Self {
            error: Some(error.report().to_string()),
            ..Self::default()
        }
    }
}

/// A service got its first healthy instance, or lost its last one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceHealthChange {
    /// The service.
    pub service: ServiceName,
    /// Whether it has a healthy instance now.
    pub healthy: bool,
    /// Its instances.
    pub set: Arc<InstanceSet>,
}

impl ServiceHealthChange {
    pub(crate) fn new(set: Arc<InstanceSet>) -> Self {
        Self {
            service: set.service.clone(),
            healthy: set.is_healthy(),
            set,
        }
    }
}
