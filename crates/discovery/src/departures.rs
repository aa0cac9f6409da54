//! Which instances leave.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::instance::{InstanceStatus, ServiceInstance};
use crate::instances::Pool;
use crate::set::InstanceSet;

/// Tells which instances of a service leave: they are no longer listed, have moved, or drain. Those that
/// are asked though nothing lists them any more leave when they are given up. Listening is no use of the
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
    if Arc::ptr_eq(&before.members, &now.members)
        && Arc::ptr_eq(&before.vanished.members, &now.vanished.members)
        && before.vanished.doubted == now.vanished.doubted
    {
        return Vec::new();
    }
    let doubted: HashSet<(&str, &str, u16)> = in_doubt(now)
        .map(|it| (it.id.as_str(), it.host.as_str(), it.port))
        .collect();
    let stays = |was: &ServiceInstance| {
        let listed = now.member(&was.id).is_some_and(|member| {
            let is = &member.instance;
            let drains = is.status == InstanceStatus::Draining;
            is.port == was.port
                && is.host == was.host
                && (!drains || was.status == InstanceStatus::Draining)
        });
        listed || doubted.contains(&(was.id.as_str(), was.host.as_str(), was.port))
    };
    let known = before.instances().chain(in_doubt(before));
    let mut gone: Vec<_> = known.filter(|was| !stays(was)).cloned().collect();
    if !gone.is_empty() {
        // Under another id it is still there.
        let listed = now.instances();
        let places: HashSet<(&str, u16)> = listed
            .filter(|it| it.status != InstanceStatus::Draining)
            .map(|it| (it.host.as_str(), it.port))
            .collect();
        gone.retain(|was| !places.contains(&(was.host.as_str(), was.port)));
    }
    gone
}

/// Those that the registry no longer lists and that may be asked all the same: they have not left before they are given up.
fn in_doubt(set: &InstanceSet) -> impl Iterator<Item = &Arc<ServiceInstance>> {
    let vanished = set.vanished.members.iter();
    let vanished = vanished.filter(|_| set.vanished.doubted);
    vanished.map(|(member, _)| &member.instance)
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Departures").field(&self.known).finish()
    }
}
