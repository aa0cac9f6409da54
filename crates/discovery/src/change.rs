//! How the instances of a service change.

use std::cmp::Ordering;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::instance::ServiceInstance;
use crate::instances::Instances;
use crate::set::InstanceSet;

/// The instances of a service after a change, and what changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceChange {
    /// All of them now.
    pub set: Arc<InstanceSet>,
    /// Those that are new.
    pub added: Vec<Arc<ServiceInstance>>,
    /// Those that are gone.
    pub removed: Vec<Arc<ServiceInstance>>,
    /// Those of which something else is known now: status, weight, metadata, address.
    pub updated: Vec<Arc<ServiceInstance>>,
}

impl ServiceChange {
    /// Whether the instances changed; else only whether the registry stands behind them did.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.updated.is_empty())
    }

    fn between(before: Option<&InstanceSet>, set: &Arc<InstanceSet>) -> Self {
        let mut change = Self {
            added: Vec::new(),
            removed: Vec::new(),
            updated: Vec::new(),
            set: Arc::clone(set),
        };
        let mut old = before
            .map(InstanceSet::instances)
            .into_iter()
            .flatten()
            .peekable();
        let mut new = set.instances().peekable();
        // Both are ordered by id.
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return change,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(gone), Some(come)) => gone.id.cmp(&come.id),
            };
            let gone = old.next_if(|_| order.is_le());
            let come = new.next_if(|_| order.is_ge());
            match (gone, come) {
                (Some(gone), None) => change.removed.push(Arc::clone(gone)),
                (None, Some(come)) => change.added.push(Arc::clone(come)),
                (Some(gone), Some(come)) if gone != come => change.updated.push(Arc::clone(come)),
                _ => {}
            }
        }
    }
}

/// Changes of one service as they come: the first tells everything that is known, each further one what changed since
/// the one before. Changes in quick succession may come as one. It ends when discovery is shut down; while it is held,
/// the service is watched.
#[must_use = "dropping a watch ends it"]
pub struct ServiceWatch(BoxStream<'static, ServiceChange>);

impl ServiceWatch {
    pub(crate) fn new(instances: Instances, stop: CancellationToken) -> Self {
        let watching = Watching {
            changes: instances.changes(),
            instances,
            stop,
            last: None,
        };
        let changes = stream::unfold(watching, async |mut watching| {
            let change = watching.next().await?;
            Some((change, watching))
        });
        Self(changes.fuse().boxed())
    }

    /// The next change; `None` when discovery was shut down.
    ///
    /// # Cancel safety
    /// Cancel safe: no change is lost.
    pub async fn next(&mut self) -> Option<ServiceChange> {
        self.0.next().await
    }
}

impl Stream for ServiceWatch {
    type Item = ServiceChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for ServiceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceWatch")
    }
}

struct Watching {
    instances: Instances,
    changes: watch::Receiver<()>,
    stop: CancellationToken,
    last: Option<Arc<InstanceSet>>,
}

impl Watching {
    async fn next(&mut self) -> Option<ServiceChange> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            self.changes.mark_unchanged();
            let set = self.instances.snapshot();
            let last = self.last.as_deref();
            if set.is_resolved() {
                let change = ServiceChange::between(last, &set);
                let trust_changed = last.is_none_or(|last| last.is_stale() != set.is_stale());
                if trust_changed || change.is_change() {
                    self.last = Some(set);
                    return Some(change);
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }
}
