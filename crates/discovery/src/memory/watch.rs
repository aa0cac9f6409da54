//! Lists as they change.

use futures_core::Stream;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_core::Result;

use super::MemoryRegistry;
use crate::instance::ServiceName;
use crate::resolver::InstanceList;

struct Watching {
    registry: MemoryRegistry,
    service: ServiceName,
    changed: watch::Receiver<()>,
    last: Option<InstanceList>,
}

/// The list now, then one after every change; ends when the registry is shut down.
pub(super) fn lists(
    registry: MemoryRegistry,
    service: ServiceName,
) -> impl Stream<Item = Result<InstanceList>> + Send + 'static {
    let changed = registry.0.changed.subscribe();
    let watching = Watching {
        registry,
        service,
        changed,
        last: None,
    };
    stream::unfold(watching, async |mut watching| {
        let list = watching.next().await?;
        Some((Ok(list), watching))
    })
}

impl Watching {
    async fn next(&mut self) -> Option<InstanceList> {
        loop {
            self.changed.mark_unchanged();
            let (list, next_end) = self.look().ok()?;
            if self.last.as_ref().map(|last| &last.instances) != Some(&list.instances) {
                self.last = Some(list.clone());
                return Some(list);
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = sleep_until(next_end) => {}
            }
        }
    }

    fn look(&self) -> Result<(InstanceList, Option<Instant>)> {
        let service = &self.service;
        self.registry
            .with(|state| Ok((state.list(service), state.next_end(service))))
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
