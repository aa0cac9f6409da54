//! What is known of a service, for those who only look on.

use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::instances::Pool;
use crate::set::InstanceSet;

/// Tells what is known of a service whenever that changes. Looking on is no use of the service: it keeps it neither known
/// nor watched. From [`Instances::onlooker`](crate::Instances::onlooker).
pub struct Onlooker {
    pool: Weak<Pool>,
    changes: watch::Receiver<()>,
    /// Ends with discovery.
    stop: CancellationToken,
}

impl Onlooker {
    pub(crate) fn of(pool: &Arc<Pool>) -> Self {
        let mut changes = pool.replacements();
        // What is known already is told as well.
        changes.mark_changed();
        Self {
            pool: Arc::downgrade(pool),
            changes,
            stop: pool.scope().map(|scope| scope.token()).unwrap_or_default(),
        }
    }

    /// Waits until something else is known; the first time until anything is. `None` when nobody knows the service any more,
    /// or discovery was shut down.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<InstanceSet>> {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
            }
            let set = self.pool.upgrade()?.peek();
            if set.is_resolved() {
                return Some(set);
            }
        }
    }
}

impl fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Onlooker")
    }
}
