//! Watches what the broker says of itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use trunkline::core::task;
use trunkline::messaging::{AnyBroker, MessageBroker as _};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(50);
/// A check that takes longer has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Says what the last look said; `None` before the first.
pub(super) struct Health {
    seen: Arc<watch::Sender<Option<bool>>>,
    runtime: Handle,
}

impl Health {
    /// Looks again and again, until this is dropped.
    pub(super) fn watch(broker: AnyBroker, on: &Handle) -> Self {
        let health = Self {
            seen: Arc::new(watch::Sender::new(None)),
            runtime: on.clone(),
        };
        let seen = Arc::downgrade(&health.seen);
        let _entered = on.enter();
        drop(task::spawn("health", async move {
            loop {
                let check = tokio::time::timeout(ANSWER_WITHIN, broker.health_check());
                let green = matches!(check.await, Ok(Ok(())));
                let Some(seen) = seen.upgrade() else { return };
                seen.send_replace(Some(green));
                drop(seen);
                tokio::time::sleep(EVERY).await;
            }
        }));
        health
    }

    /// Waits until it is green, or red; says how long that took.
    pub(super) fn until(&self, green: bool, limit: Duration) -> Result<Duration> {
        let since = Instant::now();
        let mut seen = self.seen.subscribe();
        let wanted = seen.wait_for(|seen| *seen == Some(green));
        let waited = async { tokio::time::timeout(limit, wanted).await.is_ok() };
        if !self.runtime.block_on(waited) {
            let wanted = if green { "green" } else { "red" };
            bail!("health was not {wanted} within {limit:?}");
        }
        Ok(since.elapsed())
    }
}
