//! Which instances leave.

use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::instance::{InstanceStatus, ServiceInstance};
use crate::instances::Pool;
use crate::set::InstanceSet;

/// Tells which instances of a service leave: they are no longer listed, have moved, or drain. Listening is no use of the
/// service: it keeps it neither known nor watched. From [`Instances::departures`](crate::Instances::departures).
pub struct Departures {
    pool: Weak<Pool>,
    changes: watch::Receiver<()>,
    known: Arc<InstanceSet>,
}

impl Departures {
    pub(crate) fn of(pool: &Arc<Pool>) -> Self {
        let changes = pool.replacements();
        Self {
            pool: Arc::downgrade(pool),
            changes,
            known: pool.peek(),
        }
    }

    /// Waits until some leave; `None` when nobody knows the service any more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<Arc<ServiceInstance>>> {
        loop {
            self.changes.changed().await.ok()?;
            let now = self.pool.upgrade()?.peek();
            let before = std::mem::replace(&mut self.known, now);
            let left = left(&before, &self.known);
            if !left.is_empty() {
                return Some(left);
            }
        }
    }
}

fn left(before: &InstanceSet, now: &InstanceSet) -> Vec<Arc<ServiceInstance>> {
    if Arc::ptr_eq(&before.members, &now.members) {
        return Vec::new();
    }
    let stays = |was: &ServiceInstance| {
        now.member(&was.id).is_some_and(|member| {
            let is = &member.instance;
            let drains = is.status == InstanceStatus::Draining;
            is.port == was.port
                && is.host == was.host
                && (!drains || was.status == InstanceStatus::Draining)
        })
    };
    let gone = before.instances().filter(|was| !stays(was));
    gone.cloned().collect()
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Departures").field(&self.known).finish()
    }
}
